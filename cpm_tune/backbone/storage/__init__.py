"""What every family of checkpoints shares: tensors in files, lists of shards, parts of weights."""
