"""The bmtrain engine: the real BMTrain on CPU processes (`bmtrain_double`), and the torch engine's
results from it.

A child joins a group once and then carries out one run after the other: that costs little.
"""

from __future__ import annotations

import json
import runpy
import shlex
import sys
from collections.abc import Callable, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch
from causal_folders import make_folder
from conftest import CLI, REPOSITORY, rows, write_jsonl
from kills import FORKS, ended
from safetensors.torch import load_file
from same_runs import assert_same, in_group, stop_in_step_3
from test_docs import commands

from cpm_tune.backbone.storage.shards import whole, whole_shape
from cpm_tune.engine.bmtrain_found import trouble
from cpm_tune.errors import UserError
from cpm_tune.planning.inputs import load_backbone, read_inputs
from cpm_tune.planning.plan import Plan, Request, make_plan
from cpm_tune.runs.execute import execute
from cpm_tune.runs.rerun import predict_run
from cpm_tune.schema.record import read_record

pytestmark = [
    pytest.mark.usefixtures("one_thread"),
    FORKS,
    pytest.mark.skipif(find_spec("bmtrain") is None, reason="bmtrain is not installed"),
]
# 9 examples in batches of 4: the last of an epoch has a single one, so one process has none
SETTINGS = {
    **{"train.max_steps": 4, "train.eval_every": 2, "train.lr": 0.01, "train.batch_size": 4},
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
RANDOM = "lora, random backbone"
IN_THREE = ("lora", "full")  # nothing can be divided by three
GROUPS = (("torch", 2), ("bmtrain", 1), ("bmtrain", 2))
FP32: dict[str, Case] = {delta: (delta, "fp32", {}) for delta in DELTAS}
BF16: dict[str, Case] = {
    f"{delta}, bf16": (delta, "bf16", {} if delta == "none" else {"train.max_steps": 2})
    for delta in DELTAS
    if delta != "full"
}
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
# of CPM-1's network, whose layers transformers calls: a delta and a ZeRO level
CPM1 = {
    f"cpm-1, {delta}, ZeRO-{zero}": (delta, zero)
    for delta, zero in (*((d, z) for d in IN_THREE for z in (3, 2)), ("bitfit", 3), ("prefix", 3))
}


@pytest.fixture(scope="module")
def cpm1(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_folder(tmp_path_factory.mktemp("models") / "gpt2", "gpt2")


@pytest.fixture(scope="module")
def planned(small_backbone: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Plan]:
    folder = tmp_path_factory.mktemp("data")
    for split, n, start in (("train", 9, 0), ("dev", 5, 100), ("test", 5, 200)):
        write_jsonl(folder / f"{split}.jsonl", rows(n, start))

    def make(
        engine: str,
        delta: str,
        precision: str = "fp32",
        given: Mapping[str, Any] | None = None,
        backbone: Path = small_backbone,
    ) -> Plan:
        own = {**({} if delta == "none" else SETTINGS), **DELTAS[delta], **(given or {})}
        other = delta == "soft_prompt" or backbone != small_backbone
        return make_plan(
            Request(
                "lcqmc",
                delta=delta,
                template="cpm-2" if other else None,
                data=folder,
                backbone=str(backbone),
                precision=precision,
                settings={**own, "run.device": "cpu", "run.engine": engine},
            )
        )

    return make


def run_all(plans: Sequence[tuple[Plan, Path]]) -> None:
    for plan, out in plans:
        execute(plan, out, read_inputs(plan))


def carry_out(
    plans: Sequence[tuple[Plan, Path]], world_size: int, before: Callable[[int], object] = id
) -> list[int]:
    """Carry out runs in a group of children; return their exit codes. `before` is called first."""

    def act(rank: int) -> None:
        from bmtrain_double import install

        install()
        before(rank)
        run_all(plans)

    return [ended(child, within=240) for child in in_group(world_size, act)]


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
def outs(
    planned: Callable[..., Plan],
    small_backbone: Path,
    cpm1: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> Path:
    """What all deltas and variants give with both engines in one and two processes:
    ENGINE.N/CASE."""
    folder = tmp_path_factory.mktemp("runs")

    def plans(engine: str, n: int, cases: Mapping[str, Case]) -> list[tuple[Plan, Path]]:
        place = folder / f"{engine}.{n}"
        return [(planned(engine, *given), place / name) for name, given in cases.items()]

    def text(engine: str, backbone: Path) -> Plan:
        settings = {
            "decode.max_new_tokens": 3,
            "run.device": "cpu",
            "run.engine": engine,
        }
        return make_plan(
            Request("math23k", delta="none", limit=5, backbone=str(backbone), settings=settings)
        )

    others = {
        engine: {
            RANDOM: planned(engine, "lora").on_random_backbone(),
            "text": text(engine, small_backbone),
            "cpm-1, text": text(engine, cpm1),
        }
        for engine in ("torch", "bmtrain")
    }
    one, two = folder / "torch.1", folder / "bmtrain.2"
    run_all(
        plans("torch", 1, {**FP32, **BF16}) + [(p, one / n) for n, p in others["torch"].items()]
    )
    cases = plans("torch", 2, {**FP32, **BF16})
    cases += [
        (planned("torch", delta, backbone=cpm1), folder / "torch.2" / f"cpm-1, {delta}")
        for delta in dict.fromkeys(delta for delta, _ in CPM1.values())
    ]
    assert carry_out(cases, 2) == [0, 0]
    assert carry_out(plans("bmtrain", 1, FP32), 1) == [0]
    cases = plans("bmtrain", 2, {**FP32, **BF16, **VARIANTS})
    cases += [(plan, two / name) for name, plan in others["bmtrain"].items()]
    cases += [
        (planned("bmtrain", delta, given={"run.zero": zero}, backbone=cpm1), two / name)
        for name, (delta, zero) in CPM1.items()
    ]
    assert carry_out(cases, 2) == [0, 0]
    assert carry_out(plans("bmtrain", 3, {name: FP32[name] for name in IN_THREE}), 3) == [0, 0, 0]
    return folder


def norms(out: Path) -> list[float]:
    """The gradient norm of every step: Adam hides a gradient that is too large everywhere."""
    (log,) = out.glob("*/log.jsonl")
    entries = [json.loads(line) for line in log.read_text().splitlines()]
    return [entry["grad_norm"] for entry in entries if "grad_norm" in entry]


def assert_same_run(one: Path, other: Path) -> None:
    first, second = found(one), found(other)
    assert_same(first, second)
    if first[0].training is not None:
        assert norms(other) == pytest.approx(norms(one), rel=1e-3, abs=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("engine", "n", "delta"),
    [
        *((engine, n, d) for engine, n in GROUPS for d in DELTAS),
        *(("bmtrain", 3, delta) for delta in IN_THREE),
    ],
)
def test_engines_and_processes_give_the_same(outs: Path, engine: str, n: int, delta: str) -> None:
    assert_same_run(outs / "torch.1" / delta, outs / f"{engine}.{n}" / delta)
    one, other = found(outs / "torch.1" / delta), found(outs / f"{engine}.{n}" / delta)
    environment = other[0].environment
    assert (environment.engine, environment.world_size) == (engine, n)
    assert other[0].backbone == one[0].backbone
    assert other[0].run_id == one[0].run_id


@pytest.mark.parametrize("case", [*VARIANTS, RANDOM])
def test_where_values_are_held_changes_nothing(outs: Path, case: str) -> None:
    same = VARIANTS[case][0] if case in VARIANTS else case
    assert_same_run(outs / "torch.1" / same, outs / "bmtrain.2" / case)


@pytest.mark.parametrize("case", CPM1)
def test_cpm_1s_network_gives_the_same(outs: Path, case: str) -> None:
    """With as many processes, since each has a dropout of its own."""
    delta, _ = CPM1[case]
    place, ours = outs / "torch.2" / f"cpm-1, {delta}", outs / "bmtrain.2" / case
    assert_same_run(place, ours)
    (one, _), (two, _) = found(place), found(ours)
    assert (two.environment.engine, two.environment.world_size) == ("bmtrain", 2)
    assert (two.backbone, two.run_id) == (one.backbone, one.run_id)
    first, second = (load_file(out / one.run_id / "delta.safetensors") for out in (place, ours))
    assert second.keys() == first.keys()
    for name, values in first.items():
        assert torch.allclose(second[name], values, atol=1e-4), name


@pytest.mark.parametrize("case", ["text", "cpm-1, text"])
def test_texts_are_the_same_although_processes_make_different_numbers_of_passes(
    outs: Path, case: str
) -> None:
    (_, one), (_, two) = (found(outs / place / case) for place in ("torch.1", "bmtrain.2"))
    assert len(one) == 10
    assert two == one


@pytest.mark.parametrize("case", BF16)
def test_bf16_is_that_of_the_torch_engine(outs: Path, case: str) -> None:
    """With the same examples in every process, since rounding is coarse. Gradients of what layers
    share are added up in bf16 there, and in fp32 here, where layers are computed one by one."""
    one, two = outs / "torch.2" / case, outs / "bmtrain.2" / case
    if BF16[case][0] == "prefix_reparam":
        assert norms(two) == pytest.approx(norms(one), rel=0.05)
    else:
        assert_same_run(one, two)


@pytest.mark.parametrize("delta", ["lora", "full"])
def test_a_delta_of_one_engine_predicts_with_the_other(
    outs: Path, planned: Callable[..., Plan], tmp_path: Path, delta: str
) -> None:
    plan = planned("bmtrain", delta)
    run = outs / "bmtrain.2" / delta / plan.spec.run_id
    predict_run(run, data=plan.splits["test"].path.parent, out=tmp_path / "predicted")
    again = [json.loads(line) for line in (tmp_path / "predicted/predictions.test.jsonl").open()]
    for line, before in zip(again, found(outs / "bmtrain.2" / delta)[1][5:], strict=True):
        assert line["prediction"] == before["prediction"]
        assert line["scores"] == pytest.approx(before["scores"], abs=1e-5)


@pytest.mark.parametrize(
    ("delta", "first", "then", "n"),
    [
        ("lora", "bmtrain", "torch", 1),
        ("full", "bmtrain", "bmtrain", 1),
        ("lora", "torch", "bmtrain", 2),
    ],
)
def test_a_stopped_run_goes_on_with_another_engine_and_number_of_processes(
    outs: Path,
    planned: Callable[..., Plan],
    tmp_path: Path,
    delta: str,
    first: str,
    then: str,
    n: int,
) -> None:
    """Two processes, of which one gets SIGTERM. BMTrain's keep Adam's states in host memory."""

    begun = planned(first, delta, "fp32", {"run.offload": True} if first == "bmtrain" else {})
    assert carry_out([(begun, tmp_path)], 2, stop_in_step_3) == [143, 143]
    (partial,) = tmp_path.glob("*.partial")
    assert len(norms(tmp_path)) == 3
    assert partial.is_dir()
    assert carry_out([(planned(then, delta), tmp_path)], n) == [0] * n
    assert_same_run(outs / "torch.1" / delta, tmp_path)


def test_a_process_holds_its_share_of_the_layers(planned: Callable[..., Plan]) -> None:
    plan = planned("bmtrain", "lora")
    right = load_backbone(planned("torch", "lora"), read_inputs(planned("torch", "lora")).engine)

    def look(rank: int) -> None:
        model = load_backbone(plan, read_inputs(plan).engine)
        layers = list(model.encoder.layers.parameters())
        all_values = sum(whole_shape(p).numel() for p in layers)
        assert sum(p.numel() for p in layers) < 0.52 * all_values  # a layer's padding may differ
        for name, parameter in model.named_parameters():
            assert torch.equal(whole(parameter), right.get_parameter(name)), name

    assert carry_out([], 2, look) == [0, 0]


def test_layers_that_take_other_arguments_are_refused(
    planned: Callable[..., Plan], tmp_path: Path
) -> None:
    plan = planned("bmtrain", "lora", backbone=make_folder(tmp_path / "llama", "llama"))

    def refused(rank: int) -> None:
        with pytest.raises(UserError, match=r"does not wrap .* use --engine torch"):
            load_backbone(plan, read_inputs(plan).engine)

    assert carry_out([], 1, refused) == [0]


def test_fp16_leaves_out_steps_that_overflow(planned: Callable[..., Plan], tmp_path: Path) -> None:
    plan = planned("bmtrain", "lora", "fp16")

    def begin_too_high(rank: int) -> None:
        inputs = read_inputs(plan)
        vars(inputs.engine)["_manager"].loss_scale = 2.0**17
        execute(plan, tmp_path, inputs)

    assert carry_out([], 1, begin_too_high) == [0]
    training = found(tmp_path)[0].training
    assert 0 < training.skipped_steps < 4
    assert len(norms(tmp_path)) == 4 - training.skipped_steps


def test_the_documented_run_on_the_double(tmp_path: Path) -> None:
    """docs/bmtrain.md's command, in processes that are there already."""
    (line,) = (c for c in commands(REPOSITORY / "docs/bmtrain.md") if "bmtrain_double" in c)
    words = shlex.split(line)
    assert words[:3] == ["torchrun", "--nproc-per-node", "2"]
    assert words[-2:] == ["--out", "bmtrain-runs"]

    def run(rank: int) -> None:
        sys.argv = [*words[3:-1], str(tmp_path)]
        with pytest.raises(SystemExit) as ended_with:
            runpy.run_path(str(REPOSITORY / words[3]), run_name="__main__")
        assert ended_with.value.code == 0

    assert [ended(child) for child in in_group(2, run)] == [0, 0]
    environment = found(tmp_path)[0].environment
    assert (environment.engine, environment.world_size) == ("bmtrain", 2)


# --- what is refused, and what is said of the installation ----------------------------------------


@pytest.mark.parametrize(
    ("delta", "engine", "precision", "given", "said"),
    [
        ("full", "bmtrain", "bf16", {}, "trained values are fp32"),
        ("lora", "bmtrain", "fp32", {"run.shard": True}, "always shards"),
        ("lora", "torch", "fp32", {"run.zero": 2}, "run.zero only has an effect"),
        ("lora", "bmtrain", "fp32", {"run.zero": 1}, "run.zero"),
    ],
)
def test_what_does_not_go_together(
    planned: Callable[..., Plan],
    delta: str,
    engine: str,
    precision: str,
    given: dict[str, Any],
    said: str,
) -> None:
    with pytest.raises(UserError, match=said):
        planned(engine, delta, precision, given)


@pytest.mark.skipif(torch.cuda.is_available(), reason="says what is missing without a GPU")
def test_without_a_gpu_one_sentence(cli: CLI) -> None:
    code, _, said = cli("--task", "lcqmc", "--delta", "lora", "--engine", "bmtrain")
    assert code == 2
    assert said == (
        "error: --engine bmtrain: BMTrain needs a CUDA device, and torch sees none; "
        "use --engine torch.\n"
    )


def test_bmtrain_that_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "bmtrain", None)
    assert trouble() == ("bmtrain is not installed", "pip install --no-deps bmtrain==1.0.1")


def test_two_packages_of_nccl(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, version in (("nvidia_nccl_cu11", "2.21.5"), ("nvidia_nccl_cu13", "2.28.9")):
        about = tmp_path / f"{name}-{version}.dist-info" / "METADATA"
        about.parent.mkdir()
        about.write_text(
            f"Metadata-Version: 2.1\nName: {name.replace('_', '-')}\nVersion: {version}\n"
        )
    monkeypatch.syspath_prepend(tmp_path)
    what, mend = trouble() or ("", "")
    assert "nvidia-nccl-cu11 2.21.5" in what
    assert "nvidia-nccl-cu13 2.28.9" in what
    assert "pip uninstall -y nvidia-nccl-cu11" in mend
    assert "--no-deps nvidia-nccl-cu13==2.28.9" in mend


def test_another_version(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    about = tmp_path / "bmtrain-0.2.3.dist-info" / "METADATA"
    about.parent.mkdir()
    about.write_text("Metadata-Version: 2.1\nName: bmtrain\nVersion: 0.2.3\n")
    monkeypatch.syspath_prepend(tmp_path)
    assert trouble() == (
        "bmtrain 0.2.3 is installed, expected 1.0.1",
        "pip install --no-deps bmtrain==1.0.1",
    )
