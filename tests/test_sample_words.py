"""The sample data of pku_seg, wordseg_weibo, pku_segpos, cmeee, finre, yaclc and spr."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from words_cases import NAMES, SAMPLE, SIZES, TASKS, parsed

from cpm_tune.data.files import checked_rows
from cpm_tune.data.splits import find_splits
from cpm_tune.metrics import get_metric
from cpm_tune.task import Choice, Row
from cpm_tune.task.answers import gold


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The generators and their material in a folder of their own, run there."""
    folder = tmp_path_factory.mktemp("sample")
    for path in (*SAMPLE.glob("*.py"), SAMPLE / "words_words.json"):
        shutil.copy(path, folder)
    for name in NAMES:
        subprocess.run([sys.executable, f"make_{name}.py"], cwd=folder, check=True)
    return folder


@pytest.fixture(scope="module")
def sample() -> dict[str, dict[str, list[Row]]]:
    """The rows of every task and split."""
    return {
        name: {
            split: list(checked_rows(TASKS[name], file))
            for split, file in find_splits(TASKS[name], SAMPLE / name).items()
        }
        for name in NAMES
    }


@pytest.mark.parametrize("name", NAMES)
def test_the_committed_sample_data_is_what_the_generator_makes(made: Path, name: str) -> None:
    files = sorted(path.name for path in (SAMPLE / name).iterdir())
    assert files == sorted(path.name for path in (made / name).iterdir())
    for file in files:
        assert (SAMPLE / name / file).read_bytes() == (made / name / file).read_bytes()


Samples = dict[str, dict[str, list[Row]]]


@pytest.mark.parametrize("name", NAMES)
def test_sample_splits_have_their_sizes_and_share_no_text(sample: Samples, name: str) -> None:
    seen: dict[str, str] = {}
    for split, size in SIZES.items():
        rows = sample[name][split]
        assert len(rows) == size
        for row in rows:
            text = row["sentence" if name == "spr" else "text"]
            assert seen.setdefault(text, split) == split


def f1(name: str, predictions: list[Any], rows: list[Row]) -> float:
    task = TASKS[name]
    score = get_metric(task.metrics[0]).score(predictions, [gold(task, row) for row in rows])
    return score.value


@pytest.mark.parametrize("name", ["pku_seg", "wordseg_weibo"])
def test_no_trivial_segmentation_is_good(sample: Samples, name: str) -> None:
    rows = sample[name]["test"]
    assert f1(name, [list(row["text"]) for row in rows], rows) < 0.55
    assert f1(name, [[row["text"]] for row in rows], rows) < 0.1
    pairs = [[row["text"][i : i + 2] for i in range(0, len(row["text"]), 2)] for row in rows]
    assert f1(name, pairs, rows) < 0.4


def test_one_tag_for_every_character_is_bad(sample: Samples) -> None:
    rows = sample["pku_segpos"]["test"]
    assert (
        f1("pku_segpos", [[[i, i, "n"] for i in range(len(r["text"]))] for r in rows], rows) < 0.1
    )
    tags = Counter(tag for row in sample["pku_segpos"]["train"] for _, _, tag in row["spans"])
    assert len(tags) >= 20


def test_entities_are_of_every_type_some_nested_and_some_with_a_number(sample: Samples) -> None:
    rows = sample["cmeee"]["train"]
    assert len({code for row in rows for _, _, code in row["entities"]}) == 9
    nested = [
        row
        for row in rows
        if any(
            a <= c and d <= b and (a, b) != (c, d)
            for a, b, _ in row["entities"]
            for c, d, _ in row["entities"]
        )
    ]
    assert len(nested) > 100
    assert f1("cmeee", [[] for _ in sample["cmeee"]["test"]], sample["cmeee"]["test"]) == 0


def bag_of_characters(train: list[str], labels: list[Any], test: list[str]) -> list[Any]:
    from sklearn.feature_extraction.text import CountVectorizer
    from sklearn.naive_bayes import MultinomialNB
    from sklearn.pipeline import make_pipeline

    bag = CountVectorizer(analyzer="char", ngram_range=(1, 2), binary=True)
    return list(make_pipeline(bag, MultinomialNB(alpha=0.1)).fit(train, labels).predict(test))


def test_relations_need_the_asked_companies(sample: Samples) -> None:
    train, test = sample["finre"]["train"], sample["finre"]["test"]
    shares = Counter(row["relation"] for row in train)
    assert len(shares) == 44
    assert 0.15 < shares["NA"] / len(train) < 0.35
    without = bag_of_characters(
        [row["text"] for row in train],
        [row["relation"] for row in train],
        [row["text"] for row in test],
    )
    assert 0.2 < f1("finre", without, test) < 0.6


def test_copying_a_learners_sentence_scores_little(sample: Samples) -> None:
    rows = sample["yaclc"]["test"]
    copied = [parsed(TASKS["yaclc"], row["text"], row) for row in rows]
    assert f1("yaclc", copied, rows) < 0.1
    assert 5 < sum(row["gold"]["edits"] == [[]] for row in rows) < 40
    assert sum(len(row["gold"]["edits"]) > 1 for row in rows) > 30


def test_humour_is_in_the_words_and_not_in_length_or_place(sample: Samples) -> None:
    train, test = sample["spr"]["train"], sample["spr"]["test"]
    assert isinstance(TASKS["spr"].answer, Choice)
    assert 0.2 < sum(row["target"] for row in test) / len(test) < 0.4
    assert f1("spr", [1] * len(test), test) < 0.5
    by_length = max(
        range(40), key=lambda n: f1("spr", [int(len(r["sentence"]) >= n) for r in train], train)
    )
    assert f1("spr", [int(len(r["sentence"]) >= by_length) for r in test], test) < 0.62
    words = bag_of_characters(
        [row["sentence"] for row in train],
        [row["target"] for row in train],
        [row["sentence"] for row in test],
    )
    assert f1("spr", words, test) > 0.8
