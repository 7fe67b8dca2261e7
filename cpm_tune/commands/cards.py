"""Text for `list`, `show` and `--dry-run`."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cpm_tune.common.sizes import counted
from cpm_tune.common.texts import table
from cpm_tune.errors import UserError
from cpm_tune.task import SPLITS, Choice, Generate, Row, Task, Template
from cpm_tune.task.registry import load_preset, load_task, load_tasks, preset_files

if TYPE_CHECKING:
    pass


def _sizes(task: Task) -> str:
    return " / ".join("-" if n is None else f"{n:,}" for n in task.source.sizes)


def _found(task: Task, data: Path | None) -> str:
    from cpm_tune.data.splits import sample_folder, splits_there

    if data is not None:
        there = splits_there(task, data / task.name)
        return "yes" if there == list(SPLITS) else f"only {', '.join(there)}" if there else "no"
    return "sample" if sample_folder(task).is_dir() else "no"


def task_list(include: Sequence[Path], data: Path | None) -> str:
    """One line per task."""
    rows = [
        (t.name, t.capability, t.kind, t.metrics[0], _sizes(t), _found(t, data))
        for t in load_tasks(include)
    ]
    return table(("task", "capability", "kind", "metric", "train / dev / test", "data"), rows)


def delta_list() -> str:
    """One line per delta preset."""
    rows = []
    for name in preset_files():
        about = load_preset(name).get("about", {})
        count = about.get("trainable_on_10b")
        rows.append(
            (name, f"{count:,}" if isinstance(count, int) else "-", str(about.get("title", "")))
        )
    return table(("delta", "trained on 10B", "what it is"), rows)


def task_card(
    name: str,
    template_name: str | None,
    data: Path | None,
    split: str,
    n_rows: int,
    backbone: str | None,
    max_length: int | None,
    text_only: bool,
    include: Sequence[Path],
) -> str:
    """A task's card, then rows as the model sees them."""
    from cpm_tune.data.files import checked_rows
    from cpm_tune.data.splits import find_splits
    from cpm_tune.planning.plan import data_folder, find_template
    from cpm_tune.task.answers import gold

    task = load_task(name, include)
    template = find_template(task, template_name)
    lines = [
        f"{task.name} v{task.version}: {task.source.title}",
        f"  capability  {task.capability}, {task.kind}; suites: {', '.join(task.suites) or '-'}",
        f"  official    {_sizes(task)} (train / dev / test); licence: {task.source.licence}",
        f"  paper       {task.source.paper}",
        f"  to obtain   {task.source.obtain}",
        f"  columns     {', '.join(task.files.columns)}",
        f"  metrics     {', '.join(task.metrics)}",
        f"  recipe      {', '.join(f'{k}={v}' for k, v in task.recipe.items())}",
    ]
    lines += [f"  published   {row}: {score}" for row, score in task.published.items()]
    for t in task.templates:
        mark = "*" if t is template else " "
        how = f"  (options {' / '.join(t.options)})" if t.options else ""
        lines.append(f"{mark} template    {t.name} v{t.version}: {t.text}{how}")
    if task.protocol:
        lines += textwrap.wrap(
            task.protocol, 96, initial_indent="  ", subsequent_indent="  ", break_on_hyphens=False
        )
    file = find_splits(task, data_folder(task, data), (split,))[split]
    rows = list(islice(checked_rows(task, file), max(0, n_rows)))
    if not rows and n_rows:
        raise UserError(f"{file.path}: the {split} split has no rows.")
    lines.append("")
    lines.append(
        f"{file.path.name}{' (sample data)' if data is None else ''}, "
        f"first {counted(len(rows), 'row')}:"
    )
    encoder = None if text_only else _encoder(task, template, backbone, max_length)
    for row in rows:
        lines.append("")
        answer = gold(task, row)
        lines.append(f"row {row['id']}: answer {json.dumps(answer, ensure_ascii=False)}")
        for option in _options(task, template, row):
            lines.append("  " + "".join(template.render(row, option)))
        if encoder is not None:
            lines += _encoded(encoder, row)
    return "\n".join(lines)


def _options(task: Task, template: Template, row: Row) -> Sequence[str]:
    """What is written in the template's slot."""
    if isinstance(task.answer, Generate):
        return (row["target"] or "",)
    if isinstance(task.answer, Choice) or template.options:
        return template.options
    options: Sequence[str] = row[task.answer.options]
    return options


def _encoder(task: Task, template: Any, backbone: str | None, max_length: int | None) -> Any:
    from cpm_tune.backbone.bundled import NAME, resolve
    from cpm_tune.backbone.folder import open_folder
    from cpm_tune.data.encode import Encoder
    from cpm_tune.planning.plan import encoding_of

    folder = open_folder(resolve(backbone or NAME))
    settings = {} if max_length is None else {"encode.max_length": max_length}
    room = getattr(task.answer, "max_new_tokens", 0)
    encoding = encoding_of(task, settings)
    return Encoder(task, template, encoding, folder.config, folder.tokenizer(), room)


def _encoded(encoder: Any, row: Any) -> list[str]:
    from cpm_tune.data.encode import describe

    example = encoder.encode(row)
    lines = []
    for sequence in describe(example, encoder):
        lines.append(
            f"    {encoder.n_prompt} soft-prompt rows + {' '.join(map(repr, sequence['tokens']))}"
        )
        scored = ", ".join(f"{token!r} after position {at}" for at, token in sequence["targets"])
        lines.append(f"    length {sequence['length']}; scored: {scored}")
    lines.append(f"    truncated: {'yes' if example.truncated else 'no'}")
    return lines
