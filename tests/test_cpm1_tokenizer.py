"""CPM-1's tokenizer: the original's rule over sentencepiece, on a small model made here."""

from __future__ import annotations

import io
import random
from functools import cache
from pathlib import Path
from typing import Any

import jieba
import pytest
import sentencepiece
from hypothesis import given, settings
from hypothesis import strategies as st

from cpm_tune.backbone.causal.cpm1_tokenizer import CPM1Tokenizer, find_model
from cpm_tune.errors import UserError

TEXTS = [
    "今天天气不错，我们去公园散步。",
    "他做事认真，让人放心。",
    "清华大学在北京，模型有二十六亿参数。",
    "abc 12 def。\n春眠不觉晓",
    "“天气好吗”与“今天晴吗”的意思相似",
]


@cache
def small_model() -> bytes:
    """A sentencepiece model with CPM-1's signs in their places, trained on words as CPM-1's was."""
    words = [" ".join(jieba.cut(text.replace(" ", "▂").replace("\n", "▃"))) for text in TEXTS]
    file = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(words * 200),
        model_writer=file,
        vocab_size=110,
        model_type="unigram",
        control_symbols=["<cls>", "<sep>", "<pad>", "<mask>", "<eod>"],
        hard_vocab_limit=False,
        character_coverage=1.0,
        minloglevel=2,
    )
    return with_signs(file.getvalue())


def with_signs(raw: bytes) -> bytes:
    """▃ in the place of <cls>, as in CPM-1's file, and ▂ at its place."""
    from sentencepiece import sentencepiece_model_pb2

    model = sentencepiece_model_pb2.ModelProto()
    model.ParseFromString(raw)
    pieces = model.pieces
    for sign in ("▃", "▂"):
        if at := [i for i, piece in enumerate(pieces) if piece.piece == sign]:
            del pieces[at[0]]
    pieces[3].piece, pieces[3].type, pieces[3].score = "▃", 1, -3.0
    pieces.insert(10, type(pieces[0])(piece="▂", type=1, score=-3.0))
    changed: bytes = model.SerializeToString()
    return changed


@cache
def tokenizer() -> CPM1Tokenizer:
    return CPM1Tokenizer(small_model())


@cache
def model() -> Any:
    return sentencepiece.SentencePieceProcessor(model_proto=small_model())


def by_pieces(text: str) -> list[int]:
    """The original's rule: pieces as text, looked up in a table of the vocabulary."""
    table = {model().id_to_piece(i): i for i in range(len(model()))}
    signs = {" ": "▂", "\n": "▃"}
    words = ["".join(signs.get(c, c) for c in word) for word in jieba.cut(text)]
    return [table.get(piece, 0) for piece in model().encode(" ".join(words), out_type=str)]


def by_joining(ids: list[int]) -> str:
    """The original's rule: what sentencepiece decodes, without spaces, the signs put back."""
    pieces = ["▄" if i == 7 else model().id_to_piece(i) for i in ids]
    text = model().decode(pieces).replace(" ", "").replace("▂", " ").replace("▃", "\n")
    return str(text.replace("▄", "<eod>"))


SOME = [
    *TEXTS,
    *(
        "",
        " ",
        "\n",
        "  两个空格  ",
        "\t制表",
        "ＡＢ１２　全角",
        "<mask>不是特殊符号<eod>",
        "☃未知☃☃字",
    ),
    *("是", "选项0:", "ﬁé①", "▂▃▄▁", "a\r\nb", "字" * 300),
]


@pytest.mark.parametrize("text", SOME)
def test_texts_are_cut_as_the_original_cuts_them(text: str) -> None:
    assert tokenizer().encode(text) == by_pieces(text)


@settings(max_examples=200, deadline=None)
@given(st.text(alphabet="".join(TEXTS) + " \n☃<mask>eodＡ", max_size=40))
def test_any_text_is_cut_and_put_together_as_by_the_original(text: str) -> None:
    ids = tokenizer().encode(text)
    assert ids == by_pieces(text)
    assert tokenizer().decode(ids) == by_joining(ids)


@settings(max_examples=200, deadline=None)
@given(st.lists(st.integers(0, 108), max_size=20))
def test_any_ids_are_decoded_as_by_the_original(ids: list[int]) -> None:
    ids = [i for i in ids if i < len(tokenizer())]
    assert tokenizer().decode(ids) == by_joining(ids)


@pytest.mark.parametrize("text", TEXTS)
def test_a_text_within_the_vocabulary_comes_back(text: str) -> None:
    half_width = text.replace("，", ",")  # nmt_nfkc
    assert tokenizer().decode(tokenizer().encode(text)) == half_width
    assert tokenizer().unknown(text) == []


def test_special_entries_have_the_published_ids_and_are_never_read_from_text() -> None:
    made = tokenizer()
    assert (made.unk, made.sep, made.pad, made.mask, made.eos) == (0, 4, 5, 6, 7)
    assert made.newline == 3
    assert made.encode("\n")[-1] == 3
    assert made.encode(" ")[-1] == 10
    special = {0, 1, 2, 4, 5, 6, 7}
    assert special.isdisjoint(set(made.encode("<s></s><sep><pad><mask><eod>")) - {0})
    assert set(made.never_written) == special - {7}
    assert made.unknown("今天☃") == ["☃"]
    assert len(made) == len(made.entries) == len(model())
    with pytest.raises(KeyError):
        made.decode([len(made)])


def test_a_fingerprint_is_of_the_file() -> None:
    assert CPM1Tokenizer(small_model()).sha256 == tokenizer().sha256
    other = small_model() + b"\x1a\x00"  # an unknown field
    assert CPM1Tokenizer(other).sha256 != tokenizer().sha256


def test_what_is_not_cpm_1s_vocabulary_is_one_sentence(tmp_path: Path) -> None:
    file = tmp_path / "chinese_vocab.model"
    assert find_model(tmp_path) is None
    with pytest.raises(UserError, match="no vocabulary can be read there"):
        CPM1Tokenizer.from_file(file)
    raw = small_model()
    shifted = raw.replace(b"<sep>", b"<sex>")
    for content, words in (
        (b"", "an empty file"),
        (b"<html>", "not a sentencepiece model"),
        (raw[: len(raw) // 2], "not a sentencepiece model|its entry"),
        (shifted, "its entry 4 is '<sex>', CPM-1's is <sep>"),
        (b"\0" * (16 * 2**20 + 1), "larger than 16 MiB"),
    ):
        file.write_bytes(content)
        with pytest.raises(UserError, match=words) as caught:
            CPM1Tokenizer.from_file(file)
        assert "\n" not in str(caught.value)
    file.write_bytes(raw)
    assert find_model(tmp_path) == file
    assert CPM1Tokenizer.from_file(file).encode(TEXTS[0]) == tokenizer().encode(TEXTS[0])


def test_damaged_models_are_read_or_one_sentence(tmp_path: Path) -> None:
    file, raw = tmp_path / "spiece.model", small_model()
    sentences = []
    for seed in range(300):
        noise = random.Random(seed)
        made = bytearray(raw)
        for _ in range(noise.choice([1, 2, 10])):
            at = noise.randrange(len(made))
            if noise.random() < 0.5:
                made[at] = noise.randrange(256)
            else:
                del made[at : at + noise.choice([1, 40])]
        file.write_bytes(made)
        try:
            read = CPM1Tokenizer.from_file(file)
        except UserError as error:
            sentences.append(str(error))
        else:
            read.decode(read.encode(TEXTS[0]))
    assert sentences
    assert all("\n" not in sentence and len(sentence) < 500 for sentence in sentences)
