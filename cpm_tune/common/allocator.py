"""Settings of torch's memory allocators for CUDA: they are read once, when torch is imported."""

from __future__ import annotations

import platform
import sys
from collections.abc import MutableMapping

# Segments that grow: batches of many shapes do not split the GPU's memory into blocks that cuBLAS,
# NCCL and larger batches cannot use.
_SEGMENTS = "expandable_segments:True"
# Pinned host blocks above 16 MiB have their own size: rounded up to powers of two, as by default,
# the layers of 10B take 1.4 times their memory. Not kept for reuse either: torch 2.13 may hand out
# a kept block of such a size for a larger one.
_PINNED = ("pinned_max_round_threshold_mb:16", "pinned_max_cached_size_mb:16")
_NAMES = ("PYTORCH_ALLOC_CONF", "PYTORCH_CUDA_ALLOC_CONF")


def set_allocator(environment: MutableMapping[str, str]) -> None:
    """Set what torch has not read yet, unless the user has chosen settings. Without CUDA, they
    change nothing."""
    if "torch" in sys.modules or any(name in environment for name in _NAMES):
        return
    from importlib.metadata import PackageNotFoundError, version  # 20 modules: not for --help

    release = platform.release().lower()
    if sys.platform != "linux" or "microsoft" in release:  # there segments do not grow
        return
    try:
        major, minor = map(int, version("torch").split(".")[:2])
    except (PackageNotFoundError, ValueError):
        return
    name = _NAMES[(major, minor) < (2, 9)]
    settings = [_SEGMENTS, *_PINNED] if (major, minor) >= (2, 13) else [_SEGMENTS]
    environment[name] = ",".join(settings)
