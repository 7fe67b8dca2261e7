"""CPM-Ant: configuration, model, tokenizer, sequences, checkpoints and formats."""
