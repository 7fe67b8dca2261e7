"""Builds a vocabulary from sources of text, in the file format of a family's tokenizer."""

from __future__ import annotations

import random
import re
import tempfile
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

from cpm_tune.backbone.pretraining import Pretraining
from cpm_tune.common.folders import disk_trouble
from cpm_tune.common.segmenter import make_segmenter
from cpm_tune.common.writing import write_atomically
from cpm_tune.errors import UserError
from cpm_tune.pretrain.filters import is_han
from cpm_tune.pretrain.sources import TextSource, check_files, documents

ANSWER_CHARACTERS = "是否正确[]“”：，。？！、矛盾相似相同不同"  # of CPM-Ant's and CPM-2's prompts
PUNCTUATION = "，。、；：？！“”‘’「」『』（）《》〈〉【】〔〕…—～·￥％"
MAX_CHARACTERS = 50_000_000  # read of each source; more changes no frequency that matters
SAMPLE = 10_000_000  # characters that a trained vocabulary is made of
_LATIN = re.compile(r"[A-Za-z]{2,20}")
_LATIN_WORDS = 5_000


def required() -> str:
    """The characters of every vocabulary: ASCII, punctuation, and those of prompts."""
    ascii_characters = [chr(code) for code in range(0x21, 0x7F)]
    return "".join(dict.fromkeys([*ascii_characters, *PUNCTUATION, *ANSWER_CHARACTERS]))


def gb2312_level_1() -> str:
    """The 3,755 characters of everyday use, in the standard's order."""
    rows = (bytes((high, low)) for high in range(0xB0, 0xD8) for low in range(0xA1, 0xFF))
    return "".join(row.decode("gb2312", errors="ignore") for row in rows)


def build_vocabulary(
    sources: Sequence[TextSource],
    size: int,
    *,
    front: Sequence[str],
    back: Sequence[str] = (),
    words: int = 0,
    pieces: int = 0,
    cover: str = "",
    report: Callable[[str], None] = lambda text: None,
) -> list[str]:
    """Return `size` entries (fewer if the text has no more characters).

    In order: `front`, required characters, those of `cover`, then the most frequent characters,
    `words` Chinese words (as jieba cuts them, by the number of tokens they save) and `pieces` Latin
    words and parts of words (by byte-pair merging), `back`. Frequencies are relative to each source
    and weighted like it. Raises UserError if `size` is too small for what is required.
    """
    entries = dict.fromkeys([*front, *required()])
    entries |= dict.fromkeys(c for c in cover if not c.isspace())
    if (least := len(entries) + len(back)) + words + pieces > size:
        raise UserError(
            f"--size {size}: {least:,} entries are required, and --words and --pieces ask "
            f"for {words + pieces:,} more. Give a greater --size, or cover less text."
        )
    check_files(sources)
    tables: tuple[dict[str, float], ...] = tuple(defaultdict(float) for _ in range(3))
    for source in sources:
        _count(source, tables, make_segmenter() if words else None)
    characters, latin, chinese = tables
    latin_pieces = _merged_pieces(latin, pieces)
    chinese_words = _best({word: n * (len(word) - 1) for word, n in chinese.items()}, words)
    chosen = latin_pieces + chinese_words
    room = size - least - len(chosen)
    ranked = [c for c in _best(characters, len(characters)) if c not in entries][:room]
    covered = sum(characters.get(c, 0.0) for c in [*entries, *ranked])
    report(
        f"{len(characters):,} distinct characters; {len(ranked):,} chosen by frequency; "
        f"{covered / max(sum(characters.values()), 1e-9):.4%} of the weighted text is covered"
    )
    result = [*entries, *ranked, *chosen, *back]
    for option, asked, n in (
        ("pieces", pieces, len(latin_pieces)),
        ("words", words, len(chinese_words)),
        ("size", size, len(result)),
    ):
        if n < asked:
            report(f"note: --{option} {asked:,}: the text has no more than {n:,}.")
    return result


def train_vocabulary(
    kind: Pretraining, sources: Sequence[TextSource], size: int, cover: str = ""
) -> bytes | None:
    """The file of a vocabulary that the family trains, or None if it has entries.

    It is trained on documents drawn from each source in proportion to its weight, and has all
    required characters and those of `cover`.
    """
    check_files(sources)
    return kind.train(_sample(sources), size, required() + cover)


def _sample(sources: Sequence[TextSource]) -> Iterator[str]:
    """Documents with some SAMPLE characters, or all of a source that has no more."""
    total = sum(source.weight for source in sources)
    for number, source in enumerate(sources):
        characters = sum(len(document.text) for document in documents(source))
        share = SAMPLE * source.weight / total / max(1, characters)
        drawn = random.Random(number)
        yield from (d.text for d in documents(source) if drawn.random() < share)


def _count(source: TextSource, tables: Sequence[dict[str, float]], segmenter: Any | None) -> None:
    """Add the relative frequencies of a source's characters, Latin words and, with a segmenter,
    Chinese words to the three tables, times the source's weight."""
    characters: Counter[str] = Counter()
    latin: Counter[str] = Counter()
    chinese: Counter[str] = Counter()
    total = 0
    for document in documents(source):
        characters.update(document.text)
        latin.update(_LATIN.findall(document.text))
        if segmenter is not None:
            cut = segmenter.cut(document.text)
            chinese.update(word for word in cut if len(word) > 1 and is_han(word[0]))
        total += len(document.text)
        if total > MAX_CHARACTERS:
            break
    for table, counter in zip(tables, (characters, latin, chinese), strict=True):
        for key, n in counter.items():
            if not key.isspace():
                table[key] += n * source.weight / total


def _merged_pieces(words: Mapping[str, float], n: int) -> list[str]:
    """The first `n` results of byte-pair merging (Sennrich et al., 2016) over Latin words."""
    cuts = {word: list(word) for word in _best(words, _LATIN_WORDS)}
    merged: dict[str, None] = {}
    while len(merged) < n:
        pairs: dict[tuple[str, str], float] = defaultdict(float)
        for word, cut in cuts.items():
            for pair in pairwise(cut):
                pairs[pair] += words[word]
        if not pairs:
            break
        left, right = min(pairs, key=lambda pair: (-pairs[pair], pair))
        merged[left + right] = None
        for cut in cuts.values():
            at = 0
            while at < len(cut) - 1:
                if cut[at] == left and cut[at + 1] == right:
                    cut[at : at + 2] = [left + right]
                at += 1
    return list(merged)


def _best(scores: Mapping[str, float], n: int) -> list[str]:
    return sorted(scores, key=lambda word: (-scores[word], word))[:n]


def cover_text(paths: Iterable[Path]) -> str:
    """GB 2312's first level and every character above ASCII in the given text files."""
    texts = [gb2312_level_1()]
    for path in paths:
        try:
            texts.append(path.read_text(encoding="utf-8-sig"))
        except (OSError, UnicodeDecodeError) as error:
            raise UserError(f"--cover {path}: not readable as UTF-8 text ({error}).") from error
    return "".join(dict.fromkeys(c for c in "".join(texts) if ord(c) > 0x7F))


def new_file(path: Path) -> None:
    """Make sure, before the work, that a vocabulary can be written there; UserError if not."""
    try:
        if path.exists():
            raise UserError(f"--out {path} already exists. Choose another name.")
        path.parent.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=path.parent).close()  # nameless: a kill leaves nothing
    except OSError as error:
        raise UserError(f"--out {path}: cannot be written ({error.strerror}).") from error


def write(path: Path, content: bytes) -> None:
    """Write a vocabulary file; UserError if it cannot be written."""
    with disk_trouble(f"--out {path}", "make room, or choose another path"):
        write_atomically(path, content)
