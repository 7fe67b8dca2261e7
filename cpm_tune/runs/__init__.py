"""Carries out plans: a run with its controls, again with a finished run, to other libraries."""
