"""`--json`: one JSON object per line on standard output, for every long command; `--quiet`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from conftest import CLI

from cpm_tune.commands.table import COMMANDS, TUNE
from cpm_tune.common.events import emit, listening, printed
from cpm_tune.common.option import declared
from cpm_tune.common.progress import working

FEW = ("--limit", 8, "--set", "train.max_steps=2", "--set", "train.eval_every=1")
LONG = {
    *("", "bench", "search", "predict", "generate", "score", "rescore", "export", "convert"),
    *(
        "scale",
        "forgetting",
        "prune",
        "leaderboard verify",
        "pretrain vocab",
        "pretrain prepare",
        "pretrain run",
    ),
}


def events(output: str) -> list[dict[str, Any]]:
    """The events of a command, whose first and last lines are `start` and `exit`."""
    lines = [json.loads(line) for line in output.splitlines()]
    assert all(isinstance(line["time"], float) for line in lines)
    assert [lines[0]["event"], lines[-1]["event"]] == ["start", "exit"]
    return lines


def test_every_long_command_has_both_options() -> None:
    commands = {"": TUNE} | COMMANDS
    for name, command in commands.items():
        options = {option.name for option in declared(command.options)}
        assert ({"--json", "--quiet"} <= options) == (name in LONG), name


def test_a_run_reports_steps_scores_and_its_folder(
    cli: CLI, small_backbone: Path, tmp_path: Path
) -> None:
    words = ("--task", "lcqmc", "--delta", "lora", "--backbone", small_backbone, *FEW)
    code, output, error = cli(*words, "--json", "--out", tmp_path / "out")
    assert code == 0, error
    lines = events(output)
    (run,) = [line for line in lines if line["event"] == "run"]
    record = json.loads((Path(run["folder"]) / "run.json").read_text("utf-8"))
    assert (
        run["scores"]["test"]["accuracy"]["value"] == record["scores"]["test"]["accuracy"]["value"]
    )
    assert (run["metric"], run["existed"]) == ("accuracy", False)
    log = [
        json.loads(line) for line in (Path(run["folder"]) / "log.jsonl").read_text().splitlines()
    ]
    assert [
        {k: v for k, v in e.items() if k != "event"} for e in lines if e["event"] == "log"
    ] == log
    progress = [
        line for line in lines if line["event"] == "progress" and line["what"] == "training"
    ]
    assert (progress[0]["done"], progress[0]["total"], progress[-1]["over"]) == (0, 2, True)
    assert "progress   training" in error  # log lines go on beside the events
    code, output, error = cli(*words, "--json", "--quiet", "--out", tmp_path / "out")
    assert (code, error) == (0, "")
    assert [e["existed"] for e in events(output) if e["event"] == "run"] == [True]


def test_a_sweep_reports_each_trial(cli: CLI, small_backbone: Path, tmp_path: Path) -> None:
    words = ("bench", "--tasks", "lcqmc", "--deltas", "bitfit", "--backbones", small_backbone)
    more = (*FEW, "--control", "none", "--jobs", 1, "--out", tmp_path, "--json")
    code, output, error = cli(*words, *more)
    assert code == 0, error
    (trial,) = [line for line in events(output) if line["event"] == "trial"]
    assert (trial["ok"], trial["ended"], trial["total"], trial["error"]) == (True, 1, 1, None)
    assert (tmp_path / trial["id"] / "run.json").is_file()


def test_quiet_prints_the_result_and_nothing_else(
    cli: CLI, small_backbone: Path, tmp_path: Path
) -> None:
    words = ("--task", "lcqmc", "--backbone", small_backbone, *FEW, "--control", "none")
    code, output, error = cli(*words, "--quiet", "--out", tmp_path / "out")
    assert (code, error) == (0, "")
    assert output.startswith("result ")
    for more in (
        ("convert", small_backbone, tmp_path / "hf", "--to", "hf"),
        ("generate", "秋", "--backbone", small_backbone, "--max-new-tokens", 2),
    ):
        code, output, error = cli(*more, "--quiet")
        assert (code, error) == (0, "")


@pytest.mark.parametrize(
    "words", [("--task", "lcqmx"), ("--task", "lcqmc", "--lr", "3"), ("predict", "nowhere")]
)
def test_mistakes_are_events_too(cli: CLI, words: tuple[str, ...]) -> None:
    code, output, error = cli(*words, "--json")
    assert code == 2
    lines = [json.loads(line) for line in output.splitlines()]
    assert [line["event"] for line in lines if line["event"] != "start"] == ["error", "exit"]
    assert lines[-1]["code"] == 2
    assert error.startswith(f"error: {lines[-2]['text']}")


def test_what_is_printed_inside_is_text(capsys: pytest.CaptureFixture[str]) -> None:
    emit("nobody", listens=1)
    assert not listening()
    with printed():
        print("one\ntwo", end="")
        emit("path", value=Path("a"), text="秋\n")
        with working("counting"):
            pass  # no display is open
    said = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [{k: v for k, v in line.items() if k != "time"} for line in said] == [
        {"event": "text", "text": "one"},
        {"event": "path", "value": "a", "text": "秋\n"},
        {"event": "text", "text": "two"},
    ]
    assert not listening()
