"""Backbones: the door that every model comes in by, and one folder for each family."""
