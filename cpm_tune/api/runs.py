"""Finished runs and their scores, and tuning."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any, get_args

from cpm_tune.api.backbones import Backbone, named_texts
from cpm_tune.api.paths import AnyPath, name_of, path_of
from cpm_tune.common.option import checked
from cpm_tune.decode.texts import whole_number
from cpm_tune.errors import UserError
from cpm_tune.planning.plan import Request
from cpm_tune.planning.settings import flat_settings
from cpm_tune.pretrain.plain_texts import LIMIT, read_texts
from cpm_tune.runs.export import export_run
from cpm_tune.runs.forgetting import Meter
from cpm_tune.runs.rerun import Predicted, backbone_folder, predict_run
from cpm_tune.runs.session import tune as carry_out
from cpm_tune.schema.options import BUNDLED, Control, Precision, Quantize
from cpm_tune.schema.record import ForgettingRecord, RunRecord, ScoreRecord, finished_record


@dataclass(frozen=True)
class Run:
    """A finished run: its record (docs/record.md) and its folder."""

    record: RunRecord
    folder: Path

    @property
    def test(self) -> ScoreRecord:
        """The ranking metric on the test split, with its interval; the split must have answers."""
        return self.record.test

    def score(
        self, split: str = "test", *, data: AnyPath | None = None, limit: int | None = None
    ) -> dict[str, ScoreRecord]:
        """Predict a split, of other data if given, and score it by metric; write nothing."""
        with tempfile.TemporaryDirectory() as scratch:
            out = Path(scratch) / "predictions"
            return self.predict(split, data=data, limit=limit, out=out).scores

    def predict(
        self,
        split: str = "test",
        *,
        data: AnyPath | None = None,
        out: AnyPath | None = None,
        **options: Any,
    ) -> Predicted:
        """Predict a split into a new folder; options: `cpm_tune.runs.rerun.predict_run`."""
        places = {"data": data, "out": out, "delta_from": options.pop("delta_from", None)}
        options |= {name: place and path_of(place, name) for name, place in places.items()}
        return predict_run(self.folder, split=split, **options)

    def backbone(
        self,
        where: AnyPath | None = None,
        *,
        precision: Precision | None = None,
        device: str = "auto",
        memory_limit: str | None = None,
        quantize: Quantize | None = None,
    ) -> Backbone:
        """The run's backbone with its delta inserted. `where` is its folder, if it has moved; in 8
        bits if the run used 8 bits, or with `quantize`."""
        spec = self.record.spec
        place = None if where is None else name_of(where, "where")
        backbone = Backbone(
            backbone_folder(self.record, place),
            precision or spec.precision,
            device,
            random_seed=spec.random_seed,
            memory_limit=memory_limit,
            quantize=quantize or spec.backbone.quantize,
        )
        if spec.recipe is not None:
            backbone.load_delta(self.folder)
        return backbone

    def forgetting(
        self, texts: AnyPath | Mapping[str, Sequence[str]] | None = None, *, limit: int = LIMIT
    ) -> Mapping[str, ForgettingRecord]:
        """How much worse plain texts are predicted with the delta than without it, by source: texts
        by source or files of them, at most `limit` each (docs/statistics.md). The run's record gets
        the numbers. Raises UserError if it has a source of that name with other texts."""
        whole_number(limit, "limit")
        if isinstance(texts, Mapping):
            checked_texts = {name: _texts_of(name, each)[:limit] for name, each in texts.items()}
            if not checked_texts:
                raise UserError("texts is {}, expected texts of one source or more.")
        elif texts is None or (isinstance(texts, str | PathLike) and str(texts)):
            checked_texts = read_texts(None if texts is None else Path(texts), limit)
        else:
            raise UserError(
                f"texts is {texts!r:.40}, expected a path, or a dict of lists of texts by source."
            )
        meter = Meter(checked_texts)
        return meter.known(self.folder) or meter.measure(self.folder)

    def export(self, to: str, out: AnyPath, *, backbone: str | None = None) -> None:
        """Write the delta (peft, opendelta) or the merged backbone (hf, merged); docs/export.md."""
        export_run(self.folder, to, path_of(out, "out"), backbone=backbone)


def _texts_of(name: object, texts: Sequence[str]) -> list[str]:
    """The texts of a source; UserError if they are none."""
    if not isinstance(name, str):
        raise UserError(f"texts has the source {name!r:.40}, expected its name as a text.")
    place = f"texts '{name}'"
    if isinstance(texts, str | bytes) or not isinstance(texts, Sequence):
        raise UserError(f"{place} is {texts!r:.40}, expected a list of texts.")
    if not texts:
        raise UserError(f"{place}: there is no text.")
    return named_texts(texts, [f"{place}, number {n}" for n in range(1, len(texts) + 1)])[0]


def load_run(folder: AnyPath) -> Run:
    """Open a finished run's folder; raise UserError if it is not one."""
    place = path_of(folder, "folder")
    return Run(finished_record(place), place)


def tune(
    task: str,
    delta: str = "lora",
    *,
    backbone: AnyPath | Backbone = BUNDLED,
    data: AnyPath | None = None,
    out: AnyPath = "results",
    controls: Sequence[str] = ("zero-shot",),
    overwrite: bool = False,
    settings: Mapping[str, Any] | None = None,
    **options: Any,
) -> Run:
    """Tune a delta on a task and score it, unless that run is in `out` already.

    settings: train.*, encode.*, decode.*, delta.* and run.* as `--set` takes them; options: the
    other fields of `cpm_tune.planning.plan.Request` (seed, template, scoring, precision, quantize,
    limit, skip_bad_rows, include, random_backbone), with the types and bounds of the command line.
    Raises UserError for every mistake at once, before anything is trained where possible.
    """
    if isinstance(backbone, Backbone):
        backbone = backbone.folder.path
    known = get_args(Control)
    wrong = controls if isinstance(controls, str) else [c for c in controls if c not in known]
    if wrong:
        raise UserError(f"controls is {controls!r}, expected a list of {' and '.join(known)}.")
    if not isinstance(settings, Mapping | None):
        raise UserError('settings is not a dict, expected one such as {"train.lr": 1e-3}.')
    place = path_of(out, "out")
    options |= {"task": name_of(task, "task"), "delta": name_of(delta, "delta")}
    options |= {"backbone": name_of(backbone, "backbone"), "data": data}
    try:
        flat = flat_settings(settings or {})
    except ValueError as error:
        raise UserError(f"settings: {error}.") from error
    try:
        request = Request(**checked(Request, options), settings=flat)
    except ValueError as error:
        raise UserError(str(error)) from error
    outcome = carry_out(request, out=place, controls=controls, overwrite=overwrite)
    assert outcome is not None
    return Run(outcome.record, outcome.folder)
