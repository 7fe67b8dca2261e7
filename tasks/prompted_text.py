"""Your own prompts with a text to write: {input, target} files, as CPM-Ant's preprocessed ones."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from cpm_tune.data.prompts import prompt_of
from cpm_tune.task import Files, Generate, Row, Source, Task, Template

ANSWER = "<ans>"  # CPM-Bee's name for the answer
MASK = re.compile(r"<mask_\d+>")


def rows(record: Any) -> Iterator[Row]:
    """One row of {input, target}; of a CPM-Bee record one row per blank, or one without blanks."""
    if not isinstance(record, dict):
        raise TypeError(f"found {type(record).__name__}, expected an object")
    if ANSWER not in record and "input" in record:
        yield record
        return
    answer = record.get(ANSWER)
    text = prompt_of({k: v for k, v in record.items() if k not in (ANSWER, "id")})
    if not isinstance(answer, Mapping):
        yield {"id": record.get("id"), "input": text, "target": answer}
        return
    for mask, written in answer.items():
        if not MASK.fullmatch(mask) or mask not in text:
            raise ValueError(f"{ANSWER} has a text for {mask!r}, which is no blank of the record")
        yield {"input": text.replace(mask, "____"), "target": written}


TASK = Task(
    name="prompted_text",
    version=1,
    capability="your own prompts",
    kind="prompt and text",
    source=Source(
        title="Files of finished prompts, such as CPM-Ant's preprocessed ones: "
        '{"input": …, "target": …}',
        paper="",
        licence="that of your files",
        obtain="your own train.jsonl, eval.jsonl and test.jsonl",
    ),
    files=Files(columns=("input", "target"), rows=rows),
    answer=Generate(column="target", max_new_tokens=64),
    templates=(Template("plain", "{input}{answer}", keep_end=("input",)),),
    metrics=("rouge_l_char_f", "bleu_4", "exact_match", "distinct_4"),
    recipe={"lr": 5e-3, "max_length": 512, "batch_size": 16, "epochs": 20, "patience": 10},
    sample_recipe={"lr": 2e-2, "batch_size": 32, "max_length": 256},
    protocol=(
        "A row has a finished prompt and the text to write after it; nothing is added to the "
        "prompt. A prompt that is too long loses its beginning. Records of CPM-Bee are read too: "
        'the value of "<ans>" is the text. Their other fields become the prompt, one field as '
        "it is, several as lines 名：值. If <ans> has texts for <mask_0>, <mask_1> and so on, "
        "each blank is a row, in which it is shown as ____ and the others as they are. Sample "
        "data: headlines, as in lcsts. Recipe and metrics are this project's; --set and a task "
        "file of your own change them."
    ),
)
