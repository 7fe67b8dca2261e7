"""Options of a row's own, ranking and generation: from task file and data to record, prediction
and submission, on a small backbone."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from conftest import CLI, encoder_of, small_config, vocabulary, write_jsonl
from kinds import DATA, tune, write_tasks

from cpm_tune.backbone.ant.tokenizer import Tokenizer
from cpm_tune.backbone.example import Example
from cpm_tune.data.encode import Encoder
from cpm_tune.errors import ProcessLostError
from cpm_tune.schema.record import SHORTCUTS, read_record
from cpm_tune.schema.spec import Encoding
from cpm_tune.task import Row
from cpm_tune.task.registry import load_task


@pytest.fixture
def tasks(tmp_path: Path) -> Path:
    return write_tasks(tmp_path)


def make_encoder(tasks: Path, name: str, template: int = 0, **settings: Any) -> Encoder:
    task = load_task(name, [tasks])
    encoding = Encoding(**{"max_length": 64, **settings})
    room = getattr(task.answer, "max_new_tokens", 0)
    tokenizer = Tokenizer(vocabulary())
    return encoder_of(task, task.templates[template], encoding, small_config(), tokenizer, room)


def texts(encoder: Encoder, example: Example) -> list[str]:
    """The contexts as text, without what stands before each."""
    start = len(encoder.layout.start)
    return [encoder.tokenizer.decode(context[start:]) for context in example.contexts]


def answers(encoder: Encoder, example: Example) -> list[list[str]]:
    """The tokens of each candidate."""
    return [[encoder.tokenizer.entries[i] for i in answer.ids] for answer in example.candidates]


def as_row(name: str, number: int) -> Row:
    """A row of DATA as the store gives it."""
    row = dict(DATA[name][number], id=str(number))
    column = {"pick": "answer", "rank": "grades"}.get(name)
    row["target"] = " ".join(row["words"]) if column is None else row.pop(column)
    return row


@pytest.mark.parametrize("name", ["pick", "rank", "write"])
def test_a_run_scores_every_row_and_can_be_predicted_again(
    cli: CLI, tasks: Path, small_backbone: Path, name: str
) -> None:
    code, said, _ = tune(cli, tasks, small_backbone, name)
    assert code == 0
    (run,) = (tasks.parent / "out").glob(f"{name}.lora.*")
    record = read_record(run / "run.json")
    assert set(record.scores["test"]) == set(load_task(name, [tasks]).metrics)
    assert record.test.n == len(DATA[name])
    assert set(record.controls) - {*SHORTCUTS} == {"majority", "zero-shot"}
    assert f"{record.test.value:.4f}" in said
    first = (run / "predictions.test.jsonl").read_text(encoding="utf-8")
    again = tasks.parent / "again"
    code, _, _ = cli(
        *("predict", run, "--data", tasks.parent / "data", "--include", tasks, "--out", again)
    )
    assert code == 0
    assert (again / "predictions.test.jsonl").read_text(encoding="utf-8") == first


def test_unread_texts_are_counted_and_count_as_wrong(
    cli: CLI, tasks: Path, small_backbone: Path
) -> None:
    tune(cli, tasks, small_backbone, "write")
    (run,) = (tasks.parent / "out").glob("write.lora.*")
    lines = (run / "predictions.test.jsonl").read_text(encoding="utf-8").splitlines()
    found = [json.loads(line) for line in lines]
    unread = [line for line in found if len(line["text"]) % 2 or not line["text"].split()]
    assert all(line["prediction"] is None for line in unread)
    record = read_record(run / "run.json")
    assert record.data["test"].n_unparsed == len(unread)
    assert record.test.n == len(DATA["write"])


@pytest.mark.parametrize("name", ["pick", "rank", "write"])
def test_a_test_split_without_answers_gives_the_submission(
    cli: CLI, tasks: Path, small_backbone: Path, name: str
) -> None:
    hidden = {"pick": "answer", "rank": "grades", "write": "words"}[name]
    bare = [{k: v for k, v in row.items() if k != hidden} for row in DATA[name]]
    write_jsonl(tasks.parent / "data" / name / "test.jsonl", bare)
    code, said, _ = tune(cli, tasks, small_backbone, name)
    assert code == 0
    assert "no answers" in said
    (run,) = (tasks.parent / "out").glob(f"{name}.lora.*")
    record = read_record(run / "run.json")
    assert set(record.scores) == {"dev"}
    assert not record.data["test"].labelled
    lines = (run / "OFFICIAL.jsonl").read_text(encoding="utf-8").splitlines()
    predicted = (run / "predictions.test.jsonl").read_text(encoding="utf-8").splitlines()
    for line, prediction, official in zip(lines, predicted, bare, strict=True):
        assert json.loads(line) == {**official, "answer": json.loads(prediction)["prediction"]}
    code, _, warned = cli("leaderboard", tasks.parent / "out")
    assert code == 0
    assert "no answers" in warned


def test_a_dev_split_without_answers_is_an_error(
    cli: CLI, tasks: Path, small_backbone: Path
) -> None:
    bare = [{k: v for k, v in row.items() if k != "answer"} for row in DATA["pick"]]
    write_jsonl(tasks.parent / "data" / "pick" / "dev.jsonl", bare)
    code, _, said = tune(cli, tasks, small_backbone, "pick")
    assert code == 2
    message = "the dev split has no answers: every tenth record of train is dev, which leaves it no"
    assert message in said
    assert not (tasks.parent / "out").exists() or not list((tasks.parent / "out").glob("*.lora*"))


def test_several_tasks_run_in_one_command_and_one_failure_stops_no_other(
    cli: CLI, tasks: Path, small_backbone: Path
) -> None:
    (tasks.parent / "data" / "rank" / "dev.jsonl").write_text("no\n", encoding="utf-8")
    code, said, failed = tune(cli, tasks, small_backbone, "pick,rank,write")
    assert code == 2
    assert "1 of 3 tasks failed: rank" in failed
    assert "dev.jsonl:1" in failed
    assert {p.name.split(".")[0] for p in (tasks.parent / "out").glob("*.lora.*")} == {
        "pick",
        "write",
    }
    assert "[3/3] write" in said


# --- encoding ---


def test_options_of_the_row_stand_in_the_middle_of_the_text(tasks: Path) -> None:
    encoder = make_encoder(tasks, "pick")
    example = encoder.encode(as_row("pick", 1))
    assert texts(encoder, example) == [
        f"关于{option}的话：玄黄[是否正确]" for option in ("日", "月", "星")
    ]
    assert example.gold == 0
    assert [answer.context for answer in example.candidates] == [0, 1, 2]
    lengths = [len(context) for context in example.contexts]
    shown = encoder.layout.describe(example)
    assert [s.scored for s in shown] == [((length - 1, "是"),) for length in lengths]


def test_listed_options_are_answered_by_their_numerals(tasks: Path) -> None:
    encoder = make_encoder(tasks, "pick", 1)
    example = encoder.encode(as_row("pick", 0))
    assert texts(encoder, example) == ["一、山 二、水火。天地，选"]
    assert answers(encoder, example) == [["一"], ["二"]]


def test_spoken_options_are_scored_token_by_token(tasks: Path) -> None:
    encoder = make_encoder(tasks, "pick", 2)
    example = encoder.encode(as_row("pick", 0))
    assert texts(encoder, example) == ["天地，"]
    shown = encoder.layout.describe(example)
    assert ["".join(s.tokens) for s in shown] == ["<s>天地，", "<s>天地，水"]
    assert answers(encoder, example) == [["山"], ["水", "火"]]
    assert answers(encoder, encoder.encode(as_row("pick", 0), train=True)) == [["水", "火"]]


def test_training_to_rank_keeps_one_best_document_and_the_worse_ones(tasks: Path) -> None:
    encoder = make_encoder(tasks, "rank")
    row = as_row("rank", 1)
    assert [len(encoder.encode(row, train=t).candidates) for t in (False, True)] == [3, 2]
    trained = encoder.encode(row, train=True)
    assert texts(encoder, trained)[trained.gold] == "山水，草木[是否正确]"


@pytest.mark.parametrize("train", [False, True])
def test_a_text_to_write_is_no_context_and_ends_with_the_end_mark(tasks: Path, train: bool) -> None:
    encoder = make_encoder(tasks, "write")
    example = encoder.encode(as_row("write", 0), train=train)
    (prefix,) = encoder.prefix(as_row("write", 0)).contexts
    assert example.contexts == (prefix,)
    assert answers(encoder, example) == [["天", "地", " ", "人", "</s>"]]
    batch = encoder.layout.collate([example])
    assert batch.context[0, : len(prefix) + 4].tolist() == [True] * len(prefix) + [False] * 4
    assert batch.target_index.tolist() == [len(prefix) - 1 + i for i in range(5)]


def test_a_long_text_to_write_is_cut_without_an_end_mark_and_counted(tasks: Path) -> None:
    encoder = make_encoder(tasks, "write")
    row = {**as_row("write", 0), "target": "天地玄黄宇宙洪荒"}
    example = encoder.encode(row, train=True)
    assert example.truncated
    assert answers(encoder, example) == [list("天地玄黄宇宙")]


@pytest.mark.parametrize(("template", "kept"), [(2, "天地玄黄"), (3, "宇宙洪荒")])
def test_long_fields_lose_the_side_that_the_template_says(
    tasks: Path, template: int, kept: str
) -> None:
    encoder = make_encoder(tasks, "pick", template, max_length=11)  # 4 soft, <s>, 4, comma, option
    row = {"id": "0", "text": "天地玄黄宇宙洪荒", "options": ["一", "二"], "target": 0}
    example = encoder.encode(row)
    assert example.truncated
    assert texts(encoder, example) == [f"{kept}，"]


def test_no_sequence_is_longer_than_allowed_in_training_or_inference(tasks: Path) -> None:
    encoder = make_encoder(tasks, "write", max_length=20)
    row = {"id": "0", "text": "天地玄黄" * 20, "words": None, "target": "日月" * 20}
    for train in (False, True):
        example = encoder.encode(row, train=train)
        assert encoder.layout.collate([example]).ids.shape[1] <= 20
        assert example.contexts == encoder.prefix(row).contexts


def test_a_list_of_tasks_goes_on_after_one_whose_processes_ended(
    cli: Any, tmp_path: Path, small_backbone: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every task has processes of its own, which run it alone."""
    words = ["--task", "ccpm,math23k,lcqmc", "--delta", "none", "--limit", "4", "--quiet"]
    words += ["--backbone", str(small_backbone), "--out", str(tmp_path), "--control", "none"]
    words += ["--set", "decode.max_new_tokens=2", "--set", "run.device=cpu"]

    def launch(argv: list[str], nproc: int, *others: Any) -> None:
        assert (nproc, argv[:-2]) == (2, [*words, "--nproc", "2"])
        if argv[-1] == "ccpm":
            raise ProcessLostError("process 1 of 2 was killed by SIGKILL")
        assert cli(*words, *argv[-2:])[0] == 0

    monkeypatch.setattr("cpm_tune.commands.tune.launch", launch)
    code, _, said = cli(*words, "--nproc", "2")
    assert code == 2
    assert "1 of 3 tasks failed: ccpm." in said
    assert sorted(p.parent.name.split(".")[0] for p in tmp_path.glob("*/run.json")) == [
        "lcqmc",
        "math23k",
    ]
