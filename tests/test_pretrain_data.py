"""The parts of corpus preparation: sources, filters, the duplicate rule, the vocabulary."""

import json
import random

import pytest
from pretrain_runs import random_text

from cpm_tune.backbone.ant.pretraining import PRETRAINING as ANT
from cpm_tune.backbone.ant.tokenizer import SPECIALS, Tokenizer
from cpm_tune.errors import UserError
from cpm_tune.pretrain.dedup import SeenParagraphs, paragraph_hashes
from cpm_tune.pretrain.filters import Rules, WordList, clean, reason_to_drop
from cpm_tune.pretrain.sources import (
    TextSource,
    check_files,
    documents,
    read_sources,
    sources_of_files,
)
from cpm_tune.pretrain.vocabulary import ANSWER_CHARACTERS, build_vocabulary, cover_text

# --- the duplicate rule -------------------------------------------------------------------------


@pytest.mark.parametrize(("old", "duplicate"), [(7, False), (8, True), (10, True), (0, False)])
def test_a_document_is_dropped_only_above_seven_tenths_seen(old, duplicate):
    seen = SeenParagraphs()
    assert not seen.is_duplicate("\n".join(f"旧{i}" for i in range(10)))
    lines = [f"旧{i}" for i in range(old)] + [f"新{i}" for i in range(10 - old)]
    assert seen.is_duplicate("\n".join(lines)) is duplicate


def test_exactly_seven_tenths_is_kept_at_any_length():
    """In floating point, 0.7 * 90 is less than 63."""
    seen = SeenParagraphs()
    seen.add(paragraph_hashes("\n".join(f"旧{i}" for i in range(800))))
    for n in range(10, 1000, 10):
        for old in (n * 7 // 10 + 1, n * 7 // 10):
            lines = [f"旧{i}" for i in range(old)] + [f"新{n} {old} {i}" for i in range(n - old)]
            assert seen.is_duplicate("\n".join(lines)) is (10 * old > 7 * n), (old, n)


def test_a_dropped_document_adds_no_paragraphs_and_a_kept_one_adds_all():
    seen = SeenParagraphs()
    seen.is_duplicate("a\nb\nc\nd")
    assert seen.is_duplicate("a\nb\nc\nx")  # 75% seen
    assert seen.count_seen(paragraph_hashes("x")) == 0
    assert not seen.is_duplicate("a\nb\nx\ny")  # half seen
    assert seen.count_seen(paragraph_hashes("x\ny")) == 2


def test_a_document_is_not_a_duplicate_of_its_own_paragraphs():
    assert not SeenParagraphs().is_duplicate("同\n同\n同\n同")


def test_the_compact_set_agrees_with_a_python_set_across_merges():
    compact, plain, drawn = SeenParagraphs(recent=16), set(), random.Random(1)
    for _ in range(400):
        hashes = [drawn.randrange(2000) * 2**53 for _ in range(drawn.randrange(1, 9))]
        assert compact.count_seen(hashes) == sum(h in plain for h in hashes)
        compact.add(hashes)
        plain.update(hashes)
    assert len(compact) == len(plain)


# --- filters ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "rules", "reason"),
    [
        (random_text(1), Rules(), None),
        ("太短", Rules(), "too short"),
        (random_text(1), Rules(max_chars=20), "too long"),
        ("this is English, " * 3 + "中文", Rules(), "little Chinese"),
        ("一再重复的话。" * 30, Rules(), "repetition"),
        (random_text(2) + "\x07", Rules(), "control characters"),
        (random_text(2) + "\ufffd", Rules(), "control characters"),
        (random_text(2) + "\x07", Rules(max_control=0.1), None),
    ],
)
def test_each_rule_names_its_reason(text, rules, reason):
    assert reason_to_drop(text, rules) == reason


def test_lines_with_little_chinese_are_left_out():
    assert (
        clean("中文一行\n  \nls -l /tmp 列\n 又一行 ", Rules(min_line_han=0.5))
        == "中文一行\n又一行"
    )


def test_sensitive_words_of_any_length_are_found():
    words = WordList(["敏感", "很长的敏感词", ""])
    assert words.occur_in("这里有敏感内容")
    assert not words.occur_in("这里没有，敏 感")


# --- reading ------------------------------------------------------------------------------------


def test_text_files_hold_documents_between_blank_lines(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("一\n二\n\n\n三\n", encoding="utf-8")
    assert [d.text for d in documents(TextSource("a", (path,)))] == ["一\n二", "三"]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("empty.txt", b"", "contains no text"),
        ("blank.jsonl", b"\n\n", "contains no text"),
        ("binary.txt", b"abc\n\x00\x01", "binary.txt:2: a binary file"),
        ("latin.txt", "后".encode("gb18030"), "not UTF-8"),
        ("rows.jsonl", b'{"text": "a"}\n{"body": "b"}\n', "rows.jsonl:2: expected an object"),
        ("types.jsonl", b'{"text": 3}\n', "expected a string"),
        ("list.json", b'[{"text": "a"}]', "list.json:1: expected an object"),
        ("deep.jsonl", b"[" * 100_000, "deep.jsonl:1: expected an object"),
        ("wide.txt", "天".encode("utf-16"), "not UTF-8"),
    ],
)
def test_wrong_input_is_one_sentence_with_its_place(tmp_path, name, content, message):
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(UserError, match=message) as caught:
        list(documents(TextSource("x", (path,))))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "message"), [("nowhere.txt", "does not exist"), (".", "a folder")]
)
def test_files_are_checked_before_the_work(tmp_path, name, message):
    (tmp_path / "a.txt").write_text("天")
    with pytest.raises(UserError, match=message):
        check_files([TextSource("a", (tmp_path / "a.txt",)), TextSource("b", (tmp_path / name,))])


def test_an_endless_line_is_refused_without_being_read_whole(tmp_path, monkeypatch):
    monkeypatch.setattr("cpm_tune.pretrain.sources.MAX_DOCUMENT", 50)
    path = tmp_path / "long.txt"
    path.write_text("好\n" + "长" * 100, encoding="utf-8")
    with pytest.raises(UserError, match=r"long.txt:2: a line of more than 50 bytes"):
        list(documents(TextSource("a", (path,))))


def test_the_same_text_is_read_however_its_lines_end(tmp_path):
    plain, windows = tmp_path / "plain.txt", tmp_path / "windows.txt"
    plain.write_bytes("一\n二\n\n三\n".encode())
    windows.write_bytes("\ufeff一\r\n二\r\n\r\n三\r\n".encode())
    plain_texts, texts = (
        [d.text for d in documents(TextSource("a", (p,)))] for p in (plain, windows)
    )
    assert texts == plain_texts == ["一\n二", "三"]


def test_half_a_surrogate_pair_counts_as_a_lost_character(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text(json.dumps({"id": "\ud800", "text": random_text(1) + "\ud800"}))
    (document,) = documents(TextSource("a", (path,)))
    document.text.encode()
    document.id.encode()
    assert reason_to_drop(document.text, Rules()) == "control characters"


def test_a_word_list_may_have_a_byte_order_mark_and_windows_line_ends(tmp_path):
    path = tmp_path / "words.txt"
    path.write_bytes("\ufeff坏词\r\n\r\n恶语\r\n".encode())
    assert WordList.from_file(path).words == {"坏词", "恶语"}


def test_sources_settings_are_overridden_for_all_or_one(tmp_path):
    file = tmp_path / "sources.json"
    listed = {"a": {"files": ["a.txt"], "weight": 2}, "b.c": {"files": ["b.txt"]}}
    file.write_text(json.dumps({"sources": listed}))
    a, b = read_sources(file, {"b.c.weight": "3", "min_han": "0.1", "b.c.min_chars": "5"})
    assert (a.weight, b.weight, a.rules.min_han, b.rules.min_han) == (2, 3, 0.1, 0.1)
    assert (a.rules.min_chars, b.rules.min_chars) == (16, 5)
    a, b = sources_of_files([tmp_path / "a.txt", tmp_path / "my b.txt"], {"my b.weight": "4"})
    assert (a.name, a.weight, b.name, b.weight) == ("a", 1, "my b", 4)


@pytest.mark.parametrize(
    ("content", "settings", "message"),
    [
        ('{"a": {"files": ["a.txt"]}}', {"min_hann": "1"}, "Did you mean 'min_han'"),
        ('{"a": {"files": ["a.txt"]}}', {"b.min_han": "1"}, "there is no such source"),
        ('{"a": {"files": ["a.txt"]}}', {"weight": "nan"}, "weight is 'nan', expected a finite"),
        ('{"a": {"files": ["a.txt"]}}', {"weight": "0"}, "weight is '0', expected more than 0"),
        ('{"a": {"files": ["a.txt"]}}', {"weight": "1e308"}, "expected at most 1000000000"),
        ('{"a": {"files": ["a.txt"], "weight": 1e10}}', {}, "expected at most 1000000000"),
        ('{"a": {"files": ["a.txt"], "weight": 1' + "0" * 400 + "}}", {}, "weight is 1000"),
        ('{"a": {"files": ["a.txt"]}}', {"heldout": "1"}, "heldout is '1', expected less than 1"),
        (
            '{"a": {"files": ["a.txt"]}}',
            {"min_han": "much"},
            "min_han is 'much', expected a number",
        ),
        ('{"a": {"files": ["a.txt"]}}', {"min_han": "5"}, "min_han is '5', expected at most 1"),
        ('{"a": {"files": ["a.txt"], "weight": null}}', {}, "weight is null, expected"),
        ('{"../a": {"files": ["a.txt"]}}', {}, "cannot name a source"),
        ('{"": {"files": ["a.txt"]}}', {}, "cannot name a source"),
        (r'{"\ud800": {"files": ["a.txt"]}}', {}, "cannot name a source"),
        ('{"' + "长" * 67 + '": {"files": ["a.txt"]}}', {}, "at most 200 bytes"),
        ('{"a": {"files": ["a.txt"]}, "a": {"files": ["b.txt"]}}', {}, "'a' is there twice"),
        ('{"a": {"files": [3]}}', {}, "needs a list 'files'"),
        ('{"a": {"files": []}}', {}, "needs a list 'files'"),
        ("{}", {}, "contains no sources"),
        ("[" * 100_000, {}, "not a sources file"),
    ],
)
def test_a_wrong_sources_file_is_one_sentence(tmp_path, content, settings, message):
    file = tmp_path / "sources.json"
    file.write_text(content if content.startswith("[") else f'{{"sources": {content}}}')
    with pytest.raises(UserError, match=message) as caught:
        read_sources(file, settings)
    assert "\n" not in str(caught.value)


def test_two_files_that_would_make_one_source_are_refused(tmp_path):
    with pytest.raises(UserError, match="an earlier file is already the source 'a'"):
        sources_of_files([tmp_path / "x/a.txt", tmp_path / "y/a.txt"], {})


# --- vocabulary and tokens ----------------------------------------------------------------------


def test_the_vocabulary_has_specials_prompt_characters_and_everyday_characters(jsonl):
    source = TextSource("a", (jsonl("a", [random_text(0) + "𠀀罕"]),))
    entries = build_vocabulary([source], 4200, front=ANT.front, cover=cover_text([]))
    tokenizer = Tokenizer(entries)
    assert set(SPECIALS) <= set(entries)
    assert tokenizer.unk not in tokenizer.encode(ANSWER_CHARACTERS + "你好 世界\nabc 123")
    assert tokenizer.decode(tokenizer.encode("是否 正确\n[abc]")) == "是否 正确\n[abc]"
    assert len(entries) <= 4200


def test_a_vocabulary_too_small_for_what_is_required_is_an_error(jsonl):
    with pytest.raises(UserError, match="--size 100"):
        build_vocabulary([TextSource("a", (jsonl("a", ["字"]),))], 100, front=ANT.front)


def test_words_and_pieces_become_entries(jsonl):
    source = TextSource("a", (jsonl("a", ["打开文件，打开窗口，LibreOffice LibreOffice the"] * 3),))
    entries = build_vocabulary([source], 300, front=ANT.front, words=2, pieces=20)
    assert "打开" in entries
    assert "LibreOffice" in entries
