"""Services that follow a run, off unless asked for."""
