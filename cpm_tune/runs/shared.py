"""A backbone that the runs of one process share: loaded once, and the same after every run."""

from __future__ import annotations

import zlib
from typing import Any

import torch

from cpm_tune.backbone.base import Backbone
from cpm_tune.backbone.storage.shards import stored
from cpm_tune.engine.engine import Engine
from cpm_tune.planning.inputs import load_backbone
from cpm_tune.planning.plan import Plan


class SharedBackbone:
    """Keeps the last backbone that it loaded; `load` is what `execute` takes."""

    def __init__(self) -> None:
        self._last: tuple[Any, Backbone, int] | None = None  # with its key and checksum

    def load(self, plan: Plan, engine: Engine) -> Backbone:
        """The plan's backbone as it was loaded, without a delta."""
        spec, how = plan.spec, plan.execution
        if how.memory_limit or how.offload or how.shard or how.engine == "bmtrain":
            self.forget()  # layers come and go: nothing to compare and to share
            return load_backbone(plan, engine)
        key = (spec.backbone.sha256, spec.random_seed, spec.weights, how.device)
        if self._last is None or self._last[0] != key:
            self.forget()  # two do not have to fit into memory
            model = load_backbone(plan, engine)
            self._last = (key, model, _checksum(model))
        return self._last[1]

    def check(self) -> None:
        """Raise RuntimeError if a run has changed the backbone."""
        if self._last is not None:
            _, model, checksum = self._last
            if _checksum(model) != checksum:
                raise RuntimeError("the delta left a trace in the shared backbone; this is a bug")

    def forget(self) -> None:
        """Free the backbone."""
        self._last = None


def _checksum(model: Backbone) -> int:
    """CRC-32 of every parameter and of its place in the state dict."""
    total = 0
    for name, tensor in model.state_dict().items():
        total = zlib.crc32(name.encode(), total)
        for part in stored(tensor):
            raw = part.cpu().contiguous().flatten().view(torch.uint8)
            total = zlib.crc32(memoryview(raw.numpy()), total)  # type: ignore[arg-type]
    return total
