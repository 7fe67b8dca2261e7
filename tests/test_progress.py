"""Progress of long work off a terminal: a line per evaluation, and at least one a minute."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from bench_runs import SETTINGS, write_data
from conftest import CLI

from cpm_tune.common import progress
from cpm_tune.common.progress import EVERY, Lines, labelled, shown, told, tracked, working

pytestmark = pytest.mark.usefixtures("one_thread")


class Clock:
    """A clock that goes on when told."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class Shown:
    """A display with a clock of its own, and its lines."""

    def __init__(self, name: str = "") -> None:
        self.clock, self.lines = Clock(), list[str]()
        self.display = Lines(name, self.lines.append, self.clock)

    def wait(self, seconds: float) -> list[str]:
        """The lines that come while so many seconds pass."""
        self.lines.clear()
        for _ in range(round(seconds)):
            self.clock.now += 1
            self.display.tick()
        return list(self.lines)


def test_a_line_a_minute_says_how_far_it_is_and_how_long_it_takes() -> None:
    at = Shown()
    with shown(at.display), working("scoring test", 600) as work:
        assert at.wait(EVERY - 1) == []
        work.at(100)
        assert at.wait(1) == ["progress   scoring test 100 of 600 rows; about 5 min left"]
        work.advance(200)
        assert at.wait(EVERY) == ["progress   scoring test 300 of 600 rows; about 2 min left"]
        assert len(at.wait(10 * EVERY)) == 10
    assert at.wait(2 * EVERY) == [
        "progress   working, 13 min so far",
        "progress   working, 14 min so far",
    ]


def test_a_label_tells_the_work_of_a_control_apart() -> None:
    at = Shown()
    with shown(at.display):
        with labelled("random-backbone"), working("training", 3, "step", done=3) as work:
            work.tell()
        with working("training", 3, "step") as work:
            work.tell()
    assert [line.partition(" 3 of")[0] for line in at.lines[:1]] == [
        "progress   random-backbone: training"
    ]
    assert at.lines[1].startswith("progress   training 0 of 3 steps")


def test_work_inside_work_is_told_with_the_time_of_the_outer_one() -> None:
    at = Shown("ccpm lora")
    with shown(at.display), working("training", 10, "step", done=4) as training:
        at.clock.now += 30
        training.at(6, "loss 0.5000")
        with working("scoring dev", 8) as scoring:
            scoring.at(2)
            training.tell()
        training.tell()
    assert at.lines == [
        "progress   ccpm lora: training 6 of 10 steps, loss 0.5000; scoring dev 2 of 8 rows; "
        "about 60 s left",
        "progress   ccpm lora: training 6 of 10 steps, loss 0.5000; about 60 s left",
    ]


def test_what_else_is_printed_counts_as_a_line() -> None:
    at = Shown()
    with shown(at.display), working("training", 10, "step"):
        at.wait(50)
        told()
        assert at.wait(59) == []
        assert at.wait(1) == ["progress   training 0 of 10 steps"]


def test_without_a_display_nothing_is_shown(capfd: pytest.CaptureFixture[str]) -> None:
    at = Shown()
    with shown(at.display, unless=True):
        assert list(tracked("abc", "reading", 3)) == ["a", "b", "c"]
        told()
    assert list(tracked("ab", "reading", 2)) == ["a", "b"]
    assert (at.lines, *capfd.readouterr()) == ([], "", "")


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A minute that is over whenever work has come further."""
    monkeypatch.setattr(progress, "EVERY", 0.0)
    monkeypatch.setattr(Lines, "changed", lambda self, work: self.tick())


def tuning(backbone: Path, folder: Path) -> list[object]:
    settings = [word for k, v in SETTINGS.items() for word in ("--set", f"{k}={v}")]
    where = ("--data", write_data(folder / "data"), "--backbone", backbone, "--out", folder / "out")
    return [*("--task", "lcqmc", "--delta", "lora", "--control", "none"), *where, *settings]


def test_tune_prints_a_line_per_evaluation_and_the_result_names_the_best(
    cli: CLI, small_backbone: Path, tmp_path: Path
) -> None:
    words = tuning(small_backbone, tmp_path)
    code, out, error = cli(*words)
    assert code == 0, error
    (record,) = (json.loads(path.read_text()) for path in tmp_path.glob("out/*/run.json"))
    curve = record["training"]["curve"]
    lines = [line for line in error.splitlines() if line.startswith("progress   training")]
    evaluated = [line for line in lines if "dev accuracy" in line]
    assert len(evaluated) == len(curve) > 1
    best = curve[0]
    for line, point in zip(evaluated, curve, strict=True):
        best = point if point["dev"] > best["dev"] else best
        assert f"training {point['step']} of 4 steps, loss {point['loss']:.4f}" in line
        assert (
            f"dev accuracy {point['dev']:.4f}, best {best['dev']:.4f} at step {best['step']}"
            in line
        )
    assert f"best step {best['step']} of 4 (dev accuracy {best['dev']:.4f})" in out
    assert cli(*words, "--overwrite", "--quiet")[2] == ""


@pytest.mark.usefixtures("impatient")
def test_every_long_command_says_what_it_is_doing(
    cli: CLI, small_backbone: Path, tmp_path: Path
) -> None:
    cli(*tuning(small_backbone, tmp_path))
    (run,) = (tmp_path / "out").glob("lcqmc*")
    prompts, text = tmp_path / "prompts.txt", tmp_path / "text.txt"
    prompts.write_text("我\n天\n地\n" * 40, encoding="utf-8")
    text.write_text("\n\n".join("天地玄黄宇宙洪荒。" * n for n in range(1, 9)), encoding="utf-8")
    generate = ("generate", "--input", prompts, "--backbone", small_backbone)
    vocab = small_backbone / "vocab.txt"
    for said, words in {
        "predicting|scoring test": ("predict", run, "--out", tmp_path / "p"),
        "generating": (*generate, "--max-new-tokens", 8, "--batch-tokens", 64),
        "writing": ("convert", small_backbone, tmp_path / "c", "--to", "native"),
        "reading text": ("pretrain", "prepare", text, "--vocab", vocab, "--out", tmp_path / "k"),
    }.items():
        code, _, error = cli(*words)
        assert code == 0, error
        lines = [line for line in error.splitlines() if line.startswith("progress   ")]
        assert any(word in line for line in lines for word in said.split("|")), error


@pytest.mark.slow
def test_bench_tells_the_trials_apart(small_backbone: Path, tmp_path: Path) -> None:
    settings = [word for k, v in SETTINGS.items() for word in ("--set", f"{k}={v}")]
    where = ("--data", write_data(tmp_path / "data"), "--backbones", small_backbone)
    words = ("bench", "--tasks", "lcqmc", "--seeds", "1,2", "--control", "none", *where, *settings)
    line = [sys.executable, "-m", "cpm_tune", *map(str, words), "--out", str(tmp_path / "out")]
    done = subprocess.run(line, capture_output=True, text=True, check=True)
    for seed in (1, 2):
        name = f"lcqmc lora {small_backbone.name} seed {seed}: "
        assert f"progress   {name}training 4 of 4 steps, loss " in done.stderr
        assert ", best step " in next(line for line in done.stdout.splitlines() if name in line)
    assert "[1/2, about " in done.stdout
