"""Task files: what they may say, and that every shipped one loads and renders."""

from __future__ import annotations

from pathlib import Path

import pytest

from cpm_tune.errors import UserError
from cpm_tune.metrics import get_metric
from cpm_tune.schema.spec import Decoding, Encoding, Recipe
from cpm_tune.task import Choice, Files, Template
from cpm_tune.task.registry import load_preset, load_task, load_tasks, preset_files, task_files


@pytest.mark.parametrize("name", sorted(task_files()))
def test_every_shipped_task_loads_and_names_known_metrics_and_settings(name: str) -> None:
    task = load_task(name)
    assert task.name == name
    for metric in task.metrics:
        assert get_metric(metric).name == metric
    known = {*Recipe.model_fields, *Encoding.model_fields, *Decoding.model_fields}
    assert set(task.recipe) | set(task.sample_recipe) <= known


@pytest.mark.parametrize("name", sorted(preset_files()))
def test_every_shipped_delta_says_what_it_is_and_parses(name: str) -> None:
    from cpm_tune.delta.config import parse_config

    raw = load_preset(name)
    assert set(raw["about"]) == {"title", "paper", "trainable_on_10b", "run"}
    assert f"--delta {name}" in raw["about"]["run"]
    assert parse_config(raw, name).delta_type == raw["delta_type"]


def test_a_users_task_file_is_found_by_include(tmp_path: Path) -> None:
    source = task_files()["lcqmc"].read_text(encoding="utf-8")
    (tmp_path / "pairs.py").write_text(source.replace('name="lcqmc"', 'name="pairs"'), "utf-8")
    assert load_task("pairs", [tmp_path]).name == "pairs"
    assert load_task("pairs", [tmp_path / "pairs.py"]).name == "pairs"
    assert [task.name for task in load_tasks([tmp_path])].count("pairs") == 1


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("TASK = 1", "expected a variable TASK"),
        ("x = 1", "expected a variable TASK"),
        ("def (", "does not load"),
        ("raise RuntimeError('no')", "does not load: no"),
    ],
)
def test_a_broken_task_file_is_an_error_that_names_it(
    tmp_path: Path, source: str, said: str
) -> None:
    path = tmp_path / "broken.py"
    path.write_text(source, encoding="utf-8")
    with pytest.raises(UserError, match=said) as caught:
        load_task("broken", [path])
    assert str(path) in str(caught.value)


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ('metrics=("accuracy",)', 'metrics="accuracy"', "metrics must be a tuple"),
        ('metrics=("accuracy",)', 'metrics=("acc",)', "Did you mean 'accuracy'"),
        ('"lr": 5e-3', '"lrr": 5e-3', "no recipe setting 'lrr'"),
        ('("不同", "相同")', '"不同"', "options must be a tuple"),
        ('("不同", "相同")', '("不同",)', "2 different options"),
        ("labels=(0, 1)", 'labels=("0", "0")', "names something twice"),
        ("version=1", 'version="1"', "version must be a whole number"),
        ("(238_766, 8_802, 12_500)", "(1,)", "of train, dev and test"),
        ('"sentence1", "sentence2", "label"', '"sentence1", "sentence1", "label"', "twice"),
        (
            "TASK = ",
            "raise SystemExit(3)\nTASK = ",
            r"does not load: it ends the program \(exit code 3\)",
        ),
    ],
)
def test_a_mistake_in_a_task_file_is_found_when_it_is_loaded(
    tmp_path: Path, old: str, new: str, said: str
) -> None:
    source = task_files()["lcqmc"].read_text(encoding="utf-8")
    assert old in source
    path = tmp_path / "pairs.py"
    source = source.replace('name="lcqmc"', 'name="pairs"').replace(old, new)
    path.write_text(source, encoding="utf-8")
    with pytest.raises(UserError, match=said) as caught:
        load_task("pairs", [path])
    assert str(path) in str(caught.value)


def test_a_task_defined_twice_is_an_error_that_names_both_files(tmp_path: Path) -> None:
    (tmp_path / "lcqmc.py").write_text("", encoding="utf-8")
    with pytest.raises(UserError, match="defined twice") as caught:
        load_task("lcqmc", [tmp_path])
    assert str(tmp_path) in str(caught.value)


def test_a_misspelt_task_is_answered_with_the_nearest_name() -> None:
    with pytest.raises(UserError, match="Did you mean 'lcqmc'"):
        load_task("lcqmx")


@pytest.mark.parametrize(
    ("text", "options", "said"),
    [
        ("{a}", ("x", "y"), "exactly one of"),
        ("{a}{option}{answer}", ("x", "y"), "exactly one of"),
        ("{answer}{a}", ("x", "y"), "must come last"),
        ("{b}{option}", ("x", "y"), "unknown field 'b'"),
        ("{a.real}{option}", ("x", "y"), "not a plain field name"),
        ("{a[0]}{option}", ("x", "y"), "not a plain field name"),
        ("{a!r}{option}", ("x", "y"), "not a plain field name"),
        ("{a}{option}", ("x", "x"), "2 different options"),
        ("{a}{option}", ("x",), "2 different options"),
    ],
)
def test_a_template_that_does_not_fit_is_refused(
    text: str, options: tuple[str, ...], said: str
) -> None:
    with pytest.raises(ValueError, match=said):
        Template("t", text, options).check(("a",), "choice", 2)


def test_the_template_fingerprint_follows_what_the_model_sees() -> None:
    base = Template("t", "{a}{option}好", ("x", "y"))
    assert base.sha256 == Template("other", "{a}{option}好", ("x", "y"), version=2).sha256
    assert base.sha256 != Template("t", "{a}{option}吗", ("x", "y")).sha256
    assert base.sha256 != Template("t", "{a}{option}好", ("y", "x")).sha256
    assert base.sha256 != Template("t", "{a}{option}好", ("x", "y"), yes="对").sha256


def test_defaults_accept_every_spelling_of_the_dev_split() -> None:
    files = Files(columns=("a", "label"))
    assert files.names["dev"] == ("dev", "valid", "eval", "val", "validation")
    assert Choice((0, 1)).column == "label"


def test_an_unknown_task_may_be_ones_own() -> None:
    with pytest.raises(UserError, match=r"no task 'mine'; a task of your own needs --include FILE"):
        load_task("mine")
