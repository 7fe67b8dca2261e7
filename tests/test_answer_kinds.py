"""Options of a row's own, ranking and generation: from task file and data to record, prediction
and submission, on a small backbone."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from conftest import CLI, small_config, vocabulary, write_jsonl

from cpm_tune.backbone.tokenizer import Tokenizer
from cpm_tune.data.encode import Encoder, Example
from cpm_tune.record import read_record
from cpm_tune.registry import load_task
from cpm_tune.spec import Encoding
from cpm_tune.task import Row

FAST = ("--set", "train.max_steps=2", "--set", "train.eval_every=1", "--set", "train.dev_rows=2")
HEAD = """
from cpm_tune.task import Files, Generate, Options, Rank, Source, Submission, Task, Template

def fill(record, predictions):
    return {**record, "answer": predictions[0]}

TASK = Task(
    version=1, capability="test", kind="test",
    source=Source(title="test", paper="", licence="", obtain=""),
    submission=Submission("OFFICIAL.jsonl", fill),
"""
PICK = """
    name="pick",
    files=Files(columns=("text", "options", "answer"), texts=("options",)),
    answer=Options(most=3),
    templates=(
        Template("middle", "关于{option}的话：{text}[是否正确]"),
        Template("listed", "{options}。{text}，选{answer}", ("一", "二", "三")),
        Template("spoken", "{text}，{answer}"),
        Template("ends", "{text}，{answer}", keep_end=("text",)),
    ),
    metrics=("accuracy",),
)
"""
RANK = """
    name="rank",
    files=Files(
        columns=("query", "documents", "grades"), texts=("documents",), structures=("grades",)
    ),
    answer=Rank(),
    templates=(Template("t", "{query}，{option}[是否正确]"),),
    metrics=("ndcg_3", "mrr"),
)
"""
WRITE = """
    name="write",
    files=Files(columns=("text", "words"), structures=("words",), rows=rows),
    answer=Generate(column="written", gold="words", parse=parse, max_new_tokens=6, beams=2),
    templates=(Template("t", "{text}："+"{answer}"),),
    metrics=("word_f1", "word_recall"),
)
"""
FUNCTIONS = """
def rows(record):
    row = {"text": record["text"], "words": record.get("words")}
    if row["words"] is not None:
        if "".join(row["words"]) != row["text"]:
            raise ValueError("the words are not those of the text")
        row["written"] = " ".join(row["words"])
    yield row

def parse(text, row):
    if len(text) % 2:
        raise ValueError("an odd number of characters")
    return text.split() or None
"""
DATA: dict[str, list[Row]] = {
    "pick": [
        {"id": f"p{i}", "text": t, "options": o, "answer": a}
        for i, (t, o, a) in enumerate(
            [
                ("天地", ["山", "水火"], 1),
                ("玄黄", ["日", "月", "星"], 0),
                ("山", ["一", "二"], 1),
            ]
        )
    ],
    "rank": [
        {"query": "天", "documents": ["地", "人间"], "grades": [1, 0]},
        {"query": "山水", "documents": ["花", "草木", "树"], "grades": [0, 2, 2]},
    ],
    "write": [
        {"text": "天地人", "words": ["天地", "人"]},
        {"text": "山水", "words": ["山", "水"]},
        {"text": "花草", "words": ["花草"]},
    ],
}


@pytest.fixture
def tasks(tmp_path: Path) -> Path:
    """A folder of task files, and DATA in official form beside it."""
    folder = tmp_path / "tasks"
    folder.mkdir()
    for name, source in (("pick", PICK), ("rank", RANK), ("write", WRITE)):
        text = HEAD.replace("TASK =", FUNCTIONS + "\nTASK =") + source
        text = text.replace('columns=("text", "words")', 'columns=("text", "written", "words")')
        (folder / f"{name}.py").write_text(text, encoding="utf-8")
        for split in ("train", "dev", "test"):
            (tmp_path / "data" / name).mkdir(parents=True, exist_ok=True)
            write_jsonl(tmp_path / "data" / name / f"{split}.jsonl", DATA[name])
    return folder


def tune(cli: CLI, tasks: Path, backbone: Path, name: str, *words: object) -> tuple[int, str, str]:
    data, out = tasks.parent / "data", tasks.parent / "out"
    return cli(
        *("--task", name, "--include", tasks, "--data", data, "--backbone", backbone),
        *("--delta", "lora", "--out", out, *FAST, *words),
    )


def make_encoder(tasks: Path, name: str, template: int = 0, **settings: Any) -> Encoder:
    task = load_task(name, [tasks])
    encoding = Encoding(**{"max_length": 64, **settings})
    room = getattr(task.answer, "max_new_tokens", 0)
    tokenizer = Tokenizer(vocabulary())
    return Encoder(task, task.templates[template], encoding, small_config(), tokenizer, room)


def texts(encoder: Encoder, example: Example) -> list[str]:
    """The sequences as text, from behind the soft prompt and <s>."""
    return [encoder.tokenizer.decode(s.ids[encoder.n_prompt + 1 :]) for s in example.sequences]


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
    assert set(record.controls) == {"majority", "zero-shot"}
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
    assert "dev.jsonl:1: no field 'answer'" in said
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
    yes = encoder.tokenizer.ids["是"]
    assert [(t.position, t.token) for (t,) in example.candidates] == [
        (len(s.ids) - 1, yes) for s in example.sequences
    ]


def test_listed_options_are_answered_by_their_numerals(tasks: Path) -> None:
    encoder = make_encoder(tasks, "pick", 1)
    example = encoder.encode(as_row("pick", 0))
    assert texts(encoder, example) == ["一、山 二、水火。天地，选"]
    assert [encoder.tokenizer.entries[t.token] for (t,) in example.candidates] == ["一", "二"]


def test_spoken_options_are_scored_token_by_token(tasks: Path) -> None:
    encoder = make_encoder(tasks, "pick", 2)
    example = encoder.encode(as_row("pick", 0))
    assert texts(encoder, example) == ["天地，", "天地，水"]
    said = ["".join(encoder.tokenizer.entries[t.token] for t in c) for c in example.candidates]
    assert said == ["山", "水火"]
    (kept,) = encoder.encode(as_row("pick", 0), train=True).candidates
    assert [encoder.tokenizer.entries[t.token] for t in kept] == ["水", "火"]


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
    prefix, _ = encoder.prefix(as_row("write", 0))
    ((sequence,), (targets,)) = example.sequences, example.candidates
    assert sequence.ids[: sequence.n_context] == prefix
    names = [encoder.tokenizer.entries[t.token] for t in targets]
    assert names == ["天", "地", " ", "人", "</s>"]
    assert [t.position for t in targets] == [len(prefix) - 1 + i for i in range(5)]


def test_a_long_text_to_write_is_cut_without_an_end_mark_and_counted(tasks: Path) -> None:
    encoder = make_encoder(tasks, "write")
    row = {**as_row("write", 0), "target": "天地玄黄宇宙洪荒"}
    example = encoder.encode(row, train=True)
    assert example.truncated
    assert [encoder.tokenizer.entries[t.token] for t in example.candidates[0]] == list(
        "天地玄黄宇宙"
    )


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
        (sequence,) = encoder.encode(row, train=train).sequences
        assert len(sequence.ids) <= 20
        assert sequence.ids[: sequence.n_context] == encoder.prefix(row)[0]


# --- wrong rows ---


@pytest.mark.parametrize(
    ("name", "change", "said"),
    [
        ("pick", {"answer": 2}, "answer is 2, expected 0 to 1"),
        ("pick", {"answer": True}, "answer is True"),
        ("pick", {"options": ["一"]}, "1 options, expected 2 to 3"),
        ("pick", {"options": ["一"] * 4}, "4 options, expected 2 to 3"),
        ("pick", {"options": "一二"}, "expected a list of texts"),
        ("pick", {"options": ["一", 2]}, "expected a list of texts"),
        ("rank", {"grades": [1]}, "expected 2 numbers from 0"),
        ("rank", {"grades": [1, -1]}, "expected 2 numbers from 0"),
        ("rank", {"grades": [1, 1]}, "a better and a worse document"),
        ("write", {"words": ["天"]}, "the words are not those of the text"),
        ("write", {"words": 3}, "not of the official form"),
    ],
)
def test_a_wrong_answer_is_named_with_its_place(
    cli: CLI, tasks: Path, small_backbone: Path, name: str, change: Row, said: str
) -> None:
    first, *rest = DATA[name]
    write_jsonl(tasks.parent / "data" / name / "train.jsonl", [*rest, {**first, **change}])
    code, _, error = tune(cli, tasks, small_backbone, name)
    assert code == 2
    assert f"train.jsonl:{len(DATA[name])}: " in error
    assert said in error
    assert len(error.splitlines()) == 1


def test_decoding_settings_are_part_of_the_run_and_only_of_runs_that_write(
    cli: CLI, tasks: Path, small_backbone: Path
) -> None:
    code, _, error = tune(cli, tasks, small_backbone, "pick", "--set", "decode.beams=2")
    assert code == 2
    assert "decode.beams has no effect" in error
    for beams in (1, 3):
        code, _, _ = tune(cli, tasks, small_backbone, "write", "--set", f"decode.beams={beams}")
        assert code == 0
    runs = [read_record(p) for p in (tasks.parent / "out").glob("write.lora.*/run.json")]
    assert {run.spec.decoding.beams for run in runs if run.spec.decoding} == {1, 3}


def test_a_submission_may_be_one_document(cli: CLI, tmp_path: Path, small_backbone: Path) -> None:
    from cpm_tune.data.files import sample_folder

    task = load_task("gcrc")
    short = ("--limit", 3, "--set", "train.max_steps=1", "--control", "none")
    code, _, _ = cli(
        *("--task", "gcrc", "--delta", "lora", "--backbone", small_backbone, "--out", tmp_path),
        *short,
    )
    assert code == 0
    (run,) = tmp_path.glob("gcrc.*")
    code, _, _ = cli("predict", run, "--limit", 3, "--submission", "--out", tmp_path / "predicted")
    assert code == 0
    made = json.loads((tmp_path / "predicted" / "GCRC.json").read_text(encoding="utf-8"))
    official = json.loads((sample_folder(task) / "test.json").read_text(encoding="utf-8"))
    lines = (tmp_path / "predicted" / "predictions.test.jsonl").read_text().splitlines()
    chosen = ["ABCD"[json.loads(line)["prediction"]] for line in lines]
    assert made == {
        "data": [{**r, "answer": c} for r, c in zip(official["data"][:3], chosen, strict=True)]
    }
