"""Many deltas on one backbone: each is a few tensors, and one at a time is active.

deltas = Deltas(backbone, folder.sha256())
deltas.load("ccpm", Path("results/RUN"))
with deltas.active("ccpm"):
    hidden = backbone(ids, segment)
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TypeVar

from torch import Tensor

from cpm_tune.backbone.base import Backbone
from cpm_tune.delta.config import DeltaConfig, FullConfig
from cpm_tune.delta.insert import Delta, insert, like
from cpm_tune.delta.saved import read_saved
from cpm_tune.errors import UserError, did_you_mean

T = TypeVar("T")
R = TypeVar("R")


class Deltas:
    """Named deltas for one frozen backbone, which is never loaded again to change between them.

    Deltas with equal configs share their modules, and a change copies the values alone; otherwise
    the modules are taken out and put in. Not to be used from several threads at once.
    """

    def __init__(self, backbone: Backbone, backbone_sha256: str) -> None:
        self._backbone, self._sha256 = backbone, backbone_sha256
        self._known: dict[str, tuple[DeltaConfig, dict[str, Tensor]]] = {}
        self._inserted: Delta | None = None
        self._active = ""  # the delta whose values the inserted modules have
        self._busy = False

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the deltas, as they were added."""
        return tuple(self._known)

    def load(self, name: str, folder: Path) -> None:
        """Add the delta of a run, one that was saved alone, or a LoRA of PEFT's.

        Raises UserError if it is broken, changed, or belongs to another backbone.
        """
        self.add(name, *read_saved(folder, like(self._backbone), self._sha256))

    def add(self, name: str, config: DeltaConfig, state: dict[str, Tensor]) -> None:
        """Add a delta, after trying it. Raises UserError if it does not fit the backbone."""
        if name in self._known:
            raise UserError(f"a delta '{name}' exists already; choose another name.")
        if isinstance(config, FullConfig):
            raise UserError(
                f"'{name}' is full fine-tuning, which shares nothing with the backbone; export it "
                "with --to merged."
            )
        self._known[name] = (config, state)
        try:
            with self.active(name):
                pass
        except BaseException:
            del self._known[name]
            raise

    def drop(self, name: str) -> None:
        """Forget a delta; raise UserError for an unknown name, or inside `active`."""
        self._find(name)
        self._check_idle()
        self._take_out()
        del self._known[name]

    @contextlib.contextmanager
    def active(self, name: str | None) -> Iterator[Backbone]:
        """Yield the backbone with that delta active; None: without any.

        Raises UserError for an unknown name, or inside another `active`.
        """
        self._check_idle()
        if name is None:
            self._take_out()
        else:
            self._put_in(name, *self._find(name))
        self._busy = True
        try:
            yield self._backbone
        finally:
            self._busy = False

    def run(
        self,
        names: Sequence[str | None],
        examples: Sequence[T],
        work: Callable[[Backbone, list[T]], Sequence[R]],
    ) -> list[R]:
        """Do `work` on examples that belong to different deltas, each delta's in one group.

        `work` returns one result per example; the results come back in the examples' order. Raises
        UserError for an unknown name before any work is done.
        """
        groups: dict[str | None, list[int]] = {}
        for number, name in enumerate(names):
            groups.setdefault(name, []).append(number)
        for name in groups:
            if name is not None:
                self._find(name)
        results: dict[int, R] = {}
        for name, numbers in groups.items():
            with self.active(name) as backbone:
                made = work(backbone, [examples[number] for number in numbers])
                results.update(zip(numbers, made, strict=True))
        return [results[number] for number in range(len(examples))]

    def close(self) -> None:
        """Leave the backbone bit-identical to what it was before the first delta.

        Raises UserError inside `active`.
        """
        self._check_idle()
        self._take_out()

    def _check_idle(self) -> None:
        if self._busy:
            raise UserError("a delta is active on this backbone already; leave it first.")

    def _find(self, name: str) -> tuple[DeltaConfig, dict[str, Tensor]]:
        if name not in self._known:
            raise UserError(f"there is no delta '{name}' here.{did_you_mean(name, self._known)}")
        return self._known[name]

    def _put_in(self, name: str, config: DeltaConfig, state: dict[str, Tensor]) -> None:
        if self._inserted is not None and self._inserted.config != config:
            self._take_out()
        if self._inserted is None:
            self._inserted = insert(self._backbone, config, self._sha256, 0, values=state)
        elif self._active != name:
            self._inserted.load_state(state)
        self._active = name
        self._backbone.eval()
        self._backbone.requires_grad_(False)

    def _take_out(self) -> None:
        if self._inserted is not None:
            self._inserted.remove()
            self._inserted, self._active = None, ""
