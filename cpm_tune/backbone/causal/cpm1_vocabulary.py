"""Trains a vocabulary in CPM-1's form: a sentencepiece unigram model over jieba's words, with the
special entries at CPM-1's places."""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator

from cpm_tune.backbone.causal.cpm1_tokenizer import PUBLISHED, written
from cpm_tune.common.segmenter import make_segmenter
from cpm_tune.errors import UserError

_COVERAGE = 0.9995  # of the characters of the text; the required ones come on top
_LONGEST = 4000  # characters that sentencepiece sees as one sentence
_PIECE = b"\x0a"  # the key of a piece, field 1, in the file of a model


def train(texts: Iterable[str], size: int, required: str) -> bytes:
    """The file of a sentencepiece model with at most `size` entries, `required` characters among
    them. The same texts give the same file.

    Raises UserError if the texts are too few, or `size` too small for their characters.
    """
    import sentencepiece

    signs = [entry for entry in PUBLISHED if not entry.startswith("<")]
    control = [entry for entry in PUBLISHED if entry[0] == "<" and PUBLISHED[entry] > 2]
    file = io.BytesIO()
    try:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=_sentences(texts),
            model_writer=file,
            vocab_size=size,
            model_type="unigram",
            control_symbols=control,
            user_defined_symbols=signs,
            required_chars="".join(dict.fromkeys(required)),
            character_coverage=_COVERAGE,
            max_sentence_length=4 * _LONGEST,
            hard_vocab_limit=False,
            num_threads=1,
            minloglevel=2,
        )
    except (RuntimeError, ValueError) as error:
        raise UserError(
            f"--size {size}: sentencepiece cannot train a vocabulary of this text "
            f"({_reason(error)}). Give more text, or another --size."
        ) from error
    return _placed(file.getvalue())


def _sentences(texts: Iterable[str]) -> Iterator[str]:
    """Texts as the tokenizer gives them to sentencepiece, in parts that are not too long."""
    cut = make_segmenter().cut
    for text in texts:
        for start in range(0, len(text), _LONGEST):
            yield written(cut(text[start : start + _LONGEST]))


def _reason(error: Exception) -> str:
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return lines[-1].rpartition("] ")[2][:200]


def _placed(model: bytes) -> bytes:
    """The same model with its pieces in an order that gives the special ones their places."""
    fields = list(_fields(model))
    pieces = [field for field in fields if field[:1] == _PIECE]
    by_name = {name: piece for piece in pieces if (name := _name(piece)) in PUBLISHED}
    others = iter([piece for piece in pieces if _name(piece) not in PUBLISHED])
    at = {index: by_name[name] for name, index in PUBLISHED.items()}
    ordered = [at[n] if n in at else next(others) for n in range(len(pieces))]
    return b"".join([*ordered, *(field for field in fields if field[:1] != _PIECE)])


def _name(piece: bytes) -> str:
    """What a piece is written as: field 1 of its message."""
    _, start = _number(piece, 1)
    length, first = _number(piece, start + 1)
    return piece[first : first + length].decode()


def _fields(message: bytes) -> Iterator[bytes]:
    """The fields of a message of protocol buffers that has messages alone, each with its key."""
    at = 0
    while at < len(message):
        length, first = _number(message, at + 1)
        yield message[at : first + length]
        at = first + length


def _number(message: bytes, at: int) -> tuple[int, int]:
    """The number (base 128, lowest digits first) that begins at a place, and where it ends."""
    number = shift = 0
    while True:
        byte = message[at]
        number |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if byte < 0x80:
            return number, at
