"""Columns of a board: which runs are in one, and what tells it from others of its dataset."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Sequence

from cpm_tune.common.sizes import counted
from cpm_tune.leaderboard.board import Column
from cpm_tune.leaderboard.hierarchy import Hierarchy
from cpm_tune.leaderboard.means import mean, points
from cpm_tune.schema.record import SHORTCUTS, AnyRecord, RunRecord
from cpm_tune.version import NUMBERS


def questions(record: AnyRecord) -> tuple[Hashable, ...]:
    """What must be equal for an outside system to be in one column with a run: neither template nor
    dev split, of which it has none."""
    spec, data = record.spec, record.spec.data
    asked = (spec.task, spec.task_version, data.test, data.limit, data.skip_bad_rows)
    return (*asked, record.ranks_by, record.test.signature)


def comparable_key(record: RunRecord) -> tuple[Hashable, ...]:
    """Everything that must be equal for runs to be in one column.

    Backbones of different families and tokenizers are what is compared: they are different rows.
    """
    data = record.spec.data
    return (*questions(record), *protocol(record), data.seen[1], data.sample)


def protocol(record: RunRecord) -> tuple[Hashable, ...]:
    """How prompts were made and answers chosen."""
    spec = record.spec
    rule = (
        *(spec.template_sha256, spec.scoring, spec.shots, spec.shot_choice),
        spec.chat_template,
    )
    return (*rule, record.numbers)


def _unusual(record: RunRecord) -> list[str]:
    """What is not usual in how a run's prompts were made and its answers chosen, in words."""
    spec = record.spec
    nearest = "nearest " if spec.shot_choice == "nearest" else ""
    return [
        *([f"each run on one of the folds {spec.data.folds[:8]}"] if spec.data.folds else []),
        *([counted(spec.shots, f"{nearest}shot")] if spec.shots else []),
        *([f"chat template {spec.chat_template[:8]}"] if spec.chat_template else []),
        *([f"numbers {record.numbers}, now {NUMBERS}"] if record.numbers != NUMBERS else []),
    ]


def data_notes(record: AnyRecord) -> list[str]:
    """What makes a record's data differ from the official data."""
    data = record.spec.data
    notes = ["sample data, not comparable with real results"] if data.sample else []
    notes += [f"limited to {counted(data.limit, 'row')} a split"] if data.limit else []
    return notes + (["bad rows skipped"] if data.skip_bad_rows else [])


def split_notes(record: AnyRecord, splits: tuple[str, ...], hierarchy: Hierarchy) -> list[str]:
    """The parts of a record's note about splits that have no official size, or that another split
    stands in for."""
    if not record.note:
        return []
    parts = record.note.split("; ")
    task = record.spec.task
    sizes = [p for p in parts if p.startswith(splits) and hierarchy.unofficial_size(task, p)]
    ends = tuple(f"{how} {split.strip()}" for how in ("is", "as") for split in splits)
    return sizes + [part for part in parts if part.endswith(ends)]


def next_id(columns: Iterable[Column], task: str) -> str:
    """The id of a dataset's next column: "ccpm", then "ccpm#2"."""
    number = 1 + sum(column.task == task for column in columns)
    return task if number == 1 else f"{task}#{number}"


def column_of(name: str, records: Sequence[AnyRecord], hierarchy: Hierarchy) -> Column:
    """The column of runs that may be compared, or of outside systems' answers to the same
    questions."""
    record = records[0]
    spec, score = record.spec, record.test
    sizes = {note for each in records for note in split_notes(each, ("dev ", "test "), hierarchy)}
    notes = [*data_notes(record), *sorted(sizes)]
    column = Column(
        id=name,
        task=spec.task,
        version=spec.task_version,
        **hierarchy.dataset(spec.task)._asdict(),
        metric=record.ranks_by,
        signature=score.signature,
        higher_is_better=score.higher_is_better,
        unit="points" if points(record.ranks_by) == 100 else "own",
        template="-",
        test_sha256=spec.data.test,
        n=score.n,
        official=not notes,
        notes=notes,
    )
    if isinstance(record, RunRecord):
        majority = record.controls.get("majority")
        column.template, column.template_version = (
            record.spec.template,
            record.spec.template_version,
        )
        column.dev_sha256 = record.spec.data.seen[1]
        column.scoring = next((s for r in records if (s := _scoring(r))), "")
        column.scoring = column.scoring or hierarchy.scoring(record.spec)
        column.protocol = _unusual(record)
        column.repeats = "folds" if record.spec.data.folds else "seeds"
        column.majority = points(record.ranks_by) * majority.value if majority else None
        column.shortcuts = _shortcuts(records)
    return column


def _shortcuts(records: Sequence[AnyRecord]) -> dict[str, float]:
    """The mean score of each shortcut, as of a score: runs of a column may differ in what they were
    trained on."""
    runs = [record for record in records if isinstance(record, RunRecord)]
    scores = {
        name: [run.controls[name].value for run in runs if name in run.controls]
        for name in SHORTCUTS
    }
    scale = points(runs[0].ranks_by)
    return {name: scale * mean(values) for name, values in scores.items() if values}


def _scoring(record: AnyRecord) -> str:
    return (record.scoring or "") if isinstance(record, RunRecord) else ""


def state_what_differs(columns: Sequence[Column]) -> None:
    """Fill `apart` of every column: what tells it from other columns of its dataset."""
    for column in columns:
        traits = _traits(column)
        others = [_traits(c) for c in columns if c.task == column.task and c is not column]
        column.apart = [
            trait for i, trait in enumerate(traits) if any(other[i] != trait for other in others)
        ]


def _traits(column: Column) -> list[str]:
    """What may tell columns of a dataset apart, in words; in the same order for every column."""
    return [
        f"task version {column.version}",
        f"template {column.template} v{column.template_version}",
        f"scored by {column.scoring or 'the rule of the template'}",
        "; ".join(column.protocol) or "prompts as they are",
        f"dev {(column.dev_sha256 or '-')[:8]}, test {(column.test_sha256 or '-')[:8]}",
        "; ".join(column.notes) or "all rows of the given files",
        f"metric {column.signature}",
    ]
