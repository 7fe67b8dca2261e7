"""Sample data of the tasks whose answer is a text: made again, sizes, splits, trivial baselines."""

from __future__ import annotations

import json
import re
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from conftest import encoder_of, small_config, vocabulary
from texts_cases import MODULES, NAMES, TASKS, load, read

from cpm_tune.backbone.ant.tokenizer import Tokenizer
from cpm_tune.common.paths import shipped
from cpm_tune.data.splits import find_splits, is_sample, sample_folder
from cpm_tune.schema.spec import Encoding
from cpm_tune.task import SPLITS, Row
from cpm_tune.task.answers import gold

SAMPLE = shipped("tasks") / "sample"
SIZES = {"train": 600, "dev": 150, "test": 200}
OWN_SIZES = {
    "cepsum": {"train": 400, "dev": 100, "test": 150},
    "kdconv": {"train": 600, "dev": 168, "test": 216},
}
Splits = dict[str, list[Row]]


@pytest.fixture(scope="module")
def sample() -> dict[str, Splits]:
    return {
        name: {split: read(TASKS[name], SAMPLE / name, split) for split in SPLITS} for name in NAMES
    }


@pytest.mark.parametrize("name", NAMES)
def test_the_generator_makes_the_committed_bytes(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "path", [str(SAMPLE), *sys.path])
    load(SAMPLE / f"make_{name}.py").main(tmp_path)
    made = {path.relative_to(tmp_path): path.read_bytes() for path in tmp_path.rglob("*.json*")}
    assert made
    assert made == {
        path.relative_to(SAMPLE): path.read_bytes() for path in (SAMPLE / name).rglob("*.json*")
    }
    assert sum(map(len, made.values())) < 420_000


@pytest.mark.parametrize("name", NAMES)
def test_the_generator_says_where_the_data_is_from(name: str) -> None:
    said = (SAMPLE / f"make_{name}.py").read_text(encoding="utf-8").split('"""')[1]
    for words in ("composed for this project", "Apache-2.0", "CC0-1.0", "NOT comparable"):
        assert words in " ".join(said.split())


@pytest.mark.parametrize("name", NAMES)
def test_sizes_and_answers(name: str, sample: dict[str, Splits]) -> None:
    assert sample_folder(TASKS[name]) == SAMPLE / name
    assert is_sample(TASKS[name], find_splits(TASKS[name], SAMPLE / name))
    assert {split: len(rows) for split, rows in sample[name].items()} == OWN_SIZES.get(name, SIZES)
    for rows in sample[name].values():
        for row in rows:
            assert row["target"]
            assert gold(TASKS[name], row)


def key(name: str, row: Row) -> Any:
    """What no two splits may share: what is asked (of a dialogue: with its name)."""
    if name == "kdconv":
        return row["history"].split("\n")[0]
    return tuple(str(row[field]) for field in TASKS[name].templates[0].fields)


@pytest.mark.parametrize("name", NAMES)
def test_no_row_is_in_two_splits(name: str, sample: dict[str, Splits]) -> None:
    keys = [{key(name, row) for row in rows} for rows in sample[name].values()]
    assert sum(map(len, keys)) == len(set.union(*keys))
    if name not in ("stc", "kdconv"):  # a post has two responses, a dialogue eight rows
        assert sum(map(len, keys)) == sum(map(len, sample[name].values()))


@pytest.mark.parametrize("name", ["lcsts", "ncls_enzh", "math23k", "adgen", "cepsum"])
def test_no_answer_of_test_stands_in_train(name: str, sample: dict[str, Splits]) -> None:
    known = {row["target"] for row in sample[name]["train"]}
    rows = sample[name]["test"]
    assert sum(row["target"] in known for row in rows) < 0.06 * len(rows)


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    """The vocabulary holds the characters of GB 2312."""
    return Tokenizer(vocabulary())


@pytest.mark.parametrize("name", NAMES)
def test_every_row_fits_the_recipe_and_its_characters_are_common(
    name: str, sample: dict[str, Splits], tokenizer: Tokenizer
) -> None:
    task = TASKS[name]
    encoding = Encoding(max_length=task.recipe["max_length"])
    for template in task.templates:
        room = task.answer.max_new_tokens  # type: ignore[union-attr]
        encoder = encoder_of(task, template, encoding, small_config(), tokenizer, room)
        for row in sample[name]["dev"]:
            example = encoder.encode(row, train=True)
            assert not example.truncated
            (context,), (answer,) = example.contexts, example.candidates
            assert tokenizer.unk not in context + answer.ids


def common(one: str, other: str) -> int:
    """Length of the longest common subsequence of characters (Hyyro's bit-parallel rule)."""
    where: dict[str, int] = {}
    for i, character in enumerate(one):
        where[character] = where.get(character, 0) | 1 << i
    full = (1 << len(one)) - 1
    state = full
    for character in other:
        hit = state & where.get(character, 0)
        state = ((state + hit) | (state - hit)) & full
    return len(one) - state.bit_count()


def rouge(found: str, golds: Any) -> float:
    """The best ROUGE-L F1 over characters: an oracle of its own."""
    golds = golds if isinstance(golds, list) else [golds]
    return max(2 * common(found, text) / (len(found) + len(text)) for text in golds)


def always(rows: Splits, name: str) -> float:
    """ROUGE-L of one fixed answer: the best of thirty of train's most frequent ones."""
    golds = [gold(TASKS[name], row) for row in rows["test"]]
    frequent = Counter(row["target"] for row in rows["train"]).most_common(30)
    return max(sum(rouge(text, one) for one in golds) / len(golds) for text, _ in frequent)


def test_the_oracle_of_these_tests_counts_a_common_subsequence() -> None:
    assert common("云河地铁开通", "地铁在云河开通") == 4
    assert common("甲", "乙") == 0
    assert rouge("甲乙", ["丙", "甲丁"]) == pytest.approx(0.5)


@pytest.mark.parametrize("name", [name for name in NAMES if name != "math23k"])
def test_one_answer_for_all_is_poor(name: str, sample: dict[str, Splits]) -> None:
    assert always(sample[name], name) < 0.45


@pytest.mark.parametrize("name", NAMES)
def test_the_most_frequent_answer_is_rare(name: str, sample: dict[str, Splits]) -> None:
    (_, n), *_ = Counter(row["target"] for row in sample[name]["test"]).most_common(1)
    assert n < 0.06 * len(sample[name]["test"])


@pytest.mark.parametrize(
    ("name", "field", "limit"), [("lcsts", "text", 0.65), ("cepsum", "source", 0.3)]
)
def test_copying_the_beginning_does_not_solve_it(
    name: str, field: str, limit: float, sample: dict[str, Splits]
) -> None:
    rows = sample[name]["test"]
    found = [rouge(row[field][: len(row["target"])], gold(TASKS[name], row)) for row in rows]
    assert sum(found) / len(found) < limit
    assert not any(row["target"] in row[field] for row in rows)


def test_an_equation_does_not_follow_from_the_numbers_alone(sample: dict[str, Splits]) -> None:
    """Equations have many shapes; often their numbers stand in another order than the text's."""
    shapes: Counter[str] = Counter()
    ordered = 0
    number = re.compile(r"\d+")
    for row in sample["math23k"]["test"]:
        shapes[number.sub("n", row["target"])] += 1
        ordered += number.findall(row["problem"]) == number.findall(row["target"])
    assert len(shapes) > 12
    assert shapes.most_common(1)[0][1] < 0.2 * shapes.total()
    assert 0.3 < ordered / shapes.total() < 0.75


def test_the_messages_of_dialogues_use_their_knowledge(sample: dict[str, Splits]) -> None:
    rows = [row for rows in sample["kdconv"].values() for row in rows]
    used = [row["knowledge"].split("，", 2) for row in rows if row["knowledge"]]
    assert 0.4 < len(used) / len(rows) < 0.8
    for row in rows:
        name, fact, value = (row["knowledge"] or "，，").split("，", 2)
        assert fact == "Information" or value in row["target"], name


def test_posts_of_dev_and_test_have_two_references(sample: dict[str, Splits]) -> None:
    for split in ("dev", "test"):
        assert all(len(set(row["references"])) == 2 for row in sample["stc"][split])
    assert all(row["references"] == [row["target"]] for row in sample["stc"]["train"])


def test_the_segmented_problem_is_the_problem() -> None:
    for split in SPLITS:
        for line in (SAMPLE / "math23k" / f"{split}.jsonl").read_text("utf-8").splitlines():
            record = json.loads(line)
            assert MODULES["stc"].joined(record["segmented_text"]) == record["original_text"]
