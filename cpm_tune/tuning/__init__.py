"""The training loop and its parts: early stopping, prediction, scoring, resuming, reporting."""
