"""Search for settings on dev: what is searched, the trials, and the run with the best settings."""
