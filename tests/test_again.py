"""A run again from its record: the same spec, or what differs."""

from __future__ import annotations

import hashlib
import json
import shlex
import shutil
from dataclasses import fields
from pathlib import Path
from typing import Any

import board_records
import planted
import pytest
from conftest import CLI

from cpm_tune.commands.arguments import Parser, parse
from cpm_tune.commands.options.search import Search
from cpm_tune.commands.options.tune import Tune
from cpm_tune.data.splits import sample_folder
from cpm_tune.errors import UserError
from cpm_tune.leaderboard.repeat import repeat_of
from cpm_tune.planning.plan import Request, make_plan
from cpm_tune.planning.settings import parse_settings
from cpm_tune.runs.execute import execute
from cpm_tune.runs.rerun import predict_run
from cpm_tune.schema.options import RunOptions
from cpm_tune.schema.record import SearchRecord, read_record
from cpm_tune.search.plan import make_search
from cpm_tune.search.space import parse_items
from cpm_tune.task.registry import load_task

QUICK = {"train.max_steps": 1, "train.eval_every": 1}
REQUESTS: dict[str, dict[str, Any]] = {
    "labels": {"task": "lcqmc", "delta": "lora", "settings": {**QUICK, "delta.lora_r": 2}},
    "scoring": {
        "task": "lcqmc",
        "delta": "bitfit",
        "template": "cpm-2",
        "scoring": "argmax-vocabulary",
        "settings": {**QUICK, "train.schedule": "cosine", "run.micro_tokens": 4096},
    },
    "text": {"task": "math23k", "delta": "prefix", "settings": {**QUICK, "decode.beams": 1}},
    "nothing trained": {"task": "ccpm", "delta": "none"},
}


def made(out: Path, **request: Any) -> Path:
    """The record of a short run."""
    limit = {"limit": 6, "seed": 3, **request}
    return execute(make_plan(Request(**limit)), out).folder / "run.json"


@pytest.mark.parametrize("name", REQUESTS)
def test_a_record_gives_the_same_run(name: str, tmp_path: Path, cli: CLI) -> None:
    file = made(tmp_path, **REQUESTS[name])
    code, out, error = cli("--config", str(file), "--dry-run")
    assert (code, error) == (0, "")
    assert f"the same run, {read_record(file).run_id}" in out


OTHERS: dict[str, dict[str, Any]] = {
    "recipe": {"task": "chid", "delta": "bitfit", "recipe": "cpm-1", "settings": QUICK},
    "earlier template": {"task": "ccpm", "delta": "none", "template": "cpm-2@1"},
}


@pytest.mark.parametrize("name", [*REQUESTS, *OTHERS])
def test_the_command_on_the_page_makes_the_same_run(name: str) -> None:
    request = {**REQUESTS, **OTHERS}[name]
    plan = make_plan(Request(**{"limit": 6, "seed": 3, **request}))
    like = board_records.make_record("ccpm", plan.folder.name, plan.delta_name, 3)
    record = like.model_copy(update={"spec": plan.spec, "execution": plan.execution, "data": {}})
    repeat = repeat_of(record, plan.task)
    words = shlex.split(repeat.command)
    assert words[:4] == ["python", "tune.py", "--task", plan.task.name]
    options = parse(Tune, Parser(Tune, "tune.py", "tune.py"), words[2:])
    chosen = {field.name: getattr(options, field.name) for field in fields(RunOptions)}
    again = make_plan(Request(**chosen, settings=parse_settings(options.settings)))
    assert (again.spec, again.execution) == (plan.spec, plan.execution)
    assert repeat.recipe == ("cpm-1" if name == "recipe" else "")
    asked = {"limit", *request.get("settings", {}), *({"scoring", "template"} & {*request})}
    execution = {key for key in asked if key.startswith("run.")}
    assert {each.key for each in repeat.differences} == asked - execution
    assert repeat.changed == ()


def test_the_command_of_a_run_that_a_search_found_is_the_search() -> None:
    values = {"train.lr": 0.004, "delta.lora_r": 2}
    request = Request("lcqmc", "lora", limit=6, seed=3, settings={**QUICK, "train.warmup": 7})
    space = parse_items(["train.lr=log:1e-3..1e-1", "delta.lora_r=2,4"])
    search = make_search(request, space, trials=4, seconds=60, prune=False)
    found = SearchRecord(study="x", metric="accuracy", chosen=1, seconds=1.0, trials=[], earlier=[])
    plan = search.run_plan(values, found, 5)
    like = board_records.make_record("ccpm", plan.folder.name, plan.delta_name, 3)
    record = like.model_copy(update={"spec": plan.spec, "execution": plan.execution, "data": {}})
    words = shlex.split(repeat_of(record, plan.task).command)
    assert words[:3] == ["python", "tune.py", "search"]
    options = parse(Search, Parser(Search, "tune.py search", "tune.py"), words[3:])
    assert options.seeds == (5,)
    chosen = {field.name: getattr(options, field.name) for field in fields(RunOptions)}
    again = make_search(
        Request(**chosen, settings=parse_settings(options.settings)),
        parse_items(options.space),
        trials=options.trials,
        seconds=options.seconds,
        prune=options.prune,
    )
    assert again.name == search.name
    assert again.run_plan(values, found, 5).spec == plan.spec


def test_the_command_of_a_scaled_run_and_of_a_fold() -> None:
    record = board_records.make_record("ccpm", "small", "lora", 1)
    data = record.spec.data.model_copy(update={"fold": 0, "folds": "0" * 64})
    whole = record.spec.model_copy(update={"data": data})
    spec = whole.model_copy(update={"delta_scale": 0.5})
    command = repeat_of(record.model_copy(update={"spec": spec}), load_task("ccpm")).command
    assert " --fold 0 " in command
    assert command.endswith(f" && python tune.py scale results/{whole.run_id} --by 0.5")


def test_a_command_says_no_setting_that_the_record_lacks() -> None:
    record = board_records.make_record("ccpm", "small", "lora", 1)
    assert record.spec.delta == {"delta_type": "lora", "rank": 8}, "of an invented version"
    repeat = repeat_of(record, load_task("ccpm"))
    assert "delta.rank=8" in repeat.command
    assert "null" not in repeat.command
    assert {"delta.rank", "delta.lora_r"} < {*repeat.changed}


def test_data_is_found_where_the_run_found_it(tmp_path: Path, cli: CLI) -> None:
    data = planted.write(planted.clean, tmp_path / "data")
    file = made(tmp_path / "out", task="lcqmc", delta="bitfit", data=data, settings=QUICK)
    assert "the same run" in cli("--config", str(file), "--dry-run")[1]
    moved = data.rename(tmp_path / "moved")
    code, _, error = cli("--config", str(file), "--dry-run")
    assert (code, "give --data DIR" in error) == (2, True)
    assert "the same run" in cli("--config", str(file), "--data", str(moved), "--dry-run")[1]


def test_what_differs_is_printed_and_the_result_is_the_same(tmp_path: Path, cli: CLI) -> None:
    file = made(tmp_path / "first", task="lcqmc", delta="bitfit", settings=QUICK)
    _, out, _ = cli("--config", str(file), "--set", "train.lr=1e-4", "--dry-run")
    assert "another run: recipe.lr was 0.003, is now 0.0001" in out
    words = ("--config", str(file), "--out", str(tmp_path / "second"), "--control", "none")
    code, out, _ = cli(*words)
    assert (code, f"predictions are those of {file.parent}, byte by byte" in out) == (0, True)
    again = next((tmp_path / "second").glob("*/run.json"))
    assert again.parent.name == file.parent.name
    before, now = read_record(file), read_record(again)
    assert (now.delta.sha256, now.predictions) == (before.delta.sha256, before.predictions)


def test_where_predictions_differ_first(tmp_path: Path, cli: CLI) -> None:
    """As if another machine had made the run: its third prediction, and the record with it."""
    file = made(tmp_path, task="lcqmc", delta="bitfit", settings=QUICK)
    lines = (file.parent / "predictions.test.jsonl").read_text(encoding="utf-8").splitlines()
    line = json.loads(lines[2])
    lines[2] = json.dumps({**line, "scores": [9.0, 8.0]}, ensure_ascii=False)
    raw = "".join(f"{each}\n" for each in lines).encode()
    (file.parent / "predictions.test.jsonl").write_bytes(raw)
    record = json.loads(file.read_text(encoding="utf-8"))
    record["predictions"]["predictions.test.jsonl"] = hashlib.sha256(raw).hexdigest()
    record["environment"]["threads"] += 1
    file.write_text(json.dumps(record), encoding="utf-8")
    words = ("--config", str(file), "--out", str(tmp_path), "--control", "none")
    assert "again" not in cli(*words)[1].replace("again      " + str(file), "")  # nothing was run
    code, out, _ = cli(*words, "--overwrite")  # replaces what it is compared with
    assert (code, "differs from that of" in out) == (0, True)
    assert "first in line 3" in out
    assert "[9.0, 8.0]" in out
    threads = record["environment"]["threads"]
    assert f"what else differs: threads was {threads}, is {threads - 1}\n" in out


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"backbone": {"name": "hub:somebody/model", "path": "/gone"}}, "give its folder with"),
        ({"spec": {"backbone": {"init": "random"}}}, "spec_sha256 does not belong"),
    ],
)
def test_a_record_that_cannot_be_run(
    change: dict[str, Any], sentence: str, tmp_path: Path, cli: CLI
) -> None:
    file = made(tmp_path, task="lcqmc", delta="bitfit", settings=QUICK)
    record = json.loads(file.read_text(encoding="utf-8"))
    for key, values in change.items():
        for name, value in values.items():
            record[key][name] = {**record[key][name], **value} if isinstance(value, dict) else value
    file.write_text(json.dumps(record), encoding="utf-8")
    code, _, error = cli("--config", str(file), "--dry-run")
    assert (code, sentence in error) == (2, True)


def test_a_random_control_is_not_run_by_itself(tmp_path: Path, cli: CLI) -> None:
    request = Request("lcqmc", "bitfit", settings=QUICK, limit=6, random_backbone=True)
    file = execute(make_plan(request), tmp_path).folder / "run.json"
    code, _, error = cli("--config", str(file), "--dry-run")
    assert (code, "record of a random-backbone control" in error) == (2, True)


@pytest.mark.parametrize("split", ["train", "dev", "test"])
def test_a_run_that_shares_a_file_with_the_sample_data_keeps_its_own(
    split: str, tmp_path: Path, cli: CLI
) -> None:
    task = load_task("lcqmc")
    data = planted.write(planted.clean, tmp_path / "data")
    shutil.copy(sample_folder(task) / f"{split}.jsonl", data / f"{split}.jsonl")
    file = made(tmp_path / "out", task="lcqmc", delta="lora", data=data, settings=QUICK)
    record = read_record(file)
    assert record.spec.data.sample
    assert "the same run" in cli("--config", str(file), "--dry-run")[1]
    assert "--data DIR" in repeat_of(record, task).command
    for name in ("dev", "test"):
        out = tmp_path / name
        predicted = predict_run(file.parent, split=name, limit=6, out=out)
        assert predicted.scores["accuracy"].value == record.scores[name]["accuracy"].value
        sha256 = hashlib.sha256((out / f"predictions.{name}.jsonl").read_bytes()).hexdigest()
        assert sha256 == record.predictions[f"predictions.{name}.jsonl"]
    assert cli("scale", file.parent, "--by", "0", "--by", "0.5,0.25")[1].count("written") == 3
    own = data / ("test.jsonl" if split != "test" else "dev.jsonl")
    own.write_text(own.read_text(encoding="utf-8") + "\n", encoding="utf-8")
    with pytest.raises(UserError, match="not the file of the record any more; give --data DIR"):
        predict_run(file.parent, split=own.stem, out=tmp_path / "no")


def test_a_run_on_own_data_is_predicted_on_them_and_never_on_the_sample(tmp_path: Path) -> None:
    data = planted.write(planted.clean, tmp_path / "data")
    file = made(tmp_path / "out", task="lcqmc", delta="none", data=data)
    predict_run(file.parent, limit=6, out=tmp_path / "same")
    name = "predictions.test.jsonl"
    assert (tmp_path / "same" / name).read_bytes() == (file.parent / name).read_bytes()
    data.rename(tmp_path / "moved")
    with pytest.raises(UserError, match="give --data DIR"):
        predict_run(file.parent, limit=6, out=tmp_path / "no")


def test_a_fold_with_the_test_of_the_sample_data_is_run_again_and_scaled(
    tmp_path: Path, cli: CLI
) -> None:
    data = planted.write(planted.clean, tmp_path / "data")
    for split in ("train", "dev"):
        (data / f"{split}.jsonl").rename(data / f"{split}_1.jsonl")
        shutil.copy(data / f"{split}_1.jsonl", data / f"{split}_0.jsonl")
    shutil.copy(sample_folder(load_task("lcqmc")) / "test.jsonl", data / "test.jsonl")
    options = {"task": "lcqmc", "delta": "lora", "data": data, "fold": 1, "settings": QUICK}
    file = made(tmp_path / "out", **options)
    assert "the same run" in cli("--config", str(file), "--dry-run")[1]
    predict_run(file.parent, split="dev", limit=6, out=tmp_path / "dev")
    assert cli("scale", file.parent, "--by", "0.5")[0] == 0
