"""What a suite says becomes exactly the trials it means; every mistake is named, all at once."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import pytest
from bench_runs import words, write_data
from conftest import CLI, REPOSITORY

from cpm_tune.bench.processes import gpus_of, threads_for
from cpm_tune.bench.schedule import Queue, Watcher, run_trials
from cpm_tune.bench.state import History
from cpm_tune.bench.suite import make_suite
from cpm_tune.bench.trials import Report, Trial, make_trials
from cpm_tune.errors import UserError

SUITE = """
tasks: [ccpm, wantwords]
deltas: [lora, prefix]
seeds: [1, 2]
set: {train: {max_steps: 4, eval_every: 2}, decode.beams: 10}
grid:
  train.lr: [1e-3, 3e-3]
  delta.lora_r: [4, 8]
trials:
  - match: {task: wantwords}
    set: {train.lr: 5e-3}
  - match: {task: wantwords, delta: prefix}
    skip: true
"""


def suite_file(folder: Path, text: str) -> Path:
    path = folder / "suite.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def test_grids_overrides_and_controls_give_each_run_once(tmp_path: Path) -> None:
    trials = make_trials(make_suite(suite_file(tmp_path, SUITE), {}))
    assert Counter((c.request.task, c.delta, c.control) for c in trials) == {
        ("ccpm", "none", "zero-shot"): 1,
        ("ccpm", "lora", None): 8,  # 2 seeds, 2 rates, 2 ranks
        ("ccpm", "prefix", None): 4,  # a rank means nothing to prefix
        ("wantwords", "none", "zero-shot"): 1,
        ("wantwords", "lora", None): 4,  # the override has one rate
    }
    assert len({c.run_id for c in trials}) == len(trials)
    rates = {c.request.settings["train.lr"] for c in trials if c.request.task == "wantwords"}
    assert rates == {5e-3}
    zero = {c.request.task: c.run_id for c in trials if c.control}
    assert all(c.needs == zero[c.request.task] for c in trials if not c.control)


def test_overrides_may_have_their_older_name(tmp_path: Path) -> None:
    trials = make_trials(make_suite(suite_file(tmp_path, SUITE), {}))
    older = SUITE.replace("\ntrials:", "\ncells:")
    assert older != SUITE
    assert make_trials(make_suite(suite_file(tmp_path, older), {})) == trials


def test_the_command_line_wins_over_the_file(tmp_path: Path) -> None:
    options = {"seeds": "3", "deltas": "lora", "controls": (), "set": {"train.lr": 2e-3}}
    trials = make_trials(
        make_suite(suite_file(tmp_path, SUITE.split("  - match: {task: wantwords, d")[0]), options)
    )
    assert len(trials) == 4
    assert {c.request.settings["train.lr"] for c in trials} == {2e-3}
    assert {c.seed for c in trials} == {3}


MISTAKES = {
    "tasks: [ccpm]\nseads: [1]": "no key 'seads' in a suite. Did you mean 'seeds'?",
    "tasks: [ccpm]\ntrials: [{match: {tsk: ccpm}}]": "in trials.0.match. Did you mean 'task'?",
    "tasks: [ccpm]\ntrials: [{match: {task: lcqmc}, skip: true}]": "no trial of the suite matches",
    "tasks: [ccpm]\nset: {train.lrr: 1}": "Did you mean 'train.lr'?",
    "tasks: [ccpm]\nset: {decode.beams: 3}": "decode.beams has no effect on any trial",
    "tasks: [ccpm]\nset: {train.lr: 1}\ngrid: {train.lr: [1, 2]}": "keep one of the two",
    "tasks: [ccmp]": "Did you mean 'ccpm'?",
    "deltas: [lora]": "tasks is missing",
    "tasks: [ccpm]\ntrials: [{nomatch: {task: ccpm}}]": "Did you mean 'match'?",
    "tasks: [ccpm]\nseeds: 3-1": "seeds is 3-1, expected a range",
    "tasks: [ccpm]\nnproc: 0": "nproc is 0, expected 1 or more.",
    "tasks: [ccpm]\nset: {run.nproc: 2}": "there is no setting 'run.nproc'",
    "tasks: [ccpm]\nseeds: []": "seeds",
    "- ccpm": "expected a mapping",
    "tasks: [": "not readable YAML",
}


@pytest.mark.parametrize("text", MISTAKES)
def test_a_mistake_is_a_sentence(text: str, cli: CLI, tmp_path: Path) -> None:
    code, output, error = cli(
        "bench", "--suite", suite_file(tmp_path, text), "--out", tmp_path / "o"
    )
    assert code == 2
    assert MISTAKES[text] in error
    assert not output
    assert not (tmp_path / "o").exists()


def test_a_match_written_wrong_is_one_mistake(tmp_path: Path) -> None:
    text = "tasks: [ccpm]\ntrials: [{nomatch: {task: ccpm}}]"
    with pytest.raises(UserError) as caught:
        make_suite(suite_file(tmp_path, text), {})
    assert len(str(caught.value).splitlines()) == 1


def test_a_range_of_seeds(tmp_path: Path) -> None:
    assert make_suite(None, {"tasks": "ccpm", "seeds": "1-3,7"}).seeds == (1, 2, 3, 7)
    assert make_suite(suite_file(tmp_path, "tasks: ccpm\nseeds: 2-3"), {}).seeds == (2, 3)


def test_a_results_folder_that_is_none_is_refused_before_the_plan(cli: CLI, tmp_path: Path) -> None:
    place = tmp_path / "file"
    place.touch()
    code, output, error = cli("bench", "--tasks", "ccpm", "--out", place)
    assert (code, output) == (2, "")
    assert f"--out {place}: cannot be written (" in error


def test_all_mistakes_come_at_once(tmp_path: Path) -> None:
    text = "tasks: [ccpm]\nprecision: fp8\nseads: [1]\ntrials: [{match: {}, sett: {}}]\nlimit: 0"
    with pytest.raises(UserError) as caught:
        make_suite(suite_file(tmp_path, text), {})
    message = str(caught.value)
    for part in ("precision", "'seads'", "'sett'", "limit"):
        assert part in message
    with pytest.raises(UserError) as caught:
        make_trials(make_suite(None, {"tasks": "ccpm", "deltas": "lorra,prefex"}))
    assert "'lora'" in str(caught.value)
    assert "'prefix'" in str(caught.value)


def test_the_shipped_suite_is_planned(cli: CLI, tmp_path: Path) -> None:
    shipped = Path(__file__).parent.parent / "suites" / "tiny.yaml"
    code, output, _ = cli("bench", "--suite", shipped, "--out", tmp_path, "--dry-run")
    assert code == 0
    assert "trials     39: 3 zero-shot, 36 tuning" in output
    assert not list(tmp_path.iterdir())


def test_the_estimate_is_the_median_of_earlier_runs(
    cli: CLI, small_backbone: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    for number, (delta, seconds) in enumerate([("lora", 10), ("lora", 30), ("prefix", 50)]):
        (out / str(number)).mkdir(parents=True)
        record = {"spec": {"task": "lcqmc"}, "delta": {"name": delta}}
        record["environment"] = {"seconds": seconds}  # type: ignore[assignment]
        (out / str(number) / "run.json").write_text(json.dumps(record))
    (out / "broken").mkdir()
    (out / "broken" / "run.json").write_text("{")
    data = write_data(tmp_path / "data")
    axes = ("--tasks", "lcqmc", "--deltas", "lora,bitfit", "--control", "none", "--dry-run")
    _, output, _ = cli(*words(out, data, small_backbone, *axes))
    assert "estimate   about 50 s" in output  # lora 20, and 30 for any delta of lcqmc


class Fake:
    """An executor whose trials end at once, as `endings` says; it remembers what ran where."""

    def __init__(self, workers: int, retries: int, endings: dict[str, list[str]]) -> None:
        self.workers, self.retries, self.endings = workers, retries, endings
        self.ran: list[tuple[int, str]] = []
        self.waiting: dict[int, Report] = {}
        self.taken: dict[str, list[int]] = {}

    def start(self, workers: Sequence[int], trial: Trial) -> None:
        worker = workers[0]
        self.ran.append((worker, trial.run_id))
        self.taken[trial.run_id] = list(workers)
        status = self.endings.get(trial.run_id, ["failed"]).pop(0)
        self.waiting[worker] = Report(status, error="as told")  # type: ignore[arg-type]

    def wait(self, timeout: float) -> dict[int, Report]:
        ended, self.waiting = self.waiting, {}
        return ended

    def stop(self) -> None: ...


def test_a_lost_trial_is_run_again_as_often_as_allowed(tmp_path: Path) -> None:
    options = {"tasks": "ccpm", "controls": (), "seeds": "1,2"}
    first, second = make_trials(make_suite(None, options))
    fake = Fake(1, 2, {first.run_id: ["lost"] * 3, second.run_id: ["lost", "failed"]})
    endings = run_trials([first, second], fake, tmp_path, Watcher())
    assert [run_id for _, run_id in fake.ran] == [first.run_id] * 3 + [second.run_id] * 2
    assert [ending.report.error for ending in endings if ending.record is None] == ["as told"] * 2


def test_a_trial_of_several_processes_takes_as_many_workers(tmp_path: Path) -> None:
    text = "tasks: [ccpm]\ndeltas: [lora, prefix, bitfit, adapter]\ncontrols: []\nnproc: 1\n"
    text += "trials:\n- {match: {delta: prefix}, nproc: 2}\n- {match: {delta: bitfit}, nproc: 3}\n"
    trials = make_trials(make_suite(suite_file(tmp_path, text), {}))
    assert {trial.delta: trial.nproc for trial in trials} == {
        **{"lora": 1, "prefix": 2, "bitfit": 3, "adapter": 1}
    }
    fake = Fake(3, 0, {})
    run_trials(trials, fake, tmp_path / "out", Watcher())
    ran = {name.split(".")[1]: workers for name, workers in fake.taken.items()}
    assert ran == {"bitfit": [0, 1, 2], "prefix": [0, 1], "lora": [2], "adapter": [0]}
    again = make_trials(make_suite(suite_file(tmp_path, text), {"nproc": 1}))
    assert {trial.nproc for trial in again} == {1}
    assert {trial.run_id for trial in again} == {trial.run_id for trial in trials}


def test_a_trial_that_cannot_fit_is_refused(cli: CLI, tmp_path: Path) -> None:
    axes = ("--tasks", "ccpm", "--control", "none", "--out", tmp_path / "o")
    code, output, error = cli("bench", *axes, "--nproc", "2", "--jobs", "1")
    assert code == 2
    assert "a trial of 2 processes (ccpm lora cpm-ant-tiny seed 1) does not fit" in error
    assert not output
    code, output, _ = cli("bench", *axes, "--nproc", "2", "--dry-run")
    assert code == 0
    assert ", 2 processes\n" in output


def test_a_plan_in_json_has_every_trial_under_a_name_of_its_own(cli: CLI, tmp_path: Path) -> None:
    data = tmp_path / "data" / "lcqmc"
    data.mkdir(parents=True)
    for path in (REPOSITORY / "tasks" / "sample" / "lcqmc").glob("*.jsonl"):
        for fold in (0, 1):
            shutil.copy(path, data / f"{path.stem}_{fold}.jsonl")
    axes = ("--tasks", "lcqmc", "--deltas", "lora", "--folds", "0-1", "--out", tmp_path / "o")
    code, output, error = cli("bench", *axes, "--data", data.parent, "--dry-run", "--json")
    assert code == 0, error
    (plan,) = [line for line in map(json.loads, output.splitlines()) if line["event"] == "plan"]
    trials = {trial["name"]: trial for trial in plan["trials"]}
    assert len(trials) == len(plan["trials"]) == plan["todo"] == 4
    assert {name.rpartition(" ")[2] for name in trials} == {"fold=0", "fold=1"}
    assert {(t["state"], t["control"]) for t in trials.values()} == {
        ("new", None),
        ("new", "zero-shot"),
    }
    assert len({trial["run_id"] for trial in trials.values()}) == 4


@pytest.mark.parametrize(
    ("workers", "gpus", "visible"),
    [
        ([3], ["0", "1"], "1"),
        ([2, 3], list("0123"), "2,3"),
        ([0, 1], ["7"], "7"),
        ([0], [], None),
        ([0, 4], list("0123"), "0,1"),  # both have the same turn
        ([5, 1, 2], list("0123"), "1,2,0"),
    ],
)
def test_gpus_go_round_among_the_workers(
    workers: list[int], gpus: list[str], visible: str | None
) -> None:
    assert gpus_of(workers, gpus) == visible


def test_neighbours_go_to_one_process_and_a_control_goes_first() -> None:
    trials = make_trials(make_suite(None, {"tasks": "ccpm,lcqmc", "seeds": "1,2"}))
    queue = Queue(trials, 2)
    taken: dict[int, list[Trial]] = {0: [], 1: []}
    while queue:
        for worker in taken:
            trial = queue.take(worker)
            assert trial is not None
            taken[worker].append(trial)
        for worker in taken:
            queue.end(worker)
    for trials_of_worker in taken.values():
        assert len({trial.request.task for trial in trials_of_worker}) == 1
        assert trials_of_worker[0].control == "zero-shot"


def test_cores_are_divided_unless_the_user_says_otherwise(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cpm_tune.bench.processes.cores", lambda: 8)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    assert [threads_for(workers) for workers in (1, 2, 3, 16)] == [8, 4, 2, 1]
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    assert threads_for(2) == 3


def test_an_empty_history_knows_nothing(tmp_path: Path) -> None:
    (trial,) = make_trials(make_suite(None, {"tasks": "ccpm", "controls": ()}))
    assert History(tmp_path).seconds(trial) is None
