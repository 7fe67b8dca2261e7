"""WantWords: which word does a definition describe? (Zhang et al., AAAI 2020)"""

from collections.abc import Iterator, Sequence
from typing import Any

from cpm_tune.task import Files, Generate, Row, Source, Submission, Task, Template


def rows(record: Any) -> Iterator[Row]:
    """One row; the project's own files say "definitions", and leave some of them empty."""
    definition = record["definitions"] if "definitions" in record else record["definition"]
    if not isinstance(definition, str):
        raise TypeError(f"the definition is {definition!r}, expected text")
    word = record.get("word") or None
    if definition.strip():
        yield {"definition": definition, "word": word}


def fill(record: Any, predictions: Sequence[Any]) -> Any:
    """The official record with the generated words, best first."""
    return {**record, "word": predictions[0] if predictions else ""}  # an empty definition


def read_words(record: Any, official: Any, rows: Sequence[Row]) -> list[list[str]]:
    """The submitted words of a definition, best first; a single one is a list of one."""
    key = "definitions" if "definitions" in official else "definition"
    if record[key] != official[key]:
        raise ValueError("the definition differs from the official one")
    words = [record["word"]] if isinstance(record["word"], str) else record["word"]
    return [words] * len(rows)


TASK = Task(
    name="wantwords",
    version=1,
    capability="information acquisition and question answering",
    kind="reverse dictionary",
    suites=("cuge",),
    source=Source(
        title="Multi-channel Reverse Dictionary Model",
        paper="https://arxiv.org/abs/1912.08441",
        licence="not stated",
        obtain="CUGE's WantWords.zip; keep the files' names",
        sizes=(78_000, 19_000, 19_000),
    ),
    files=Files(columns=("definition", "word"), rows=rows),
    answer=Generate(column="word", max_new_tokens=8, beams=10, n_best=10),
    templates=(Template("cpm-ant", "释义：{definition}词语：{answer}"),),
    metrics=("accuracy_at_1", "accuracy_at_10", "accuracy_at_100", "median_rank"),
    recipe={"lr": 5e-3, "batch_size": 32, "max_length": 256, "epochs": 20, "dev_rows": 1_000},
    sample_recipe={"lr": 6e-2, "batch_size": 16, "epochs": 15},
    protocol=(
        "Beam search generates the word, and the finished beams are its candidates; published "
        "systems rank a closed vocabulary instead. With the default 10 beams, accuracy_at_100 "
        "equals accuracy_at_10, and a word outside them has rank 1001 in median_rank. For the "
        "official measures, pass --set decode.beams=100 --set decode.n_best=100. Rows are "
        '{"definition", "word"}, or {"word", "definitions"} as in the files of the model\'s '
        "project, whose empty definitions are skipped as its code does."
    ),
    submission=Submission("WantWords.jsonl", fill, read=read_words),
)
