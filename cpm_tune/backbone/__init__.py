"""CPM-Ant: configuration, model, tokenizer, checkpoints, presets and the bundled tiny model."""
