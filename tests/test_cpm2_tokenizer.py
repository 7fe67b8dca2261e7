"""CPM-2's tokenizers against a naive reading of their definition."""

from __future__ import annotations

import unicodedata
from pathlib import Path

import jieba
import pytest
from cpm2_vocabulary import vocabulary
from hypothesis import example, given, settings
from hypothesis import strategies as st

from cpm_tune.backbone.encdec.cpm2_tokenizer import BilingualTokenizer, CPM2Tokenizer
from cpm_tune.errors import UserError

CHINESE, BILINGUAL = vocabulary(), vocabulary(bilingual=True)
CHARACTERS = "今天气北京大学abche10. ,，：？\n\r\t　ａ１～？▂▃<s_>#😀"
TEXTS = st.text(st.sampled_from(CHARACTERS), max_size=30)


@pytest.fixture(scope="module", autouse=True)
def _cache_of_its_own(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="module")
def words(tmp_path_factory):
    segmenter = jieba.Tokenizer()
    segmenter.tmp_dir = str(tmp_path_factory.mktemp("jieba"))
    return segmenter


def half_width(character: str) -> str:
    """Unicode's compatibility form of a full-width sign, which is what the rule amounts to."""
    wide = 0xFF01 <= ord(character) <= 0xFF5E or character == "\u3000"
    kept = character in "，。！（）？、；："
    return unicodedata.normalize("NFKC", character) if wide and not kept else character


def chinese(text: str) -> bool:
    return text == "▂" or any("\u4e00" <= character <= "\u9fff" for character in text)


def naive(text: str, lines: list[str], words: jieba.Tokenizer) -> list[str]:
    """The entries of a text: by a full scan of the vocabulary at every place."""
    two = "<go>" in lines
    if not two:
        text = "".join(map(half_width, text))
    entries: list[str] = []
    for word in words.cut(text):
        word = word.replace(" ", "▂").replace("\n", "▃")
        begins = True
        while word:
            taken = 0
            for entry in lines:
                inside = two and not begins and not chinese(entry)
                part = entry.removeprefix("##") if inside and entry.startswith("##") else entry
                if inside and not entry.startswith("##"):
                    continue
                if word.startswith(part) and len(part) > taken:
                    taken, best = len(part), entry
            entries.append(best if taken else "<unk>")
            word, begins = word[taken or 1 :], False
    if not two:
        return entries
    kept = []
    for place, entry in enumerate(entries):
        ends = place in (0, len(entries) - 1)
        around = [] if ends else [entries[place - 1], entries[place + 1]]
        if ends or entry != "▂" or any(map(chinese, around)):
            kept.append(entry)
    return kept


@pytest.mark.parametrize("lines", [CHINESE, BILINGUAL], ids=["chinese", "bilingual"])
@given(TEXTS)
@example("hello  hello，北京abc hello\r\nab")
@example("a b中 c")
@settings(max_examples=200, deadline=None)
def test_ids_are_those_of_a_naive_reading(lines, words, text) -> None:
    tokenizer = CPM2Tokenizer.from_lines(lines)
    ids = tokenizer.encode(text)
    assert [lines[index] for index in ids] == naive(text, lines, words)
    assert len(tokenizer.unknown(text)) >= (tokenizer.unk in ids)
    assert "".join(tokenizer.pieces(ids)) == tokenizer.decode(ids)


def test_full_width_signs_are_read_as_half_width_ones_but_for_nine() -> None:
    tokenizer = CPM2Tokenizer.from_lines(CHINESE)
    assert tokenizer.encode("ａ１．　（？") == tokenizer.encode("a1. （？")
    assert tokenizer.encode("（？") != tokenizer.encode("(?")
    assert tokenizer.decode(tokenizer.encode("今天 北京\n好")) == "今天 北京\n好"


def test_a_space_between_english_words_is_left_out_and_put_back() -> None:
    tokenizer = CPM2Tokenizer.from_lines(BILINGUAL)
    for text in ("hello hello", "abc", "北京 hello 今天", "helloing ab北京abc", "", "天"):
        assert tokenizer.decode(tokenizer.encode(text)) == text
    assert len(tokenizer.encode("hello hello")) == 2
    assert len(tokenizer.encode("北京 hello")) == 3


def test_a_word_of_more_than_200_characters_is_unknown() -> None:
    for lines in (CHINESE, BILINGUAL):
        tokenizer = CPM2Tokenizer.from_lines(lines)
        assert tokenizer.encode("a" * 201) == [tokenizer.unk]
        assert tokenizer.unknown("a" * 201 + "鑫") == ["a" * 10 + "…", "鑫"]


def test_special_entries_are_at_their_places_and_never_read_from_text() -> None:
    for lines, kind in ((CHINESE, CPM2Tokenizer), (BILINGUAL, BilingualTokenizer)):
        tokenizer = CPM2Tokenizer.from_lines(lines)
        assert type(tokenizer) is kind
        assert (tokenizer.unk, tokenizer.bos, tokenizer.pad, tokenizer.mask) == (0, 1, 5, 6)
        assert [lines[index] for index in tokenizer.sentinels] == [f"<s_{i}>" for i in range(12)]
        assert (lines[tokenizer.eos], tokenizer.entries[tokenizer.newline]) == ("<s_1>", "\n")
        never = {lines[index] for index in tokenizer.never_written}
        assert never == {line for line in lines if line[0] == "<" and line[1:]} - {"<s_1>"}
        text = "".join(never)
        assert not {*tokenizer.encode(text)} & {*tokenizer.never_written} - {tokenizer.unk}
        assert len(tokenizer) == len(lines) == len(tokenizer.entries)
    assert CPM2Tokenizer.from_lines(CHINESE).sha256 != tokenizer.sha256


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        ([], "its entry 0 is nothing, CPM-2's is <unk>"),
        (["<pad>", *CHINESE], "its entry 0 is '<pad>', CPM-2's is <unk>"),
        ([*CHINESE[:10], "x", *CHINESE[11:]], "its entry 10 is 'x', CPM-2's is ▂"),
        ([*CHINESE, "的"], "entry '的' occurs twice"),
        ([*CHINESE[:20], " ", *CHINESE[20:]], "line 21 is empty"),
        (CHINESE[:-11], "sentinels <s_0> and <s_1> are missing"),
    ],
)
def test_another_vocabulary_is_refused_in_a_sentence(tmp_path: Path, lines, words) -> None:
    file = tmp_path / "vocab.txt"
    file.write_text("\n".join(lines), encoding="utf-8")
    with pytest.raises(UserError) as caught:
        CPM2Tokenizer.from_file(file)
    assert str(caught.value).startswith(f"{file}: not a CPM-2 vocabulary: ")
    assert words in str(caught.value)
