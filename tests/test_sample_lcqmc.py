"""The sample data of LCQMC: its form, its splits, and that no shortcut solves it."""

from __future__ import annotations

import importlib.util
import json
import re
import sys
from collections import Counter
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

SAMPLE = Path(__file__).resolve().parent.parent / "tasks" / "sample"
SIZES = {"train": 2400, "dev": 400, "test": 400}
Rows = dict[str, list[dict[str, Any]]]


def load_generator() -> ModuleType:
    spec = importlib.util.spec_from_file_location("make_lcqmc", SAMPLE / "make_lcqmc.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def generator() -> ModuleType:
    return load_generator()


@pytest.fixture(scope="module")
def typed(generator: ModuleType) -> dict[str, list[Any]]:
    result: dict[str, list[Any]] = generator.typed_pairs()
    return result


@pytest.fixture(scope="module")
def data() -> Rows:
    return {
        split: [
            json.loads(line)
            for line in (SAMPLE / "lcqmc" / f"{split}.jsonl").read_bytes().decode().splitlines()
        ]
        for split in SIZES
    }


def sentences(rows: list[dict[str, Any]]) -> set[str]:
    return {row[key] for row in rows for key in ("sentence1", "sentence2")}


def pairs(rows: list[dict[str, Any]]) -> list[frozenset[str]]:
    return [frozenset((row["sentence1"], row["sentence2"])) for row in rows]


def test_regenerating_gives_the_same_bytes(generator: ModuleType, tmp_path: Path) -> None:
    generator.main(["--out", str(tmp_path)])
    for split in SIZES:
        made = (tmp_path / "lcqmc" / f"{split}.jsonl").read_bytes()
        assert made == (SAMPLE / "lcqmc" / f"{split}.jsonl").read_bytes()


def test_another_seed_gives_other_data(generator: ModuleType, tmp_path: Path) -> None:
    generator.main(["--out", str(tmp_path), "--seed", str(generator.SEED + 1)])
    made = (tmp_path / "lcqmc" / "train.jsonl").read_bytes()
    assert made != (SAMPLE / "lcqmc" / "train.jsonl").read_bytes()
    assert made.count(b"\n") == SIZES["train"]


@pytest.mark.parametrize("split", sorted(SIZES))
def test_official_form(data: Rows, split: str) -> None:
    raw = (SAMPLE / "lcqmc" / f"{split}.jsonl").read_bytes()
    assert raw.endswith(b"\n")
    assert b"\r" not in raw
    assert b"\\u" not in raw
    assert len(data[split]) == SIZES[split]
    for number, row in enumerate(data[split]):
        assert list(row) == ["id", "sentence1", "sentence2", "label"]
        assert row["id"] == number
        assert row["label"] in (0, 1)
        for key in ("sentence1", "sentence2"):
            assert re.fullmatch(r"[\u4e00-\u9fffA-Z，？?]+", row[key]), row[key]


@pytest.mark.parametrize("split", sorted(SIZES))
def test_labels_are_balanced(data: Rows, split: str) -> None:
    assert sum(row["label"] for row in data[split]) * 2 == SIZES[split]


def test_lengths_are_those_of_everyday_questions(data: Rows) -> None:
    lengths = [len(text) for rows in data.values() for text in sentences(rows)]
    assert min(lengths) >= 4
    assert max(lengths) <= 32
    assert np.mean([5 <= length <= 25 for length in lengths]) > 0.98


def test_no_pair_twice_and_no_pair_of_one_sentence(data: Rows) -> None:
    every = [pair for rows in data.values() for pair in pairs(rows)]
    assert len(set(every)) == len(every)
    assert all(len(pair) == 2 for pair in every)


def test_no_sentence_in_two_splits(data: Rows) -> None:
    def bare(rows: list[dict[str, Any]]) -> set[str]:
        return {text.removeprefix("请问").rstrip("？?啊呢呀") for text in sentences(rows)}

    for one, other in (("train", "dev"), ("train", "test"), ("dev", "test")):
        assert not sentences(data[one]) & sentences(data[other])
        assert not bare(data[one]) & bare(data[other])


@pytest.mark.parametrize("split", sorted(SIZES))
def test_each_sentence_is_once_positive_and_once_negative(data: Rows, split: str) -> None:
    counts: dict[int, Counter[str]] = {0: Counter(), 1: Counter()}
    for row in data[split]:
        counts[row["label"]].update((row["sentence1"], row["sentence2"]))
    assert counts[0] == counts[1]
    assert set(counts[0].values()) == {1}


def test_material_is_broad(generator: ModuleType) -> None:
    blocks = generator.load_blocks()
    intents = [forms for block in blocks for forms in block.intents]
    assert len({block.topic for block in blocks}) >= 40
    assert len(intents) >= 250
    assert all(len(set(forms)) == len(forms) >= 4 for forms in intents)
    assert all(len(set(block.fillers)) == len(block.fillers) for block in blocks)
    assert all(len(block.fillers) >= 4 for block in blocks if block.fillers)


@pytest.mark.parametrize("split", sorted(SIZES))
def test_mix_of_pair_types(
    generator: ModuleType, typed: dict[str, list[Any]], data: Rows, split: str
) -> None:
    assert generator.rows(typed[split]) == data[split]
    kinds = Counter(pair.kind for pair in typed[split])
    negatives = SIZES[split] // 2
    near = sum(kinds[kind] for kind in generator.NEAR_TYPES)
    assert sum(kinds[kind] for kind in generator.POSITIVE_TYPES) == negatives
    assert kinds[generator.PARAPHRASE] >= 0.5 * negatives
    assert kinds[generator.LIGHT_PARAPHRASE] >= 0.4 * negatives
    assert near == pytest.approx(0.25 * negatives, abs=0.02 * negatives)
    assert kinds[generator.MISMATCH] == negatives - near
    assert kinds[generator.NEAR_FILLER] >= 0.05 * negatives
    assert kinds[generator.NEAR_ASPECT] >= 0.1 * negatives
    for pair in typed[split]:
        one, other = pair.sentence1, pair.sentence2
        assert pair.label == int(pair.kind in generator.POSITIVE_TYPES)
        assert pair.label == int(one.combo == other.combo)
        assert (pair.kind == generator.MISMATCH) == (one.topic != other.topic)


def test_reversed_directions_occur(generator: ModuleType, typed: dict[str, list[Any]]) -> None:
    every = [pair for split in typed.values() for pair in split]
    assert sum(pair.kind == generator.NEAR_REVERSAL for pair in every) >= 10


@pytest.mark.parametrize("split", ["dev", "test"])
def test_held_out_splits_have_seen_and_unseen_intents(
    typed: dict[str, list[Any]], split: str
) -> None:
    def intents(name: str) -> list[tuple[str, int]]:
        return [p.sentence1.combo[:2] for p in typed[name] if p.label]

    known = set(intents("train"))
    seen = np.mean([intent in known for intent in intents(split)])
    assert 0.2 < seen < 0.8


def test_paraphrases_include_low_overlap(generator: ModuleType, data: Rows) -> None:
    overlaps = [
        generator.jaccard(row["sentence1"], row["sentence2"])
        for rows in data.values()
        for row in rows
        if row["label"]
    ]
    assert np.mean([overlap < 0.25 for overlap in overlaps]) > 0.2
    assert np.mean([overlap > 0.4 for overlap in overlaps]) > 0.1


def labels(rows: list[dict[str, Any]]) -> list[int]:
    return [row["label"] for row in rows]


@pytest.mark.parametrize("ngrams", [(1, 1), (1, 2)])
def test_bag_of_characters_does_not_solve_it(data: Rows, ngrams: tuple[int, int]) -> None:
    def texts(rows: list[dict[str, Any]]) -> list[str]:
        return [row["sentence1"] + row["sentence2"] for row in rows]

    model = make_pipeline(
        CountVectorizer(analyzer="char", ngram_range=ngrams), LogisticRegression(max_iter=500)
    )
    model.fit(texts(data["train"]), labels(data["train"]))
    assert model.score(texts(data["test"]), labels(data["test"])) < 0.65


def test_lengths_do_not_solve_it(data: Rows) -> None:
    def features(rows: list[dict[str, Any]]) -> list[list[int]]:
        lengths = [(len(row["sentence1"]), len(row["sentence2"])) for row in rows]
        return [[a, b, abs(a - b), a + b] for a, b in lengths]

    model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=500))
    model.fit(features(data["train"]), labels(data["train"]))
    assert model.score(features(data["test"]), labels(data["test"])) < 0.65


def test_overlap_helps_but_does_not_solve_it(
    generator: ModuleType, typed: dict[str, list[Any]]
) -> None:
    _, accuracy = generator.overlap_baseline(typed["train"], typed["test"])
    assert 0.75 <= accuracy <= 0.90


def test_docstring_states_origin_licence_and_limits(generator: ModuleType) -> None:
    text = generator.__doc__ or ""
    for words in ("for this project", "Apache-2.0", "data: CC0-1.0", "Regenerate", "NOT"):
        assert words in text
