"""CPM-Ant: configuration, model, tokenizer, checkpoints, presets and the embedded tiny model."""
