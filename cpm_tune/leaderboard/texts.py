"""The texts of embedded predictions' examples: the rows that runs were tested on, read back.

A record names its test file (path and fingerprint) and its template; predictions are in the order
of that file. Runs on the same rows share one set of texts. Texts are shown only if the file has the
recorded fingerprint; if it cannot be read back, a note says why, and it is never an error.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any, Literal

from cpm_tune.analysis.texts import fields
from cpm_tune.analysis.texts import texts as row_texts
from cpm_tune.data.files import checked_rows
from cpm_tune.data.splits import SplitFile, data_folder, find_splits, is_sample, sample_folder
from cpm_tune.errors import UserError
from cpm_tune.leaderboard.results import AnyStored
from cpm_tune.planning.recorded import folders
from cpm_tune.schema.record import AnyRecord, RunRecord
from cpm_tune.schema.spec import RunSpec
from cpm_tune.task import Choice, Options, Rank, Row, Task, Template
from cpm_tune.task.registry import load_task

Which = Literal["all", "sample", "none"]
EXAMPLES = 6_000  # of all sets together, in the page
FIELD = 300  # characters of a field
PROMPT = 1_500  # of all that is before the answer
ROWS = 100_000  # that are read, of a set
OPTIONS = 40  # of an example
OPTION_TEXTS = 800  # characters of an example's options together


@dataclass
class Texts:
    """The test rows of runs. `rows` are the sets of rows with their `names`, `of` maps a run to the
    number of its set, `sets` are their texts for the page, None where they are not to be shown. A
    note is added if a run's predictions are not of its rows."""

    names: list[str] = field(default_factory=list)
    rows: list[list[Row]] = field(default_factory=list)
    sets: list[dict[str, Any] | None] = field(default_factory=list)
    lengths: list[list[int]] = field(default_factory=list)
    of: dict[str, int] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def set_of(self, run_id: str, ids: Sequence[str]) -> int | None:
        """The set of a run whose predictions have these ids; None if it has none, or other ids."""
        number = self.of.get(run_id)
        if number is None:
            return None
        if all(row["id"] == name for row, name in zip(self.rows[number], ids, strict=False)):
            return number
        self.note(
            f"{run_id}: examples whose ids are not those of the data are shown without texts."
        )
        return None

    def part(self, number: int) -> dict[str, Any]:
        """A set as the page has it: how long each row's texts are, and the texts if shown."""
        return {"lengths": self.lengths[number], **(self.sets[number] or {"rows": []})}

    def note(self, note: str) -> None:
        """Add a note, once."""
        if note not in self.notes:
            self.notes.append(note)


def read_texts(
    runs: Sequence[AnyStored],
    per_run: int,
    which: Which,
    data: Path | None = None,
    include: Sequence[Path] = (),
    examples: int = EXAMPLES,
) -> Texts:
    """The test rows of runs, as far as they are where the records say, and texts of the first
    `per_run` rows of each run, fewer if all sets together would have more than `examples`.

    `which`: texts of "all" runs, of those on "sample" data, or of "none". `data` is a folder (or
    has a folder for each task) with data that is no longer at the recorded path.
    """
    texts = Texts()
    groups: dict[tuple[Any, ...], list[AnyRecord]] = {}
    for record in (run.record for run in runs):
        groups.setdefault(_key(record), []).append(record)
    shown = [key for key, records in groups.items() if _shown(records[0], which)]
    most = min(per_run, examples // max(1, len(shown)))
    for key, records in groups.items():
        first, wanted = records[0], key in shown and most > 0
        try:
            task = load_task(first.spec.task, include)
            file = _find(task, records, data)
            # One file of the sample data does not make a test split of one's own public.
            wanted = wanted and (which == "all" or is_sample(task, {file.split: file}))
            bad: list[str] | None = [] if first.spec.data.skip_bad_rows else None
            rows = list(islice(checked_rows(task, file, bad), ROWS))
        except (UserError, OSError, UnicodeDecodeError) as error:
            if wanted:
                texts.note(f"{first.spec.task}: examples are shown without texts: {error}")
            continue
        texts.of |= {record.run_id: len(texts.rows) for record in records}
        texts.rows.append(rows)
        texts.names.append(f"set-{hashlib.sha256(repr(key).encode()).hexdigest()[:16]}")
        names = fields(task)
        texts.lengths.append([sum(map(len, row_texts(names, row))) for row in rows])
        template = _template(task, first)
        texts.sets.append(_set(task, template, rows[:most]) if wanted else None)
    return texts


def _shown(record: AnyRecord, which: Which) -> bool:
    return which == "all" or (which == "sample" and record.spec.data.sample)


def recorded_rows(task: Task, record: AnyRecord, data: Path | None) -> list[Row]:
    """The rows that a record's test predictions are of, from `data` alone if that is given.
    UserError if they cannot be read back."""
    file = _find(task, [record], data, elsewhere=data is None)
    bad: list[str] | None = [] if record.spec.data.skip_bad_rows else None
    return list(islice(checked_rows(task, file, bad), record.spec.data.limit))


def _key(record: AnyRecord) -> tuple[Any, ...]:
    """Equal for records whose examples look the same."""
    spec = record.spec
    template = spec.template_sha256 if isinstance(spec, RunSpec) else None
    return spec.task, spec.data.test, spec.data.skip_bad_rows, spec.data.sample, template


def _template(task: Task, record: AnyRecord) -> Template | None:
    """The template of a run, if it is still the same; an outside system has none."""
    if not isinstance(record, RunRecord):
        return None
    return task.template_of(record.spec.template, record.spec.template_sha256)


def _find(
    task: Task, records: Sequence[AnyRecord], data: Path | None, elsewhere: bool = True
) -> SplitFile:
    """The test split of these records, wherever one of them had it. UserError if it is not there or
    has another fingerprint. `elsewhere`: the sample data need not be in `data`."""
    wanted = records[0].spec.data
    paths = dict.fromkeys(r.data["test"].path for r in records if "test" in r.data)
    path = next(iter(paths), "the test file")
    places = [sample_folder(task)] if wanted.sample and elsewhere else []
    if data is not None:
        places.append(data_folder(task, data))
    else:
        places += dict.fromkeys(folder for path in paths for folder in folders(task, path))
    other = None
    for place in places:
        try:
            split = find_splits(task, place, ("test",))["test"]
        except UserError:
            continue
        if split.sha256 == wanted.test:
            return split
        other = other or split
    if other is not None:
        raise UserError(f"{other.path} is not the file that was tested on; its sha256 differs.")
    if data is not None:
        raise UserError(f"{path} of the records is not in --data {data}.")
    raise UserError(f"{path} no longer exists; give --data DIR.")


def _set(task: Task, template: Template | None, rows: Sequence[Row]) -> dict[str, Any]:
    """The rows as the page shows them; `slot` names what is between `text` and `after`."""
    shown: dict[str, Any] = {"rows": [_example(task, template, row) for row in rows]}
    if template is not None:
        shown["slot"] = "option" if template.scores_in_prompt else "answer"
        if isinstance(task.answer, Choice):
            shown["labels"] = list(task.answer.labels)
            shown["options"] = _options(template.options)
    return shown


def _example(task: Task, template: Template | None, row: Row) -> dict[str, Any]:
    answer = task.answer
    column = answer.options if isinstance(answer, Options | Rank) else None
    if template is None:
        parts = [f"{name}: {_field(row[name], joined=True)}" for name in task.shown]
        shown = {"text": _cut("\n".join(parts), PROMPT)}
    else:
        kept = {n: _field(row[n], end=n in template.keep_end) for n in template.fields}
        before, _, after = template.render(kept, "")
        shown = {"text": _cut(before, PROMPT)}
        if after:
            shown["after"] = _cut(after, FIELD)
    return shown if column is None else {**shown, "options": _options(row[column])}


def _field(value: Any, end: bool = False, joined: bool = False) -> Any:
    """A field of a row, shortened, as the template takes it."""
    if isinstance(value, str):
        return _cut(value, FIELD, end)
    texts = _options(value)
    return " / ".join(texts) if joined else texts


def _options(texts: Sequence[str]) -> list[str]:
    kept = list(texts[:OPTIONS])
    return [_cut(text, max(20, OPTION_TEXTS // len(kept))) for text in kept]


def _cut(text: str, most: int, end: bool = False) -> str:
    if len(text) <= most:
        return text
    return f"…{text[len(text) - most :]}" if end else f"{text[:most]}…"
