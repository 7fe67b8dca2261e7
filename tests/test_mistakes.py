"""What a newcomer gets wrong: one sentence each, which names the place and what to do."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conftest import CLI

import cpm_tune
from cpm_tune.bench.suite import make_suite
from cpm_tune.bench.trials import make_trials
from cpm_tune.errors import UserError

CONFIGS = {
    "task: lcqmc\nseed: 1\nseed: 2\n": "'seed' is there twice",
    '{"task": "lcqmc", "task": "ccpm"}': "'task' is there twice",
    "task: lcqmc\nskip-bad-rows: true\nskip_bad_rows: false\n": "is there twice",
    "task: lcqmc\nset: {train.lr: 1, train: {lr: 2}}\n": "set: 'train.lr' is there twice",
    "task: lcqmc\nset: {train: {lr: 1, lr: 2}}\n": "'lr' is there twice",
    "task: lcqmc\nset: {delta: 5}\n": "set: delta is 5, expected a mapping of its settings",
    "task: lcqmc\nset: {train: null}\n": "set: train is null, expected a mapping",
    "task: lcqmc\nset: [1]\n": "set is [1], expected a mapping",
    "task: lcqmc\nset: {train.lrr: 1}\n": "set: there is no setting 'train.lrr'. Did you mean",
    "task: lcqmc\nset: {train.lr: x}\n": "set: train.lr is 'x', expected a number",
    "task: lcqmc\nset: {delta.zzz: 1}\n": "set: delta lora: 'zzz' is not a setting of lora",
    f"task: lcqmc\nseed: {'9' * 5000}\n": "a whole number of more than 1024 bits",
}
SUITES = {
    "tasks: [lcqmc]\nseeds: 3-1\n": "seeds is 3-1, expected a range from a smaller number",
    "tasks: [lcqmc]\nseeds: [1-9999]\n": "seeds is 1-9999, expected a range",
    "tasks: [lcqmc]\ntasks: [ccpm]\n": "'tasks' is there twice",
    "tasks: [lcqmc]\ntrials: []\ncells: []\n": "cells is an older name of trials; keep one",
    "tasks: [lcqmc]\nset: {delta: 5}\n": "set: delta is 5, expected a mapping of its settings",
    "tasks: [lcqmc]\nset: {train.lr: abc}\n": "lcqmc, lora, cpm-ant-tiny: train.lr is 'abc'",
    "tasks: [lcqmc]\nprecision: fp99\n": "precision is 'fp99', expected 'fp32'",
    "tasks: [lcqmc]\nseeds: [-1]\n": "seeds.0 is -1, expected 0 or more",
}
SETTINGS = {
    "train.patience=true": "train.patience is true, expected a whole number",
    "train.schedule=false": "train.schedule is false, expected 'noam'",
    "encode.max_length=null": "encode.max_length is null, expected a whole number",
    f"train.epochs={'9' * 5000}": "a whole number of more than 1024 bits",
    "delta=5": "delta is a group of settings; name one, such as delta.lora_r=8",
    "zzz=1": " more.",
}


def said(cli: CLI, *words: object) -> str:
    """The one sentence that a command prints."""
    code, _, error = cli(*words)
    assert (code, error.count("\n")) == (2, 1), error
    assert "Traceback" not in error
    assert "None" not in error
    return error


@pytest.mark.parametrize(("text", "sentence"), CONFIGS.items())
def test_a_config_file_is_named_with_its_mistake(
    text: str, sentence: str, cli: CLI, tmp_path: Path
) -> None:
    (tmp_path / "c.yaml").write_text(text, encoding="utf-8")
    error = said(cli, "--config", tmp_path / "c.yaml", "--dry-run")
    assert error.startswith(f"error: --config {tmp_path / 'c.yaml'}: ")
    assert sentence in error


@pytest.mark.parametrize(("text", "sentence"), SUITES.items())
def test_a_suite_is_named_with_its_mistake_whatever_an_option_replaces(
    text: str, sentence: str, cli: CLI, tmp_path: Path
) -> None:
    (tmp_path / "s.yaml").write_text(text, encoding="utf-8")
    words = ("bench", "--suite", tmp_path / "s.yaml", "--dry-run")
    for more in ((), ("--precision", "bf16")):
        error = said(cli, *words, *more)
        assert (
            error.removeprefix("error: --suite ")
            .removeprefix("error: ")
            .startswith(f"{tmp_path / 's.yaml'}: ")
        )
        assert sentence in error


MANY = list(range(1, 102))


@pytest.mark.parametrize(
    "text",
    [
        f"tasks: [lcqmc]\ngrid: {{train.lr: {MANY}, train.clip: {MANY}}}\n",
        "tasks: [all]\nseeds: [1-1000, 2001-3000]\n",
    ],
)
def test_a_suite_of_a_million_trials_is_a_slip(text: str, cli: CLI, tmp_path: Path) -> None:
    (tmp_path / "s.yaml").write_text(text, encoding="utf-8")
    error = said(cli, "bench", "--suite", tmp_path / "s.yaml", "--dry-run")
    assert "more than 10,000 combinations" in error


@pytest.mark.parametrize(("setting", "sentence"), SETTINGS.items())
def test_a_setting_is_named_as_it_was_written(setting: str, sentence: str, cli: CLI) -> None:
    error = said(cli, "--task", "lcqmc", "--dry-run", "--set", setting)
    assert sentence in error
    assert "set_int_max_str_digits" not in error


def test_a_mistyped_backbone_and_a_falling_range_and_a_file_for_results(
    cli: CLI, tmp_path: Path
) -> None:
    task = ("--task", "lcqmc", "--dry-run")
    assert "Did you mean 'cpm-ant-tiny'?" in said(cli, *task, "--backbone", "cpm-ant-tny")
    seeds = ("bench", "--tasks", "lcqmc", "--seeds", "3-1", "--dry-run")
    assert "--seeds is 3-1, expected a range" in said(cli, *seeds)
    (tmp_path / "file").write_text("")
    for words in (task, ("bench", "--tasks", "lcqmc", "--dry-run")):
        for out in (tmp_path / "file", tmp_path / "file" / "below"):
            assert f"--out {out}: cannot be written" in said(cli, *words, "--out", out)


def test_a_trial_has_what_an_override_changed_in_its_name(tmp_path: Path) -> None:
    (tmp_path / "s.yaml").write_text(
        "tasks: [lcqmc]\nlimit: 8\ncontrols: []\ndeltas: [lora, bitfit]\n"
        "trials: [{match: {delta: bitfit}, precision: bf16, limit: 4}]\n",
        encoding="utf-8",
    )
    names = {trial.name for trial in make_trials(make_suite(tmp_path / "s.yaml", {}))}
    assert names == {
        "lcqmc lora cpm-ant-tiny seed 1",
        "lcqmc bitfit cpm-ant-tiny seed 1 precision=bf16 limit=4",
    }


def test_a_damaged_record_is_replaced_only_on_request(
    cli: CLI, small_backbone: Path, tmp_path: Path
) -> None:
    words = ("--task", "lcqmc", "--backbone", small_backbone, "--limit", 8, "--control", "none")
    words = (*words, "--set", "train.max_steps=1", "--out", tmp_path, "--quiet")
    assert cli(*words)[0] == 0
    (record,) = tmp_path.glob("*/run.json")
    whole = json.loads(record.read_text())
    record.write_text('{"broken')
    assert "or run it again with --overwrite" in said(cli, *words)
    record.unlink()
    record.mkdir()
    (record / "mine").write_text("")
    assert "restore the file, or run it again with --overwrite" in said(cli, *words)
    assert (record / "mine").exists()
    assert cli(*words, "--overwrite")[0] == 0
    assert json.loads(record.read_text())["scores"] == whole["scores"]


BACKBONE = "cpm-ant-tiny"
CALLS: dict[str, Callable[[Any], Any]] = {
    "load_run": lambda value: cpm_tune.load_run(value),
    "load_backbone": lambda value: cpm_tune.load_backbone(value),
    "device": lambda value: cpm_tune.load_backbone(device=value),
    "memory_limit": lambda value: cpm_tune.load_backbone(memory_limit=value or "x"),
    "task": lambda value: cpm_tune.tune(value),
    "delta": lambda value: cpm_tune.tune("lcqmc", value),
    "out": lambda value: cpm_tune.tune("lcqmc", out=value),
    "data": lambda value: cpm_tune.tune("lcqmc", data=value or 3),
    "backbone": lambda value: cpm_tune.tune("lcqmc", backbone=value),
    "settings": lambda value: cpm_tune.tune("lcqmc", settings={"delta": value}),
    "insert_delta": lambda value: cpm_tune.load_backbone(BACKBONE).insert_delta(value),
}


@pytest.mark.parametrize("value", [None, 3, ""])
@pytest.mark.parametrize("call", CALLS)
def test_what_is_no_path_is_a_sentence_in_python_too(call: str, value: Any) -> None:
    with pytest.raises(UserError) as error:
        CALLS[call](value)
    assert "\n" not in str(error.value)
    assert "--" not in str(error.value)


@pytest.mark.parametrize("seed", [-1, 2**32, 1.5, "1", None, True])
def test_a_seed_that_is_none_is_a_sentence(seed: Any) -> None:
    with pytest.raises(
        UserError, match=r"^seed is .*, expected a whole number from 0 to 4294967295"
    ):
        cpm_tune.load_backbone(BACKBONE).insert_delta("lora", seed=seed)


@pytest.mark.parametrize(
    ("words", "meant"),
    [
        (("--set", "lr=1"), "Did you mean 'train.lr'?"),
        (("--set", "epochs=1"), "Did you mean 'train.epochs'?"),
        (("--set", "learning_rate=1"), "Did you mean 'train.lr'?"),
        (("--set", "seed=1"), "It is an option: --seed."),
        (("--lr", "1"), "Did you mean '--set train.lr=VALUE'?"),
        (("--learning-rate=1",), "Did you mean '--set train.lr=VALUE'?"),
        (("--model", "x"), "Did you mean '--backbone'?"),
        (("--tesk", "x"), "Did you mean '--task'?"),
        (("--batch_size", "8"), "Did you mean '--set train.batch_size=VALUE'?"),
        (("--xyzzy",), "unrecognized arguments: --xyzzy"),
    ],
)
def test_names_of_other_programs_and_places_are_understood(
    cli: CLI, words: tuple[str, ...], meant: str
) -> None:
    code, _, error = cli("--task", "lcqmc", "--dry-run", *words)
    assert code == 2
    assert meant in error


def test_a_config_file_with_a_setting_as_an_option_is_told_where_it_goes(
    cli: CLI, tmp_path: Path
) -> None:
    (tmp_path / "c.yaml").write_text("task: lcqmc\nlearning_rate: 1e-3\n")
    code, _, error = cli("--config", tmp_path / "c.yaml")
    assert (code, "Did you mean 'set: train.lr'?" in error) == (2, True)
