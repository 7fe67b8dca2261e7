"""`pretrain prepare` and `vocab` as a whole: counts, split, stored tokens, memory, mistakes."""

import json
import signal
import sys
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from conftest import REPOSITORY
from pretrain_runs import (
    SETTINGS,
    TEXT_CHARACTERS,
    make_corpus,
    poem,
    random_text,
    run,
    write_documents,
)

from cpm_tune.backbone.ant.tokenizer import Tokenizer
from cpm_tune.common.folders import new_folder
from cpm_tune.errors import UserError
from cpm_tune.pretrain import filters
from cpm_tune.pretrain import prepare as preparation
from cpm_tune.pretrain.evaluate import perplexity_under
from cpm_tune.pretrain.filters import WordList
from cpm_tune.pretrain.prepare import is_heldout, prepare
from cpm_tune.pretrain.sources import TextSource
from cpm_tune.pretrain.store import Corpus

sys.path.insert(0, str(REPOSITORY / "benchmarks"))
import pretrain_memory


def about(folder):
    return json.loads((folder / "corpus.json").read_text())


# --- what is kept -------------------------------------------------------------------------------


def test_preparation_counts_every_stage_and_splits_by_document(tmp_path, jsonl, vocabulary):
    texts = [random_text(seed) for seed in range(200)]
    texts += [texts[0], "短", "English only, nothing else here at all", texts[1] + "坏词"]
    source = TextSource("a", (jsonl("a", texts),), weight=2.0, heldout=0.2)
    corpus = prepare([source], vocabulary, tmp_path / "out", words=WordList(["坏词"]))
    counted = corpus.about["sources"]["a"]
    assert {stage: n for stage, n in counted["removed"].items() if n} == {
        "seen before": 1,
        "too short": 1,
        "little Chinese": 1,
        filters.SENSITIVE: 1,
    }
    assert counted["read"]["documents"] == 204
    assert counted["train"]["documents"] + counted["heldout"]["documents"] == 200
    assert 20 < counted["heldout"]["documents"] < 60
    tokenizer = Tokenizer.from_file(corpus.vocabulary)
    held = {i for i in range(200) if is_heldout("a", f"a-{i}", 0.2)}
    for split, wanted in (("heldout", held), ("train", set(range(200)) - held)):
        stored = Corpus.open(tmp_path / "out").split("a", split)
        found = [tokenizer.decode(stored.document(i).tolist()) for i in range(len(stored))]
        assert found == [texts[i] for i in sorted(wanted)]
    train = corpus.split("a", "train").tokens
    assert (np.bincount(train, minlength=len(tokenizer)) == corpus.unigram("a")).all()


def test_exactly_seven_tenths_seen_is_kept(tmp_path, jsonl, vocabulary):
    lines = [random_text(seed, lines=1) for seed in range(250)]
    first = lines[:90]
    kept, dropped = first[:63] + lines[100:127], first[:64] + lines[130:156]
    path = jsonl("a", ["\n".join(part) for part in (first, kept, dropped)])
    corpus = prepare([TextSource("a", (path,), heldout=0)], vocabulary, tmp_path / "out")
    counted = corpus.about["sources"]["a"]
    assert (counted["train"]["documents"], counted["removed"]["seen before"]) == (2, 1)
    assert corpus.about["distinct_paragraphs"] == len(set(first + kept))


def test_unknown_characters_are_removed_and_counted(tmp_path, jsonl, vocabulary):
    text = random_text(0)
    source = TextSource("a", (jsonl("a", [text + "龘龘"]),), heldout=0)
    corpus = prepare([source], vocabulary, tmp_path / "out")
    assert corpus.about["sources"]["a"]["unknown_tokens_removed"] == 2
    tokens = corpus.split("a", "train").tokens
    assert Tokenizer.from_file(vocabulary).decode(tokens.tolist()) == text


def test_a_users_list_of_sensitive_words_by_the_command_line(tmp_path, jsonl, vocabulary, cli):
    texts = [random_text(seed) + ("坏词" if seed % 10 == 0 else "") for seed in range(50)]
    texts[3] += "恶"  # half of a word
    words = tmp_path / "words.txt"
    words.write_text("坏词\n\n恶语\n", encoding="utf-8")
    arguments = ("--vocab", vocabulary, "--sensitive-words", words, "--out", tmp_path / "out")
    code, said, _ = cli("pretrain", "prepare", jsonl("a", texts), *arguments)
    assert (code, "sensitive word 5" in said) == (0, True)
    found = about(tmp_path / "out")
    assert found["sensitive_words"] == 2
    assert found["sources"]["a"]["removed"]["sensitive word"] == 5
    assert found["sources"]["a"]["kept"]["documents"] == 45


def test_perplexity_under_a_backbone_by_the_command_line(tmp_path, cli):
    corpus = make_corpus(tmp_path)
    run(corpus, tmp_path / "trained", replace(SETTINGS, steps=40))
    backbone = tmp_path / "trained/backbone"
    texts = [poem(seed) if seed % 3 else random_text(seed) for seed in range(100, 190)]
    values = perplexity_under(backbone)(texts)
    limit = sorted(values)[60] + 1e-4
    fluent = [text for text, value in zip(texts, values, strict=True) if value <= limit]
    assert len(fluent) == 61
    write_documents(tmp_path / "a.jsonl", texts)
    arguments = ("--vocab", backbone / "vocab.txt", "--out", tmp_path / "out")
    judge = ("--under", backbone, "--max-perplexity", limit, "--set", "heldout=0")
    code, said, _ = cli("pretrain", "prepare", tmp_path / "a.jsonl", *arguments, *judge)
    assert (code, "perplexity 29" in said) == (0, True)
    found = about(tmp_path / "out")
    assert found["max_perplexity"] == limit
    assert found["sources"]["a"]["removed"]["perplexity"] == 29
    stored = Corpus.open(tmp_path / "out").split("a", "train")
    tokenizer = Tokenizer.from_file(backbone / "vocab.txt")
    kept = [tokenizer.decode(stored.document(i).tolist()) for i in range(len(stored))]
    known = set(tokenizer.ids)
    assert kept == ["".join(c for c in text if c in known) for text in fluent]


@pytest.mark.parametrize(("identity", "noted"), [(None, False), ("same", True)])
def test_a_null_id_is_none_and_one_id_for_all_is_noted(tmp_path, vocabulary, cli, identity, noted):
    rows = [{"id": identity, "text": random_text(seed)} for seed in range(100)]
    path = tmp_path / "a.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    arguments = ("--vocab", vocabulary, "--set", "heldout=0.1", "--out", tmp_path / "out")
    code, said, _ = cli("pretrain", "prepare", path, *arguments)
    note = "note: source 'a': heldout is 0.1, but none of its 100 documents is held out"
    assert (code, note in said) == (0, noted)
    assert (about(tmp_path / "out")["sources"]["a"]["heldout"]["documents"] > 3) is not noted


# --- memory -------------------------------------------------------------------------------------


@pytest.mark.skipif(sys.platform == "win32", reason="needs the peak memory of a process")
def test_memory_does_not_grow_with_the_input(tmp_path, vocabulary):
    """Twelve times the text, 18 MB more, may take 6 MB more: hashes of paragraphs, and noise.

    As strings, the text would take 12 MB more.
    """
    generator = np.random.default_rng(1)
    characters = np.array([ord(c) for c in TEXT_CHARACTERS], dtype="<u4")
    peaks = []
    for megabytes in (1.6, 20):
        text = tmp_path / f"{megabytes}.txt"
        n = int(megabytes * 1e6 / 3 / 190 / 5)
        drawn = generator.choice(characters, (n, 5, 190))
        drawn[:, :, -1] = ord("\n")
        blank = np.full((n, 1), ord("\n"), dtype="<u4")
        content = np.hstack([drawn.reshape(n, -1), blank]).tobytes().decode("utf-32-le")
        text.write_text(content, encoding="utf-8")
        peaks.append(pretrain_memory.prepare(text, vocabulary, tmp_path / f"out{megabytes}")[0])
    small, large = peaks
    assert large < small + 6e6


# --- mistakes -----------------------------------------------------------------------------------


def test_a_source_with_nothing_left_is_an_error_that_counts(tmp_path, jsonl, vocabulary):
    with pytest.raises(
        UserError, match=r"too short 2 \(min_chars is 16\)\. Loosen its rules with --set"
    ):
        prepare([TextSource("a", (jsonl("a", ["短", "小"]),))], vocabulary, tmp_path / "out")
    unknown = TextSource("b", (jsonl("b", ["龘" * 20, "麤" * 20]),), heldout=0)
    unknown = replace(unknown, rules=filters.Rules(max_repetition=1))
    with pytest.raises(UserError, match="no known character 2"):
        prepare([unknown], vocabulary, tmp_path / "out")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "contains no text"),
        (bytes(range(256)), "a binary file"),
        ("天地\n" * 9 + "玄".encode("gbk").decode("latin-1"), "no training document"),
        ("天地玄黄" * 9, "repetition 1"),
    ],
    ids=["empty", "binary", "latin", "repetitive"],
)
def test_text_that_cannot_be_used_is_one_sentence(tmp_path, vocabulary, cli, content, message):
    path = tmp_path / "a.txt"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    arguments = ("--vocab", vocabulary, "--out", tmp_path / "out")
    code, _, error = cli("pretrain", "prepare", path, *arguments)
    assert (code, message in error, error.count("\n")) == (2, True, 1)


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ("天\n地\n", "special entry '<d>' is missing"),
        ("<d>\n</d>\n<s>\n</s>\n<pad>\n<unk>\n天\n天\n", "entry '天' occurs twice"),
        ("", "special entry"),
    ],
    ids=["no specials", "twice", "empty"],
)
def test_a_wrong_vocabulary_is_one_sentence(tmp_path, jsonl, cli, entries, message):
    (tmp_path / "v.txt").write_text(entries)
    arguments = ("--vocab", tmp_path / "v.txt", "--out", tmp_path / "out")
    code, _, error = cli("pretrain", "prepare", jsonl("a", [random_text(1)]), *arguments)
    assert (code, message in error, error.count("\n")) == (2, True, 1)
    assert not (tmp_path / "out").exists()


def test_a_vocabulary_that_is_not_there_is_a_sentence_without_error_numbers(tmp_path, jsonl, cli):
    arguments = ("--vocab", "nowhere.txt", "--out", tmp_path / "out")
    code, _, error = cli("pretrain", "prepare", jsonl("a", [random_text(1)]), *arguments)
    assert (code, error.count("\n")) == (2, 1)
    assert "nowhere.txt: no vocabulary can be read there (No such file or directory)" in error
    assert "Errno" not in error


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--max-perplexity", 5), "need each other"),
        (("--max-perplexity", 0, "--under", "cpm-ant-tiny"), "above 0"),
        (("--max-perplexity", 5, "--under", "nowhere"), "there is no such folder"),
        (("--sensitive-words", "nowhere"), "not a readable word list"),
        (("--set", "weight=0"), "weight is '0', expected more than 0"),
        (("--set", "weight"), "expected KEY=VALUE"),
        (("--set", "weight=1", "--set", "weight=2"), "weight is already 1; give it once"),
        (("--sources", "nowhere.json"), "either text files or --sources"),
        (("nowhere.txt",), "does not exist"),
    ],
    ids=str,
)
def test_a_wrong_option_is_one_sentence(tmp_path, jsonl, vocabulary, cli, words, message):
    arguments = ("--vocab", vocabulary, "--out", tmp_path / "out")
    path = jsonl("a", [random_text(1)])
    code, _, error = cli("pretrain", "prepare", path, *words, *arguments)
    assert (code, message in error, error.count("\n")) == (2, True, 1)
    assert not (tmp_path / "out/corpus.json").exists()


def test_only_a_new_folder_or_an_empty_one_is_written(tmp_path, jsonl, vocabulary, cli):
    good, bad = jsonl("a", [random_text(1)]), jsonl("b", ["短"])
    arguments = ("--vocab", vocabulary, "--set", "heldout=0", "--out")
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "vocab.txt").write_text("precious")
    code, _, error = cli("pretrain", "prepare", good, *arguments, mine)
    assert (code, "mine already exists and contains vocab.txt; choose" in error) == (2, True)
    assert (mine / "vocab.txt").read_text() == "precious"
    out = tmp_path / "out"
    assert cli("pretrain", "prepare", good, bad, *arguments, out)[0] == 2
    with new_folder(out):
        code, _, error = cli("pretrain", "prepare", good, *arguments, out)
    assert (code, "another process is working" in error) == (2, True)
    assert cli("pretrain", "prepare", good, *arguments, out)[0] == 0
    assert not list(out.glob("b.*"))
    code, _, error = cli("pretrain", "prepare", good, *arguments, out)
    assert (code, "out already exists and contains a." in error) == (2, True)


def listing(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


@pytest.mark.parametrize("content", [b"", bytes(range(256))], ids=["empty", "binary"])
@pytest.mark.parametrize("state", ["absent", "empty", "killed before", "killed in an empty one"])
def test_a_bad_file_among_good_ones_leaves_nothing(
    tmp_path, jsonl, vocabulary, cli, content, state
):
    good, bad = jsonl("a", [random_text(1)]), tmp_path / "b.txt"
    bad.write_bytes(content)
    out = tmp_path / "new/out"
    if state != "absent":
        out.parent.mkdir()
    if state in ("empty", "killed in an empty one"):
        out.mkdir()
    before = listing(tmp_path)
    if state.startswith("killed"):
        part = out / ".cpm-tune.partial" if out.is_dir() else tmp_path / "new/out.cpm-tune.partial"
        part.mkdir()
        (part / "a.train.tokens.npy").write_bytes(b"half")
    arguments = ("--vocab", vocabulary, "--set", "heldout=0", "--out", out)
    assert cli("pretrain", "prepare", good, bad, *arguments)[0] == 2
    assert listing(tmp_path) == before
    assert cli("pretrain", "prepare", good, *arguments)[0] == 0


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_preparation_leaves_nothing_and_says_so(
    tmp_path, jsonl, vocabulary, cli, number, monkeypatch
):
    monkeypatch.setattr(
        preparation, "is_heldout", lambda source, identity, share: signal.raise_signal(number)
    )
    arguments = ("--vocab", vocabulary, "--out", tmp_path / "out")
    code, _, error = cli("pretrain", "prepare", jsonl("a", [random_text(1)]), *arguments)
    assert (code, error.count("\n")) == (128 + number, 1)
    assert "nothing was written, repeat the command to start again" in error
    assert not (tmp_path / "out").exists()


def test_a_vocabulary_is_never_written_over_a_file(tmp_path, jsonl, cli):
    path = jsonl("a", [random_text(1)])
    code, _, error = cli("pretrain", "vocab", path, "--size", 4000, "--out", path)
    assert (code, "already exists" in error, error.count("\n")) == (2, True, 1)
    code, _, error = cli("pretrain", "vocab", path, "--size", 4000, "--out", path / "v.txt")
    assert (code, "cannot be written" in error, error.count("\n")) == (2, True, 1)
    assert cli("pretrain", "vocab", path, "--size", 4000, "--out", tmp_path / "x/v.txt")[0] == 0
    counts = Counter((tmp_path / "x/v.txt").read_text().splitlines())
    assert max(counts.values()) == 1


def test_a_vocabulary_that_falls_short_of_what_was_asked_for_says_so(tmp_path, jsonl, cli):
    path, out = jsonl("a", ["天地 save the file " + chr(0x9F98) + chr(0x9EA4)]), tmp_path / "v.txt"
    more = ("--pieces", 600, "--words", 50)
    code, said, _ = cli("pretrain", "vocab", path, "--size", 10**9, *more, "--out", out)
    entries = [line for line in out.read_text().splitlines() if line]
    pieces = [e for e in entries if len(e) > 1 and e.isascii() and e.isalpha()]
    assert code == 0
    assert " 2 chosen by frequency" in said
    assert f"note: --pieces 600: the text has no more than {len(pieces)}." in said
    assert "note: --words 50: the text has no more than 1." in said
    assert f"note: --size 1,000,000,000: the text has no more than {len(entries):,}." in said
    size = len(entries) - len(pieces) - 1
    code, said, _ = cli("pretrain", "vocab", path, "--size", size, "--out", tmp_path / "w.txt")
    assert (code, "note" in said) == (0, False)


def test_an_interrupted_vocabulary_leaves_nothing_and_says_so(tmp_path, jsonl, cli, monkeypatch):
    def press(sources):
        signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr("cpm_tune.pretrain.vocabulary.check_files", press)
    path, out = jsonl("a", [random_text(1)]), tmp_path / "v.txt"
    code, _, error = cli("pretrain", "vocab", path, "--size", 4000, "--out", out)
    assert (code, error.count("\n")) == (130, 1)
    assert "repeat the command to start again" in error
    assert not out.exists()
