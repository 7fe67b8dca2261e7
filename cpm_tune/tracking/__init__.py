"""Where the values of a run in training go: log file, TensorBoard, terminal, tracking services."""
