"""What goes wrong with tasks, data and runs of all answer kinds: one sentence, nothing lost."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from conftest import CLI, write_jsonl
from kinds import DATA, tune, write_tasks

from cpm_tune.schema.record import read_record
from cpm_tune.task import Row
from cpm_tune.task.registry import load_task


@pytest.fixture
def tasks(tmp_path: Path) -> Path:
    return write_tasks(tmp_path)


# --- wrong rows ---


@pytest.mark.parametrize(
    ("name", "change", "said"),
    [
        ("pick", {"answer": 2}, "answer is 2, expected 0 to 1"),
        ("pick", {"answer": True}, "answer is True"),
        ("pick", {"options": ["一"]}, "1 option, expected 2 to 3"),
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
    from cpm_tune.data.splits import sample_folder

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


# --- what a newcomer gets wrong, or a disk does ---


def test_a_submission_keeps_predictions_with_their_records_when_rows_are_skipped(
    cli: CLI, tasks: Path, small_backbone: Path
) -> None:
    bare = [{k: v for k, v in row.items() if k != "answer"} for row in DATA["pick"]]
    broken = [bare[0], {**bare[1], "text": 5}, {"nothing": 1}, bare[2]]
    write_jsonl(tasks.parent / "data" / "pick" / "test.jsonl", broken)
    code, said, _ = tune(cli, tasks, small_backbone, "pick", "--skip-bad-rows")
    assert code == 0
    assert "OFFICIAL.jsonl: no prediction for 2 records with bad rows" in said
    (run,) = (tasks.parent / "out").glob("pick.lora.*")
    lines = (run / "predictions.test.jsonl").read_text(encoding="utf-8").splitlines()
    chosen = [json.loads(line)["prediction"] for line in lines]
    written = (run / "OFFICIAL.jsonl").read_text(encoding="utf-8").splitlines()
    assert [json.loads(line) for line in written] == [
        {**bare[0], "answer": chosen[0]},
        *broken[1:3],
        {**bare[2], "answer": chosen[1]},
    ]


def test_a_limited_submission_says_what_it_lacks(
    cli: CLI, tasks: Path, small_backbone: Path
) -> None:
    tune(cli, tasks, small_backbone, "pick")
    (run,) = (tasks.parent / "out").glob("pick.lora.*")
    data, out = tasks.parent / "data", tasks.parent / "predicted"
    words = ("predict", run, "--data", data, "--include", tasks, "--out", out, "--submission")
    code, said, _ = cli(*words, "--limit", 2)
    assert code == 0
    assert "OFFICIAL.jsonl: 1 record after the limit left out" in said
    assert len((out / "OFFICIAL.jsonl").read_text(encoding="utf-8").splitlines()) == 2


def test_predicting_touches_no_folder_of_the_users_and_takes_no_changed_delta(
    cli: CLI, tasks: Path, small_backbone: Path
) -> None:
    from safetensors.torch import load_file, save_file

    tune(cli, tasks, small_backbone, "pick")
    (run,) = (tasks.parent / "out").glob("pick.lora.*")
    out = tasks.parent / "predicted"
    (tasks.parent / "predicted.partial").mkdir()
    (tasks.parent / "predicted.partial" / "notes").write_text("mine")
    words = ("predict", run, "--data", tasks.parent / "data", "--include", tasks, "--out")
    assert cli(*words, out)[0] == 0
    assert (tasks.parent / "predicted.partial" / "notes").read_text() == "mine"
    code, _, error = cli(*words, out)
    assert code == 2
    assert "already exists" in error
    weights = {name: value + 1 for name, value in load_file(run / "delta.safetensors").items()}
    save_file(weights, run / "delta.safetensors")
    code, _, error = cli(*words, tasks.parent / "other")
    assert code == 2
    assert "the file was changed" in error
    assert not list(tasks.parent.glob("other*"))


@pytest.mark.parametrize(
    ("name", "old", "new", "said"),
    [
        ("write", '("word_f1", "word_recall")', '("accuracy_at_1",)', "does not fit"),
        ("write", '("word_f1", "word_recall")', '("ndcg_3",)', "does not fit"),
        ("write", '("word_f1", "word_recall")', '("perplexity",)', "does not fit"),
        ("write", "parse=parse, ", "", "'word_f1' compares words"),
        ("write", "parse=parse", 'parse="parse"', "answer.parse must be a function"),
        ("pick", '("accuracy",)', '("rouge_l_char_f",)', "does not fit"),
        ("rank", '("ndcg_3", "mrr")', '("accuracy",)', "does not fit"),
        ("write", "return text.split() or None", "return [text + '。']", "none of the gold texts"),
        ("write", "return text.split() or None", "return 1 / 0", "parse() of task write failed"),
        ("write", "yield row\n", "yield 5\n", "rows() of task write gave no dict"),
        ("write", "yield row\n", "yield 1 / 0\n", "rows() failed: ZeroDivisionError"),
        ("pick", "Options(most=3)", "Options(most=3, column='a')", "'a' is not one of the columns"),
    ],
)
def test_a_mistake_in_a_task_file_is_one_sentence(
    cli: CLI, tasks: Path, small_backbone: Path, name: str, old: str, new: str, said: str
) -> None:
    path = tasks / f"{name}.py"
    source = path.read_text(encoding="utf-8")
    assert old in source
    path.write_text(source.replace(old, new), encoding="utf-8")
    code, _, error = tune(cli, tasks, small_backbone, name)
    assert code == 2
    assert said in error
    assert len(error.splitlines()) == 1
    assert not list((tasks.parent / "out").glob("*.lora*"))


def test_rows_of_a_task_with_a_parser_come_from_the_cache(tasks: Path) -> None:
    from cpm_tune.common.paths import cache_dir
    from cpm_tune.data.splits import find_splits
    from cpm_tune.data.store import read_split

    for _ in range(2):  # each loads the task file anew
        task = load_task("write", [tasks])
        file = find_splits(task, tasks.parent / "data" / "write", ("dev",))["dev"]
        assert len(read_split(task, file)) == len(DATA["write"])
        count = len(list(cache_dir("data").iterdir()))
    task = load_task("write", [tasks])
    read_split(task, file)
    assert len(list(cache_dir("data").iterdir())) == count


@pytest.mark.parametrize(
    ("name", "record", "said"),
    [
        ("cepsum", {"table": {"颜色": None}, "source": "好", "targets": ["好"]}, "颜色' is None"),
        ("yaclc", {"sentence_text": "好", "sentence_annos": [{"is_grammatical": "x"}]}, "is 'x'"),
        ("math23k", {"original_text": "好", "equation": "x=1", "ans": True}, "'ans' is True"),
        ("math23k", {"original_text": "好", "equation": "x=1", "ans": "\ud83d"}, "surrogate"),
        (
            "pku_segpos",
            {"tokens": ["好"], "span_list": [{"start": 0, "end": 0, "type": None}]},
            "type is None",
        ),
        (
            "sogou_log",
            {
                "query_id": "1",
                "query": "好",
                "doc": [{"sogou_id": 1, "title": "好", "relevance": 1e400}],
            },
            "Infinity is not a JSON number",
        ),
    ],
)
def test_values_that_mean_nothing_are_refused(
    tmp_path: Path, name: str, record: Row, said: str
) -> None:
    from cpm_tune.data.files import checked_rows
    from cpm_tune.data.splits import find_splits

    (tmp_path / "test.jsonl").write_text(json.dumps(record) + "\n", encoding="utf-8")
    bad: list[str] = []
    task = load_task(name)
    found = list(checked_rows(task, find_splits(task, tmp_path, ("test",))["test"], bad))
    assert not found
    assert "test.jsonl:1: " in bad[0]
    assert said in bad[0]
