"""Overlap checks name the rows that were planted, and are silent on clean data."""

from __future__ import annotations

import itertools
import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import planted
import pytest
from conftest import CLI, write_jsonl
from conftest import rows as pairs_of
from datasketch import MinHash
from hypothesis import given, settings
from hypothesis import strategies as st
from test_shortcuts import splits_of

from cpm_tune.analysis.overlap import (
    NEAR,
    Fingerprints,
    compare,
    in_corpus,
    jaccard,
    overlaps_of_test,
    shingles,
)
from cpm_tune.analysis.texts import normalised
from cpm_tune.errors import UserError
from cpm_tune.planning.plan import Request, make_plan
from cpm_tune.runs.execute import execute
from cpm_tune.schema.record import OverlapRecord, read_record


def overlap_of(plant: planted.Plant, folder: Path) -> Any:
    task, splits = splits_of(planted.TASKS[plant], planted.write(plant, folder))
    return overlaps_of_test(task, splits)


@pytest.mark.parametrize("plant", [planted.clean, planted.length, planted.option_alone])
def test_nothing_is_found_where_nothing_is_shared(tmp_path: Path, plant: planted.Plant) -> None:
    for overlap in overlap_of(plant, tmp_path).values():
        assert not overlap.any


def test_shared_sentences_are_found(tmp_path: Path) -> None:
    overlaps = overlap_of(planted.shared, tmp_path)
    assert overlaps["train"].shared == tuple(range(0, 800, 3))
    assert not overlaps["train"].near
    assert not overlaps["dev"].any


def test_repeated_rows_are_found_by_kind(tmp_path: Path) -> None:
    overlap = overlap_of(planted.repeated, tmp_path)["train"]
    assert overlap.exact == tuple(range(10))
    assert overlap.normalised == tuple(range(20))
    assert set(range(20)) < set(overlap.near) <= set(range(40))


def test_near_duplicates_are_those_of_all_pairs(tmp_path: Path) -> None:
    """The oracle compares every row with every other."""
    task, splits = splits_of("lcqmc", planted.write(planted.repeated, tmp_path))

    def sets(split: str) -> list[set[str]]:
        both = [
            sorted((normalised(r["sentence1"]), normalised(r["sentence2"])))
            for r in splits[split].rows
        ]
        whole = ["\n".join(pair) for pair in both]
        return [{w[i : i + 3] for i in range(len(w) - 2)} for w in whole]

    train = sets("train")
    expected = [
        number
        for number, row in enumerate(sets("test"))
        if any(len(row & other) / len(row | other) >= NEAR for other in train)
    ]
    assert len(expected) > 25
    assert list(overlaps_of_test(task, splits)["train"].near) == expected


def test_conflicting_answers_of_repeated_rows_are_counted(tmp_path: Path) -> None:
    task, splits = splits_of("lcqmc", planted.write(planted.repeated, tmp_path))
    repeats = Fingerprints(task, splits["train"]).repeats()
    assert (repeats.rows, repeats.conflicting) == (10, 10)
    repeats = Fingerprints(task, splits["dev"]).repeats()
    assert (repeats.rows, repeats.conflicting, repeats.example) == (0, 0, "")


def test_swapped_texts_and_swapped_options(tmp_path: Path) -> None:
    row = {"sentence1": "今天的天气怎么样呢", "sentence2": "明天会不会下雨呢", "label": 0}
    swapped = {**row, "sentence1": row["sentence2"], "sentence2": row["sentence1"], "label": 1}
    for split, rows in (("train", [row, swapped]), ("dev", [row]), ("test", [swapped])):
        lines = (json.dumps(each, ensure_ascii=False) + "\n" for each in rows)
        (tmp_path / f"{split}.jsonl").write_text("".join(lines), encoding="utf-8")
    task, splits = splits_of("lcqmc", tmp_path)
    overlap = overlaps_of_test(task, splits)["dev"]
    assert (overlap.exact, overlap.normalised) == ((), (0,))
    assert Fingerprints(task, splits["train"]).repeats().conflicting == 1


def test_an_option_counts_by_its_text(tmp_path: Path) -> None:
    row = {
        "translation": "春天的早上睡得很香",
        "choices": ["春眠不觉晓", "床前明月光"],
        "answer": 0,
    }
    turned = {**row, "choices": row["choices"][::-1], "answer": 1}  # type: ignore[index]
    for split, rows in (("train", [row, turned]), ("dev", [row]), ("test", [row])):
        lines = (json.dumps(each, ensure_ascii=False) + "\n" for each in rows)
        (tmp_path / f"{split}.jsonl").write_text("".join(lines), encoding="utf-8")
    task, splits = splits_of("ccpm", tmp_path)
    repeats = Fingerprints(task, splits["train"]).repeats()
    assert (repeats.rows, repeats.conflicting) == (1, 0)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**32), st.integers(0, 40))
def test_minhash_estimates_the_index_that_is_computed(seed: int, common: int) -> None:
    """The library's sketch against permutations of our own: both estimate what `jaccard` is."""
    drawn = random.Random(seed)
    a = "".join(chr(0x4E00 + drawn.randrange(3000)) for _ in range(60))
    b = a[:common] + "".join(chr(0x4E00 + drawn.randrange(3000)) for _ in range(60 - common))
    sets = shingles(a), shingles(b)
    index = jaccard(*sets)
    sketches = list(
        MinHash.generator([[s.encode() for s in each] for each in sets], num_perm=512, seed=1)
    )
    everything = sorted(sets[0] | sets[1])
    generator = np.random.default_rng(seed)
    hits = 0
    for _ in range(512):
        order = dict(zip(everything, generator.permutation(len(everything)), strict=True))
        first, second = (min(order[s] for s in each) for each in sets)
        hits += first == second
    assert sketches[0].jaccard(sketches[1]) == pytest.approx(index, abs=0.11)
    assert hits / 512 == pytest.approx(index, abs=0.11)


def test_only_some_rows_are_compared_if_there_are_many(tmp_path: Path) -> None:
    task, splits = splits_of("lcqmc", planted.write(planted.repeated, tmp_path))
    test, train = (Fingerprints(task, splits[name]) for name in ("test", "train"))
    overlap = compare(test, train, most_near=100)
    assert overlap.n_near == 100
    assert overlap.normalised == tuple(range(20))
    some = Fingerprints(task, splits["test"], most=50)
    assert compare(some, train).n == 50
    assert {*compare(some, train).any} <= {*range(40)}


def test_texts_of_a_corpus_are_found() -> None:
    drawn = random.Random(2)
    rows = [[planted.sentence(drawn, 30, 40)] for _ in range(20)]
    documents = [planted.sentence(drawn, 50, 60) for _ in range(30)]
    documents[7] += f"，{rows[3][0][5:12]} {rows[3][0][12:18]}！"
    documents[8] += rows[4][0][5:17]  # twelve characters
    expected = {
        n
        for (n, row), document in itertools.product(enumerate(rows), documents)
        if any(row[0][i : i + 13] in normalised(document) for i in range(len(row[0]) - 12))
    }
    assert in_corpus(rows, documents) == expected == {3}


def test_scores_with_and_without_shared_rows_are_verified_and_rescored(
    tmp_path: Path, cli: CLI
) -> None:
    data, results = tmp_path / "data", tmp_path / "results"
    data.mkdir()
    own = [
        {
            "sentence1": f"{sign}{sign}在哪里看",
            "sentence2": f"去哪看{sign}{sign}{sign}",
            "label": k % 2,
        }
        for k, sign in enumerate("天地玄黄宇宙洪荒")
    ]
    splits = {"train": pairs_of(40), "dev": pairs_of(8, 100), "test": [*own, *pairs_of(8, 200)]}
    for split, content in splits.items():
        write_jsonl(data / f"{split}.jsonl", content)
    settings = {"train.max_steps": 1, "train.eval_every": 1}
    plan = make_plan(Request("lcqmc", "bitfit", data=data, settings=settings))
    file = execute(plan, results).folder / "run.json"
    record = read_record(file)
    overlap = record.overlap["train"]
    assert overlap.rows == "8-15"
    lines = (file.parent / "predictions.test.jsonl").read_text(encoding="utf-8").splitlines()
    right = [(x := json.loads(line))["prediction"] == x["target"] for line in lines]
    assert overlap.among is not None
    assert overlap.without is not None
    assert overlap.among.value == pytest.approx(np.mean(right[8:]))
    assert overlap.without.value == pytest.approx(np.mean(right[:8]))
    assert cli("leaderboard", "verify", results)[0] == 0

    changed = json.loads(file.read_text(encoding="utf-8"))
    changed["overlap"]["train"]["without"]["value"] = 0.123
    file.write_text(json.dumps(changed), encoding="utf-8")
    code, out, error = cli("leaderboard", "verify", results)
    assert (code, "overlap.train.without: value is recorded as 0.123" in out + error) == (1, True)
    code, out, _ = cli("rescore", results, "--write")
    assert (code, "accuracy, without rows of train" in out) == (0, True)
    now = read_record(file)
    assert now.overlap["train"] == overlap
    assert (now.scores, now.earlier_scores[0].score.value) == (record.scores, 0.123)
    assert cli("leaderboard", "verify", results)[0] == 0

    changed["overlap"]["train"]["rows"] = "8-16"
    file.write_text(json.dumps(changed), encoding="utf-8")
    code, out, error = cli("leaderboard", "verify", results)
    assert (code, "overlap.rows has 8-16, expected rows in order, below 16" in out + error) == (
        1,
        True,
    )


def overlap_with(text: str) -> OverlapRecord:
    counts = dict.fromkeys(("n", "n_other", "n_near", "exact", "normalised", "near", "shared"), 1)
    return OverlapRecord(**counts, rows=text)


@given(st.sets(st.integers(0, 50)))
def test_numbers_of_rows_are_read_back_from_ranges(numbers: set[int]) -> None:
    text = OverlapRecord.ranges(sorted(numbers))
    parts = overlap_with(text).parts(51)
    assert parts == (
        {"among": sorted(numbers), "without": [i for i in range(51) if i not in numbers]}
        if numbers
        else {}
    )


@pytest.mark.parametrize("text", ["3-1", "4,4", "5,2", "0-999999999999", "50-51"])
def test_ranges_of_somebody_else_are_bounded(text: str) -> None:
    with pytest.raises(UserError, match="expected rows in order, below 51"):
        overlap_with(text).parts(51)
