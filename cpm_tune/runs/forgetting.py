"""Measures forgetting of finished runs and adds it to their records."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cpm_tune.analysis.forgetting import (
    Passages,
    Texts,
    after,
    compared,
    fingerprint,
    losses,
    passages,
)
from cpm_tune.backbone.base import Backbone
from cpm_tune.backbone.example import Ids
from cpm_tune.backbone.protocol import BackboneFolder, Layout
from cpm_tune.common.folders import RECORD, disk_trouble, run_lock
from cpm_tune.common.progress import working
from cpm_tune.delta.config import SoftPromptConfig, parse_config
from cpm_tune.delta.insert import load_delta
from cpm_tune.delta.saved import check_delta
from cpm_tune.delta.soft import SoftSlots
from cpm_tune.engine.device import DTYPES
from cpm_tune.engine.engine import Engine, make_engine
from cpm_tune.errors import UserError
from cpm_tune.runs.rerun import backbone_folder
from cpm_tune.schema.record import ForgettingRecord, RunRecord, finished_record, write_record
from cpm_tune.schema.spec import RunSpec

Measured = Mapping[str, ForgettingRecord]


@dataclass
class _Opened:
    """A backbone without a delta, and its losses on passages that it has read."""

    key: str
    model: Backbone
    engine: Engine
    known: list[tuple[tuple[object, ...], NDArray[np.float64]]] = field(default_factory=list)

    def losses(self, layout: Layout, read: Passages, tokens: int) -> NDArray[np.float64]:
        for key, nats in self.known:
            if key == read.examples:
                return nats
        nats = losses(self.model, layout, read, self.engine, tokens)
        self.known.append((read.examples, nats))
        return nats


class Meter:
    """Measures one run after the other; a backbone that several have is read once."""

    def __init__(self, texts: Texts, backbone: str | None = None) -> None:
        """`texts` by source; `backbone`: where the runs' backbone is now, if it has moved."""
        self._texts, self._backbone = texts, backbone
        self._opened: _Opened | None = None

    def known(self, run: Path) -> Measured | None:
        """The losses on these texts that the record of a finished run has; None if it lacks any."""
        before = finished_record(run).forgetting
        same = (
            source in before and before[source].sha256 == fingerprint(each)
            for source, each in self._texts.items()
        )
        return {source: before[source] for source in self._texts} if all(same) else None

    def measure(self, run: Path, *, write: bool = True, overwrite: bool = False) -> Measured:
        """The losses of a finished run's backbone with and without its delta, by source; with
        `write` its record gets them beside those of other sources. Raises UserError if the backbone
        is not there, or, unless `overwrite`, if the record has a source of that name with other
        texts."""
        record = finished_record(run)
        if write and not overwrite:
            _check_sources(record, self._texts)
        with working(f"reading plain texts with {record.run_id}"):
            measured = self._measured(run, record)
        if write:
            with run_lock(run.parent, record.run_id, wait=True):
                now = finished_record(run)
                merged = {**now.forgetting, **measured}
                if now.forgetting != merged:
                    with disk_trouble(run, "make room and repeat the command"):
                        changed = now.model_copy(update={"forgetting": merged})
                        write_record(run, changed)
        return measured

    def _measured(self, run: Path, record: RunRecord) -> dict[str, ForgettingRecord]:
        spec, folder = record.spec, backbone_folder(record, self._backbone)
        tokenizer = folder.tokenizer()
        layout = folder.layout(spec.encoding, tokenizer)
        config = parse_config(spec.delta, str(run / RECORD))
        front: Ids = ()
        if isinstance(config, SoftPromptConfig):
            slots = SoftSlots(config, layout.first_free)
            front = slots.slot_ids("front") if "front" in slots.names else ()
        shape = folder.config.shape
        read = passages(self._texts, tokenizer, layout, shape.limit, len(front))
        opened, tokens = self._open(record, folder), record.execution.micro_tokens
        bare = tuned = opened.losses(layout, read, tokens)
        if spec.recipe is not None:
            check_delta(run, record)
            delta = load_delta(run, opened.model, spec.backbone.sha256)
            try:
                model = opened.engine.prepare(opened.model)
                with_front = after(read, layout, front)
                tuned = losses(model, layout, with_front, opened.engine, tokens)
            finally:
                delta.remove()
        return compared(self._texts, read, bare, tuned)

    def _open(self, record: RunRecord, folder: BackboneFolder) -> _Opened:
        spec = record.spec
        key = f"{folder.path} {_weights(spec)}"
        if self._opened is None or self._opened.key != key:
            self._opened = None  # two do not fit into memory
            # One process, however many made the run; int8 and a memory limit change nothing else.
            changes = {"engine": "auto", "shard": False, "offload": False, "zero": 3}
            execution = record.execution.model_copy(update=changes)
            engine = make_engine(execution, spec.precision)
            model = folder.open(
                DTYPES[spec.precision],
                random_seed=spec.random_seed,
                quantize=spec.backbone.quantize,
                limit=execution.memory_bytes,
                device=engine.device,
                materialise=engine.materialise,
            )
            model.eval().requires_grad_(False)
            self._opened = _Opened(key, engine.prepare(model), engine)
        return self._opened


def _weights(spec: RunSpec) -> str:
    return f"{spec.backbone.model_dump_json()} {spec.random_seed} {spec.precision}"


def _check_sources(record: RunRecord, texts: Texts) -> None:
    for source, each in texts.items():
        before = record.forgetting.get(source)
        if before is not None and before.sha256 != fingerprint(each):
            raise UserError(
                f"{record.run_id}: its record has '{source}' measured on {before.texts:,} other "
                "texts (another file or --limit); --overwrite replaces that, and a file of another "
                "name is recorded beside it."
            )
