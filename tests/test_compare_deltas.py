"""The comparison of deltas: how a rate is chosen, what the table says, that it goes on."""

from __future__ import annotations

import json
import math
from pathlib import Path
from types import SimpleNamespace

import compare_deltas as compare
import delta_runs
import pytest

from cpm_tune.errors import UserError
from cpm_tune.planning.plan import Request, make_plan
from cpm_tune.schema.record import ScoreRecord
from cpm_tune.task.registry import preset_files


def score(value: float, half: float = 0.1, up: bool = True) -> ScoreRecord:
    return ScoreRecord(
        value=value,
        low=value - half,
        high=value + half,
        n=10,
        signature="s",
        higher_is_better=up,
    )


def test_the_factor_with_the_best_mean_rank_is_chosen() -> None:
    rising = {1.0: [score(0.5), score(9, up=False)], 3.0: [score(0.6), score(8, up=False)]}
    assert delta_runs.best_factor(rising) == 3.0
    assert delta_runs.best_factor({3.0: [score(0.5)], 1.0: [score(0.5)]}) == 1.0  # equal: smaller
    assert delta_runs.best_factor({**rising, 10.0: [None, score(1, up=False)]}) is None


def test_the_interval_holds_test_rows_and_seeds() -> None:
    alone = compare.mean_of([score(0.5), score(0.5), score(0.5)])
    assert (alone.low, alone.high) == pytest.approx((0.4, 0.6))
    apart = compare.mean_of([score(0.3), score(0.7)])
    assert apart.value == pytest.approx(0.5)
    half = 1.96 * ((0.1 / 1.96) ** 2 + 0.08 / 2) ** 0.5
    assert apart.high - apart.value == pytest.approx(half)


def test_one_command_sweeps_and_compares_and_runs_nothing_twice(
    data: Path,
    small_backbone: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def launch(request: Request, runs: Path) -> bool:  # here, where all is imported already
        delta_runs._one(request, runs)
        return True

    monkeypatch.setattr(delta_runs, "launch", launch)
    out = tmp_path / "out"
    words = ["--out", str(out), "--tasks", "lcqmc", "--data", str(data), "--backbone"]
    words += [str(small_backbone), "--deltas", "bitfit", "--seeds", "1", "2"]
    words += ["--factors", "1", "30", "--max-steps", "2", "--set", "train.batch_size=4"]
    assert compare.main([*words, "--report"]) == 0
    assert "| `bitfit` | - | - | - | - | 0 of 2 runs |" in capsys.readouterr().out
    assert compare.main(words) == 0
    said = capsys.readouterr().out
    table = [line.split("|") for line in said.splitlines() if line.startswith("| `")]
    costs = {row[1].strip(): row[2].strip() for row in table if len(row) == 8}
    assert costs == {"`bitfit`": "1,344"}
    assert len([line for line in said.splitlines() if "| **" in line]) == 1  # the choice
    runs = sorted((out / "runs").glob("*/run.json"))
    assert len(runs) == 1 + 2 + 1  # zero-shot, the sweep, the second seed
    records = [json.loads(run.read_text()) for run in runs]
    assert {r["spec"]["recipe"]["lr"] for r in records if r["spec"]["recipe"]} == {5e-3, 0.15}
    times = [run.stat().st_mtime_ns for run in runs]
    assert compare.main(words) == 0
    assert "seeds: 0 runs to do" in capsys.readouterr().out
    assert [run.stat().st_mtime_ns for run in runs] == times


@pytest.mark.parametrize(
    ("best", "tried"),
    [
        (1.0, (0.3, 1.0, 3.0)),
        (10.0, (0.3, 1.0, 3.0, 10.0, 30.0)),
        (0.01, (0.01, 0.03, 0.1, 0.3, 1.0, 3.0)),
        (500.0, (0.3, 1.0, 3.0, 10.0, 30.0, 100.0)),  # the ladder has an end
    ],
)
def test_the_ladder_is_climbed_until_the_best_is_between_two_others(
    best: float, tried: tuple[float, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done: set[float] = set()

    def record(comparison: delta_runs.Comparison, request: Request) -> SimpleNamespace | None:
        factor = round(request.settings["train.lr"] / 5e-3, 6)  # type: ignore[index]
        if factor not in done:
            return None
        value = score(-abs(math.log(factor / best)))
        return SimpleNamespace(scores={"dev": {"accuracy": value}}, ranks_by="accuracy")

    def launch(request: Request, runs: Path) -> bool:
        done.add(round(request.settings["train.lr"] / 5e-3, 6))  # type: ignore[index]
        return True

    monkeypatch.setattr(delta_runs.Comparison, "record", record)
    monkeypatch.setattr(delta_runs, "launch", launch)
    comparison = delta_runs.Comparison(
        ("lcqmc",), ("lora",), (1,), None, tmp_path, Request("", data=tmp_path), 5
    )
    assert delta_runs.sweep(comparison, 1) == 0
    assert comparison.factors_of("lora") == tried
    assert done == set(tried)
    assert delta_runs.best_factor(delta_runs.dev_scores(comparison, "lora")) == min(best, 100.0)


def test_a_sweep_with_a_failure_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(delta_runs.Comparison, "record", lambda comparison, request: None)
    monkeypatch.setattr(delta_runs, "launch", lambda request, runs: False)
    comparison = delta_runs.Comparison(
        ("lcqmc",), ("lora",), (1,), None, tmp_path, Request("", data=tmp_path), 5
    )
    assert delta_runs.sweep(comparison, 1) == 3


def test_chosen_factors_go_into_the_presets_and_from_there_into_runs(
    tmp_path: Path, data: Path, small_backbone: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = tmp_path / "own.json"
    own.write_bytes(preset_files()["lora"].read_bytes())
    monkeypatch.setattr(compare, "preset_files", lambda: {"lora": own})
    for factor in (3.0, 0.5):
        compare.write_presets({"lora": factor, "adapter": 1.0})
    values = json.loads(own.read_text())
    assert values["lr_factor"] == 0.5
    assert own.read_text().count("lr_factor") == 1
    request = Request("lcqmc", str(own), data=data, backbone=str(small_backbone))
    recipe = make_plan(request).spec.recipe
    assert recipe is not None
    assert recipe.lr == 0.5 * 5e-3
    own.write_text(json.dumps({**values, "lr_width": 32}))  # half of this backbone's
    narrower = make_plan(request).spec.recipe
    assert narrower is not None
    assert narrower.lr == 0.5 * 5e-3 / 2
    own.write_text(json.dumps({**values, "lr_factor": 0}))
    with pytest.raises(UserError, match="lr_factor is 0, expected a number above 0"):
        make_plan(request)
