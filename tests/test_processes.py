"""Several processes: the results of one, and what happens when one of them ends.

Most processes here are forked children with torchrun's variables, which costs no imports; the
launcher is tested by the command line itself.
"""

from __future__ import annotations

import contextlib
import inspect
import json
import os
import re
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conftest import rows, write_jsonl
from kills import FORKS, ended, in_child
from same_runs import Run, assert_same, in_group, read_run, stop_in_step_3
from torch.distributed.elastic.multiprocessing.api import PContext

from cpm_tune.commands.cli import main
from cpm_tune.errors import ProcessLostError
from cpm_tune.planning.inputs import read_inputs
from cpm_tune.planning.plan import Plan, Request, make_plan
from cpm_tune.runs.execute import execute

pytestmark = [
    pytest.mark.usefixtures("one_thread"),
    FORKS,
]
# 41 examples in batches of 8: the last has a single one, so two of three processes have none
SETTINGS = {
    **{"train.max_steps": 8, "train.eval_every": 4, "train.lr": 0.01, "train.batch_size": 8},
    **{"run.device": "cpu", "run.checkpoint_minutes": 0},
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("processes")
    for split, n, start in (("train", 41, 0), ("dev", 17, 100), ("test", 16, 200)):
        write_jsonl(made / f"{split}.jsonl", rows(n, start))
    return made


@pytest.fixture(scope="module")
def planned(folder: Path, small_backbone: Path) -> Callable[..., Plan]:
    def make(delta: str = "lora", precision: str = "fp32", **settings: Any) -> Plan:
        given = {k.replace("_", ".", 1): v for k, v in settings.items()}
        request = Request(
            "lcqmc",
            delta=delta,
            data=folder,
            backbone=str(small_backbone),
            precision=precision,
            settings={**({} if delta == "none" else SETTINGS), "run.device": "cpu", **given},
        )
        return make_plan(request)

    return make


def start(
    plan: Plan, out: Path, world_size: int, before: Callable[[int], object] = id
) -> list[int]:
    """Start the processes of a run; `before` is called in each, with its rank."""

    def run(rank: int) -> None:
        before(rank)
        execute(plan, out, read_inputs(plan))

    return in_group(world_size, run)


def finish(plan: Plan, out: Path, world_size: int) -> Run:
    """Carry out a run; return its record and its predictions of dev and test.

    One process is this one: what it imports, the children do not have to.
    """
    if world_size == 1:
        execute(plan, out, read_inputs(plan))
    else:
        assert [ended(child) for child in start(plan, out, world_size)] == [0] * world_size
    (found,) = (path for path in out.iterdir() if path.name != ".locks")
    return read_run(found)


@pytest.fixture(scope="module")
def alone(
    planned: Callable[..., Plan], tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str], Any]:
    """What one process makes of a delta."""
    known: dict[str, Any] = {}

    def make(delta: str) -> Any:
        if delta not in known:
            known[delta] = finish(planned(delta), tmp_path_factory.mktemp(delta), 1)
        return known[delta]

    return make


@pytest.mark.parametrize(
    ("delta", "world_size"),
    [("none", 2), ("none", 3), ("lora", 2), ("lora", 3), ("bitfit", 3), ("prefix", 2)],
)
def test_several_processes_give_what_one_gives(
    planned: Callable[..., Plan],
    alone: Callable[[str], Any],
    tmp_path: Path,
    delta: str,
    world_size: int,
) -> None:
    one, several = alone(delta), finish(planned(delta), tmp_path, world_size)
    assert_same(one, several)
    assert several[0].environment is not None
    assert several[0].environment.world_size == world_size
    assert [path.name for path in tmp_path.iterdir() if path.name != ".locks"] == [
        several[0].run_id
    ]


def test_texts_are_written_by_several_processes_in_order(
    small_backbone: Path, tmp_path: Path
) -> None:
    def written(world_size: int, **settings: Any) -> list[dict[str, Any]]:
        shown = {"decode.max_new_tokens": 3, "run.device": "cpu", **settings}
        request = Request(
            "math23k", delta="none", limit=7, backbone=str(small_backbone), settings=shown
        )
        return finish(make_plan(request), tmp_path / f"{world_size}{len(settings)}", world_size)[1]

    one = written(1)
    assert len(one) == 14
    assert written(2) == one
    # 4 and 3 rows, of which 3 fit one forward pass: the second process is done before the first
    assert written(2, **{"run.shard": True, "run.micro_tokens": 256}) == one


def test_the_number_of_processes_may_change_when_a_run_goes_on(
    planned: Callable[..., Plan], alone: Callable[[str], Any], tmp_path: Path
) -> None:
    """Two processes that divide the backbone, one of which gets SIGTERM: both stop after the same
    step. Then three, each with the whole of it."""
    plan, one = planned("lora", run_shard=True), alone("lora")

    children = start(plan, tmp_path, 2, stop_in_step_3)
    assert [ended(child) for child in children] == [143, 143]
    (partial,) = tmp_path.glob("*.partial")
    assert len((partial / "log.jsonl").read_text().splitlines()) == 3
    assert_same(one, finish(planned("lora"), tmp_path, 3))


def test_a_killed_process_ends_the_others_and_the_run_goes_on(
    planned: Callable[..., Plan], alone: Callable[[str], Any], tmp_path: Path
) -> None:
    plan, one = planned("lora"), alone("lora")

    def die_in_step_6(rank: int) -> None:
        from cpm_tune.schema.spec import Recipe

        real = Recipe.learning_rate

        def learning_rate(recipe: Any, step: int, total: int) -> float:
            if step == 6 and rank == 1:
                os.kill(os.getpid(), signal.SIGKILL)
            return real(recipe, step, total)

        Recipe.learning_rate = learning_rate  # type: ignore[method-assign]  # in a child

    first, second = (ended(child) for child in start(plan, tmp_path, 2, die_in_step_6))
    assert (first, second) == (ProcessLostError.exit_code, -signal.SIGKILL)
    assert_same(one, finish(plan, tmp_path, 2))


@pytest.mark.parametrize(
    ("delta", "world_size", "how"),
    [
        ("none", 3, {"shard": True}),
        ("lora", 2, {"shard": True}),
        ("lora", 3, {"shard": True, "checkpointing": True, "micro_tokens": 256}),
        ("soft_prompt", 2, {"shard": True, "offload": True}),
        ("bitfit", 1, {"offload": True}),
        ("lora", 1, {"offload": True, "checkpointing": True, "micro_tokens": 256}),
    ],
)
def test_a_divided_backbone_changes_nothing(
    planned: Callable[..., Plan],
    alone: Callable[[str], Any],
    tmp_path: Path,
    delta: str,
    world_size: int,
    how: dict[str, Any],
) -> None:
    plan = planned(delta, **{f"run_{name}": value for name, value in how.items()})
    assert_same(alone(delta), finish(plan, tmp_path, world_size))


@pytest.mark.parametrize("layout", ["native", "reference"])
def test_every_process_holds_its_part_of_the_layers_and_no_more(
    request: pytest.FixtureRequest, layout: str
) -> None:
    import torch

    from cpm_tune.backbone.ant.checkpoint import load_weights
    from cpm_tune.backbone.ant.folder import open_folder
    from cpm_tune.backbone.storage.shards import local_values
    from cpm_tune.delta.config import NoneConfig
    from cpm_tune.engine.engine import make_engine
    from cpm_tune.memory.estimate import Work, estimate
    from cpm_tune.planning.skeleton import make_skeleton
    from cpm_tune.schema.spec import Execution

    folder = open_folder(request.getfixturevalue(layout))
    whole = dict(load_weights(folder, torch.float32).named_parameters())

    how = Execution(device="cpu", shard=True)
    work = Work(make_skeleton(folder.config, NoneConfig()), 8, 64, nproc=2, execution=how)
    expected_bytes = estimate(work).weights

    def check(rank: int) -> None:
        engine = make_engine(how, "fp32")
        found = dict(load_weights(folder, torch.float32, engine.materialise).named_parameters())
        assert found.keys() == whole.keys()
        assert sum(local_values(p).nbytes for p in found.values()) == expected_bytes
        for name, parameter in found.items():
            expected = whole[name].detach()
            if name.startswith("encoder.layers"):
                expected = expected.chunk(2)[rank]
            values = local_values(parameter)
            assert torch.equal(values, expected)
            assert values.untyped_storage().nbytes() <= 4 * expected.numel() + 1024

    assert [ended(child) for child in in_group(2, check)] == [0, 0]


def test_what_a_divided_backbone_needs(planned: Callable[..., Plan]) -> None:
    from cpm_tune.errors import UserError

    with pytest.raises(UserError, match="several processes, but there is one; add --nproc"):
        read_inputs(planned("lora", run_shard=True))
    with pytest.raises(UserError, match="full fine-tuning trains it"):
        planned("full", run_shard=True)


@pytest.mark.parametrize("delta", ["lora", "full"])
def test_checkpointing_changes_nothing(
    planned: Callable[..., Plan], alone: Callable[[str], Any], tmp_path: Path, delta: str
) -> None:
    plan = planned(delta, run_checkpointing=True)
    assert_same(alone(delta), finish(plan, tmp_path, 1))


# --- fp16 ---------------------------------------------------------------------------------------


def test_fp16_leaves_out_steps_that_overflow_and_counts_them(
    planned: Callable[..., Plan], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch

    from cpm_tune.engine.pytorch import TorchEngine

    plan = planned("lora", "fp16")
    inputs = read_inputs(plan)
    assert isinstance(inputs.engine, TorchEngine)
    inputs.engine._scaler = torch.amp.GradScaler("cpu", init_scale=2.0**24)
    record = execute(plan, tmp_path, inputs).record
    assert record.training is not None
    assert 0 < record.training.skipped_steps < 8
    log = [json.loads(s) for s in (tmp_path / record.run_id / "log.jsonl").open()]
    steps = [entry for entry in log if "lr" in entry]
    assert len(steps) == 8 - record.training.skipped_steps


def test_fp16_gives_up_when_nothing_is_finite_at_any_scale(
    planned: Callable[..., Plan], tmp_path: Path
) -> None:
    import torch

    from cpm_tune.engine.pytorch import TorchEngine
    from cpm_tune.errors import UserError

    plan = planned("lora", "fp16", train_lr=1e30, train_schedule="constant", train_warmup=1)
    inputs = read_inputs(plan)
    assert isinstance(inputs.engine, TorchEngine)
    inputs.engine._scaler = torch.amp.GradScaler("cpu", init_scale=4.0)
    with pytest.raises(UserError, match=r"step \d: the loss is nan"):
        execute(plan, tmp_path, inputs)


# --- the launcher -------------------------------------------------------------------------------


@pytest.fixture
def command(folder: Path, small_backbone: Path, tmp_path: Path) -> list[str]:
    words = ["--task", "lcqmc", "--data", folder]
    words += ["--backbone", small_backbone, "--out", tmp_path / "out", "--control", "none"]
    for key, value in SETTINGS.items():
        words += ["--set", f"{key}={value}"]
    return list(map(str, words))


def children(pid: int) -> list[int]:
    return list(map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split()))


@pytest.mark.slow
@pytest.mark.parametrize("hangs", [False, True])
@pytest.mark.skipif(not Path("/proc").is_dir(), reason="finds the processes in /proc")
def test_the_launcher_names_the_process_that_was_killed(
    command: list[str], tmp_path: Path, hangs: bool
) -> None:
    """Even if the other does not hear that it is to end: torch waits 30 seconds for it, here 3."""
    words = [*command, "--nproc", "2"]
    words += ["--set", "train.max_steps=1000000", "--set", "train.epochs=200000"]

    def act() -> None:
        real = PContext.close
        assert inspect.signature(real).parameters["timeout"].default <= 30

        def close(context: Any, death_sig: Any = None, timeout: int = 3) -> None:
            real(context, death_sig, timeout)

        PContext.close = close
        with (tmp_path / "stderr").open("w") as file, contextlib.redirect_stderr(file):
            code = main(words)
        os._exit(code)

    launcher = in_child(act)
    while not any(path.read_text() for path in (tmp_path / "out").glob("*/log.jsonl")):
        assert os.waitpid(launcher, os.WNOHANG)[0] == 0, (tmp_path / "stderr").read_text()
        time.sleep(0.02)
    workers = children(launcher)
    assert len(workers) == 2
    if hangs:
        os.kill(workers[0], signal.SIGSTOP)
    os.kill(workers[1], signal.SIGKILL)
    assert ended(launcher) == 75
    said = (tmp_path / "stderr").read_text()
    assert f"(pid {workers[1]}) was killed by SIGKILL" in said
    assert said.count("\n") == 1
    assert "resume from the last checkpoint" in said


def test_a_loss_that_is_not_finite_names_the_examples_of_all_processes(
    planned: Callable[..., Plan], tmp_path: Path
) -> None:
    plan = planned("lora", train_lr=1e30, train_schedule="constant", train_warmup=1)

    def run(rank: int) -> None:
        from cpm_tune.errors import UserError

        with pytest.raises(UserError) as error:
            execute(plan, tmp_path / "out", read_inputs(plan))
        (tmp_path / f"said-{rank}").write_text(str(error.value))

    assert [ended(child) for child in in_group(2, run)] == [0, 0]
    one, two = ((tmp_path / f"said-{rank}").read_text() for rank in range(2))
    assert one == two
    said = re.fullmatch(
        r"step (\d): the loss is nan and the gradient norm nan \(examples ([\d, ]+)\); lower "
        r"train.lr or, in half precision, use --precision fp32.",
        one,
    )
    assert said is not None, one
    from cpm_tune.data.batches import global_batches

    assert plan.spec.recipe is not None
    batch = next(global_batches(41, plan.spec.recipe, plan.spec.seed, after=int(said[1]) - 1))
    assert said[2] == ", ".join(map(str, batch.rows))
