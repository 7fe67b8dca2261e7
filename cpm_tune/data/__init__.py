"""From files on disk to packed batches: read, encode, pack. Training and inference share it all."""
