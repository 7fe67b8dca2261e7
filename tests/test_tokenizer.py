"""The tokenizer against a naive reading of its definition: jieba words, greedy longest match."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import jieba
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from cpm_tune.backbone.ant.tokenizer import SPECIALS, Tokenizer
from cpm_tune.errors import UserError

REAL = Path(__file__).resolve().parents[1].parent / "shared" / "data" / "vocab" / "ant.txt"
SMALL = (
    *("<pad>", "<unk>", "<mask>", "</n>", "</_>", "<s>", "</s>", "<d>", "</d>"),
    *"abcdehlo019ABZ.,!?+#&_%-/<>",
    *("ab", "abc", "he", "hello", "helloo", "10", "0.1"),
    *"今天气是个好日子我们中国人民大学生爱北京上海的了，。？！：；“”（）…—％～１",
    *(
        "今天",
        "天气",
        "今天天气",
        "北京",
        "北京大学",
        "大学生",
        "京大",
        "人民",
        "中国人",
        "……",
        "——",
    ),
    "😀",
)


@pytest.fixture(scope="module", autouse=True)
def _cache_of_its_own(tmp_path_factory):
    """Keep jieba's caches, ours and the oracle's, out of the user's folders."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="module")
def words(tmp_path_factory):
    """A segmenter that owes nothing to the tokenizer's."""
    segmenter = jieba.Tokenizer()
    segmenter.tmp_dir = str(tmp_path_factory.mktemp("jieba"))
    return segmenter


@pytest.fixture(scope="module")
def small():
    return Tokenizer(SMALL)


@pytest.fixture(scope="module")
def real():
    if not REAL.is_file():
        pytest.skip("the vocabulary ant.txt is not here")
    return Tokenizer.from_file(REAL)


def naive_ids(text, entries, words):
    """Cut, then take the longest entry that the rest of the word starts with, by a full scan."""
    meant = [{"</_>": " ", "</n>": "\n"}.get(entry, entry) for entry in entries]
    unknown = meant.index("<unk>")
    ids = []
    for word in words.cut(text):
        if len(word) > 200:
            ids.append(unknown)
            continue
        while word:
            length, index = max(
                ((len(e), i) for i, e in enumerate(meant) if word.startswith(e)),
                default=(1, unknown),
            )
            ids.append(index)
            word = word[length:]
    return ids


def letters(entries):
    """Every single character that the vocabulary can write."""
    return "".join(e for e in entries if len(e) == 1) + " \n"


UNKNOWN = "龘魑zQ9*@\t\r　é😂👨\u200d\u3000ﬁ"
MIXED = st.text(
    st.one_of(
        st.sampled_from(letters(SMALL)),
        st.sampled_from(UNKNOWN),
        st.characters(min_codepoint=0x4E00, max_codepoint=0x9FFF),
        st.characters(min_codepoint=0x20, max_codepoint=0x7E),
        st.characters(min_codepoint=0xFF01, max_codepoint=0xFF5E),
        st.characters(min_codepoint=0x1F300, max_codepoint=0x1F64F),
    ),
    max_size=60,
)
PHRASES = st.lists(
    st.sampled_from([e for e in SMALL if e not in SPECIALS] + [" ", "\n", "\r\n", "x" * 60, "<s>"]),
    max_size=30,
).map("".join)


CHARACTERS = tuple(entry for entry in SMALL if len(entry) == 1 or entry.startswith("<"))
WORDS = tuple(dict.fromkeys((*CHARACTERS, *"天地玄黄Savethfil", "</n>", "</_>", "the", "Save")))


@pytest.mark.parametrize("entries", [SMALL, CHARACTERS, WORDS], ids=["both", "characters", "words"])
@given(text=st.one_of(MIXED, PHRASES))
@settings(max_examples=300, deadline=None)
@example(text="Save the file。\n天地 the 玄黄\n\n龘")
@example(text="天" * 250)
@example(text="save,the")
@example(text="今天\u2028天气\x1c是\x0b好\x85日\r子\r\n")
def test_encode_equals_the_naive_definition(words, entries, text):
    assert Tokenizer(entries).encode(text) == naive_ids(text, entries, words)


@given(text=st.text(st.sampled_from(letters(SMALL)), max_size=120))
@settings(max_examples=200, deadline=None)
def test_decode_inverts_encode_for_text_within_the_vocabulary(small, text):
    assert small.decode(small.encode(text)) == text


@pytest.mark.parametrize(
    ("text", "entries"),
    [
        ("", []),
        (" ", ["</_>"]),
        ("\n", ["</n>"]),
        ("a \n", ["a", "</_>", "</n>"]),
        ("\t", ["<unk>"]),
        ("\r\n", ["<unk>", "</n>"]),
        ("龘", ["<unk>"]),
        ("zzab", ["<unk>", "<unk>", "ab"]),
        ("😂😀", ["<unk>", "😀"]),
        ("hellooo", ["helloo", "o"]),
        ("helab", ["he", "l", "ab"]),
        ("<s>", ["<", "<unk>", ">"]),  # the word s: a special entry is never read out of a text
        ("a" * 200, ["a"] * 200),
        ("a" * 201, ["<unk>"]),
        ("z" * 201, ["<unk>"]),
        ("abc " + "a" * 300 + "！", ["abc", "</_>", "<unk>", "！"]),
    ],
)
def test_a_text_becomes_these_entries(small, text, entries):
    assert small.encode(text) == [SMALL.index(entry) for entry in entries]


def test_a_match_never_crosses_the_words_of_jieba(small, words):
    text = "我爱北京大学生"
    assert list(words.cut(text)) == ["我", "爱", "北京", "大学生"]
    assert "北京大学" in SMALL  # the longest match, were there no words
    expected = [SMALL.index(entry) for entry in ("我", "爱", "北京", "大学生")]
    assert small.encode(text) == expected


def test_a_special_entry_is_never_encoded_from_text(small):
    specials = {SMALL.index(s) for s in SPECIALS} - {small.unk}
    assert specials.isdisjoint(small.encode("".join(SPECIALS) + " ".join(SPECIALS)))


def test_ids_are_line_numbers_and_blank_lines_do_not_count(tmp_path):
    file = tmp_path / "vocab.txt"
    file.write_text("\n\n".join(SMALL) + "\n\n", encoding="utf-8")
    tokenizer = Tokenizer.from_file(file)
    assert len(tokenizer) == len(SMALL)
    assert tokenizer.encode("今天") == [SMALL.index("今天")]
    found = (tokenizer.pad, tokenizer.unk, tokenizer.bos, tokenizer.eos)
    assert found == tuple(SMALL.index(s) for s in ("<pad>", "<unk>", "<s>", "</s>"))
    assert tokenizer.decode(range(len(SMALL))) == "".join(
        {"</_>": " ", "</n>": "\n"}.get(entry, entry) for entry in SMALL
    )


def test_windows_line_ends_change_no_entry(tmp_path, small):
    file = tmp_path / "vocab.txt"
    file.write_bytes("\r\n".join(SMALL).encode())
    assert Tokenizer.from_file(file).ids == small.ids


def test_decode_refuses_an_id_outside_the_vocabulary(small):
    with pytest.raises(KeyError):
        small.decode([0, len(SMALL)])


@pytest.mark.parametrize("special", SPECIALS)
def test_a_missing_special_entry_is_refused(special):
    with pytest.raises(ValueError, match=f"'{special}' is missing"):
        Tokenizer(entry for entry in SMALL if entry != special)


@pytest.mark.parametrize("entry", ["今天", "<s>", "</_>", "a"])
def test_an_entry_that_is_there_twice_is_refused(entry):
    with pytest.raises(ValueError, match=f"'{entry}' occurs twice"):
        Tokenizer((*SMALL, entry))


@pytest.mark.parametrize(
    "content",
    ["", "\n".join(SMALL[1:]), "\n".join((*SMALL, "今天")), b"<pad>\n\xff\xfe\n"],
    ids=["empty", "missing special", "duplicate", "not UTF-8"],
)
def test_a_wrong_vocabulary_file_is_a_user_error_that_names_it(tmp_path, content):
    file = tmp_path / "ant.txt"
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(UserError) as caught:
        Tokenizer.from_file(file)
    assert str(caught.value).startswith(f"{file}: ")
    assert "\n" not in str(caught.value)


def test_an_absent_vocabulary_file_is_a_user_error_that_names_it(tmp_path):
    with pytest.raises(UserError, match=r"nowhere\.txt"):
        Tokenizer.from_file(tmp_path / "nowhere.txt")


FIRST_USE = """
from pathlib import Path
from cpm_tune.backbone.ant.tokenizer import Tokenizer
from cpm_tune.common.paths import cache_dir
tokenizer = Tokenizer(["<d>", "</d>", "<s>", "</s>", "<pad>", "<unk>", "天", "天地"])
assert tokenizer.encode("天天") == [6, 6]
assert (cache_dir("jieba") / "jieba.cache").is_file()
"""


def test_first_use_is_silent_and_caches_in_our_folder_only(tmp_path):
    cache, scratch = tmp_path / "cache", tmp_path / "tmp"
    scratch.mkdir()
    places = {"XDG_CACHE_HOME": str(cache), "TMPDIR": str(scratch), "TEMP": str(scratch)}
    done = subprocess.run(
        [sys.executable, "-c", FIRST_USE],
        env={**os.environ, **places},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert list(scratch.iterdir()) == []


# --- the published vocabulary, where it is at hand ---


def test_the_real_vocabulary_has_its_published_size_and_specials(real):
    lines = REAL.read_text(encoding="utf-8").split("\n")
    assert len(real) == 30720
    assert real.encode(" \n") == [lines.index("</_>"), lines.index("</n>")]
    assert (real.bos, real.eos) == (lines.index("<s>"), lines.index("</s>"))
    assert (real.pad, real.unk) == (lines.index("<pad>"), lines.index("<unk>"))


REAL_TEXT = (
    "今天天气真好，我们去北京大学看看吧！",
    "Transformer 模型 (2017)：Attention is all you need.\n\n第二段　全角空格",
    "😀表情、生僻字龘，ｆｕｌｌ－ｗｉｄｔｈ１２３，https://example.com/a?b=1&c=2",
    "小明有3.14个苹果，吃了50%，还剩多少？x=3.14*(1-50%)",
    "山重水复疑无路，柳暗花明又一村。——陆游《游山西村》……",
    "z" * 201 + " " + "好" * 250,
)


@pytest.mark.parametrize("text", REAL_TEXT)
def test_the_real_vocabulary_encodes_by_the_naive_definition(real, words, text):
    entries = [line.strip() for line in REAL.read_text(encoding="utf-8").split("\n")][:30720]
    assert real.encode(text) == naive_ids(text, entries, words)


@given(data=st.data())
@settings(max_examples=100, deadline=None)
def test_decode_inverts_encode_for_any_text_of_real_entries(real, data):
    known = sorted(e for e in real.ids if len(e) == 1)
    text = data.draw(st.text(st.sampled_from(known), max_size=80))
    assert real.decode(real.encode(text)) == text
