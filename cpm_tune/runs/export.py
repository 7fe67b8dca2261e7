"""Exports a finished run to PEFT, OpenDelta, transformers, or a merged backbone."""

from __future__ import annotations

from pathlib import Path

from cpm_tune.common.folders import CHAT, new_folder
from cpm_tune.delta.foreign import write_opendelta, write_peft
from cpm_tune.delta.insert import load_delta
from cpm_tune.delta.merge import merge
from cpm_tune.delta.saved import check_delta
from cpm_tune.errors import UserError, did_you_mean
from cpm_tune.runs.card import check_results, write_card, write_results
from cpm_tune.runs.rerun import backbone_of_run, chat_of_run
from cpm_tune.schema.record import finished_record

FORMATS = ("opendelta", "peft", "hf", "merged")


def export_run(
    run: Path, to: str, out: Path, *, backbone: str | None = None, hub_dataset: str | None = None
) -> None:
    """Write a run's delta (opendelta, peft) or the backbone with it merged (hf, merged) to `out`,
    with a model card, the run's chat template if it has one, and with `hub_dataset`
    (OWNER/NAME[:TASK_ID]) .eval_results for that dataset.

    In fp32, whatever the run's precision. `out` must not exist, and appears complete or not at all.
    Raises UserError if the format cannot express the delta method, and before any work if the
    score is none for `hub_dataset`.
    """
    if to not in FORMATS:
        raise UserError(f"there is no format '{to}'.{did_you_mean(to, FORMATS)}")
    if hub_dataset is not None:
        check_results(finished_record(run), hub_dataset)
    with new_folder(out) as part:
        model, folder, record = backbone_of_run(run, backbone)
        kind = record.spec.delta["delta_type"]
        if kind == "none" and to in ("opendelta", "peft"):
            raise UserError(f"{run}: a zero-shot run has no delta to export.")
        if record.spec.backbone.init == "random" and to in ("opendelta", "peft"):
            raise UserError(f"{run}: its delta was trained on random weights, the control.")
        delta, read_by = None, ""
        if kind != "none":
            check_delta(run, record)
            delta = load_delta(run, model, record.spec.backbone.sha256)
        if delta is not None and to in ("opendelta", "peft"):
            write = write_peft if to == "peft" else write_opendelta
            write(part, model, delta.config, delta.state())
        else:
            folder.check_save(to)
            if delta is not None:
                difference = merge(delta)
                print(
                    f"merged     largest difference of logits {difference.largest:.1e} "
                    f"({difference.relative:.1e} of the largest)"
                )
            trained = record.backbone.trained or delta is not None
            read_by = folder.save(model, part, to, trained=trained)
        if (chat := chat_of_run(run, record.spec.chat_template)) is not None:
            (part / CHAT).write_text(chat, encoding="utf-8")
        write_card(part, record, to)
        if hub_dataset is not None:
            write_results(part, record, hub_dataset)
    for path in sorted(path for path in out.rglob("*") if path.is_file()):
        print(f"written    {path}  {path.stat().st_size:,} bytes")
    if read_by:
        print(f"read by    {read_by}")
