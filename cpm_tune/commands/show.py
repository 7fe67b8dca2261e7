"""The command `show`: a task's card, then rows as the backbone sees them."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Callable, Sequence
from itertools import islice

from cpm_tune.analysis.card import overlap_text
from cpm_tune.analysis.overlap import overlaps_of_test
from cpm_tune.commands.list_ import sizes
from cpm_tune.commands.options.look import Show
from cpm_tune.common.door import load
from cpm_tune.common.sizes import counted
from cpm_tune.data.files import checked_rows
from cpm_tune.data.splits import data_folder, find_splits
from cpm_tune.data.store import read_split
from cpm_tune.errors import UserError
from cpm_tune.planning.plan import find_template
from cpm_tune.schema.options import Scoring
from cpm_tune.task import Choice, Generate, Row, Task, Template
from cpm_tune.task.answers import gold
from cpm_tune.task.registry import load_task
from cpm_tune.task.scoring import scoring_of, unfit


def run(options: Show) -> int:
    """Print a task's card and rows."""
    task = load_task(options.task, options.include)
    template = find_template(task, options.template)
    if options.scoring and (problem := unfit(task, template, options.scoring)):
        raise UserError(problem)
    file = find_splits(task, data_folder(task, options.data), (options.split,))[options.split]
    rows = list(islice(checked_rows(task, file), options.rows))
    if not rows and options.rows:
        raise UserError(f"{file.path}: the {options.split} split has no rows.")
    sample = " (sample data)" if options.data is None else ""
    lines = [*_card(task, template, options.scoring), ""]
    lines += [f"note: {text}" for text in (file.note, file.warning) if text]
    lines.append(f"{file.path.name}{sample}, first {counted(len(rows), 'row')}:")
    describe: Callable[[Row], list[str]] | None = None
    if not options.text:
        describe = load("cpm_tune.commands.show_tokens:describer")(task, template, options)
    for row in rows:
        answer = json.dumps(gold(task, row), ensure_ascii=False)
        lines += ["", f"row {row['id']}: answer {answer}"]
        lines += ["  " + "".join(template.render(row, o)) for o in _answers(task, template, row)]
        lines += describe(row) if describe is not None else []
    if options.overlap:
        lines += ["", *_overlaps(task, options)]
    print("\n".join(lines))
    return 0


def _overlaps(task: Task, options: Show) -> list[str]:
    """A line per split that test is compared with."""
    files = find_splits(task, data_folder(task, options.data))
    splits = {name: read_split(task, file) for name, file in files.items()}
    return [
        f"test and {name}: {overlap_text(overlap)}; {counted(len(overlap.shared), 'other row')} of "
        f"{overlap.n:,} with a text in common"
        for name, overlap in overlaps_of_test(task, splits).items()
    ]


def _card(task: Task, chosen: Template, scoring: Scoring | None) -> list[str]:
    lines = [
        f"{task.name} v{task.version}: {task.source.title}",
        f"  capability  {task.capability}, {task.kind}; "
        f"task groups: {', '.join(task.suites) or '-'}",
        f"  official    {sizes(task)} (train / dev / test); licence: {task.source.licence}",
        *(f"  edition     {name}: {_counts(n)}" for name, n in task.source.editions.items()),
        f"  paper       {task.source.paper}",
        f"  to obtain   {task.source.obtain}",
        f"  columns     {', '.join(task.files.columns)}",
        f"  metrics     {', '.join(task.metrics)}",
        f"  recipe      {', '.join(f'{k}={v}' for k, v in task.recipe.items())}",
    ]
    for name, recipe in task.recipes.items():
        lines.append(f"  {name:11} {', '.join(f'{k}={v}' for k, v in recipe.settings.items())}")
    for row, score in task.published.items():
        rule = task.published_scoring.get(row)
        lines.append(f"  published   {row}: {score}" + (f" ({rule})" if rule else ""))
    for template in task.templates:
        mark = "*" if template is chosen else " "
        rule = scoring if template is chosen else None
        details: list[str] = [scoring_of(task, template, rule)]
        details += [f"options {' / '.join(template.options)}"] * bool(template.options)
        lines.append(
            f"{mark} template    {template.name} v{template.version}: {template.text}  "
            f"({', '.join(details)})"
        )
    if task.protocol:
        lines += textwrap.wrap(
            task.protocol, 96, initial_indent="  ", subsequent_indent="  ", break_on_hyphens=False
        )
    return lines


def _counts(sizes: Sequence[int | None]) -> str:
    return " / ".join("-" if n is None else f"{n:,}" for n in sizes)


def _answers(task: Task, template: Template, row: Row) -> Sequence[str]:
    """The texts that the template's answer may be."""
    if isinstance(task.answer, Generate):
        return (row["target"] or "",)
    if isinstance(task.answer, Choice) or template.options:
        return template.options
    options: Sequence[str] = row[task.answer.options]
    return options
