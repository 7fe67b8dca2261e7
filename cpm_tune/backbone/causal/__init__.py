"""Causal language models of transformers, as a family of backbones."""
