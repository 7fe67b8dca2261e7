"""What only encoder-decoders' runs have: where answers begin, both stacks over processes."""

from __future__ import annotations

import json
from importlib.util import find_spec
from pathlib import Path
from typing import Any, get_args

import pytest
from conftest import CLI, rows, write_jsonl
from encdec_folders import make_folder
from kills import FORKS
from same_runs import assert_same, in_two, read_run
from test_engine_bmtrain import assert_same_run, carry_out, found, run_all

from cpm_tune.planning.plan import Plan, Request, make_plan
from cpm_tune.schema.options import Scoring

pytestmark = pytest.mark.usefixtures("one_thread")
SHORT = (
    *("--set", "train.max_steps=4", "--set", "train.eval_every=2"),
    *("--set", "train.batch_size=8", "--set", "train.dev_rows=8"),
)


@pytest.fixture(scope="module")
def mt5(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_folder(tmp_path_factory.mktemp("models") / "mt5", "mt5")


def tune(cli: CLI, model: Path, out: Path, *words: object) -> Path:
    """Tune; return the run's folder."""
    code, _, error = cli("--backbone", model, "--out", out, *SHORT, *words)
    assert code == 0, error
    (run,) = [path.parent for path in out.glob("*/run.json") if "none" not in path.parent.name]
    return run


@pytest.mark.parametrize("rule", get_args(Scoring))
def test_every_scoring_rule_learns_after_each_beginning_of_answers(
    cli: CLI, mt5: Path, data: Path, tmp_path: Path, rule: str
) -> None:
    template = "cpm-ant" if rule == "yes-logit" else "cpm-2"
    words = ("--task", "lcqmc", "--data", data, "--scoring", rule, "--template", template)
    settings = ("train.schedule=constant", "train.lr=0.003", "train.max_steps=12")
    words += ("--delta", "full", "--control", "none", *(f"--set={one}" for one in settings))
    specs = []
    for target in (None, "sentinel", "blank"):
        chosen = () if target is None else (f"--set=encode.target={target}",)
        run = tune(cli, mt5, tmp_path / str(target), *words, *chosen)
        record = json.loads((run / "run.json").read_text())
        assert record["scoring"] == rule
        assert record["spec"]["encoding"]["target"] == (target or "answer")
        specs.append(run.name)
        losses = [point["loss"] for point in record["training"]["curve"]]
        assert losses[-1] < losses[0], losses
    assert len({*specs}) == 3, "the beginning of answers is part of a run's id"
    assert tune(cli, mt5, tmp_path / "named", *words, "--set=encode.target=answer").name == specs[0]


def test_rows_of_any_batch_size_have_the_same_scores(
    cli: CLI, mt5: Path, data: Path, tmp_path: Path
) -> None:
    words = ("--task", "lcqmc", "--data", data, "--template", "cpm-2")
    run = tune(cli, mt5, tmp_path / "run", *words)
    lines = [json.loads(line)["scores"] for line in (run / "predictions.test.jsonl").open()]
    small = tune(cli, mt5, tmp_path / "small", *words, "--set", "run.micro_tokens=256")
    again = [json.loads(line)["scores"] for line in (small / "predictions.test.jsonl").open()]
    for one, other in zip(lines, again, strict=True):
        assert one == pytest.approx(other, abs=1e-4)


@FORKS
def test_texts_of_sharded_processes_are_those_of_one(cli: CLI, mt5: Path, tmp_path: Path) -> None:
    """One generates longer than the other: both stacks are passed together."""
    data = tmp_path / "data"
    data.mkdir()
    for split, n in (("train", 16), ("dev", 3), ("test", 5)):
        lines = [{"id": i, "text": "猫狗花草" * (i + 1), "summary": "猫狗"} for i in range(n)]
        write_jsonl(data / f"{split}.jsonl", lines)
    words = ("--task", "lcsts", "--data", data, "--control", "none")
    words += ("--set", "decode.max_new_tokens=6", "--set", "decode.beams=2")
    one = tune(cli, mt5, tmp_path / "one", *words)
    in_two("--backbone", mt5, *SHORT, *words, "--shard", "--out", tmp_path / "two")
    (two,) = (tmp_path / "two").glob("*/run.json")
    for split in ("dev", "test"):
        name = f"predictions.{split}.jsonl"
        texts = [[json.loads(x)["text"] for x in (run / name).open()] for run in (one, two.parent)]
        assert texts[0] == texts[1]
    assert two.parent.name == one.name


@FORKS
@pytest.mark.skipif(find_spec("bmtrain") is None, reason="bmtrain is not installed")
def test_bmtrain_shares_both_stacks(mt5: Path, tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.mkdir()
    for split, n, start in (("train", 9, 0), ("dev", 5, 100), ("test", 5, 200)):
        write_jsonl(data / f"{split}.jsonl", rows(n, start))
    settings = {"train.max_steps": 4, "train.eval_every": 2, "train.batch_size": 4}

    def text(engine: str) -> Plan:
        how = {"run.device": "cpu", "run.engine": engine, "decode.max_new_tokens": 4}
        return make_plan(Request("math23k", delta="none", limit=1, backbone=str(mt5), settings=how))

    def plan(engine: str, delta: str, **given: Any) -> Plan:
        lr = {"train.lr": 1e-3 if delta == "full" else 0.01}
        how = {"run.device": "cpu", "run.engine": engine}
        return make_plan(
            Request(
                "lcqmc",
                delta=delta,
                template="cpm-2",
                data=data,
                backbone=str(mt5),
                settings={**settings, **lr, **how, **given},
            )
        )

    deltas = ("lora", "full", "adapter")
    run_all([(plan("torch", delta), tmp_path / "torch" / delta) for delta in deltas])
    run_all([(text("torch"), tmp_path / "torch" / "text")])
    cases = [(plan("bmtrain", delta), tmp_path / "bmtrain" / delta) for delta in deltas]
    cases.append((text("bmtrain"), tmp_path / "bmtrain" / "text"))
    cases.append((plan("bmtrain", "lora", **{"run.zero": 2}), tmp_path / "zero2" / "lora"))
    assert carry_out(cases, 2) == [0, 0]
    for delta in deltas:
        assert_same_run(tmp_path / "torch" / delta, tmp_path / "bmtrain" / delta)
    assert_same_run(tmp_path / "torch" / "lora", tmp_path / "zero2" / "lora")
    assert found(tmp_path / "torch" / "text")[1] == found(tmp_path / "bmtrain" / "text")[1]


@FORKS
def test_two_processes_do_what_one_does_after_a_sentinel(
    cli: CLI, mt5: Path, data: Path, tmp_path: Path
) -> None:
    words = ("--task", "lcqmc", "--data", data, "--template", "cpm-2")
    words += ("--set", "encode.target=blank", "--scoring", "argmax-vocabulary")
    one = tune(cli, mt5, tmp_path / "one", *words)
    in_two("--backbone", mt5, *SHORT, *words, "--out", tmp_path / "two")
    first, second = read_run(one), read_run(tmp_path / "two" / one.name)
    assert_same(first, second)
