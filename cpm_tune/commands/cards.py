"""Text for `list`, `show` and `--dry-run`."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cpm_tune.common.sizes import counted
from cpm_tune.errors import UserError
from cpm_tune.task import SPLITS, Choice, Generate, Row, Task, Template
from cpm_tune.task.registry import load_preset, load_task, load_tasks, preset_files

if TYPE_CHECKING:
    from cpm_tune.planning.plan import Plan


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Left-aligned columns; a Chinese character counts as two cells."""
    from rich.cells import cell_len

    lines = [list(header), *map(list, rows)]
    widths = [max(cell_len(line[i]) for line in lines) for i in range(len(header))]
    return "\n".join(
        "  ".join(
            cell + " " * (width - cell_len(cell)) for cell, width in zip(line, widths, strict=True)
        ).rstrip()
        for line in lines
    )


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
    from cpm_tune.data.files import checked_rows, gold
    from cpm_tune.data.splits import find_splits
    from cpm_tune.planning.plan import data_folder, find_template

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
    from cpm_tune.backbone.checkpoint import open_folder
    from cpm_tune.backbone.embedded import NAME, resolve
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


def dry_run_text(plan: Plan, out: Path, nproc: int = 1) -> str:
    """The resolved spec, what would be trained, how many steps, an estimate of memory."""
    import torch

    from cpm_tune.backbone.model import CPMAnt
    from cpm_tune.data.batches import total_steps
    from cpm_tune.delta.insert import insert
    from cpm_tune.memory.estimate import estimate, work_of
    from cpm_tune.planning.inputs import read_inputs

    inputs = read_inputs(plan)
    with torch.device("meta"):
        model = CPMAnt(plan.folder.config)
        n_backbone = sum(p.numel() for p in model.parameters())
        delta = insert(model, plan.delta, plan.spec.backbone.sha256, 0, inputs.encoder.tokenizer)
    modules: dict[str, int] = {}
    for name, parameter in delta.parameters.items():
        owner = ".".join(part for part in name.split(".") if not part.isdigit())
        modules[owner] = modules.get(owner, 0) + parameter.numel()
    lines = [plan.spec.model_dump_json(indent=1), ""]
    lines += [f"trained    {n:>12,}  {name}" for name, n in modules.items()]
    share = delta.n_trainable / n_backbone
    lines.append(f"trained    {delta.n_trainable:>12,}  in all, {share:.3%} of {n_backbone:,}")
    if plan.spec.recipe is not None:
        n = len(inputs.splits["train"])
        steps = total_steps(n, plan.spec.recipe)
        lines.append(
            f"steps      {steps:>12,}  at most, of "
            f"{counted(plan.spec.recipe.batch_size, 'example')}; {counted(n, 'row')}"
        )
    found = estimate(work_of(plan, nproc))
    lines.append(
        f"memory     about {found.peak / 2**30:.2f} GiB a process, if all sequences are as long as "
        f"they may be: weights {found.weights / 2**30:.2f}, delta and optimiser "
        f"{(found.delta + found.gradients + found.optimizer) / 2**30:.2f}, activations "
        f"{found.activations / 2**30:.2f} (Python and libraries come on top)"
    )
    there = (out / plan.spec.run_id / "run.json").is_file()
    lines.append(f"run        {out / plan.spec.run_id}{'  (finished before)' if there else ''}")
    lines += [f"note       {note}" for note in plan.notes]
    return "\n".join(lines)
