"""What an export says about itself: a model card, and scores in Hugging Face's .eval_results form.

The front matter is that of huggingface_hub's ModelCard, with its model-index; .eval_results:
https://huggingface.co/docs/hub/eval-results.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from cpm_tune.backbone.hub import looks_like_id
from cpm_tune.common.texts import markdown
from cpm_tune.common.writing import write_atomically
from cpm_tune.errors import UserError
from cpm_tune.schema.record import SHORTCUTS, RunRecord, ScoreRecord
from cpm_tune.version import VERSION

CARD, RESULTS = "README.md", ".eval_results"
_LIBRARIES = {"peft": "peft", "hf": "transformers"}
_USE = {
    "peft": "A LoRA for PEFT: `PeftModel.from_pretrained(backbone, FOLDER)`.",
    "opendelta": "A delta for OpenDelta, as its `save_finetuned` writes one.",
    "hf": "A whole model with the delta merged, for transformers: `from_pretrained(FOLDER)`.",
    "merged": "A whole backbone with the delta merged, for cpm-tune: `--backbone FOLDER`.",
}
_TASK_ID = re.compile(r"[\w.-]{1,100}")


def write_card(folder: Path, record: RunRecord, to: str) -> None:
    """Write README.md into an export."""
    write_atomically(folder / CARD, model_card(record, to))


def check_results(record: RunRecord, dataset: str) -> tuple[str, str]:
    """The name and the task id of "OWNER/NAME" or "OWNER/NAME:TASK_ID" (else "default").

    Raises UserError for another form, and for a run whose score is not comparable with others'.
    """
    name, _, task_id = dataset.partition(":")
    if not looks_like_id(name) or not (not task_id or _TASK_ID.fullmatch(task_id)):
        raise UserError(f"--hub-dataset {dataset}: expected OWNER/NAME or OWNER/NAME:TASK_ID.")
    if not _publishable(record):
        why = record.note or "its test split has no answers"
        raise UserError(
            f"{record.run_id} has no score for a public leaderboard: {why}; omit --hub-dataset."
        )
    return name, task_id or "default"


def write_results(folder: Path, record: RunRecord, dataset: str) -> None:
    """Write .eval_results/TASK.yaml: the ranking score on test, for a dataset of the hub that is a
    benchmark. Raises UserError as `check_results` does."""
    name, task_id = check_results(record, dataset)
    score = record.test
    entry: dict[str, Any] = {
        "dataset": {"id": name, "task_id": task_id},
        "value": score.value,
        "notes": f"{score.signature}; 95% interval {score.low:.4f} to {score.high:.4f}, "
        f"n={score.n}; {record.name}, template {record.spec.template}, scored by "
        f"{record.scoring or 'the rule of the template'}; cpm-tune {VERSION}",
    }
    if record.environment is not None:
        entry["date"] = record.environment.finished_at
    (folder / RESULTS).mkdir()
    write_atomically(folder / RESULTS / f"{record.spec.task}.yaml", _yaml([entry]))


def _publishable(record: RunRecord) -> bool:
    """Whether the test score is one of the benchmark: of all rows of the real data."""
    return record.comparable and record.labelled


def _yaml(value: Any) -> str:
    import yaml

    text: str = yaml.safe_dump(value, allow_unicode=True, sort_keys=False, width=1000)
    return text


def model_card(record: RunRecord, to: str) -> str:
    """The card of a run's export: what it is, its scores beside controls, how it was made."""
    front: dict[str, Any] = {"library_name": _LIBRARIES.get(to, "cpm-tune")}
    if looks_like_id(record.backbone.name):
        front["base_model"] = record.backbone.name
    front["tags"] = ["cpm-tune", record.delta.name]
    if _publishable(record):
        front["model-index"] = [{"name": record.run_id, "results": [_index(record)]}]
    parts = [
        f"---\n{_yaml(front)}---",
        f"# {markdown(record.name)}, {record.spec.task}",
        _USE[to],
        _table(("", ""), _facts(record)),
        "## Scores",
        *_scores(record),
        "## Limits",
        "\n".join(f"- {markdown(text)}" for text in _limits(record)),
        f"Written by cpm-tune {VERSION} from the run `{record.run_id}`. The spec of the run, which "
        "its id is the hash of:",
        f"```json\n{json.dumps(record.spec.model_dump(mode='json'), ensure_ascii=False)}\n```",
    ]
    return "\n\n".join(parts) + "\n"


def _index(record: RunRecord) -> dict[str, Any]:
    """An entry of the model-index: the test scores."""
    spec = record.spec
    return {
        "task": {"type": "text-generation"},
        "dataset": {"name": spec.task, "type": spec.task, "split": "test"},
        "metrics": [
            {"type": name, "name": score.signature, "value": score.value}
            for name, score in record.scores["test"].items()
        ],
    }


def _facts(record: RunRecord) -> list[tuple[str, str]]:
    spec, delta = record.spec, record.delta
    facts = [
        (
            "task",
            f"{spec.task} v{spec.task_version}, template {spec.template} "
            f"v{spec.template_version}, scored by {record.scoring or 'the rule of the template'}",
        ),
        (
            "backbone",
            f"{record.backbone.name}, sha256 {spec.backbone.sha256}, "
            f"{record.backbone.n_parameters:,} parameters",
        ),
        ("delta", f"{delta.name}, {delta.n_trainable:,} trained values"),
        ("seed, precision", f"{spec.seed}, {spec.weights}"),
    ]
    if spec.delta_scale != 1:
        facts.append(("factor of the delta", f"{spec.delta_scale:g}"))
    for name, split in record.data.items():
        edition = f", {split.edition}" if split.edition else ""
        facts.append((name, f"{split.n:,} rows, sha256 {split.sha256}{edition}"))
    if (training := record.training) is not None:
        best = f"best step {training.best_step} of {training.steps} (by {record.ranks_by} on dev)"
        facts.append(("training", best))
    return facts


def _scores(record: RunRecord) -> Iterator[str]:
    """Scores with intervals; controls; what the delta unlearns."""
    rows = [
        (split, name, _interval(score), f"{score.n:,}")
        for split, scores in record.scores.items()
        for name, score in scores.items()
    ]
    yield _table(("split", "metric", "score [95% interval]", "rows"), rows)
    if record.controls:
        yield f"The same test rows without this delta, by {record.ranks_by}:"
        controls = [
            (f"shortcut {name}" if name in SHORTCUTS else name, f"{c.value:.4f}", c.note)
            for name, c in record.controls.items()
        ]
        yield _table(("control", "score", ""), controls)
    if record.forgetting:
        yield "Loss on plain texts, nats per character, without and with the delta:"
        losses = [
            (name, f"{f.bare:.4f}", f"{f.tuned:.4f}", f"{f.difference:+.4f}")
            for name, f in record.forgetting.items()
        ]
        yield _table(("texts", "backbone", "with delta", "difference"), losses)


def _limits(record: RunRecord) -> Iterator[str]:
    yield "One run with one seed: its intervals are over test rows, not over seeds."
    if record.note:
        yield f"Not comparable with published results: {record.note}."
    if (unbeaten := record.unbeaten_shortcut) is not None:
        yield (
            f"Not above the shortcut {unbeaten[0]} ({unbeaten[1].value:.4f}, without any model) by "
            "more than its interval."
        )
    for name, overlap in record.overlap.items():
        if rows := overlap.near + overlap.shared:
            yield f"{rows:,} rows of test are also in {name}, or have a text in common with it."
    for warning in record.warnings:
        yield f"{warning}."
    yield "Weights are fp32, whatever the precision of the run."
    yield "Licences of the backbone and of the data apply; this card names none."


def _interval(score: ScoreRecord) -> str:
    return f"{score.value:.4f} [{score.low:.4f}, {score.high:.4f}]"


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [header, ["---"] * len(header), *([markdown(cell) for cell in row] for row in rows)]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)
