"""Pre-training of a CPM-Ant backbone: corpus, vocabulary, objective, training."""
