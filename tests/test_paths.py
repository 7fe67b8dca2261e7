"""Any folder may have any name: it simply works, or is one sentence before anything is computed."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import CLI, REPOSITORY, rows, write_jsonl

from cpm_tune import api
from cpm_tune.commands.table import COMMANDS, TUNE
from cpm_tune.common.option import declared
from cpm_tune.common.paths import cache_dir
from cpm_tune.data.splits import find_splits
from cpm_tune.errors import UserError
from cpm_tune.task.registry import load_task

GBK = os.fsdecode("数据".encode("gbk"))  # as unzip leaves it
NAMES = {
    "newline": "a\nb",
    "quotes": "a'\"b $(x) %s {y} \\",
    "escapes": "\x1b[31m\u202e\r",
    "250 characters": "l" * 250,
    "Chinese": "数据 文件，（一）",
}


@pytest.fixture
def others(tmp_path: Path, small_backbone: Path) -> Path:
    """A folder with what commands need, under plain names."""
    for split, n, start in (("train", 16, 0), ("dev", 8, 100), ("test", 8, 200)):
        (tmp_path / "lcqmc").mkdir(exist_ok=True)
        write_jsonl(tmp_path / "lcqmc" / f"{split}.jsonl", rows(n, start))
    shutil.copytree(small_backbone, tmp_path / "small")
    task = (REPOSITORY / "tasks" / "lcqmc.py").read_text(encoding="utf-8")
    (tmp_path / "mine.py").write_text(task.replace('name="lcqmc"', 'name="mine"'), encoding="utf-8")
    shutil.copytree(tmp_path / "lcqmc", tmp_path / "mine")
    (tmp_path / "prompts.txt").write_text("今天\n", encoding="utf-8")
    return tmp_path


@pytest.fixture
def fresh_cache(monkeypatch: pytest.MonkeyPatch) -> Iterator[pytest.MonkeyPatch]:
    yield monkeypatch
    tempfile.tempdir = None


@pytest.mark.parametrize("name", NAMES)
def test_every_command_works_in_folders_of_any_name(
    others: Path, cli: CLI, name: str, fresh_cache: pytest.MonkeyPatch
) -> None:
    here = others / NAMES[name]
    here.mkdir()
    for folder in ("lcqmc", "mine", "small"):
        shutil.copytree(others / folder, here / folder)
    for file in ("mine.py", "prompts.txt"):
        shutil.copy(others / file, here)
    for variable in ("XDG_CACHE_HOME", "TMPDIR"):
        (here / variable).mkdir()
        fresh_cache.setenv(variable, str(here / variable))
    tempfile.tempdir = None

    def run(*words: object) -> str:
        code, out, error = cli(*words)
        assert code == 0, (words, error)
        return out

    run(
        *("--task", "mine", "--delta", "lora", "--include", here / "mine.py", "--control", "none"),
        *("--data", here, "--backbone", here / "small", "--out", here / NAMES[name]),
        *("--set", "train.max_steps=1", "--limit", 8),
    )
    assert list((here / "XDG_CACHE_HOME").rglob("*.arrow"))
    (made,) = [path for path in (here / NAMES[name]).iterdir() if (path / "run.json").is_file()]
    mine = ("--include", here / "mine.py")
    assert "mine" in run("list", "tasks", "--data", here, *mine)
    run("show", "mine", "--data", here, *mine, "--rows", 1)
    run("estimate", "--backbone", here / "small", "--delta", "lora")
    run(
        "predict",
        made,
        "--data",
        here,
        *mine,
        "--limit",
        4,
        "--out",
        here / "predicted" / NAMES[name],
    )
    run(
        "generate",
        "--backbone",
        here / "small",
        "--delta-from",
        made,
        "--input",
        here / "prompts.txt",
        "--max-new-tokens",
        2,
        "--out",
        here / "texts.jsonl",
    )
    for target in ("peft", "merged"):
        run("export", made, "--to", target, "--out", here / target / NAMES[name])
    run("convert", here / "small", here / "converted" / NAMES[name], "--to", "hf")
    run("leaderboard", here / NAMES[name], *mine, "--format", "html", "--out", here / "page.html")
    run("leaderboard", "plot", here / NAMES[name], "--out", here / "figures" / NAMES[name])
    run("leaderboard", "verify", here / NAMES[name])
    run("rescore", here / NAMES[name], "--write")
    left = {
        path.name for path in here.rglob("*") if path.name.endswith((".partial", ".old", ".part"))
    }
    assert not left


OPTIONS = [
    (command, option)
    for command, declaration in {"": TUNE, **COMMANDS}.items()
    for option in declared(declaration.options)
    if option.kind is Path or "DIR" in option.option.metavar
]


@pytest.mark.parametrize(("command", "option"), OPTIONS, ids=lambda value: str(value)[:30])
def test_a_name_that_is_not_utf8_is_refused_before_anything_runs(
    tmp_path: Path, cli: CLI, monkeypatch: pytest.MonkeyPatch, command: str, option: object
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / GBK).mkdir()
    before = sorted(tmp_path.rglob("*"))
    given: list[object] = [tmp_path / GBK]
    if not option.option.positional:  # type: ignore[attr-defined]
        given.insert(0, option.name)  # type: ignore[attr-defined]
    required = {
        "": ("--task", "lcqmc"),
        "predict": ("RUN",),
        "show": ("lcqmc",),
        "list": ("tasks",),
    }
    code, _, error = cli(*command.split(), *required.get(command, ()), *given)
    assert code == 2
    assert "Traceback" not in error
    assert sorted(tmp_path.rglob("*")) == before
    if "required" not in error and "unrecognized" not in error:
        assert "its name is not UTF-8 text (in GBK it reads" in error
        assert "数据" in error


def test_names_that_are_not_utf8_are_refused_in_python_and_inside_folders(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(UserError, match=r"data .*: its name is not UTF-8 text \(in GBK it reads"):
        api.tune(task="lcqmc", delta="lora", data=tmp_path / GBK)
    (tmp_path / f"{GBK}kbqa.train").write_text("x", encoding="utf-8")
    with pytest.raises(UserError, match=r"kbqa\.train: its name is not UTF-8 text"):
        find_splits(load_task("kbqa"), tmp_path, ("train",))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / GBK))
    with pytest.raises(UserError, match=r"the cache folder .* not UTF-8 .* XDG_CACHE_HOME"):
        cache_dir("data")


def test_a_working_directory_of_any_name_works_with_relative_paths(
    others: Path, cli: CLI, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = others / GBK
    here.mkdir()
    for folder in ("lcqmc", "small"):
        shutil.copytree(others / folder, here / folder)
    monkeypatch.chdir(here)
    code, _, error = cli(
        *("--task", "lcqmc", "--delta", "lora", "--control", "none", "--data", "lcqmc"),
        *("--backbone", "small", "--set", "train.max_steps=1", "--limit", 8),
    )
    assert code == 0, error
    (made,) = [path for path in Path("results").iterdir() if (path / "run.json").is_file()]
    for words in (
        ("predict", made, "--data", "lcqmc", "--limit", 2, "--out", "predicted"),
        ("export", made, "--to", "peft", "--out", "peft"),
        ("leaderboard", "results"),
    ):
        assert cli(*words)[0] == 0, words


PLACES = {
    "a file in the way": lambda root: root / "prompts.txt" / "x",
    "a folder that nobody can write": lambda root: Path("/proc/cpm-tune/x"),
}


@pytest.mark.parametrize("place", PLACES)
def test_a_place_that_cannot_be_written_is_told_before_anything_is_computed(
    others: Path, cli: CLI, place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = PLACES[place](others)
    tune = ("--task", "lcqmc", "--delta", "lora", "--data", others / "lcqmc")
    tune = (*tune, "--backbone", others / "small", "--control", "none", "--limit", 8)
    short = ("--set", "train.max_steps=1")
    assert cli(*tune, *short, "--out", others / "results")[0] == 0
    (made,) = [path for path in (others / "results").iterdir() if (path / "run.json").is_file()]
    gold = others / "lcqmc" / "test.jsonl"

    def no_weights(*_: object, **__: object) -> None:
        raise AssertionError("weights were loaded before the place was tried")

    for user in ("execute", "rerun"):
        monkeypatch.setattr(f"cpm_tune.runs.{user}.load_backbone", no_weights)
    for words in (
        (*tune, *short, "--out", out),
        ("predict", made, "--data", others / "lcqmc", "--out", out),
        (
            "score",
            "--task",
            "lcqmc",
            "--data",
            others,
            "--predictions",
            gold,
            "--name",
            "x",
            "--out",
            out,
        ),
        ("export", made, "--to", "peft", "--out", out),
        ("convert", others / "small", out, "--to", "hf"),
        ("leaderboard", others / "results", "--format", "html", "--out", out),
        ("leaderboard", "plot", others / "results", "--out", out),
        (
            "generate",
            "--backbone",
            others / "small",
            "--input",
            others / "prompts.txt",
            "--out",
            out,
        ),
    ):
        code, _, error = cli(*words)
        assert code in (1, 2), words
        assert str(out) in error or str(out.parent) in error, (words, error)
        assert "Traceback" not in error


def test_data_out_and_cache_may_be_on_different_devices(
    others: Path, cli: CLI, fresh_cache: pytest.MonkeyPatch
) -> None:
    memory = Path("/dev/shm")
    if not os.access(memory, os.W_OK) or memory.stat().st_dev == others.stat().st_dev:
        pytest.skip("no second device")
    with tempfile.TemporaryDirectory(dir=memory) as other:
        for variable, place in (("XDG_CACHE_HOME", other), ("TMPDIR", str(others))):
            fresh_cache.setenv(variable, place)
        tempfile.tempdir = None
        code, _, error = cli(
            *(
                "--task",
                "lcqmc",
                "--delta",
                "lora",
                "--control",
                "none",
                "--data",
                others / "lcqmc",
            ),
            *("--backbone", others / "small", "--set", "train.max_steps=1", "--limit", 8),
            *("--out", Path(other) / "results"),
        )
        assert code == 0, error
        (made,) = [p for p in (Path(other) / "results").iterdir() if (p / "run.json").is_file()]
        for target, out in (("peft", others / "peft"), ("merged", Path(other) / "merged")):
            assert cli("export", made, "--to", target, "--out", out)[0] == 0
