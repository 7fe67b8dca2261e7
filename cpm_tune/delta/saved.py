"""Reads a delta to use again: of a run, saved alone, or another library's."""

from __future__ import annotations

from pathlib import Path

from torch import Tensor

from cpm_tune.backbone.base import Backbone
from cpm_tune.common.folders import DELTA, DELTA_CONFIG, RECORD
from cpm_tune.common.paths import file_sha256
from cpm_tune.delta.config import DeltaConfig
from cpm_tune.delta.foreign import PEFT_CONFIG, read_peft
from cpm_tune.delta.insert import check_fits
from cpm_tune.delta.opendelta_files import BEST, is_opendelta, read_alone, read_opendelta
from cpm_tune.delta.stored import check_owner, read_delta
from cpm_tune.errors import UserError
from cpm_tune.schema.record import RunRecord, finished_record


def check_delta(run: Path, record: RunRecord) -> None:
    """Raise UserError if a run's delta is not the one its record names."""
    if not (run / DELTA).is_file():
        raise UserError(f"{run}: {DELTA} is missing, expected the delta of the run; restore it.")
    if file_sha256(run / DELTA) != record.delta.sha256:
        raise UserError(f"{run / DELTA}: not the delta of {RECORD}; the file was changed.")


def read_saved(
    folder: Path, model: Backbone, backbone_sha256: str
) -> tuple[DeltaConfig, dict[str, Tensor]]:
    """Read a delta of a run, saved alone, a LoRA of PEFT's, OpenDelta's, or CPM-Live's best.pt.

    `folder` may also be a file of a LoRA's tensors, as CPM-Live writes it. `model`, which may be
    without values, gives the names of the modules. Raises UserError if the delta belongs to another
    backbone, which includes random weights.
    """
    config, state = _read(folder, model, backbone_sha256)
    check_fits(model, config, state)
    return config, state


def _read(
    folder: Path, model: Backbone, backbone_sha256: str
) -> tuple[DeltaConfig, dict[str, Tensor]]:
    if folder.is_file():
        return read_alone(folder, model)
    if (folder / RECORD).is_file():
        record = finished_record(folder)
        if record.spec.backbone.init == "random":
            raise UserError(f"{folder}: this delta was trained on random weights, the control.")
        check_owner(folder, record.spec.backbone.sha256, backbone_sha256, record.backbone.name)
        if (folder / DELTA).is_file():
            check_delta(folder, record)
    if (folder / PEFT_CONFIG).is_file():
        return read_peft(folder, model)
    if not (folder / DELTA_CONFIG).is_file() and not (folder / RECORD).is_file():
        if is_opendelta(folder):
            return read_opendelta(folder, model)
        if (folder / BEST).is_file():
            return read_alone(folder / BEST, model)
    return read_delta(folder, backbone_sha256)
