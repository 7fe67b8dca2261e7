"""`pretrain run` on a prepared corpus that was damaged: one clear sentence, and nothing runs."""

import json
import shutil

import numpy as np
import pytest
from pretrain_runs import make_corpus, write_config

SMALL = ("--rows", 2, "--width", 64, "--shortest", 8, "--precision", "fp32", "--no-compile")


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    return make_corpus(tmp_path_factory.mktemp("corpus"))


@pytest.fixture
def refused(whole, tmp_path, cli):
    """A copy of a corpus, and a function that starts a run on it and returns the sentence."""
    copy = tmp_path / "copy"
    shutil.copytree(whole.path, copy)
    config = write_config(tmp_path / "config.json", whole)

    def start():
        words = ("--corpus", copy, "--config", config, "--steps", 1, *SMALL)
        code, _, error = cli("pretrain", "run", "--out", tmp_path / "out", *words)
        assert (code, error.count("\n")) == (2, 1), error
        assert not (tmp_path / "out").exists()
        return error

    return copy, start


# --- the vocabulary -----------------------------------------------------------------------------


@pytest.mark.parametrize("change", ["other order", "one more", "missing"])
def test_another_vocabulary_is_refused(refused, change):
    folder, start = refused
    file = folder / "vocab.txt"
    entries = file.read_text(encoding="utf-8").splitlines()
    if change == "missing":
        file.unlink()
        assert "vocab.txt: not readable" in start()
        return
    entries = [*entries[:20], *entries[:19:-1]] if change == "other order" else [*entries, "龘"]
    file.write_text("\n".join(entries) + "\n", encoding="utf-8")
    assert "not the vocabulary that" in start()


# --- the arrays ---------------------------------------------------------------------------------


def outside(ids):
    ids[3] = 60_000
    return ids


def changed(ids):
    ids[3] ^= 1
    return ids


def decreasing(offsets):
    offsets[1:3] = offsets[2:0:-1]
    return offsets


def out_of_range(offsets):
    offsets[1] = 10**9
    return offsets


def negative(numbers):
    numbers[0] = -1
    return numbers


def shifted(counts):
    counts[0] += 1
    return counts


@pytest.mark.parametrize(
    ("file", "damage", "message"),
    [
        ("train.tokens", outside, "token 60000 is outside of the vocabulary"),
        ("heldout.tokens", outside, "token 60000 is outside of the vocabulary"),
        ("train.tokens", changed, "another SHA-256"),
        ("heldout.tokens", changed, "another SHA-256"),
        ("train.tokens", lambda ids: ids.astype(float), "not what corpus.json describes"),
        ("train.tokens", lambda ids: ids.reshape(1, -1), "not what corpus.json describes"),
        ("train.offsets", decreasing, "not what corpus.json describes"),
        ("train.offsets", out_of_range, "not what corpus.json describes"),
        ("heldout.offsets", negative, "not what corpus.json describes"),
        ("train.offsets", lambda offsets: offsets[:0], "not what corpus.json describes"),
        ("train.offsets", lambda offsets: offsets.astype(float), "not what corpus.json describes"),
        ("unigram", lambda counts: counts[:5], "not what corpus.json describes"),
        ("unigram", negative, "not what corpus.json describes"),
        ("unigram", shifted, "not what corpus.json describes"),
    ],
)
def test_arrays_that_do_not_fit_are_refused(refused, file, damage, message):
    folder, start = refused
    path = folder / f"verse.{file}.npy"
    np.save(path, damage(np.load(path)))
    error = start()
    assert message in error
    assert str(folder / "verse.") in error


def test_an_archive_in_place_of_an_array_is_refused(refused):
    folder, start = refused
    with (folder / "verse.unigram.npy").open("wb") as file:
        np.savez(file, np.zeros(3))
    assert "an archive, expected one array" in start()


# --- the description ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("place", "value", "message"),
    [
        (("sources",), [], "sources is [], expected a mapping"),
        (("sources",), {}, "sources is {}, expected at least one"),
        (("sources",), "verse", "sources is 'verse', expected a mapping"),
        (("sources", "verse"), [], "sources.verse is [], expected a mapping"),
        (("sources", "verse", "weight"), None, "'sources.verse.weight' is missing"),
        (("sources", "verse", "weight"), "1", "weight is '1', expected a number"),
        (("sources", "verse", "weight"), float("nan"), "expected a finite number"),
        (("sources", "verse", "weight"), 1e308, "expected at most 1000000000"),
        (("sources", "verse", "train"), None, "'sources.verse.train' is missing"),
        (("sources", "verse", "heldout"), 3, "sources.verse.heldout is 3, expected a mapping"),
        (
            ("sources", "verse", "train", "tokens"),
            "many",
            "train.tokens is 'many', expected a whole",
        ),
        (
            ("sources", "verse", "train", "documents"),
            1.5,
            "train.documents is 1.5, expected a whole",
        ),
        (("vocab_size",), "180", "vocab_size is '180', expected a whole number"),
        (("vocab_size",), 5, "vocab_size is 5"),
        (("vocab_sha256",), 3, "vocab_sha256 is 3, expected a text"),
        (("format",), "another", "not a corpus of this version"),
    ],
)
def test_a_damaged_description_is_refused(refused, place, value, message):
    folder, start = refused
    about = json.loads((folder / "corpus.json").read_text())
    *path, last = place
    part = about
    for key in path:
        part = part[key]
    if value is None:
        del part[last]
    else:
        part[last] = value
    (folder / "corpus.json").write_text(json.dumps(about))
    error = start()
    assert message in error
    assert "corpus.json" in error
