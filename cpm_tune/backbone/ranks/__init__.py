"""Checkpoints with one file per model-parallel rank, as CPM-1 and CPM-2 were published."""
