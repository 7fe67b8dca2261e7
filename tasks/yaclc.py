"""YACLC: correct the sentences of learners of Chinese (Wang et al., 2021)"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from cpm_tune.data.readers import lines, records
from cpm_tune.metrics.edits import edits
from cpm_tune.task import BadRow, Files, Generate, Row, Source, Submission, Task, Template

COLUMNS = ("text", "gold", "correction")
ALIASES = {"sentence_annos": "gold"}


def read(paths: tuple[Path, ...], split: str) -> Iterator[tuple[str, Any]]:
    """The official records; of a text file, which only a submission can be, each line's text."""
    for path in paths:
        if path.suffix == ".txt":
            yield from _texts(path)
        else:
            optional = ("gold", "correction") if split == "test" else ()
            yield from records(path, COLUMNS, ALIASES, optional)


def _texts(path: Path) -> Iterator[tuple[str, Any]]:
    """The lines without whitespace, as THULAC's words are separated by it; empty lines at the end
    do not count."""
    empty: list[tuple[str, Any]] = []
    for where, line in lines(path):
        text = line if isinstance(line, BadRow) else "".join(line.split())
        empty.append((where, text))
        if text:
            yield from empty
            empty = []


def rows(record: Any) -> list[Row]:
    """The sentence with its grammatical corrections; without any it is right."""
    text, annotations = record["sentence_text"].strip(), record.get("sentence_annos")
    if not text:
        raise ValueError("the sentence is empty")
    if annotations is None:
        return [{"text": text}]
    if not isinstance(annotations, list):
        raise TypeError(f"'sentence_annos' is {type(annotations).__name__}, expected a list")
    for number, annotation in enumerate(annotations, start=1):
        if annotation.get("is_grammatical", 1) not in (0, 1):
            value = annotation["is_grammatical"]
            raise ValueError(f"correction {number}: is_grammatical is {value!r}, expected 0 or 1")
    given = [a for a in annotations if a.get("is_grammatical", 1)]
    ranked = sorted(given, key=lambda a: (-a.get("annotator_count", 1), a.get("edits_count", 0)))
    corrections = list(dict.fromkeys(a["correction"].strip() for a in ranked)) or [text]
    if not all(corrections):
        raise ValueError("a correction is empty")
    alternatives = [[list(edit) for edit in edits(text, c)] for c in corrections]
    gold = {"source": text, "edits": alternatives}
    return [{"text": text, "gold": gold, "correction": corrections[0]}]


def parse(text: str, row: Row) -> str | None:
    """The generated text; an empty one is no correction."""
    return text.strip() or None


def fill(record: Any, predictions: Sequence[Any]) -> Any:
    """The record with the predicted correction as its only annotation."""
    text, corrected = record["sentence_text"].strip(), _corrected(record, predictions)
    annotation = {"is_grammatical": 1, "correction": corrected}
    annotation |= {"edits_count": len(edits(text, corrected)), "annotator_count": 1}
    return {**record, "sentence_annos": [annotation]}


def _corrected(record: Any, predictions: Sequence[Any]) -> str:
    """The predicted correction; what could not be parsed changes nothing."""
    return predictions[0] or record["sentence_text"].strip()


def read_correction(record: Any, official: Any, answered: Sequence[Row]) -> list[str | None]:
    """The correction in a submitted record, or the line of a text file."""
    if isinstance(record, str):
        return [record]
    (submitted,), (row,) = rows(record), answered
    if submitted["text"] != row["text"]:
        raise ValueError(
            f"'text' is '{submitted['text']}', in the data '{row['text']}'; keep the records and "
            "their order"
        )
    return [submitted.get("correction")]


TASK = Task(
    name="yaclc",
    version=2,
    capability="word-sentence",
    kind="grammatical error correction",
    suites=("cuge",),
    source=Source(
        title="YACLC: A Chinese Learner Corpus with Multidimensional Annotation",
        paper="https://arxiv.org/abs/2112.15043",
        licence="research use, on application; not to be passed on",
        obtain="apply to Beijing Language and Culture University, or CUGE's download page",
        sizes=(8_000, 1_000, 1_000),
        editions={"YACLC": (8_000, 1_000, 1_000)},
        checksums=dict.fromkeys(
            (
                "58463c3ff5944de8b88b9023e2b15ee61d24d0f019125d1b3595d942bc420d40",  # valid
                "0f78c5ed706d8238bbfe0f1ea40bb946e2411ace519525fad976f52ad5e0e62f",  # test_public
            ),
            "YACLC",
        ),
    ),
    files=Files(
        columns=COLUMNS,
        structures=("gold",),
        aliases=ALIASES,
        read=read,
        rows=rows,
    ),
    answer=Generate(column="correction", gold="gold", parse=parse, max_new_tokens=128),
    templates=(Template("cpm-ant", "病句：{text}改正：{answer}"),),
    metrics=("m2_f0.5", "m2_precision", "m2_recall"),
    recipe={"lr": 5e-3, "max_length": 320, "batch_size": 32, "epochs": 20, "patience": 10},
    sample_recipe={"lr": 2e-2, "max_length": 192, "max_new_tokens": 64},
    protocol=(
        "The model generates the corrected sentence, which is scored as the corpus' own M2 scorer "
        "does, on characters: its edits are those that agree best with the gold edits. The gold "
        "edits (difflib) are those of every different grammatical correction (is_grammatical 1). "
        "Fluency corrections (0) are ignored, and a sentence that has only those counts as right "
        "unchanged. A prediction is scored against the correction that raises F0.5 of the "
        "sentences so far most. The text to learn is the correction that most annotators gave, "
        "then the one with the fewest edits. The organisers score words of the segmenter THULAC "
        "against edits that they do not publish, so scores by characters are not comparable with "
        "theirs. Their form, a text file (.txt) with a line per sentence, is read as well, "
        "segmented or not, and written as YACLC.txt, not segmented. No recipe has been published "
        "for CPM-Ant."
    ),
    submission=Submission(
        "YACLC.jsonl", fill, read=read_correction, also=Submission("YACLC.txt", _corrected)
    ),
)
