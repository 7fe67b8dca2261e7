"""Suites that search: one search per cell on the same budget, shared by its seeds, resumable."""

from __future__ import annotations

import pickle
import re
from pathlib import Path
from typing import Any

import pytest
from bench_runs import write_data
from conftest import CLI, REPOSITORY
from test_bench_suite import suite_file

from cpm_tune.bench.schedule import Queue
from cpm_tune.bench.searched import found, note_found
from cpm_tune.bench.show import trial_list
from cpm_tune.bench.state import History, suite_state
from cpm_tune.bench.suite import make_suite
from cpm_tune.bench.trials import Trial, make_trials
from cpm_tune.bench.worker import Worker
from cpm_tune.errors import UserError
from cpm_tune.runs import execute

SEARCH = """search:
  trials: 2
  space: {train.lr: "log:1e-4..1e-1", delta.lora_r: [2, 4]}
"""
SUITE = f"""
tasks: [lcqmc]
deltas: [lora, bitfit, none]
seeds: [2, 3]
set: {{train: {{max_steps: 2, eval_every: 1, batch_size: 8}}}}
{SEARCH}trials:
  - match: {{delta: bitfit}}
    space: {{train.lr: [1e-3, 1e-2]}}
"""


def trials_of(folder: Path, backbone: Path, text: str = SUITE) -> list[Trial]:
    data = folder / "data"
    if not data.is_dir():
        write_data(data)
    given: dict[str, Any] = {"backbones": (str(backbone),), "data": data, "out": folder / "out"}
    return make_trials(make_suite(suite_file(folder, text), given))


def test_the_seeds_of_a_cell_share_a_search(small_backbone: Path, tmp_path: Path) -> None:
    trials = trials_of(tmp_path, small_backbone)
    searched = {(trial.delta, trial.seed): trial for trial in trials if trial.search}
    (zero,) = [trial for trial in trials if trial.control]
    assert set(searched) == {("lora", 2), ("lora", 3), ("bitfit", 2), ("bitfit", 3)}
    assert len(trials) == 5, "zero-shot is both the control and the delta none"
    for delta in ("lora", "bitfit"):
        first, second = (searched[delta, seed] for seed in (2, 3))
        assert first.search is not None
        assert first.search == second.search
        assert (first.search.seed, first.search.trials) == (2, 2)
        assert (first.needs, second.needs) == (zero.run_id, first.run_id)
    spaces = {trial.delta: trial.search.space for trial in trials if trial.search}
    assert spaces == {
        "lora": {"train.lr": "log:1e-4..1e-1", "delta.lora_r": [2, 4]},
        "bitfit": {"train.lr": [1e-3, 1e-2]},
    }
    queue = Queue([trial for trial in trials if trial is not zero], 1)
    taken = queue.take(0)
    assert taken is not None
    assert taken.seed == 2, "the search itself goes first"


def test_a_cell_is_searched_once_and_run_for_each_seed(
    small_backbone: Path, tmp_path: Path, one_thread: None, scored: list[str]
) -> None:
    text, out = SUITE.replace("[lora, bitfit, none]", "[lora]"), tmp_path / "out"
    text = text.partition("trials:\n  - match")[0] + "controls: [zero-shot, random-backbone]\n"
    trials = trials_of(tmp_path, small_backbone, text)
    assert set(suite_state(out, trials).states.values()) == {"new"}
    worker = Worker(out, threads=1)
    for trial in trials:  # as Ray gets them
        report = worker.run(pickle.loads(pickle.dumps(trial)))  # noqa: S301
        assert report.status == "finished", report
    assert scored.count("test") == 5, "zero-shot, one run per seed and its control"
    state = suite_state(out, trials)
    assert set(state.states.values()) == {"done"}
    names_of_runs = [found(out, t.run_id) for t in trials if t.search and t.control is None]
    records = [execute.finished(out, name) for name in names_of_runs if name]
    specs = [record.spec for record in records if record is not None]
    controls = [found(out, t.run_id) for t in trials if t.control == "random-backbone"]
    random = [execute.finished(out, name) for name in controls if name]
    assert [
        (record.spec.seed, record.spec.backbone.init, record.spec.recipe, record.spec.delta)
        for record in random
        if record is not None
    ] == [(spec.seed, "random", spec.recipe, spec.delta) for spec in specs]
    assert [spec.seed for spec in specs] == [2, 3]
    same = [spec.model_copy(update={"seed": 0}) for spec in specs]
    assert same[0] == same[1], "the same settings, found by the same search"
    assert all(record is not None and "zero-shot" in record.controls for record in records)
    assert len(list((out / ".search").iterdir())) == 1
    larger = trials_of(tmp_path, small_backbone, text.replace("trials: 2", "trials: 3"))
    states = [suite_state(out, larger).states[trial.run_id] for trial in larger if trial.search]
    names = [(trial.control, trial.seed) for trial in larger if trial.search]
    begun = {name for name, one in zip(names, states, strict=True) if one == "unfinished"}
    assert begun == {(None, 2)}, "a larger budget goes on, and only its search has begun"
    assert set(states) == {"unfinished", "new"}
    lines = trial_list(state, History(out)).splitlines()
    for name in filter(None, [*names_of_runs, *controls]):
        assert sum(line.endswith(f" {name}") for line in lines) == 1, "the run's own id"
    assert sum("search of 2 trials" in line for line in lines) == 2, "controls have no search"
    assert "known after its search" in trial_list(suite_state(out, larger), History(out))


def test_the_trials_of_a_search_train_in_several_processes(
    small_backbone: Path, tmp_path: Path, one_thread: None
) -> None:
    text = SUITE.replace("[lora, bitfit, none]", "[lora]").replace("[2, 3]", "[2]\ncontrols: []")
    text = text.partition("search:")[0] + "search: {trials: 2, space: {train.lr: [1e-3, 1e30]}}\n"
    records = []
    for nproc in (1, 2):
        folder = tmp_path / str(nproc)
        folder.mkdir()
        (trial,) = trials_of(folder, small_backbone, f"{text}nproc: {nproc}\n")
        report = Worker(folder / "out", threads=1).run(trial)
        assert report.status == "finished", report
        record = execute.finished(folder / "out", found(folder / "out", trial.run_id) or "")
        assert record is not None
        assert record.environment is not None
        assert record.environment.world_size == nproc
        records.append(record)
    alone, together = records
    assert together.run_id == alone.run_id
    assert alone.search is not None
    assert together.search is not None
    for one, other in zip(alone.search.trials, together.search.trials, strict=True):
        assert (other.settings, other.state) == (one.settings, one.state)
        assert other.dev == pytest.approx(one.dev, abs=0.05)
    assert {trial.state for trial in together.search.trials} == {"finished", "failed"}


def test_a_note_that_leads_elsewhere_is_none(tmp_path: Path) -> None:
    note_found(tmp_path, "a", "../elsewhere")
    assert found(tmp_path, "a") is None
    assert found(tmp_path, "b") is None


@pytest.mark.parametrize(
    ("old", "new", "sentence"),
    [
        ("trials: 2", "trials: 0", "search.trials is 0"),
        ("trials: 2", "trails: 2", "no key 'trails' in search. Did you mean 'trials'?"),
        ("log:1e-4..1e-1", "1..0.5", "search.space train.lr: the range 1..0.5 is empty"),
        ('train.lr: "log', 'train.rate: "log', "there is no such setting"),
        ("seeds: [2, 3]", "grid: {train.lr: [1, 2]}", "it is in set or grid as well"),
        ("delta.lora_r", "delta.prefix_token_num", "prefix_token_num has no effect"),
        ("{train.lr: [1e-3, 1e-2]}", "{x: 1}", "trials.0.space x: there is no such setting"),
        (SEARCH, "", "trials.0.space has no effect without search"),
        ("[2, 4]", "[2, 4000]", "at most rank"),
        (SUITE, f"tasks: [lcqmc]\ndeltas: [none]\n{SEARCH}", "search has no effect on any trial"),
    ],
)
def test_mistakes_in_searches_of_suites(
    small_backbone: Path, tmp_path: Path, old: str, new: str, sentence: str
) -> None:
    assert old in SUITE
    with pytest.raises(UserError) as error:
        trials_of(tmp_path, small_backbone, SUITE.replace(old, new))
    assert sentence in str(error.value)


def test_the_suite_of_the_documentation_is_one(small_backbone: Path, tmp_path: Path) -> None:
    page = (REPOSITORY / "docs" / "search.md").read_text(encoding="utf-8")
    _, text = re.findall(r"```yaml\n(.*?)```", page, re.DOTALL)
    trials = trials_of(tmp_path, small_backbone, text)
    assert {trial.delta: set(trial.search.space) for trial in trials if trial.search} == {
        "lora": {"train.lr", "delta.lora_r"},
        "prefix": {"train.lr", "delta.prefix_token_num"},
    }


def test_the_plan_is_printed(cli: CLI, small_backbone: Path, tmp_path: Path) -> None:
    data = write_data(tmp_path / "data")
    suite = suite_file(tmp_path, SUITE)
    common = ("--backbones", small_backbone, "--data", data, "--out", tmp_path / "out")
    code, text, error = cli("bench", "--suite", suite, *common, "--dry-run")
    assert code == 0, error
    assert text.count("search of 2 trials") == 4
    assert not (tmp_path / "out").exists()
