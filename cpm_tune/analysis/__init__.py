"""What a data set, a score and a run's predictions show without the model: shortcut controls, rows
shared between splits, data cards, errors, and two runs example by example."""
