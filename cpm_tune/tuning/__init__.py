"""The training loop and what it needs: schedule, selection, scoring, resuming, progress."""
