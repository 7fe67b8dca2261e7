"""The tutorials can be followed: their files and commands, in order, in one folder; both languages
have the same."""

from __future__ import annotations

import re
import runpy
import shlex
import subprocess
from pathlib import Path

import pytest
from conftest import CLI
from test_docs import SMALL, TUTORIALS, commands, titled

from cpm_tune.data.splits import sample_folder
from cpm_tune.task.registry import load_task

# In the order of the site; the last three share the runs of the suite.
PAGES = ("first-run", "own-data", "own-checkpoint", "suite", "leaderboard", "paper-table")
SHORTER = {
    "tasks: [wantwords, kbqa]": "tasks: [wantwords]",
    "deltas: [lora, adapter, bitfit]": "deltas: [lora, adapter]",
    "seeds: [1, 2, 3]": "seeds: [1, 2]",
    "max_steps: 200, eval_every: 50": "max_steps: 2, eval_every: 2",
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The reader's folder."""
    return tmp_path_factory.mktemp("tutorials")


def runs(folder: Path) -> list[Path]:
    """The tuned runs of a reader, the newest last."""
    places = [
        path
        for path in folder.glob("*/*.s[1-9].*/run.json")
        if ".partial" not in str(path) and '"kind": "system"' not in path.read_text("utf-8")
    ]
    return [path.parent for path in sorted(places, key=lambda path: path.stat().st_mtime_ns)]


def shortened(words: list[str], folder: Path) -> list[str]:
    """A command of few rows and steps, with the folders that RUN, OTHER and SAMPLE stand for."""
    known = runs(folder)
    names = {"SAMPLE": str(sample_folder(load_task("wantwords")))}
    if known:
        names |= {"RUN": str(known[-1]), "OTHER": str(known[0])}
    words = [re.sub(r"^(RUN|OTHER|SAMPLE)(?=$|/)", lambda m: names[m[0]], w) for w in words]
    if "bench" in words:
        words = ["1" if words[i - 1] == "--jobs" else word for i, word in enumerate(words)]
        return [*words, "--limit", "12"]
    tunes = words[0] == "--task" or words[:1] == ["--config"]
    return [*words, *SMALL] if tunes and words[0] == "--task" else words


@pytest.mark.slow
@pytest.mark.parametrize("name", PAGES)
def test_a_tutorial_can_be_followed(
    name: str, folder: Path, cli: CLI, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = TUTORIALS / f"{name}.md"
    monkeypatch.chdir(folder)
    for file, text in titled(page).items():
        for long, short in SHORTER.items():
            text = text.replace(long, short)
        (folder / file).write_text(text, encoding="utf-8")
    for command in commands(page):
        words = shlex.split(command)
        if words[:2] == ["python", "tune.py"]:
            code, output, error = cli(*shortened(words[2:], folder))
            assert code == 0, (command, error)
            assert output.strip(), command
        elif words[0] == "python":
            runpy.run_path(words[1], run_name="__main__")
        else:
            subprocess.run(["bash", "-ec", command], check=True, timeout=60)


@pytest.mark.parametrize("name", PAGES)
def test_a_tutorial_is_the_same_in_chinese(name: str) -> None:
    english, chinese = TUTORIALS / f"{name}.md", TUTORIALS / "zh" / f"{name}.md"
    assert commands(english) == commands(chinese)
    assert titled(english) == titled(chinese)
    levels = [
        re.findall(r"^#+(?= )", page.read_text(encoding="utf-8"), re.MULTILINE)
        for page in (english, chinese)
    ]
    assert levels[0] == levels[1]


def test_every_tutorial_is_followed() -> None:
    for place in (TUTORIALS, TUTORIALS / "zh"):
        assert {path.stem for path in place.glob("*.md")} == set(PAGES)
