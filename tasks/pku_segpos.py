"""PKU-SEGPOS: words and parts of speech of news sentences (Peking University's People's Daily)"""

import re
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from difflib import SequenceMatcher
from itertools import accumulate, pairwise
from typing import Any

from cpm_tune.task import Files, Generate, Row, Source, Submission, Task, Template

SENTENCE_END = re.compile("[。！？；]+[”’）』」]*")
TAGGED = re.compile(r"(?P<word>\S+)/(?P<tag>[A-Za-z]{1,4})")

Span = tuple[int, int, str]  # first and last character, tag


def rows(record: Any) -> Iterator[Row]:
    """One row per sentence of a record; without spans (or with none) it has no answers."""
    text, spans = "".join(record["tokens"]), _spans(record)
    for start, end in _sentences(text, spans):
        inside = [(a - start, b - start, tag) for a, b, tag in spans if start <= a < end]
        row: Row = {"text": text[start:end]}
        if spans:
            row |= {
                "spans": [list(span) for span in inside],
                "tagged": _tagged(text[start:end], inside),
            }
        yield row


def _spans(record: Any) -> list[Span]:
    """The official spans in characters, in order."""
    tokens = record["tokens"]
    starts = [0, *accumulate(map(len, tokens))]
    spans: list[Span] = []
    for number, span in enumerate(record.get("span_list") or (), start=1):
        first, last = span["start"], span["end"]
        if not isinstance(span["type"], str):
            raise ValueError(  # noqa: TRY004 (what rows() raises)
                f"span {number}: type is {span['type']!r}, expected text"
            )
        if not 0 <= first <= last < len(tokens):
            raise ValueError(f"span {number}, {first} to {last}, is not within the tokens")
        spans.append((starts[first], starts[last + 1] - 1, span["type"]))
    spans.sort()
    for before, after in pairwise(spans):
        if after[0] <= before[1]:
            raise ValueError(f"two spans overlap at character {after[0]}")
    return spans


def _sentences(text: str, spans: Sequence[Span]) -> Iterator[tuple[int, int]]:
    inside = {at for first, last, _ in spans for at in range(first + 1, last + 1)}
    start = 0
    for end in (*(match.end() for match in SENTENCE_END.finditer(text)), len(text)):
        if end not in inside and text[start:end].strip():
            yield start, end
            start = end


def _tagged(text: str, spans: Sequence[Span]) -> str:
    """word/tag with single spaces between; text without a tag is unchanged."""
    parts, at = [], 0
    for first, last, tag in spans:
        word = "".join(text[first : last + 1].split())
        parts += [text[at:first], f"{word}/{tag}"]
        at = last + 1
    return " ".join(" ".join(part.split()) for part in (*parts, text[at:]) if part.strip())


def parse(text: str, row: Row) -> list[list[Any]] | None:
    """The spans of the generated words in the source, without those that cannot be placed."""
    kept = [i for i, character in enumerate(row["text"]) if not character.isspace()]
    source = "".join(row["text"].split())
    written, words = "", []
    for part in text.split():
        match = TAGGED.fullmatch(part)
        word = match["word"] if match else part
        if match:
            words.append((len(written), len(written) + len(word), match["tag"]))
        written += word
    matcher = SequenceMatcher(None, written, source, autojunk=False)
    at = {a + i: b + i for a, b, n in matcher.get_matching_blocks() for i in range(n)}
    if not words or not at or 2 * len(at) < len(source):
        return None
    at |= {-1: -1, len(written): len(source)}
    spans = []
    for start, end, tag in words:
        first = at[start] if start in at else at.get(start - 1, len(source)) + 1
        last = at[end - 1] if end - 1 in at else at.get(end, 0) - 1
        if first <= last:
            spans.append([kept[first], kept[last], tag])
    return spans


def fill(record: Any, predictions: Sequence[Any]) -> Any:
    """The record with the predicted spans, in tokens."""
    text, spans = "".join(record["tokens"]), _spans(record)
    starts = list(accumulate(map(len, record["tokens"]), initial=0))
    sentences = _sentences(text, spans)
    entries = [
        {
            "start": bisect_right(starts, offset + first) - 1,
            "end": bisect_right(starts, offset + last) - 1,
            "type": tag,
        }
        for (offset, _), sentence in zip(sentences, predictions, strict=True)
        for first, last, tag in sentence or ()
    ]
    return {**record, "span_list": entries}


def read_spans(record: Any, official: Any, rows: Sequence[Row]) -> list[list[list[Any]]]:
    """The submitted spans of each of the official record's sentences, in characters."""
    text = "".join(official["tokens"])
    if "".join(record["tokens"]) != text:
        raise ValueError("the tokens differ from the official ones")
    spans = _spans(record)
    return [
        [[first - start, last - start, tag] for first, last, tag in spans if start <= first < end]
        for start, end in _sentences(text, _spans(official))
    ]


TASK = Task(
    name="pku_segpos",
    version=1,
    capability="word-sentence",
    kind="word segmentation and part-of-speech tagging",
    suites=("cuge",),
    source=Source(
        title="PKU-SEGPOS of CUGE: text of the People's Daily, tagged by Peking University",
        paper="https://arxiv.org/abs/2112.13610",
        licence="not stated",
        obtain="CUGE's download page; train, valid and test_public as .jsonline or .jsonl",
        sizes=(31_700, 5_200, 4_800),
    ),
    files=Files(
        columns=("text", "spans", "tagged"),
        structures=("spans",),
        aliases={"span_list": "spans"},
        rows=rows,
    ),
    answer=Generate(column="tagged", gold="spans", parse=parse, max_new_tokens=384, beams=1),
    templates=(Template("cpm-ant", "{text}分词和词性：{answer}"),),
    metrics=("span_f1", "span_precision", "span_recall"),
    recipe={"lr": 5e-3, "max_length": 640, "batch_size": 32, "epochs": 20, "patience": 10},
    sample_recipe={"lr": 2e-2, "max_length": 320, "max_new_tokens": 192},
    protocol=(
        "A record is prompted sentence by sentence (cut after 。！？； and closing marks, never "
        "inside a word), which does not change span F1 over the corpus. The model generates the "
        "words as word/tag with single spaces between them; they are scored as spans (first "
        "character, last character, tag). If the generated text without tags and spaces is not "
        "the source, the two are aligned (difflib). A word then extends from the place of its "
        "first character to that of its last. If one of them has no place, the word extends to "
        "the neighbouring word if that has one, and is dropped otherwise. If less than half of "
        "the source's characters are aligned, the answer is unparsed. Any tag is accepted as "
        "generated. An empty span_list means no answers. No recipe has been published for "
        "CPM-Ant."
    ),
    submission=Submission("PKUSEGPOS.jsonline", fill, read=read_spans),
)
