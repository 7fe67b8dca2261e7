"""The bmtrain engine: the real BMTrain on CPU processes (`bmtrain_double`), and the torch engine's
results from it.

A child joins a group once and then carries out one run after the other: that costs little.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from conftest import rows, write_jsonl
from kills import ended
from test_processes import assert_same, in_group

from cpm_tune.inputs import read_inputs
from cpm_tune.plan import Plan, Request, make_plan
from cpm_tune.record import read_record
from cpm_tune.run import execute

pytestmark = [
    pytest.mark.usefixtures("one_thread"),
    pytest.mark.skipif(not hasattr(os, "fork"), reason="forks its processes"),
    pytest.mark.skipif(find_spec("bmtrain") is None, reason="bmtrain is not installed"),
]
# 21 examples in batches of 4: the last of an epoch has a single one, so one process has none
SETTINGS = {
    **{"train.max_steps": 6, "train.eval_every": 3, "train.lr": 0.01, "train.batch_size": 4},
    **{"run.device": "cpu"},
}
DELTAS: dict[str, dict[str, Any]] = {
    "none": {},
    "lora": {},
    "adapter": {},
    "low_rank_adapter": {},
    "parallel_adapter": {},
    "compacter": {},
    "bitfit": {},
    "prefix": {},
    "prefix_reparam": {},
    "soft_prompt": {"delta.soft_token_num": 9},
    "full": {"train.lr": 1e-3},
}

Case = tuple[str, str, dict[str, Any]]  # delta, precision, settings
FP32: dict[str, Case] = {delta: (delta, "fp32", {}) for delta in DELTAS}
BF16: dict[str, Case] = {f"{d}, bf16": (d, "bf16", {}) for d in DELTAS if d != "full"}
VARIANTS: dict[str, Case] = {
    "lora, ZeRO-2": ("lora", "fp32", {"run.zero": 2}),
    "full, ZeRO-2": ("full", "fp32", {"run.zero": 2}),
    "soft_prompt, ZeRO-2, checkpointing": (
        "soft_prompt",
        "fp32",
        {"run.zero": 2, "run.checkpointing": True},
    ),
    "lora, offload": ("lora", "fp32", {"run.offload": True}),
    "full, offload": ("full", "fp32", {"run.offload": True}),
}


@pytest.fixture(scope="module")
def planned(small_backbone: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Plan]:
    folder = tmp_path_factory.mktemp("data")
    for split, n, start in (("train", 21, 0), ("dev", 9, 100), ("test", 7, 200)):
        write_jsonl(folder / f"{split}.jsonl", rows(n, start))

    def make(
        engine: str, delta: str, precision: str = "fp32", given: Mapping[str, Any] | None = None
    ) -> Plan:
        own = {**({} if delta == "none" else SETTINGS), **DELTAS[delta], **(given or {})}
        return make_plan(
            Request(
                "lcqmc",
                delta=delta,
                template="cpm-2" if delta == "soft_prompt" else None,
                data=folder,
                backbone=str(small_backbone),
                precision=precision,
                settings={**own, "run.device": "cpu", "run.engine": engine},
            )
        )

    return make


def run_all(plans: Sequence[tuple[Plan, Path]]) -> None:
    for plan, out in plans:
        execute(plan, out, read_inputs(plan))


def carry_out(plans: Sequence[tuple[Plan, Path]], world_size: int) -> None:
    """Carry out runs in a group of children."""

    def act(rank: int) -> None:
        if any(plan.execution.engine == "bmtrain" for plan, _ in plans):
            from bmtrain_double import install

            install()
        run_all(plans)

    assert [ended(child) for child in in_group(world_size, act)] == [0] * world_size


def found(out: Path) -> Any:
    """What a run has left: its record, and its predictions of dev and test."""
    (folder,) = (path for path in out.iterdir() if path.name != ".locks")
    lines = [
        json.loads(line)
        for split in ("dev", "test")
        for line in (folder / f"predictions.{split}.jsonl").read_text().splitlines()
    ]
    return read_record(folder / "run.json"), lines


@pytest.fixture(scope="module")
def outs(planned: Callable[..., Plan], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What all deltas and variants give with both engines in one and two processes:
    ENGINE.N/CASE."""
    folder = tmp_path_factory.mktemp("runs")

    def plans(engine: str, n: int, cases: Mapping[str, Case]) -> list[tuple[Plan, Path]]:
        place = folder / f"{engine}.{n}"
        return [(planned(engine, *given), place / name) for name, given in cases.items()]

    run_all(plans("torch", 1, {**FP32, **BF16}))
    carry_out(plans("torch", 2, FP32), 2)
    carry_out(plans("bmtrain", 1, FP32), 1)
    carry_out(plans("bmtrain", 2, {**FP32, **BF16, **VARIANTS}), 2)
    return folder


@pytest.mark.parametrize("delta", DELTAS)
@pytest.mark.parametrize(("engine", "n"), [("torch", 2), ("bmtrain", 1), ("bmtrain", 2)])
def test_engines_and_processes_give_the_same(outs: Path, engine: str, n: int, delta: str) -> None:
    one, other = found(outs / "torch.1" / delta), found(outs / f"{engine}.{n}" / delta)
    assert_same(one, other)
    environment = other[0].environment
    assert (environment.engine, environment.world_size) == (engine, n)
    assert other[0].backbone == one[0].backbone
    assert other[0].run_id == one[0].run_id


@pytest.mark.parametrize("case", VARIANTS)
def test_where_values_are_held_changes_nothing(outs: Path, case: str) -> None:
    assert_same(found(outs / "torch.1" / VARIANTS[case][0]), found(outs / "bmtrain.2" / case))


@pytest.mark.parametrize("case", BF16)
def test_bf16_is_that_of_the_torch_engine(outs: Path, case: str) -> None:
    """Rounding is coarse, and other examples lie side by side: 3 digits."""
    (one, _), (two, lines) = (found(outs / place / case) for place in ("torch.1", "bmtrain.2"))
    assert len(lines) == 16
    if two.training is not None:
        losses = [[point.loss for point in record.training.curve] for record in (one, two)]
        assert losses[1] == pytest.approx(losses[0], abs=5e-3)
