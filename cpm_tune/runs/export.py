"""Exports a finished run to PEFT, OpenDelta, transformers, or a merged backbone."""

from __future__ import annotations

from pathlib import Path

from cpm_tune.backbone.ant.checkpoint import write_native
from cpm_tune.backbone.ant.hugging_face import READ_BY, check_whole, save_hugging_face
from cpm_tune.common.folders import new_folder
from cpm_tune.delta.foreign import INSTEAD, write_opendelta, write_peft
from cpm_tune.delta.insert import load_delta
from cpm_tune.delta.merge import merge
from cpm_tune.delta.saved import check_delta
from cpm_tune.errors import UserError, did_you_mean
from cpm_tune.runs.rerun import backbone_of_run

FORMATS = ("opendelta", "peft", "hf", "merged")


def export_run(run: Path, to: str, out: Path, *, backbone: str | None = None) -> None:
    """Write a run's delta (opendelta, peft) or the backbone with it merged (hf, merged) to `out`.

    In fp32, whatever the run's precision. `out` must not exist, and appears complete or not at all.
    Raises UserError if the format cannot express the delta method.
    """
    if to not in FORMATS:
        raise UserError(f"there is no format '{to}'.{did_you_mean(to, FORMATS)}")
    with new_folder(out) as part:
        model, folder, record = backbone_of_run(run, backbone)
        kind = record.spec.delta["delta_type"]
        if kind == "none" and to in ("opendelta", "peft"):
            raise UserError(f"{run}: a zero-shot run has no delta to export.")
        if record.spec.backbone.init == "random" and to in ("opendelta", "peft"):
            raise UserError(f"{run}: its delta was trained on random weights, the control.")
        delta = None
        if kind != "none":
            check_delta(run, record)
            delta = load_delta(run, model, record.spec.backbone.sha256)
        if delta is not None and to in ("opendelta", "peft"):
            write = write_peft if to == "peft" else write_opendelta
            write(part, model, delta.config, delta.state())
        else:
            if to == "hf":
                check_whole(model.config, INSTEAD)
            if delta is not None:
                difference = merge(delta)
                print(
                    f"merged     largest difference of hidden states {difference.largest:.1e} "
                    f"({difference.relative:.1e} of the largest)"
                )
            vocabulary = folder.vocabulary.read_text(encoding="utf-8-sig")
            if to == "hf":
                save_hugging_face(part, model, vocabulary, plus=folder.plus)
            else:
                trained = record.backbone.trained or bool(delta)
                write_native(part, model, vocabulary, trained=trained, plus=folder.plus)
    for path in sorted(out.iterdir()):
        print(f"written    {path}  {path.stat().st_size:,} bytes")
    if to == "hf":
        print(f"read by    {READ_BY}")
