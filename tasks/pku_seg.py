"""PKU-SEG: put spaces between the words of news sentences (Emerson, SIGHAN bakeoff 2005)"""

import re
from collections.abc import Iterator, Sequence
from difflib import SequenceMatcher
from itertools import islice, pairwise
from pathlib import Path
from typing import Any

from cpm_tune.data.readers import lines
from cpm_tune.task import BadRow, Files, Generate, Row, Source, Submission, Task, Template

SENTENCE_END = re.compile("[。！？；]+[”’）』」]*")
HELD_OUT = 10  # icwb2 has no dev split: every tenth line of its training file is
LOOKED_AT = 200  # lines of a test file that tell whether it is segmented


def read(paths: tuple[Path, ...], split: str) -> Iterator[tuple[str, Any]]:
    """One sentence per line: {"words": [...]}, or {"text": ...} in a test file without answers.

    A test file has no answers if fewer than half of its first lines have a space between words.
    """
    for path in paths:
        raw = split == "test" and _is_raw(path)
        for number, (where, line) in enumerate(lines(path)):
            held_out = number % HELD_OUT == HELD_OUT - 1
            if path.name == "pku_training.utf8" and held_out != (split == "dev"):
                continue
            if isinstance(line, BadRow):
                yield where, line
            else:
                yield where, {"text": line} if raw else {"words": line.split()}


def _is_raw(path: Path) -> bool:
    texts = (line for _, line in lines(path) if isinstance(line, str) and line.strip())
    segmented = [len(line.split()) > 1 for line in islice(texts, LOOKED_AT)]
    return 2 * sum(segmented) < len(segmented)


def rows(record: Any) -> Iterator[Row]:
    """One row per sentence of a line; whitespace is not part of its text."""
    words = record.get("words")
    for units in _sentences(words or "".join(record.get("text", "").split())):
        row = {"text": "".join(units), "words": None, "segmented": None}
        yield {**row, "words": units, "segmented": " ".join(units)} if words else row


def _sentences(units: Sequence[str]) -> Iterator[list[str]]:
    """Words (or characters) up to each end of a sentence that is the end of a word."""
    ends = {match.end() for match in SENTENCE_END.finditer("".join(units))}
    sentence: list[str] = []
    length = 0
    for unit in units:
        sentence.append(unit)
        length += len(unit)
        if length in ends:
            yield sentence
            sentence = []
    if sentence:
        yield sentence


def parse(text: str, row: Row) -> list[str] | None:
    """The row's text in words: as generated, or with those boundaries that can be placed."""
    written, source = text.split(), row["text"]
    if "".join(written) == source:
        return written
    matcher = SequenceMatcher(None, "".join(written), source, autojunk=False)
    at = {a + i: b + i for a, b, n in matcher.get_matching_blocks() for i in range(n)}
    if 2 * len(at) < len(source) or not at:
        return None
    cuts, end = {0, len(source)}, 0
    for word in written:
        end += len(word)
        if end - 1 in at:
            cuts.add(at[end - 1] + 1)
        elif end in at:
            cuts.add(at[end])
    return [source[start:stop] for start, stop in pairwise(sorted(cuts))]


def fill(record: Any, predictions: Sequence[Any]) -> str:
    """The line, its words separated by two spaces; an unparsed sentence is one word."""
    sentences = [row["text"] for row in rows(record)]
    segmented = [words or [text] for words, text in zip(predictions, sentences, strict=True)]
    return "  ".join(word for words in segmented for word in words if isinstance(word, str))


def read_line(record: Any, official: Any, rows: Sequence[Row]) -> list[list[int | str]]:
    """The words of a line, sentence by sentence.

    A word over a sentence's end is one of the sentence where it begins; the next one has the number
    of the word's characters there in its place.
    """
    words = record.get("words") or record.get("text", "").split()
    if "".join(words) != "".join(row["text"] for row in rows):
        raise ValueError("the line without spaces differs from the official one")
    left, segmented = iter(words), []
    start = end = 0  # of the sentence; of the words so far
    for row in rows:
        stop = start + len(row["text"])
        sentence: list[int | str] = [min(end, stop) - start] if end > start else []
        while end < stop:
            sentence.append(word := next(left))
            end += len(word)
        segmented.append(sentence)
        start = stop
    return segmented


TASK = Task(
    name="pku_seg",
    version=1,
    capability="word-sentence",
    kind="word segmentation",
    suites=("cuge",),
    source=Source(
        title="The Second International Chinese Word Segmentation Bakeoff: Peking University",
        paper="https://aclanthology.org/I05-3017",
        licence="research use",
        obtain="icwb2-data.zip of the bakeoff, unpacked, or CUGE's train, valid and test files",
        sizes=(40_300, 10_500, 9_900),
    ),
    files=Files(
        columns=("text", "words", "segmented"),
        texts=("words",),
        names={
            "train": ("train.txt", "train.utf8", "pku_training.utf8", "training/pku_training.utf8"),
            "dev": (
                *(f"{stem}.{end}" for stem in ("dev", "valid", "eval") for end in ("txt", "utf8")),
                *("pku_training.utf8", "training/pku_training.utf8"),
            ),
            "test": (
                *("test.txt", "test.utf8", "test_public.txt", "test_public.utf8"),
                *("pku_test_gold.utf8", "gold/pku_test_gold.utf8"),
            ),
        },
        read=read,
        rows=rows,
    ),
    answer=Generate(column="segmented", gold="words", parse=parse, max_new_tokens=288, beams=1),
    templates=(Template("cpm-ant", "{text}分词结果：{answer}"),),
    metrics=("word_f1", "word_precision", "word_recall"),
    recipe={"lr": 5e-3, "max_length": 512, "batch_size": 32, "epochs": 20, "patience": 10},
    sample_recipe={"lr": 2e-2, "max_length": 256, "max_new_tokens": 128},
    protocol=(
        "A line is words separated by whitespace. It is prompted sentence by sentence (cut after "
        "。！？； and closing marks, never inside a word), which does not change word F1 over the "
        "corpus: counts are those of the bakeoff's script on whole lines. A word of a submission "
        "that extends over a sentence's end is one word, and wrong. The model generates the words "
        "with single spaces between them. If the generated text without spaces is not the source, "
        "the two are aligned (difflib). A boundary then goes after the source character aligned "
        "with the generated character before it, else before the one aligned with the character "
        "after it; otherwise it is dropped. If less than half of the source's characters are "
        "aligned, the answer is unparsed, and the sentence one word. Whitespace inside a sentence "
        "is ignored, as in the bakeoff's scorer. CUGE's 60.7k sentences are its own division, "
        "whose rule is not published; with the bakeoff's files, every tenth line of the training "
        "file goes to the dev split. No recipe has been published for CPM-Ant. Beam search would "
        "cost much and change little in a copy with spaces."
    ),
    submission=Submission("PKUSEG.txt", fill, read=read_line),
)
