"""Corpus preparation: sources, filters, the duplicate rule, split, vocabulary, stored tokens."""

import json
import random

import numpy as np
import pytest

from cpm_tune.backbone.tokenizer import SPECIALS, Tokenizer
from cpm_tune.errors import UserError
from cpm_tune.pretrain import filters
from cpm_tune.pretrain.dedup import SeenParagraphs, paragraph_hashes
from cpm_tune.pretrain.filters import Rules, WordList, clean, reason_to_drop
from cpm_tune.pretrain.prepare import FastEncoder, is_heldout, prepare
from cpm_tune.pretrain.sources import Source, documents, read_sources
from cpm_tune.pretrain.store import Corpus
from cpm_tune.pretrain.vocabulary import ANSWER_CHARACTERS, build_vocabulary, cover_text

CHARACTERS = "天地玄黄宇宙洪荒日月盈昃辰宿列张寒来暑往秋收冬藏闰余成岁律吕调阳"


def random_text(seed: int, lines: int = 5, width: int = 12) -> str:
    drawn = random.Random(seed)
    return "\n".join("".join(drawn.choices(CHARACTERS, k=width)) + "。" for _ in range(lines))


@pytest.fixture
def jsonl(tmp_path):
    def write(name, texts):
        path = tmp_path / f"{name}.jsonl"
        rows = [{"id": f"{name}-{i}", "text": text} for i, text in enumerate(texts)]
        path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
        return path

    return write


@pytest.fixture
def vocabulary(tmp_path, jsonl):
    source = Source("a", (jsonl("words", [CHARACTERS + "Save the file, save the day"]),))
    path = tmp_path / "vocab.txt"
    path.write_text("\n".join(build_vocabulary([source], 300, pieces=5)) + "\n")
    return path


# --- the duplicate rule -------------------------------------------------------------------------


@pytest.mark.parametrize(("old", "duplicate"), [(7, False), (8, True), (10, True), (0, False)])
def test_a_document_is_dropped_only_above_seven_tenths_seen(old, duplicate):
    seen = SeenParagraphs()
    assert not seen.is_duplicate("\n".join(f"旧{i}" for i in range(10)))
    lines = [f"旧{i}" for i in range(old)] + [f"新{i}" for i in range(10 - old)]
    assert seen.is_duplicate("\n".join(lines)) is duplicate


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
    assert words.found_in("这里有敏感内容")
    assert not words.found_in("这里没有，敏 感")


# --- reading ------------------------------------------------------------------------------------


def test_text_files_hold_documents_between_blank_lines(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("一\n二\n\n\n三\n", encoding="utf-8")
    assert [d.text for d in documents(Source("a", (path,)))] == ["一\n二", "三"]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("empty.txt", b"", "no text"),
        ("blank.jsonl", b"\n\n", "no text"),
        ("binary.txt", b"abc\n\x00\x01", "binary.txt:2: a binary file"),
        ("latin.txt", "后".encode("gb18030"), "not UTF-8"),
        ("rows.jsonl", b'{"text": "a"}\n{"body": "b"}\n', "rows.jsonl:2: expected an object"),
        ("types.jsonl", b'{"text": 3}\n', "expected a string"),
    ],
)
def test_wrong_input_is_one_sentence_with_its_place(tmp_path, name, content, message):
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(UserError, match=message) as caught:
        list(documents(Source("x", (path,))))
    assert "\n" not in str(caught.value)


def test_an_endless_line_is_refused_without_being_read_whole(tmp_path, monkeypatch):
    monkeypatch.setattr("cpm_tune.pretrain.sources.MAX_DOCUMENT", 50)
    path = tmp_path / "long.txt"
    path.write_text("好\n" + "长" * 100, encoding="utf-8")
    with pytest.raises(UserError, match=r"long.txt:2: a line of more than 50 bytes"):
        list(documents(Source("a", (path,))))


def test_sources_settings_are_overridden_for_all_or_one(tmp_path):
    file = tmp_path / "sources.json"
    listed = {"a": {"files": ["a.txt"], "weight": 2}, "b": {"files": ["b.txt"]}}
    file.write_text(json.dumps({"sources": listed}))
    a, b = read_sources(file, {"min_han": "0.1", "b.weight": "3"})
    assert (a.weight, b.weight, a.rules.min_han, b.rules.min_han) == (2, 3, 0.1, 0.1)
    with pytest.raises(UserError, match="Did you mean 'min_han'"):
        read_sources(file, {"min_hann": "1"})


# --- vocabulary and tokens ----------------------------------------------------------------------


def test_the_vocabulary_has_specials_prompt_characters_and_everyday_characters(jsonl):
    source = Source("a", (jsonl("a", [random_text(0) + "𠀀罕"]),))
    entries = build_vocabulary([source], 4200, cover=cover_text([]))
    tokenizer = Tokenizer(entries)
    assert set(SPECIALS) <= set(entries)
    assert tokenizer.unk not in tokenizer.encode(ANSWER_CHARACTERS + "你好 世界\nabc 123")
    assert tokenizer.decode(tokenizer.encode("是否 正确\n[abc]")) == "是否 正确\n[abc]"
    assert len(entries) <= 4200


def test_a_vocabulary_too_small_for_what_is_required_is_an_error(jsonl):
    with pytest.raises(UserError, match="--size 100"):
        build_vocabulary([Source("a", (jsonl("a", ["字"]),))], 100)


def test_words_and_pieces_become_entries(jsonl):
    source = Source("a", (jsonl("a", ["打开文件，打开窗口，LibreOffice LibreOffice the"] * 3),))
    entries = build_vocabulary([source], 300, words=2, pieces=20)
    assert "打开" in entries
    assert "LibreOffice" in entries


def test_the_short_cut_encodes_like_the_tokenizer(vocabulary):
    tokenizer = Tokenizer.from_file(vocabulary)
    fast = FastEncoder(tokenizer)
    texts = [random_text(3), "Save the file。\n天地 the 玄黄\n\n龘", "天" * 250, "save,the"]
    for text in texts:
        assert fast.encode(text) == tokenizer.encode(text)


# --- the whole ----------------------------------------------------------------------------------


def test_preparation_counts_every_stage_and_splits_by_document(tmp_path, jsonl, vocabulary):
    texts = [random_text(seed) for seed in range(200)]
    texts += [texts[0], "短", "English only, nothing else here at all", texts[1] + "坏词"]
    source = Source("a", (jsonl("a", texts),), weight=2.0, heldout=0.2)
    words = WordList(["坏词"])
    corpus = prepare([source], vocabulary, tmp_path / "out", words=words)
    about = corpus.about["sources"]["a"]
    removed = {stage: n for stage, n in about["removed"].items() if n}
    assert removed == {
        "seen before": 1,
        "too short": 1,
        "little Chinese": 1,
        filters.SENSITIVE: 1,
    }
    assert about["read"]["documents"] == 204
    assert about["train"]["documents"] + about["heldout"]["documents"] == 200
    assert 20 < about["heldout"]["documents"] < 60
    tokenizer = Tokenizer.from_file(corpus.vocabulary)
    held = {i for i in range(200) if is_heldout("a", f"a-{i}", 0.2)}
    for split, wanted in (("heldout", held), ("train", set(range(200)) - held)):
        stored = Corpus.open(tmp_path / "out").split("a", split)
        found = [tokenizer.decode(stored.document(i).tolist()) for i in range(len(stored))]
        assert found == [texts[i] for i in sorted(wanted)]
    train = corpus.split("a", "train").tokens
    assert (np.bincount(train, minlength=len(tokenizer)) == corpus.unigram("a")).all()


def test_unknown_characters_are_removed_and_counted(tmp_path, jsonl, vocabulary):
    text = random_text(0)
    corpus = prepare(
        [Source("a", (jsonl("a", [text + "龘龘"]),), heldout=0)], vocabulary, tmp_path / "out"
    )
    assert corpus.about["sources"]["a"]["unknown_tokens_removed"] == 2
    tokens = corpus.split("a", "train").tokens
    assert Tokenizer.from_file(vocabulary).decode(tokens.tolist()) == text


def test_perplexity_drops_documents_above_the_limit(tmp_path, jsonl, vocabulary):
    texts = [random_text(seed) for seed in range(100)]
    corpus = prepare(
        [Source("a", (jsonl("a", texts),))],
        vocabulary,
        tmp_path / "out",
        perplexities=lambda chunk: [50.0 if text in texts[:3] else 5.0 for text in chunk],
        max_perplexity=10.0,
    )
    assert corpus.about["sources"]["a"]["removed"][filters.PERPLEXITY] == 3


def test_a_source_with_nothing_left_is_an_error_that_counts(tmp_path, jsonl, vocabulary):
    with pytest.raises(UserError, match="too short 2"):
        prepare([Source("a", (jsonl("a", ["短", "小"]),))], vocabulary, tmp_path / "out")


def test_preparation_holds_no_documents_in_memory(tmp_path, vocabulary):
    import tracemalloc

    path = tmp_path / "big.jsonl"
    with path.open("w") as file:
        for seed in range(1000):
            file.write(json.dumps({"text": random_text(seed, 20, 12)}, ensure_ascii=False) + "\n")
    tracemalloc.start()
    prepare([Source("a", (path,))], vocabulary, tmp_path / "out")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    paragraphs = 1000 * 20
    assert peak < 100 * paragraphs + 2e6  # the recent set of hashes, and buffers
