"""A run that is killed at any moment goes on, and ends as if it had not been."""

from __future__ import annotations

import json
import os
import random
import signal
import time
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
from conftest import CLI, rows, write_jsonl
from kills import Moments, ended, in_child

from cpm_tune.common.interrupt import Interrupted
from cpm_tune.errors import UserError
from cpm_tune.planning.inputs import Inputs, read_inputs
from cpm_tune.planning.plan import Plan, Request, make_plan
from cpm_tune.runs.execute import Outcome, execute
from cpm_tune.schema.record import SHORTCUTS, read_record
from cpm_tune.schema.spec import Recipe

pytestmark = [
    pytest.mark.usefixtures("one_thread"),
    pytest.mark.skipif(not hasattr(os, "fork"), reason="kills forked children"),
]
SETTINGS = {
    **{"train.max_steps": 6, "train.eval_every": 2, "train.lr": 0.01, "train.batch_size": 8},
    **{"delta.lora_dropout": 0.1, "run.checkpoint_minutes": 0, "run.device": "cpu"},
}
SHARES = {"training": 3, "checkpoint": 4, "evaluation": 2, "scoring": 1, "record": 1, "renaming": 1}
NEVER = {"run.checkpoint_minutes": 1e9}


@dataclass
class Case:
    """A run, what it leaves when nothing happens to it, and how many calls its phases have."""

    plan: Plan
    inputs: Inputs
    left: dict[str, Any] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)

    def run(self, out: Path, **how: Any) -> Outcome:
        return execute(self.plan, out, self.inputs, **how)

    def set(self, **execution: Any) -> Case:
        changed = self.plan.execution.model_copy(update=execution)
        return replace(self, plan=replace(self.plan, execution=changed))


def what_is_left(outcome: Outcome) -> dict[str, Any]:
    """Everything in a run's folder, without the times."""
    folder, found = outcome.folder, dict[str, Any]()
    record = json.loads((folder / "run.json").read_text())
    for name in ("seconds", "samples_per_second"):
        record["training"].pop(name)
    for name in ("seconds", "finished_at", "peak_memory_bytes", "energy_joules"):
        record["environment"].pop(name)
    found["run.json"] = {**record, "execution": None}
    lines = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    found["log.jsonl"] = [{k: v for k, v in line.items() if k != "time"} for line in lines]
    found["tensorboard"] = scalars(folder / "tensorboard")
    for path in folder.iterdir():
        if path.name not in found:
            found[path.name] = path.read_bytes()
    return found


def scalars(folder: Path) -> list[tuple[str, int, float]]:
    """Every scalar that is in event files, in order: (tag, step, value)."""
    from tensorboard.backend.event_processing.event_file_loader import EventFileLoader
    from tensorboard.util.tensor_util import make_ndarray

    return [
        (value.tag, event.step, float(make_ndarray(value.tensor)))
        for path in sorted(folder.iterdir())
        for event in EventFileLoader(str(path)).Load()
        for value in event.summary.value
    ]


@pytest.fixture(scope="module")
def case(small_backbone: Path, tmp_path_factory: pytest.TempPathFactory) -> Case:
    folder = tmp_path_factory.mktemp("resume")
    (folder / "data").mkdir()
    for split, n, start in (("train", 40, 0), ("dev", 16, 100), ("test", 16, 200)):
        write_jsonl(folder / "data" / f"{split}.jsonl", rows(n, start))
    request = Request(
        "lcqmc", data=folder / "data", backbone=str(small_backbone), settings=SETTINGS
    )
    plan = make_plan(request)
    made = Case(plan, read_inputs(plan))
    made.left = what_is_left(made.run(folder / "whole"))
    made.counts = counted(made, folder)
    return made


def counted(case: Case, folder: Path) -> dict[str, int]:
    """The calls of every phase, counted in a child, as they will be in those that are killed."""
    moments = Moments()

    def act() -> None:
        case.run(folder / "counted")
        (folder / "counts.json").write_text(json.dumps(moments.counts))

    assert ended(in_child(act, moments)) == 0
    counts: dict[str, int] = json.loads((folder / "counts.json").read_text())
    return counts


def moments_of(case: Case, n: int) -> list[tuple[str, int]]:
    """Random moments, every phase having its share."""
    drawn = random.Random(n)
    phases = [phase for phase, share in SHARES.items() for _ in range(share)]
    return [
        (phase, drawn.randint(1, case.counts[phase]))
        for phase in (phases[i % len(phases)] for i in range(n))
    ]


@pytest.mark.slow
def test_a_run_that_is_killed_at_any_moment_ends_as_if_it_had_not_been(
    case: Case, tmp_path: Path, pytestconfig: pytest.Config
) -> None:
    """kill -9, from inside at a call that is drawn; `--kills N` draws more of them."""
    for number, at in enumerate(moments_of(case, pytestconfig.getoption("--kills"))):
        out = tmp_path / str(number)
        child = in_child(lambda out=out: case.run(out), Moments(at))
        assert ended(child) == -signal.SIGKILL, at
        assert what_is_left(case.run(out)) == case.left, at
        assert [p.name for p in out.iterdir() if p.name != ".locks"] == [case.plan.spec.run_id]


def test_a_run_that_is_killed_in_its_zero_shot_control_is_not_trained_again(
    case: Case, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def control(out: Path) -> Outcome:
        return execute(case.plan.zero_shot(), out, case.inputs, wait=True)

    def killed(out: Path) -> Outcome:
        control(out)
        os.kill(os.getpid(), signal.SIGKILL)
        raise AssertionError

    whole, out = tmp_path / "whole", tmp_path / "out"
    left = what_is_left(case.run(whole, zero_shot=lambda: control(whole)))
    assert set(left["run.json"]["controls"]) == {"majority", "zero-shot", *SHORTCUTS} - {
        "option-alone"
    }
    child = in_child(lambda: case.run(out, zero_shot=lambda: killed(out)))
    assert ended(child) == -signal.SIGKILL
    assert not (out / case.plan.spec.run_id).exists()
    monkeypatch.setattr("cpm_tune.tuning.train._passes", None)
    assert what_is_left(case.run(out, zero_shot=lambda: control(out))) == left


def test_a_run_that_is_killed_again_and_again_from_outside_still_ends_the_same(
    case: Case, tmp_path: Path
) -> None:
    drawn = random.Random(3)
    for _ in range(4):
        child = in_child(lambda: case.run(tmp_path))
        time.sleep(drawn.uniform(0, 0.5))
        os.kill(child, signal.SIGKILL)
        ended(child)
    assert what_is_left(case.run(tmp_path)) == case.left


@pytest.mark.parametrize(
    ("number", "phase"),
    [
        (signal.SIGTERM, "training"),
        (signal.SIGINT, "training"),
        (signal.SIGUSR1, "training"),
        (signal.SIGTERM, "evaluation"),
    ],
)
def test_a_signal_saves_the_step_and_exits_as_shells_expect(
    case: Case, tmp_path: Path, number: signal.Signals, phase: str, capfd: Any
) -> None:
    import torch

    rare = case.set(checkpoint_minutes=1e9)
    at = (phase, case.counts[phase] // 2)
    child = in_child(lambda: rare.run(tmp_path), Moments(at, number))
    assert ended(child) == 128 + number
    (partial,) = tmp_path.glob("*.partial")
    saved = torch.load(partial / "checkpoint.pt", weights_only=True)["state"]
    assert 2 <= saved["step"] <= 4
    record = read_record(partial / "run.json")
    assert record.status == "failed"
    assert "interrupted" in str(record.error) or "repeat the command to resume" in str(record.error)
    assert what_is_left(rare.run(tmp_path)) == case.left


def stopped_in_training(case: Case, out: Path) -> Path:
    """A run that was killed in the middle; returns its folder."""
    at = ("training", case.counts["training"] * 2 // 3)
    assert ended(in_child(lambda: case.run(out), Moments(at))) == -signal.SIGKILL
    (partial,) = out.glob("*.partial")
    return partial


def test_no_resume_starts_again(case: Case, tmp_path: Path) -> None:
    partial = stopped_in_training(case, tmp_path)
    (partial / "checkpoint.pt").write_bytes(b"not looked at")
    assert what_is_left(case.run(tmp_path, resume=False)) == case.left


@pytest.mark.parametrize("kept", [0, 1000, -1], ids=["empty", "start", "last byte"])
def test_a_broken_checkpoint_is_one_sentence_and_stays(
    case: Case, tmp_path: Path, kept: int
) -> None:
    partial = stopped_in_training(case, tmp_path)
    broken = (partial / "checkpoint.pt").read_bytes()[:kept]
    (partial / "checkpoint.pt").write_bytes(broken)
    with pytest.raises(UserError, match=r"not a readable checkpoint.*start again: --no-resume"):
        case.run(tmp_path)
    assert (partial / "checkpoint.pt").read_bytes() == broken


def test_a_checkpoint_of_another_run_is_refused(case: Case, tmp_path: Path) -> None:
    partial = stopped_in_training(case, tmp_path)
    spec = case.plan.spec.model_copy(update={"seed": 9})
    partial.rename(tmp_path / f"{spec.run_id}.partial")
    other = replace(case, plan=replace(case.plan, spec=spec))
    with pytest.raises(UserError, match="belongs to another spec"):
        other.run(tmp_path)


@pytest.mark.parametrize(("stored", "resumed"), [(1, True), (None, True), (7, False)])
def test_a_checkpoint_of_a_version_with_other_numbers_is_refused_and_stays(
    case: Case, tmp_path: Path, stored: int | None, resumed: bool
) -> None:
    """The first version stored none."""
    import torch

    partial = stopped_in_training(case, tmp_path)
    content = torch.load(partial / "checkpoint.pt", weights_only=True)
    if stored is None:
        del content["numbers"]
    else:
        content["numbers"] = stored
    torch.save(content, partial / "checkpoint.pt")
    if resumed:
        assert what_is_left(case.run(tmp_path)) == case.left
        return
    with pytest.raises(
        UserError, match=r"computes other results \(numbers 7, now 1\); start again"
    ):
        case.run(tmp_path)
    assert (partial / "checkpoint.pt").is_file()
    assert what_is_left(case.run(tmp_path, resume=False)) == case.left


def test_a_full_disk_is_one_sentence_and_the_run_goes_on_when_there_is_room(
    case: Case, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = {"left": 4}

    def fsync(_: int) -> None:
        calls["left"] -= 1
        if calls["left"] < 0:
            raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", fsync)
        with pytest.raises(UserError) as raised:
            case.run(tmp_path)
    said = str(raised.value)
    assert "No space left" in said
    assert "Make room and resume with the same command" in said
    assert "\n" not in said
    assert what_is_left(case.run(tmp_path)) == case.left


def test_an_output_that_cannot_be_written_is_one_sentence(
    case: Case, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As root every folder can be written, so the error is raised where the system would."""

    def refuse(*_: Any, **__: Any) -> None:
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(Path, "mkdir", refuse)
    with pytest.raises(UserError, match=r"cannot be written .Read-only file system"):
        case.run(tmp_path / "out")


def test_the_second_process_says_who_is_at_work(case: Case, tmp_path: Path) -> None:
    from cpm_tune.common.folders import run_lock

    def hold() -> None:
        with run_lock(tmp_path, case.plan.spec.run_id, wait=False):
            time.sleep(60)

    child = in_child(hold)
    holder = tmp_path / ".locks" / f"{case.plan.spec.run_id}.holder"
    while not (holder.is_file() and holder.read_text()):
        time.sleep(0.005)
    try:
        with pytest.raises(UserError, match=rf"working on this run \(process {child} on "):
            case.run(tmp_path)
    finally:
        os.kill(child, signal.SIGKILL)
        ended(child)
    assert case.run(tmp_path).record.status == "finished"  # a dead process holds nothing


def test_a_checkpoint_of_an_earlier_version_is_resumed(
    case: Case, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It also has what early stopping follows from, next to the curve."""
    import torch

    real = Recipe.learning_rate

    def learning_rate(recipe: Recipe, step: int, total: int) -> float:
        if step == 3:
            signal.raise_signal(signal.SIGTERM)
        return real(recipe, step, total)

    with monkeypatch.context() as patch:
        patch.setattr(Recipe, "learning_rate", learning_rate)
        with pytest.raises(Interrupted):
            case.run(tmp_path)
    (file,) = tmp_path.glob("*.partial/checkpoint.pt")
    content = torch.load(file, weights_only=True)
    content["state"] |= {"best_step": 2, "best_dev": 0.5, "waited": 0, "stopped_early": False}
    torch.save(content, file)
    assert what_is_left(case.run(tmp_path)) == case.left


def test_the_command_line_goes_on_by_default(
    case: Case, cli: CLI, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = case.plan.splits["train"].path.parent
    words = ["--task", "lcqmc", "--data", data, "--backbone", case.plan.folder.path]
    words += ["--out", tmp_path, "--control", "none"]
    for key, value in SETTINGS.items():
        words += ["--set", f"{key}={value}"]
    made = iter([signal.SIGTERM])
    real = Recipe.learning_rate

    def learning_rate(recipe: Any, step: int, total: int) -> float:
        if step == 3 and (number := next(made, None)):
            signal.raise_signal(number)
        return real(recipe, step, total)

    monkeypatch.setattr(Recipe, "learning_rate", learning_rate)
    code, _, said = cli(*words)
    assert code == 143
    assert "saved at step" in said
    code, said, _ = cli(*words)
    assert code == 0
    assert "resume     " in said
    assert (tmp_path / case.plan.spec.run_id / "delta.safetensors").read_bytes() == case.left[
        "delta.safetensors"
    ]
