"""The sample data of the tasks with options, documents, words and facts: that it is what its
generators make, that nothing but the content decides, and that the content does."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from conftest import REPOSITORY, encoder_of, small_config, vocabulary
from options_table import NAMES, TASKS, read

from cpm_tune.backbone.ant.tokenizer import Tokenizer
from cpm_tune.errors import UserError
from cpm_tune.metrics import get_metric
from cpm_tune.schema.spec import Encoding
from cpm_tune.task import Options, Rank, Row

SAMPLE = REPOSITORY / "tasks" / "sample"
CHOOSING = tuple(name for name in NAMES if isinstance(TASKS[name].answer, Options))


def options_of(name: str, row: Row) -> list[str]:
    found: list[str] = row[TASKS[name].answer.options]  # type: ignore[union-attr]
    return found


@pytest.fixture(scope="module")
def samples() -> dict[str, dict[str, list[Row]]]:
    return {
        name: {split: read(name, SAMPLE / name, split) for split in ("train", "dev", "test")}
        for name in NAMES
    }


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return Tokenizer(vocabulary())


Samples = dict[str, dict[str, list[Row]]]
SIZES = {
    **dict.fromkeys(NAMES, (600, 150, 200)),
    "gcrc": (400, 100, 120),
    "gcrc_evidence": (480, 120, 160),
    "sogou_log": (600, 150, 120),
}


@pytest.mark.parametrize("name", [name for name in NAMES if name != "gcrc_evidence"])
def test_the_generator_makes_the_committed_sample(tmp_path: Path, name: str) -> None:
    out = tmp_path if name == "gcrc" else tmp_path / name
    script = SAMPLE / f"make_{name}.py"
    subprocess.run([sys.executable, "-B", str(script), str(out)], check=True)
    made = {p.relative_to(tmp_path): p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()}
    folders = ("gcrc", "gcrc_evidence") if name == "gcrc" else (name,)
    committed = [p for folder in folders for p in (SAMPLE / folder).iterdir()]
    assert made == {p.relative_to(SAMPLE): p.read_bytes() for p in committed}


@pytest.mark.parametrize("name", NAMES)
def test_a_sample_has_its_size_and_no_row_twice(samples: Samples, name: str) -> None:
    splits = samples[name]
    assert tuple(map(len, splits.values())) == SIZES[name]
    content = Counter(
        json.dumps({k: v for k, v in row.items() if k not in ("id", "target")}, sort_keys=True)
        for rows in splits.values()
        for row in rows
    )
    assert content.most_common(1)[0][1] == 1
    said = {"c3": "passage", "gcrc": "passage", "ccpm": "translation", "sogou_log": "query"}
    if name in said:  # what a row is about is in one split only
        about = [{row[said[name]] for row in rows} for rows in splits.values()]
        assert sum(map(len, about)) == len(set.union(*about))


@pytest.mark.parametrize("name", NAMES)
def test_sample_rows_encode_with_every_template(
    samples: Samples, tokenizer: Tokenizer, name: str
) -> None:
    task = TASKS[name]
    for template in task.templates:
        if not all(template.specials.values()):  # CPM-Ant's vocabulary has no <mask>
            continue
        if template.yes == "相关":  # two entries of a vocabulary of characters
            with pytest.raises(UserError, match="choose another template: --template cpm-ant"):
                encoder_of(task, template, Encoding(), small_config(), tokenizer)
            continue
        encoder = encoder_of(
            task, template, Encoding(max_length=384), small_config(), tokenizer, answer_tokens=33
        )
        for row in samples[name]["test"][:15]:
            example = encoder.encode(row)
            assert not example.truncated
            expected = len(row["target"]) if isinstance(task.answer, Rank) else 0
            if isinstance(task.answer, Options):
                expected = len(options_of(name, row))
            assert len(example.candidates) == (expected or 1)


Guess = Callable[[Row, str], float]


def guessed(name: str, rows: list[Row], guess: Guess) -> float:
    """Accuracy of the option with the highest guess; ties count by their share."""
    right = 0.0
    for row in rows:
        scores = [guess(row, option) for option in options_of(name, row)]
        best = max(scores)
        right += (scores[row["target"]] == best) / scores.count(best)
    return right / len(rows)


def chance(name: str, rows: list[Row]) -> float:
    return guessed(name, rows, lambda row, option: 0.0)


@pytest.mark.parametrize("name", CHOOSING)
def test_neither_place_nor_length_nor_the_options_alone_decide(samples: Samples, name: str) -> None:
    train, test = samples[name]["train"], samples[name]["test"]
    by_chance = chance(name, test)
    shown, right = Counter[str](), Counter[str]()
    for row in train:
        shown.update(options_of(name, row))
        right[options_of(name, row)[row["target"]]] += 1
    guesses: dict[str, Guess] = {
        "long": lambda row, option: len(option),
        "short": lambda row, option: -len(option),
        "often right": lambda row, option: (right[option] + 0.25) / (shown[option] + 1),
    }
    found = {what: guessed(name, test, guess) for what, guess in guesses.items()}
    place = Counter(row["target"] for row in train).most_common(1)[0][0]
    found["place"] = sum(row["target"] == place for row in test) / len(test)
    noise = 2.6 * math.sqrt(by_chance * (1 - by_chance) / len(test))
    assert {what: value for what, value in found.items() if value > by_chance + noise} == {}


@pytest.mark.parametrize("name", CHOOSING)
def test_the_right_option_stands_in_any_place(samples: Samples, name: str) -> None:
    rows = [row for split in samples[name].values() for row in split]
    by_size: dict[int, Counter[int]] = {}
    for row in rows:
        by_size.setdefault(len(options_of(name, row)), Counter())[row["target"]] += 1
    for size, places in by_size.items():
        n = places.total()
        for place in range(size):
            assert abs(places[place] - n / size) < 3.5 * math.sqrt(n / size)


def pairs_of(row: Row, option: str) -> Iterator[tuple[str, str]]:
    """Pairs of a piece of the context and a piece of the option, two characters each."""
    context = "".join(value for key, value in row.items() if isinstance(value, str) and key != "id")
    pieces = {option[i : i + 2] for i in range(len(option) - 1)}
    for left in {context[i : i + 2] for i in range(len(context) - 1)}:
        for piece in pieces:
            yield left, piece


@pytest.mark.parametrize(("name", "least"), [("ccpm", 0.65), ("clozet", 0.8), ("chid", 0.6)])
def test_counting_pairs_of_pieces_beats_chance_by_far(
    samples: Samples, name: str, least: float
) -> None:
    seen, right = Counter[tuple[str, str]](), Counter[tuple[str, str]]()
    for row in samples[name]["train"]:
        for number, option in enumerate(options_of(name, row)):
            pairs = list(pairs_of(row, option))
            seen.update(pairs)
            if number == row["target"]:
                right.update(pairs)

    def guess(row: Row, option: str) -> float:
        odds = [math.log((right[p] + 0.3) / (seen[p] + 1.2)) for p in pairs_of(row, option)]
        return sum(odds) / max(len(odds), 1)

    accuracy = guessed(name, samples[name]["test"], guess)
    assert accuracy > least > chance(name, samples[name]["test"]) + 0.15


@pytest.mark.parametrize("name", ["c3", "gcrc"])
def test_reading_comprehension_needs_the_text_and_more_than_shared_characters(
    samples: Samples, name: str
) -> None:
    def shared(row: Row, option: str) -> float:
        asks_wrong = any(word in row["question"] for word in ("不符合", "不正确", "有误"))
        found = len(set(option) & set(row["passage"])) / len(set(option))
        return -found if asks_wrong else found

    by_chance = chance(name, samples[name]["test"])
    assert by_chance + 0.15 < guessed(name, samples[name]["test"], shared) < 0.8


def test_documents_need_both_the_thing_and_the_want(samples: Samples) -> None:
    test = samples["sogou_log"]["test"]
    grades = [row["target"] for row in test]
    assert {sum(grade) for grade in grades} == {2.0}
    assert {len(grade) for grade in grades} == {10}

    def ndcg(guess: Guess) -> float:
        scores = [[guess(row, text) for text in row["documents"]] for row in test]
        return get_metric("ndcg_10").score(scores, grades).value

    by_chance = ndcg(lambda row, text: 0.0)
    assert ndcg(lambda row, text: len(text)) < by_chance + 0.06
    assert ndcg(lambda row, text: -row["documents"].index(text)) < by_chance + 0.06
    alike = ndcg(lambda row, text: len(set(text) & set(row["query"])))
    assert by_chance + 0.1 < alike < 0.85

    right, seen = Counter[tuple[str, str]](), Counter[tuple[str, str]]()
    for row in samples["sogou_log"]["train"]:
        for text, grade in zip(row["documents"], row["target"], strict=True):
            pairs = list(pairs_of(row, text))
            seen.update(pairs)
            right.update(pairs if grade else [])

    def learnt(row: Row, text: str) -> float:
        odds = [math.log((right[p] + 0.5) / (seen[p] + 1)) for p in pairs_of(row, text)]
        return sum(odds) / len(odds)

    assert ndcg(learnt) > by_chance + 0.1


def test_words_and_facts_of_test_are_mostly_in_train_with_other_words(samples: Samples) -> None:
    words = {row["target"] for row in samples["wantwords"]["train"]}
    known = sum(row["target"] in words for row in samples["wantwords"]["test"])
    assert 165 <= known <= 180
    asked = samples["kbqa"]
    answers = {row["target"] for row in asked["train"]}
    assert sum(row["target"] in answers for row in asked["test"]) >= 195
    for name in ("wantwords", "kbqa"):
        most = Counter(row["target"] for row in samples[name]["test"]).most_common(1)[0][1]
        assert most <= 12  # always the same answer: 6% at most


def test_an_evidence_is_a_sentence_of_its_passage(samples: Samples) -> None:
    for row in samples["gcrc_evidence"]["train"]:
        assert row["target"] in row["passage"]
        assert row["target"].count("。") == 1
    annotated = json.loads((SAMPLE / "gcrc" / "train.json").read_text("utf-8"))["data"]
    assert sum(bool(record["evidences"]) for record in annotated) == 134
