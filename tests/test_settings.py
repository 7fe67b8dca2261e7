"""Settings of `--set`, config files and suites: texts, names, hostile values."""

from __future__ import annotations

from pathlib import Path

import pytest
from conftest import CLI
from hypothesis import given, settings
from hypothesis import strategies as st

from cpm_tune.errors import UserError, did_you_mean
from cpm_tune.planning.settings import DELTA_KEYS, KEYS, flat_settings, parse_settings

TEXTS = ("2024", "nan", "1e3", "true", "2024-13-45", "null", "[今天]", "a: b", "&a", "'")


@pytest.mark.parametrize("text", TEXTS)
def test_a_setting_that_is_a_text_stays_one(text: str) -> None:
    assert parse_settings([f"delta.init_text={text}"]) == {"delta.init_text": text}


def test_quotes_of_a_text_are_yaml() -> None:
    assert parse_settings(['delta.init_text="今天"']) == {"delta.init_text": "今天"}


def test_a_text_that_looks_like_a_number_reaches_the_delta(cli: CLI) -> None:
    words = ("--task", "ccpm", "--delta", "soft_prompt", "--dry-run", "--json")
    for text in ("2024", "nan"):
        more = ("--set", "delta.token_init=text", "--set", f"delta.init_text={text}")
        code, said, error = cli(*words, *more)
        assert code == 0, error
        assert f'"init_text": "{text}"' in said


MEANT = {
    "train.learning_rate": "train.lr",
    "train.num_train_epochs": "train.epochs",
    "train.warmup_steps": "train.warmup",
    "train.wd": "train.weight_decay",
    "train.lrr": "train.lr",
    "encode.max_seq_length": "encode.max_length",
    "decode.num_beams": "decode.beams",
    "run.gradient_checkpointing": "run.checkpointing",
    "delta.rank": "delta.lora_r",
    "learning_rate": "train.lr",
}


@pytest.mark.parametrize("name", MEANT)
def test_a_name_of_another_program_suggests_ours(name: str) -> None:
    assert did_you_mean(name, KEYS | DELTA_KEYS) == f" Did you mean '{MEANT[name]}'?"


def test_the_command_line_suggests_the_learning_rate(cli: CLI) -> None:
    _, _, error = cli("--task", "lcqmc", "--set", "train.learning_rate=1e-3")
    assert "there is no setting 'train.learning_rate'. Did you mean 'train.lr'?" in error


def test_all_faults_of_settings_come_at_once(cli: CLI) -> None:
    wrong = ("train.lr=-1", "train.epochs=0", "train.lrr=1", "delta.lora_r=x", "delta.lora_alpha=0")
    words = [word for setting in wrong for word in ("--set", setting)]
    code, _, error = cli("--task", "lcqmc", "--seed", "1", *words)
    assert code == 2
    for name in ("train.lr is -1", "train.epochs is 0", "'train.lrr'", "lora_r is 'x'"):
        assert name in error
    assert error.count("error: ") == len(wrong)


def test_settings_are_flat_once() -> None:
    nested = {"train": {"lr": 1, 2: {"a": 3}}, "train.warmup": 2, None: 1, "run": {}}
    expected = {"train.lr": 1, "train.2": {"a": 3}, "train.warmup": 2, "None": 1}
    assert flat_settings(nested) == expected


HOSTILE = (
    "2024-13-45",
    "!!int x",
    "!!timestamp x",
    "!!float x",
    "!!binary x",
    "!!python/object:os.system x",
    "&a [*a]",
    "*a",
    "[" * 1500,
    "{" * 1500,
    "[" * 49 + "]" * 49,
    "{? {a: b} : c}",
    "{null: 1}",
    "1e999",
    "0x",
    "\x00",
    "\ud800",
    "2001-01-01",
    "12:30:45",
    "<<: 3",
    "{<<: 3}",
    "? [a]",
    "%YAML 9.9\n---\na",
    "a\n---\nb",
    "9" * 5000,
    "0x" + "f" * 5000,
)


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_values_are_one_sentence(cli: CLI, tmp_path: Path, text: str) -> None:
    """The same value on the command line, in a --config file and in a suite."""
    words = ["--task", "lcqmc", "--delta", "lora", "--dry-run", "--control", "none"]
    calls: list[list[object]] = [[*words, "--set", f"train.lr={text}"]]
    if "\ud800" not in text:
        config, suite = tmp_path / "run.yaml", tmp_path / "suite.yaml"
        config.write_text(f"set:\n  train.lr: {text}\n", encoding="utf-8")
        suite.write_text(f"tasks: [lcqmc]\nset:\n  train.lr: {text}\n", encoding="utf-8")
        calls.append([*words, "--config", config])
        calls.append(["bench", "--suite", suite, "--dry-run", "--out", tmp_path / "o"])
    for call in calls:
        code, said, error = cli(*call)
        if code == 0:
            assert text == "12:30:45"  # YAML 1.1 reads a number: 45,045
            continue
        assert (code, said) == (2, ""), call
        assert error.startswith("error: ")
        assert error.count("\n") == 1, error
        assert len(error) < 500


NAMES = ("set: {1: 2}", "set: {null: 2}", "set: {train: {null: 1}}", "set: {train: {lr: {a: 1}}}")


@pytest.mark.parametrize("line", [*NAMES, "set: {a: {b: {c: {d: {e: {f: 1}}}}}}", "null: 3"])
def test_keys_that_are_no_names_are_one_sentence(cli: CLI, tmp_path: Path, line: str) -> None:
    file = tmp_path / "file.yaml"
    file.write_text(f"task: lcqmc\n{line}\n", encoding="utf-8")
    code, _, error = cli("--config", file, "--dry-run")
    assert (code, error.count("\n")) == (2, 1), error
    file.write_text(f"tasks: lcqmc\n{line}\n", encoding="utf-8")
    code, _, error = cli("bench", "--suite", file, "--dry-run", "--out", tmp_path / "o")
    assert (code, error.count("\n")) == (2, 1), error


@settings(max_examples=200)
@given(st.lists(st.sampled_from(sorted(KEYS | DELTA_KEYS)), max_size=3), st.lists(st.text()))
def test_any_settings_parse_or_are_a_user_error(keys: list[str], texts: list[str]) -> None:
    items = [f"{key}={text}" for key, text in zip(keys, texts, strict=False)]
    try:
        assert parse_settings(items).keys() <= {key.strip() for key in keys}
    except UserError:
        return
