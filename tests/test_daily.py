"""Daily use: completion of shells, JSON Schemas for editors, looking after runs."""

from __future__ import annotations

import contextlib
import io
import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from conftest import CLI, REPOSITORY

from cpm_tune.commands import completion
from cpm_tune.commands.options.look import Completion
from cpm_tune.common.folders import run_lock

# --- completion ---

COMPLETED = [
    ("tune.py leader", {"leaderboard"}),
    ("tune.py leaderboard comp", {"compare"}),
    ("tune.py runs ta", {"tail"}),
    ("tune.py --prec", {"--precision"}),
    ("tune.py --precision bf", {"bf16"}),
    ("tune.py --task lcq", {"lcqmc"}),
    ("tune.py --delta lo", {"lora", "low_rank_adapter"}),
    ("tune.py --set train.l", {"train.lr="}),
    ("tune.py bench --deltas bit", {"bitfit"}),
    ("tune.py leaderboard compare --met", {"--metric"}),
    ("tune.py predict pypro", {"pyproject.toml"}),
]


@pytest.fixture(scope="module")
def scripts(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder, made = tmp_path_factory.mktemp("completion"), {}
    for shell in ("bash", "zsh", "fish"):
        with contextlib.redirect_stdout(text := io.StringIO()):
            completion.run(Completion(shell=shell))
        made[shell] = folder / f"c.{shell}"
        made[shell].write_text(text.getvalue(), "utf-8")
    return made


def shell(*words: str) -> list[str]:
    if shutil.which(words[0]) is None:
        pytest.skip(f"{words[0]} is not installed")
    done = subprocess.run(words, capture_output=True, text=True, cwd=REPOSITORY)
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


@pytest.mark.parametrize(("line", "expected"), COMPLETED)
def test_bash_completes(line: str, expected: set[str], scripts: dict[str, Path]) -> None:
    code = f"source {scripts['bash']}; COMP_WORDS=({line}); COMP_CWORD=$((${{#COMP_WORDS[@]}}-1)); "
    code += '_cpm_tune; echo "${COMPREPLY[@]}"'
    assert set(shell("bash", "-c", code)) == expected


@pytest.mark.parametrize(("line", "expected"), COMPLETED)
def test_fish_completes(line: str, expected: set[str], scripts: dict[str, Path]) -> None:
    code = f"source {scripts['fish']}; complete -C {line!r} | cut -f 1"
    assert set(shell("fish", "--no-config", "-c", code)) == expected


def test_zsh_reads_its_script(scripts: dict[str, Path]) -> None:
    """Whether or not the user's shell has begun its completion."""
    code = f"source {scripts['zsh']}; whence -w _cpm_tune compdef; print $_comps[cpm-tune]"
    for before in ("", "autoload -U compinit && compinit -D -u; "):
        said = shell("zsh", "-f", "-c", f"ZDOTDIR={scripts['zsh'].parent}; {before}{code}")
        assert said == ["_cpm_tune:", "function", "compdef:", "function", "_bash_complete", "-o",
                        "filenames", "-F", "_cpm_tune"]  # fmt: skip


# --- schemas ---


def errors(schema: dict[str, Any], text: str) -> list[str]:
    checker = jsonschema.Draft202012Validator(schema)
    return [error.message for error in checker.iter_errors(yaml.safe_load(text))]


def schema_of(cli: CLI, kind: str) -> dict[str, Any]:
    code, output, _ = cli("schema", kind)
    schema: dict[str, Any] = json.loads(output)
    jsonschema.Draft202012Validator.check_schema(schema)
    assert code == 0
    return schema


def test_the_schema_of_config_files_takes_what_tune_takes(cli: CLI, tmp_path: Path) -> None:
    schema = schema_of(cli, "config")
    good = "task: lcqmc\nseed: 3\nskip-bad-rows: true\ncontrol: [none]\nset: "
    good += "{train: {lr: 0.001}, encode.max_length: 99, delta: {lora_r: 4}}\n"
    assert errors(schema, good) == []
    (tmp_path / "good.yaml").write_text(good)
    assert cli("--config", tmp_path / "good.yaml", "--dry-run")[0] == 0
    for bad in (
        "sedd: 1",
        "seed: -1",
        "precision: fp8",
        "set: {train: {lrr: 1}}",
        "set: {train.epochs: 0}",
        "quiet: true",
        "set: {delta: {rank: 2}}",
    ):
        assert errors(schema, f"task: lcqmc\n{bad}\n"), bad
        (tmp_path / "bad.yaml").write_text(f"task: lcqmc\n{bad}\n")
        assert cli("--config", tmp_path / "bad.yaml", "--dry-run")[0] == 2, bad


def test_the_schema_of_suites_takes_the_shipped_ones(cli: CLI) -> None:
    schema = schema_of(cli, "suite")
    for path in (REPOSITORY / "suites").glob("*.yaml"):
        assert errors(schema, path.read_text("utf-8")) == [], path
    assert errors(schema, "tasks: lcqmc,ccpm\nseeds: 1-3\ngrid: {train.lr: [1, 2]}\n") == []
    for bad in ("tasks: [a]\nsedds: 1", "deltas: [lora]", "tasks: [a]\nset: {train.lrr: 1}"):
        assert errors(schema, bad), bad


# --- runs ---


@pytest.fixture
def run(cli: CLI, small_backbone: Path, tmp_path: Path) -> Path:
    words = ("--task", "lcqmc", "--backbone", small_backbone, "--limit", 8, "--control", "none")
    more = ("--set", "train.max_steps=2", "--quiet", "--out", tmp_path / "results")
    assert cli(*words, *more)[0] == 0
    return next((tmp_path / "results").glob("lcqmc.*"))


def test_runs_are_listed_shown_followed_and_measured(cli: CLI, run: Path) -> None:
    partial = run.with_name("ccpm.lora.s1.0123.partial")
    shutil.copytree(run, partial)
    code, output, _ = cli("runs", "list", run.parent)
    lines = {line.split()[0]: line for line in output.splitlines()}
    assert code == 0
    assert "finished" in lines[run.name]
    assert "accuracy" in lines[run.name]
    assert "unfinished" in lines[partial.name]
    code, output, _ = cli("runs", "show", run)
    assert (code, "recipe.max_steps = 2" in output) == (0, True)
    log = (run / "log.jsonl").read_text().splitlines()
    assert cli("runs", "tail", run, "--lines", 1, "--follow")[1].splitlines() == log[-1:]
    assert cli("runs", "tail", str(partial).removesuffix(".partial"))[1].splitlines() == log
    code, output, _ = cli("runs", "du", run.parent)
    size = sum(path.stat().st_size for path in run.rglob("*") if path.is_file())
    assert [int(line.split()[0].replace(",", "")) for line in output.splitlines()] == [
        *(size, size, 2 * size)
    ]


def test_runs_are_removed_only_if_they_are_runs_and_it_is_confirmed(
    cli: CLI, run: Path, tmp_path: Path
) -> None:
    code, output, _ = cli("runs", "rm", run)
    assert (code, "nothing was removed" in output, run.is_dir()) == (0, True, True)
    link = tmp_path / "link"
    link.symlink_to(run)
    for wrong, reason in ((run.parent, "not a run's folder"), (link, "a link")):
        code, _, error = cli("runs", "rm", run, wrong, "--yes")
        assert (code, reason in error, run.is_dir()) == (2, True, True)
    with run_lock(run.parent, run.name, wait=False):
        code, _, error = cli("runs", "rm", run, "--yes")
        assert (code, "cannot be removed" in error, run.is_dir()) == (2, True, True)
    assert cli("runs", "rm", run, "--yes")[0] == 0
    assert not run.exists()
    assert cli("runs", "rm")[0] == 2


# --- the page of a run ---

WORDS = REPOSITORY / "examples" / "words"


def test_the_page_of_a_run_has_that_run_alone_and_opens(
    cli: CLI, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[str] = []
    monkeypatch.setattr("webbrowser.open", opened.append)
    monkeypatch.setenv("DISPLAY", ":0")
    run = next(WORDS.glob("kbqa.lora.s1.*"))
    code, output, error = cli("open", str(run))
    assert (code, error) == (0, "")
    page = Path(output.strip())
    assert opened == [page.as_uri()]
    text = page.read_text("utf-8")
    assert run.name in text
    assert "kbqa.lora.s2" not in text
    other = next(WORDS.glob("kbqa.lora.s2.*"))
    assert cli("open", str(other), "--no-browser")[1].strip() != str(page)
    assert len(opened) == 1
    monkeypatch.delenv("DISPLAY")
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    monkeypatch.setattr("sys.platform", "linux")
    assert cli("open", str(WORDS))[0] == 0
    assert len(opened) == 1, "no desktop, no browser"


def test_what_has_no_page_is_one_sentence(cli: CLI, tmp_path: Path) -> None:
    (tmp_path / "run.partial").mkdir()
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "run.json").write_text("{")
    for name, about in {
        "run": "not finished yet",
        "run.partial": "not finished yet",
        "broken": "not a valid run record",
        "nowhere": "there is no such results folder",
        ".": "neither a finished run nor a folder that has one",
    }.items():
        code, _, error = cli("open", str(tmp_path / name))
        assert (code, about in error) == (2, True), (name, error)
