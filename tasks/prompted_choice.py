"""Your own prompts with options: {input, options, target} files, as CPM-Ant's preprocessed ones."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from cpm_tune.data.prompts import prompt_of
from cpm_tune.task import Files, Options, Row, Source, Task, Template
from cpm_tune.task.answers import is_withheld


def rows(record: Any) -> Iterator[Row]:
    """One row of {input, options, target}, or of a CPM-Bee record with options by their names."""
    options = record.get("options") if isinstance(record, dict) else None
    if not isinstance(options, Mapping):
        yield record
        return
    names, answer = list(options), record.get("<ans>")
    if not is_withheld(answer) and answer not in names:
        raise ValueError(f"<ans> is {answer!r}, expected {' or '.join(map(str, names))}")
    fields = {key: value for key, value in record.items() if key not in ("options", "<ans>", "id")}
    yield {
        "id": record.get("id"),
        "input": prompt_of(fields),
        "options": list(options.values()),
        "target": None if is_withheld(answer) else names.index(answer),
    }


TASK = Task(
    name="prompted_choice",
    version=1,
    capability="your own prompts",
    kind="prompt and options",
    source=Source(
        title="Files of finished prompts with options, such as CPM-Ant's preprocessed ones: "
        '{"input": …, "options": […], "target": …}',
        paper="",
        licence="that of your files",
        obtain="your own train.jsonl, eval.jsonl and test.jsonl",
    ),
    files=Files(columns=("input", "options", "target"), texts=("options",), rows=rows),
    answer=Options(options="options", column="target", most=20),
    templates=(Template("cpm-ant", "{input}{option}[是否正确]", keep_end=("input",)),),
    metrics=("accuracy",),
    recipe={"lr": 5e-3, "max_length": 512, "batch_size": 16, "epochs": 20, "patience": 10},
    sample_recipe={"lr": 2e-2, "batch_size": 32, "max_length": 256},
    protocol=(
        "A row has a finished prompt, 2 to 20 options and the number of the right one from 0. "
        "Each option is placed after the prompt, followed by [是否正确], and the highest logit of "
        "是 decides, as in CPM-Ant's own code. A prompt that is too long loses its beginning. "
        'Records of CPM-Bee are read too: "options" by name (<option_0> and so on) and the '
        'name of the right one as "<ans>"; their other fields become the prompt, one field as it '
        "is, several as lines 名：值. Sample data: lines of verse, as in ccpm."
    ),
)
