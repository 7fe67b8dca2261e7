"""YACLC: correct the sentences of learners of Chinese (Wang et al., 2021)"""

from collections.abc import Sequence
from typing import Any

from cpm_tune.task import Files, Generate, Row, Source, Submission, Task, Template


def rows(record: Any) -> list[Row]:
    """The sentence with its grammatical corrections; without any it is right."""
    from cpm_tune.metrics.edits import edits

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
    return [{"text": text, "edits": alternatives, "correction": corrections[0]}]


def parse(text: str, row: Row) -> list[list[Any]] | None:
    """The edits that turn the sentence into the generated text."""
    from cpm_tune.metrics.edits import edits

    written = text.strip()
    return [list(edit) for edit in edits(row["text"], written)] if written else None


def fill(record: Any, predictions: Sequence[Any]) -> Any:
    """The record with the predicted correction as its only annotation."""
    corrected = record["sentence_text"].strip()
    edits = predictions[0] or []
    for start, end, replacement in reversed(edits):
        corrected = corrected[:start] + replacement + corrected[end:]
    annotation = {"is_grammatical": 1, "correction": corrected, "edits_count": len(edits)}
    return {**record, "sentence_annos": [{**annotation, "annotator_count": 1}]}


TASK = Task(
    name="yaclc",
    version=1,
    capability="word-sentence",
    kind="grammatical error correction",
    suites=("cuge",),
    source=Source(
        title="YACLC: A Chinese Learner Corpus with Multidimensional Annotation",
        paper="https://arxiv.org/abs/2112.15043",
        licence="research use, on application; not to be passed on",
        obtain="apply to Beijing Language and Culture University, or CUGE's download page",
        sizes=(8_000, 1_000, 1_000),
    ),
    files=Files(
        columns=("text", "edits", "correction"),
        structures=("edits",),
        aliases={"sentence_annos": "edits"},
        rows=rows,
    ),
    answer=Generate(column="correction", gold="edits", parse=parse, max_new_tokens=128),
    templates=(Template("cpm-ant", "病句：{text}改正：{answer}"),),
    metrics=("edit_f0.5", "edit_precision", "edit_recall"),
    recipe={"lr": 5e-3, "max_length": 320, "batch_size": 32, "epochs": 20, "patience": 10},
    sample_recipe={"lr": 2e-2, "max_length": 192, "max_new_tokens": 64},
    protocol=(
        "The model generates the corrected sentence, which is compared with the source as "
        "character edits (start, end, replacement). The gold edits are those of every different "
        "grammatical correction (is_grammatical 1). Fluency corrections (0) are ignored, and a "
        "sentence that has only those counts as right unchanged. A prediction is scored against "
        "the correction that it agrees with best. The text to learn is the correction that most "
        "annotators gave, then the one with the fewest edits. The corpus' own scorer, M2 on words "
        "of the segmenter THULAC, is neither in CUGE's files nor reproduced here, so scores by "
        "characters are not comparable with it. No recipe has been published for CPM-Ant."
    ),
    submission=Submission("YACLC.jsonl", fill),
)
