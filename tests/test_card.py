"""A data set's card names the fault that was planted and is silent on clean data."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from pathlib import Path

import planted
import pytest
from conftest import CLI
from sklearn.metrics import accuracy_score

from cpm_tune.analysis.card import lengths
from cpm_tune.planning.plan import Request
from cpm_tune.runs.session import tune
from cpm_tune.systems.predictions import read_predictions


def findings(out: str) -> list[str]:
    return [line.removeprefix("finding: ") for line in out.splitlines() if "finding: " in line]


@pytest.mark.parametrize(
    ("plant", "expected"),
    [
        (planted.clean, ["nothing that would"]),
        (planted.length, ["length alone gets (1.0|0.99)"]),
        (planted.shared, ["33.4% of test has one of several texts in common with train"]),
        (planted.option_alone, ["option-alone alone gets (1.0|0.9[5-9])"]),
        (planted.repeated, ["4.*% of test is in train as well", "10 texts of train have several"]),
    ],
)
def test_the_card_names_exactly_what_was_planted(
    plant: planted.Plant, expected: list[str], tmp_path: Path, cli: CLI
) -> None:
    folder = planted.write(plant, tmp_path)
    code, out, _ = cli("data", str(folder), "--task", planted.TASKS[plant])
    assert code == 0
    found = findings(out)
    assert len(found) == len(expected)
    assert all(re.match(pattern, one) for pattern, one in zip(expected, found, strict=True)), found


def test_shared_rows_in_another_order_or_with_another_answer_are_named(
    tmp_path: Path, cli: CLI
) -> None:
    folder = planted.write(planted.clean, tmp_path)
    train = [json.loads(line) for line in (folder / "train.jsonl").read_text().splitlines()]
    flipped = [{**row, "label": 1 - row["label"]} for row in train[:60]]
    swapped = [
        {**row, "sentence1": row["sentence2"], "sentence2": row["sentence1"]}
        for row in train[60:90]
    ]
    lines = (json.dumps(row) for row in [*flipped, *swapped, *train[90:100]])
    (folder / "dev.jsonl").write_text("\n".join(lines))
    _, out, _ = cli("data", str(folder), "--task", "lcqmc")
    assert "60.0% of dev is in train with another answer" in findings(out)
    assert (
        "70 the same, 0 but for punctuation, 0 nearly the same, 30 with their texts in another "
        "order; of them with another answer: 60"
    ) in out


def test_truncation_at_a_length_is_a_finding(tmp_path: Path, cli: CLI) -> None:
    folder = planted.write(planted.clean, tmp_path)
    _, out, _ = cli("data", str(folder), "--task", "lcqmc", "--max-length", "44")
    assert any("is truncated at 44 tokens" in one for one in findings(out))


class Texts(HTMLParser):
    """The texts of the cells of a page, and the names of its elements."""

    def __init__(self) -> None:
        super().__init__()
        self.texts: list[str] = []
        self.tags: set[str] = set()

    def handle_starttag(self, tag: str, attrs: object) -> None:
        self.tags.add(tag)

    def handle_data(self, data: str) -> None:
        self.texts.append(data)


def test_the_page_says_the_same_and_escapes_what_the_data_says(tmp_path: Path, cli: CLI) -> None:
    folder = planted.write(planted.repeated, tmp_path / "<script>alert(1)</script>")
    rows = (folder / "train.jsonl").read_text().splitlines()
    hostile = {"sentence1": "<img src=x onerror=alert(2)>", "sentence2": "&amp;<b>很粗的字</b>"}
    for place in range(10):  # the first that has several answers is the example
        row = {**hostile, "label": place % 2}
        rows[place] = rows[500 + place] = json.dumps(row)
    (folder / "train.jsonl").write_text("\n".join(rows))
    page = tmp_path / "card.html"
    assert cli("data", str(folder), "--task", "lcqmc", "--out", str(page))[0] == 0
    _, out, _ = cli("data", str(folder), "--task", "lcqmc")
    parser = Texts()
    parser.feed(page.read_text(encoding="utf-8"))
    assert {f"finding: {one}" for one in findings(out)} <= {*parser.texts}
    assert not {"script", "img", "b"} & parser.tags
    assert any("<script>" in text for text in parser.texts)


def test_the_card_as_json(tmp_path: Path, cli: CLI) -> None:
    file = tmp_path / "card.json"
    assert cli("data", "tasks/sample/ccpm", "--out", str(file))[0] == 0
    card = json.loads(file.read_text(encoding="utf-8"))
    assert [split["n"] for split in card["splits"]] == [600, 150, 200]
    test = card["splits"][2]
    assert sum(test["answers"].values()) == 200
    assert set(test["lengths"]) == {"translation", "choices"}
    assert card["task"] == "ccpm"


def test_a_card_needs_no_answers_and_not_all_splits(tmp_path: Path, cli: CLI) -> None:
    planted.write(planted.clean, tmp_path)
    (tmp_path / "train.jsonl").unlink()
    (tmp_path / "dev.jsonl").unlink()
    rows = [json.loads(line) for line in (tmp_path / "test.jsonl").read_text().splitlines()]
    lines = (json.dumps({k: v for k, v in row.items() if k != "label"}) for row in rows)
    (tmp_path / "test.jsonl").write_text("\n".join(lines))
    code, out, _ = cli("data", str(tmp_path), "--task", "lcqmc")
    assert (code, "no answers" in out, "Overlap" in out) == (0, True, False)


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("data", "tests"), "no task has the name of this folder"),
        (("data", "tasks/sample/lcqmc", "--out", "card.pdf"), "expected an ending"),
        (("data", "docs", "--task", "lcqmc"), "no file for train"),
        (("data", "tasks/sample/lcqmc", "--corpus", "docs"), "not a prepared corpus"),
    ],
)
def test_mistakes_are_one_sentence(words: tuple[str, ...], sentence: str, cli: CLI) -> None:
    code, _, error = cli(*words)
    assert (code, sentence in error) == (2, True)


def test_show_counts_shared_rows(tmp_path: Path, cli: CLI) -> None:
    folder = str(planted.write(planted.repeated, tmp_path))
    _, out, _ = cli("show", "lcqmc", "--data", folder, "--rows", "0", "--text", "--overlap")
    assert "test and train: 10 the same, 10 but for punctuation" in out
    assert "test and dev: 0 the same" in out


def test_a_run_scores_with_and_without_shared_rows(tmp_path: Path) -> None:
    data = planted.write(planted.shared, tmp_path / "data")
    quick = {"train.max_steps": 2, "train.eval_every": 2, "train.dev_rows": 20}
    request = Request("lcqmc", "bitfit", data=data, settings=quick)
    outcome = tune(request, out=tmp_path / "out", controls=())
    assert outcome is not None
    overlap = outcome.record.overlap["train"]
    assert (overlap.shared, overlap.near, overlap.n, overlap.n_other) == (267, 0, 800, 1500)
    read = read_predictions(outcome.folder / "predictions.test.jsonl")
    pairs = list(zip(read.targets, read.predictions, strict=True))
    with_them, without = (
        [pair for number, pair in enumerate(pairs) if (number % 3 == 0) is shared]
        for shared in (True, False)
    )
    assert overlap.among is not None
    assert overlap.without is not None
    assert overlap.among.value == accuracy_score(*zip(*with_them, strict=True))
    assert overlap.without.value == accuracy_score(*zip(*without, strict=True))
    assert outcome.record.overlap["dev"].among is None


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([], (0, 0, 0)),
        ([7], (7, 7, 7)),
        ([1, 2, 3, 4], (2, 3, 4)),
        (list(range(101)), (50, 95, 100)),
    ],
)
def test_lengths(values: list[int], expected: tuple[int, int, int]) -> None:
    got = lengths(values)
    assert (got.median, got.p95, got.longest) == expected
