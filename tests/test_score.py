"""Predictions of other systems: submissions of all tasks read back, faults named, records left."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import CLI, rows, write_jsonl

from cpm_tune.data.splits import find_splits, sample_folder
from cpm_tune.data.store import read_split
from cpm_tune.leaderboard.verify import verify_results
from cpm_tune.metrics import get_metric
from cpm_tune.schema.record import SCHEMA, SystemRecord, read_any_record
from cpm_tune.systems.submission import read_answers, write_submission
from cpm_tune.task import Choice, Generate, Options, Rank, Row, Task
from cpm_tune.task.answers import gold, parsed
from cpm_tune.task.registry import load_task, load_tasks

SUBMITTED = [task for task in load_tasks() if task.submission is not None]


def half_right(task: Task, own: list[Row]) -> list[Any]:
    """What a run could predict: every other row right, the others something else."""
    kind = get_metric(task.metrics[0]).prediction
    found: list[Any] = []
    for i, row in enumerate(own):
        other = own[(i + 1) % len(own)]
        if isinstance(task.answer, Rank):
            found.append([float((7 * j + i) % 23) for j in range(len(row["target"]))])
        elif isinstance(task.answer, Options):
            n = len(row[task.answer.options])
            found.append((row["target"] + i % 2) % n)
        elif isinstance(task.answer, Choice):
            found.append(task.answer.labels[(row["target"] + i % 2) % 2])
        elif kind == "ranks":
            found.append([other["target"], row["target"]] if i % 2 else [row["target"]])
        else:
            text = other["target"] if i % 2 else row["target"]
            read = parsed(task, text, row)
            if kind == "words" and read is None:  # a submission has to hold the sentence
                read = [row["text"]]
            found.append(read)
    return found


@pytest.mark.parametrize("task", SUBMITTED, ids=lambda task: task.name)
def test_the_submission_of_a_run_scores_what_the_run_scores(task: Task, tmp_path: Path) -> None:
    split = read_split(task, find_splits(task, sample_folder(task), ("test",))["test"])
    own = list(split.rows)
    if task.name in ("adgen", "cepsum"):  # slow to score
        metric = get_metric("char_f1")
    else:
        metric = get_metric(task.metrics[0])
    predictions = half_right(task, own)
    assert task.submission is not None
    path = tmp_path / task.submission.file
    assert write_submission(task, split, predictions, path) == []
    answers, form = read_answers(task, path, split.file)
    assert form == "submission"
    assert [a.id for a in answers] == [row["id"] for row in own]
    targets = [gold(task, row) for row in own]
    assert [a.target for a in answers] == targets
    values = [
        float(metric.parts(side, targets).values(np.ones((1, len(own))))[0])
        for side in (predictions, [a.prediction for a in answers])
    ]
    assert values[0] == pytest.approx(values[1], abs=1e-12)
    if not isinstance(task.answer, Rank):
        assert 0.01 < values[0] / (100 if metric.name.startswith("bleu") else 1) < 0.999


@pytest.mark.parametrize(
    "name", ["lcqmc", "ccpm", "sogou_log", "lcsts", "cmeee", "math23k", "pku_seg", "yaclc", "chid"]
)
def test_our_own_form_in_any_order_gives_the_same_predictions(name: str, tmp_path: Path) -> None:
    task = load_task(name)
    split = read_split(task, find_splits(task, sample_folder(task), ("test",))["test"])
    own = list(split.rows)
    predictions = half_right(task, own)
    listed = [{"id": row["id"], "prediction": p} for row, p in zip(own, predictions, strict=True)]
    path = write_jsonl(tmp_path / "mine.jsonl", listed[::-1])
    answers, form = read_answers(task, path, split.file)
    assert form == "predictions.jsonl"
    assert [a.prediction for a in answers] == predictions


def predicted(path: Path, change: Any = None) -> Path:
    """The test rows of `data` with every fourth label wrong, in the training format."""
    lines = rows(16, 200)
    for i, line in enumerate(lines):
        line["label"] = int(line["label"]) ^ (i % 4 == 0)  # type: ignore[call-overload]
    if change is not None:
        change(lines)
    return write_jsonl(path, lines)


def test_a_system_leaves_a_record_beside_the_runs(cli: CLI, data: Path, tmp_path: Path) -> None:
    out, path = tmp_path / "out", predicted(tmp_path / "x.jsonl")
    words = ("score", "--task", "lcqmc", "--predictions", path, "--data", data, "--out", out)
    code, said, _ = cli(*words, "--name", "某系统 <1>")
    assert code == 0
    assert "test accuracy 0.7500" in said
    (folder,) = out.glob("lcqmc.*")
    record = read_any_record(folder / "run.json")
    assert isinstance(record, SystemRecord)
    assert record.name == "某系统 <1>"
    assert record.test.value == 0.75
    import jsonschema

    jsonschema.validate(
        json.loads((folder / "run.json").read_text(encoding="utf-8")),
        json.loads(SCHEMA.read_text(encoding="utf-8")),
    )
    assert verify_results(out) == (1, [])
    before = (folder / "run.json").read_bytes()
    code, said, _ = cli(*words, "--name", "某系统 <1>")
    assert "already exists" in said
    assert (folder / "run.json").read_bytes() == before
    code, _, error = cli("predict", folder)
    assert code == 2
    assert "expected a run of this package" in error


def test_a_system_stands_in_the_tables_of_the_runs(
    cli: CLI, data: Path, small_backbone: Path, tmp_path: Path
) -> None:
    from cpm_tune.leaderboard.aggregate import make_board
    from cpm_tune.leaderboard.export import export
    from cpm_tune.leaderboard.results import read_folder

    out, path = tmp_path / "out", predicted(tmp_path / "x.jsonl")
    words = ("--task", "lcqmc", "--data", data, "--out", out)
    assert cli("--delta", "none", "--backbone", small_backbone, "--quiet", *words)[0] == 0
    score = ("score", "--predictions", path, *words)
    assert cli(*score, "--name", "S <i>")[0] == 0
    on_dev = ("score", "--predictions", data / "dev.jsonl", "--split", "dev", *words)
    assert cli(*on_dev, "--name", "On dev")[0] == 0
    board = make_board(read_folder(out))
    (column,) = board.columns
    assert {row.id for row in board.rows} == {"small / none", "S <i> / outside system"}
    system = next(row for row in board.rows if row.backbone == "S <i>")
    assert system.cells[column.id].mean == 75
    assert system.cost.n_trainable is None
    assert "scored on dev" in "".join(board.left_out)
    text, _ = export(out, "text")
    assert text.count("(outside system)") == 1
    for style in ("md", "csv", "latex", "json", "html"):
        assert "outside system" in export(out, style)[0]

    (tmp_path / "other").mkdir()
    other = write_jsonl(tmp_path / "other" / "test.jsonl", rows(16, 300))
    (other.parent / "dev.jsonl").write_text((data / "dev.jsonl").read_text())
    again = ("score", "--task", "lcqmc", "--predictions", other, "--data", other.parent)
    assert cli(*again, "--out", out, "--name", "S <i>")[0] == 0
    board = make_board(read_folder(out))  # other questions: a column of its own
    assert [len(row.cells) for row in board.rows if row.backbone == "S <i>"] == [2]
    assert "outside systems only" in "".join(part for c in board.columns for part in c.apart)
    assert export(out, "text")[0].count("(outside system)") == 2


def test_other_predictions_under_a_taken_name_want_a_word(
    cli: CLI, data: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    words = ("score", "--task", "lcqmc", "--data", data, "--out", out, "--name", "S")
    first = predicted(tmp_path / "a.jsonl")
    second = predicted(tmp_path / "b.jsonl", lambda lines: lines[1].update(label=0))
    assert cli(*words, "--predictions", first)[0] == 0
    code, _, error = cli(*words, "--predictions", second)
    assert code == 2
    assert "--seed N for another run of it" in error
    assert cli(*words, "--predictions", second, "--seed", 2)[0] == 0
    assert len(list(out.glob("lcqmc.S.*"))) == 2
    assert cli(*words, "--predictions", second, "--overwrite")[0] == 0
    assert len(list(out.glob("lcqmc.S.s1.*"))) == 1


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda lines: lines.pop(), "15 records, but test.jsonl has 16"),
        (lambda lines: lines.append(lines[0]), "17 records, but test.jsonl has 16"),
        (lambda lines: lines[2].update(id=999), 'x.jsonl:3: \'id\' is "999", in the data "202"'),
        (lambda lines: lines[2].update(sentence1="猫"), "x.jsonl:3: 'sentence1' is \"猫\""),
        (lambda lines: lines[2].update(label=7), "x.jsonl:3: label is 7, expected 0 or 1"),
        (lambda lines: lines.reverse(), "x.jsonl:1: 'sentence1'"),
        (lambda lines: [line.pop("label") for line in lines], "no answer that can be read"),
    ],
)
def test_a_submission_that_does_not_fit_is_one_sentence(
    change: Any, said: str, cli: CLI, data: Path, tmp_path: Path
) -> None:
    path, out = predicted(tmp_path / "x.jsonl", change), tmp_path / "out"
    words = ("score", "--task", "lcqmc", "--data", data, "--out", out, "--name", "S")
    code, _, error = cli(*words, "--predictions", path)
    assert code == 2
    assert said in error
    assert len(error.splitlines()) == 1
    assert not list(out.glob("lcqmc.*"))


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ({"id": "nobody", "prediction": 1}, "has no row 'nobody'"),
        ({"id": "201", "prediction": 1}, "was there before"),
        ({"id": "200", "prediction": 5}, "prediction is 5, expected one of the labels 0, 1"),
        ({"id": "200"}, "expected"),
    ],
)
def test_predictions_that_do_not_fit_are_one_sentence(
    line: dict[str, object], said: str, cli: CLI, data: Path, tmp_path: Path
) -> None:
    lines: list[dict[str, object]] = [{"id": str(200 + i), "prediction": 1} for i in range(1, 16)]
    path = write_jsonl(tmp_path / "x.jsonl", [lines[0], line, *lines[1:]])
    words = ("score", "--task", "lcqmc", "--data", data, "--out", tmp_path / "out", "--name", "S")
    code, _, error = cli(*words, "--predictions", path)
    assert code == 2
    assert "x.jsonl:2" in error
    assert said in error


def test_half_a_line_and_a_test_split_without_answers_are_named(
    cli: CLI, data: Path, tmp_path: Path
) -> None:
    path = predicted(tmp_path / "x.jsonl")
    path.write_text(path.read_text(encoding="utf-8")[:-20], encoding="utf-8")
    words = ("score", "--task", "lcqmc", "--data", data, "--out", tmp_path / "out", "--name", "S")
    code, _, error = cli(*words, "--predictions", path)
    assert code == 2
    assert "x.jsonl:16: not a whole JSON object" in error
    bare = [{k: v for k, v in row.items() if k != "label"} for row in rows(16, 200)]
    write_jsonl(data / "test.jsonl", bare)
    code, _, error = cli(*words, "--predictions", predicted(tmp_path / "y.jsonl"))
    assert code == 2
    assert "the test split has no answers to compare with" in error


def test_every_answer_kind_is_among_the_submissions() -> None:
    assert {type(task.answer) for task in SUBMITTED} >= {Options, Rank, Generate}
