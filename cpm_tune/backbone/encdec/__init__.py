"""Encoder-decoder models: CPM-2, mT5 and T5."""
