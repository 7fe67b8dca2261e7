"""Search: the trials are Optuna's, the choice is by dev alone, test is scored once, at the end."""

from __future__ import annotations

import contextlib
import json
import os
import random
import statistics
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import optuna
import pytest
from conftest import CLI, REPOSITORY
from kills import Counted, killed_within

from cpm_tune.commands import search
from cpm_tune.commands.cli import main
from cpm_tune.common.folders import run_lock
from cpm_tune.data.splits import find_splits, sample_folder
from cpm_tune.data.store import read_split
from cpm_tune.errors import NotFiniteError, UserError
from cpm_tune.schema.record import RunRecord, TrialRecord, read_record
from cpm_tune.search import rule, study
from cpm_tune.search.space import Choices, Range, make_space, parse_items, size_of
from cpm_tune.search.study import JOURNAL, STARTUP, Study
from cpm_tune.search.trials import best_of
from cpm_tune.task.registry import load_task
from cpm_tune.tuning.score import Selection
from cpm_tune.tuning.stopping import Patience

optuna.logging.set_verbosity(optuna.logging.ERROR)

# --- the space ---

WRITTEN = {
    "train.lr=log:1e-4..1e-2": Range(1e-4, 1e-2, log=True, whole=False),
    "train.weight_decay=0..1": Range(0.0, 1.0, log=False, whole=False),
    "train.warmup=10..50": Range(10, 50, log=False, whole=True),
    "delta.lora_r=log:1..64": Range(1, 64, log=True, whole=True),
    "delta.lora_r=4,8,16": Choices((4, 8, 16)),
    "train.schedule=noam,linear": Choices(("noam", "linear")),
    "delta.modified_modules=[a,b],[c]": Choices((["a", "b"], ["c"])),
    "train.lr=1e-4,1e-3": Choices((1e-4, 1e-3)),
}


@pytest.mark.parametrize("text", WRITTEN)
def test_a_space_is_read_and_written(text: str) -> None:
    ((key, values),) = make_space(parse_items([text])).items()
    assert values == WRITTEN[text]
    again = make_space({key: str(values)})[key]
    assert str(again) == str(values)
    for value in values.checked:
        shown = str(value) if isinstance(values, Range) else str(Choices((value,)))
        assert values.parse(shown) == value
        assert values.includes(value)


def test_a_list_of_a_file_is_values() -> None:
    assert make_space({"delta.lora_r": [4, 8]}) == {"delta.lora_r": Choices((4, 8))}


@pytest.mark.parametrize(
    ("item", "sentence"),
    [
        ("train.lr", "expected KEY=VALUES"),
        ("train.lr=1e-3", "0.001 is one value"),
        ("train.lr=1..0.1", "the range 1..0.1 is empty"),
        ("train.max_steps=3..3", "both ends of the range are 3"),
        ("train.lr=1e-3...1e-2", "three dots: 1e-3...1e-2 ends in 0.001; a range has two"),
        ("train.lr=log:0..1", "begins above 0"),
        ("train.lr=log:5", "is no range"),
        ("train.lr=a..b", "'a' is no number"),
        ("train.lr=1,1", "1 is there twice"),
        ("train.lr=nan..1", "'nan' is no finite number"),
        ("train.lr=0.1..inf", "'inf' is no finite number"),
        ("train.rows=12,30", "cannot be compared"),
        ("train.rows_share=0.1..1", "cannot be compared"),
        ("train.dev_rows=10,20", "cannot be compared"),
        ("train.lr=[,{", "cannot be read"),
        ("train.lr=" + ",".join(map(str, range(200))), "at most 100"),
        ("delta.lora_r=1.5..3", "whole numbers"),
        ("train.schedule=a..b", "it is no number"),
        ("train.learning_rate=1..2", "Did you mean 'train.lr'?"),
        ("run.threads=1,2", "changes no result"),
    ],
)
def test_a_wrong_space_is_one_sentence(item: str, sentence: str) -> None:
    with pytest.raises(UserError) as error:
        make_space(parse_items([item]))
    assert sentence in str(error.value)
    assert "\n" not in str(error.value)
    assert str(error.value).endswith((".", "?"))


def test_the_number_of_points() -> None:
    values = {"delta.lora_r": [4, 8], "train.warmup": "1..3"}
    assert size_of(make_space(values)) == 6
    assert size_of(make_space({**values, "train.lr": "1..3"})) is None


# --- the study ---

SPACE = make_space({"train.lr": "log:1e-4..1e-1", "train.warmup": "1..50", "delta.lora_r": [4, 8]})
FIRST = {"train.lr": 1e-3, "train.warmup": 20, "delta.lora_r": 8}
N = 14


def curve(values: Mapping[str, Any]) -> list[float]:
    """Dev scores of a made-up training with these settings."""
    best = (
        values["train.lr"] * 7 % 1 + values["train.warmup"] / 100 + int(values["delta.lora_r"]) / 50
    )
    return [best * part for part in (0.5, 0.8, 1.0)]


def replayed(seed: int) -> list[tuple[dict[str, Any], str]]:
    """The same search by Optuna alone, in memory: parameters and state of every trial."""
    replay = optuna.create_study(
        direction="maximize", pruner=optuna.pruners.MedianPruner(n_startup_trials=STARTUP)
    )
    replay.enqueue_trial({**FIRST, "delta.lora_r": "8"})
    for number in range(N):
        replay.sampler = optuna.samplers.TPESampler(
            seed=(100_003 * seed + number) % 2**32,
            n_startup_trials=STARTUP,
            multivariate=False,
            constant_liar=False,
        )
        trial = replay.ask()
        values = {
            "train.lr": trial.suggest_float("train.lr", 1e-4, 1e-1, log=True),
            "train.warmup": trial.suggest_int("train.warmup", 1, 50),
            "delta.lora_r": trial.suggest_categorical("delta.lora_r", ["4", "8"]),
        }
        scores = curve(values)
        for step, score in enumerate(scores, 1):
            trial.report(score, step)
            if step < len(scores) and trial.should_prune():
                replay.tell(trial, state=optuna.trial.TrialState.PRUNED)
                break
        else:
            replay.tell(trial, max(scores))
    return [(trial.params, trial.state.name) for trial in replay.trials]


def carry_out(opened: Study, stop_after: int | None = None) -> bool:
    """One trial of the made-up training; whether it was stopped after that many evaluations."""
    trial = opened.next(FIRST)
    trial.note(settings=trial.settings)
    scores = curve(trial.values)
    stopping = rule.Pruned(Patience(0, True), len(scores), trial, prune=True, started=0.0)
    for count in range(1, len(scores) + 1):
        if stop_after == count - 1:
            return True
        if stopping.stops(scores[:count]):
            break
    trial.note(dev=max(scores), steps=count)
    if stopping.pruned:
        trial.prune()
    else:
        trial.finish(max(scores))
    return False


def shown(records: list[TrialRecord]) -> list[tuple[dict[str, str], str]]:
    return [(record.settings, record.state) for record in records]


@pytest.mark.parametrize("seed", [1, 2])
def test_the_trials_are_those_of_optuna_however_often_it_is_stopped(
    tmp_path: Path, seed: int
) -> None:
    (tmp_path / "whole").mkdir()
    (tmp_path / "stopped").mkdir()
    whole = Study(tmp_path / "whole", SPACE, seed, higher_is_better=True)
    for number in range(N):
        carry_out(whole)
        if carry_out(Study(tmp_path / "stopped", SPACE, seed, True), stop_after=number % 4):
            carry_out(Study(tmp_path / "stopped", SPACE, seed, True))
    expected = [
        ({key: str(value) for key, value in parameters.items()}, state)
        for parameters, state in replayed(seed)
    ]
    states = {"finished": "COMPLETE", "pruned": "PRUNED"}
    assert [(s, states[state]) for s, state in shown(whole.records())] == expected
    assert "PRUNED" in {state for _, state in expected}
    stopped = Study(tmp_path / "stopped", SPACE, seed, True).records()
    assert shown(stopped) == shown(whole.records())


def test_a_small_space_is_tried_without_repeating(tmp_path: Path) -> None:
    space = make_space({"train.warmup": "1..3", "delta.lora_r": [4, 8]})
    for _ in range(6):
        trial = Study(tmp_path, space, 1, True).next({"train.warmup": 2, "delta.lora_r": 8})
        trial.note(settings=trial.settings)
        trial.fail("made up")
    records = Study(tmp_path, space, 1, True).records()
    assert len({json.dumps(record.settings) for record in records}) == 6
    assert records[0].settings == {"train.warmup": "2", "delta.lora_r": "8"}


def test_a_trial_that_was_killed_while_it_was_suggested_does_not_count(tmp_path: Path) -> None:
    for name, cut in (("whole", False), ("cut", True)):
        (tmp_path / name).mkdir()
        opened = Study(tmp_path / name, SPACE, 1, True)
        carry_out(opened)
        if cut:
            opened.next(FIRST)
            journal = tmp_path / name / JOURNAL
            lines = journal.read_bytes().splitlines(keepends=True)
            journal.write_bytes(b"".join(lines[:-1]) + lines[-1][:10])
        for _ in range(3):
            carry_out(Study(tmp_path / name, SPACE, 1, True))
    records = [Study(tmp_path / name, SPACE, 1, True).records() for name in ("whole", "cut")]
    assert len(records[0]) == 4
    assert shown(records[0]) == shown(records[1])


@pytest.mark.parametrize("content", [b"\x00\xff\n", b"[]\n", b'{"op_code": 99}\n', b"{}\n{}\n"])
def test_a_damaged_journal_is_one_sentence(tmp_path: Path, content: bytes) -> None:
    (tmp_path / JOURNAL).write_bytes(content)
    with pytest.raises(UserError, match="not a journal of Optuna's") as error:
        Study(tmp_path, SPACE, 1, True)
    assert "\n" not in str(error.value)


def test_a_trial_is_pruned_below_the_median_of_the_finished_ones(tmp_path: Path) -> None:
    opened, scores = Study(tmp_path, SPACE, 1, True), [0.3, 0.9, 0.5, 0.7, 0.1]
    for score in scores:
        trial = opened.next(FIRST)
        trial.note(settings=trial.settings)
        trial.report(1, score)
        assert not trial.is_worse_than_the_median(), "there are not enough finished ones"
        trial.finish(score)
    middle = statistics.median(scores)
    for score in (middle - 0.01, middle, middle + 0.01):
        trial = opened.next(FIRST)
        trial.note(settings=trial.settings)
        trial.report(1, score)
        assert trial.is_worse_than_the_median() == (score < middle)
        trial.prune()


def test_the_best_trial_is_the_first_of_equal_finished_ones() -> None:
    def trial(state: Any, dev: float | None) -> TrialRecord:
        return TrialRecord(state=state, settings={}, dev=dev)

    records = [trial("pruned", 0.9), trial("finished", 0.5), trial("failed", None)]
    records += [trial("finished", 0.7), trial("finished", 0.7)]
    assert best_of(records, 1) == 4
    assert best_of(records, -1) == 2
    assert best_of(records[:1], 1) is None


# --- the command ---


@pytest.fixture
def words(data: Path, small_backbone: Path, one_thread: None) -> Callable[..., list[object]]:
    def line(out: Path, *more: object) -> list[object]:
        training = {"max_steps": 4, "eval_every": 2, "batch_size": 8, "schedule": "constant"}
        given = [w for k, v in training.items() for w in ("--set", f"train.{k}={v}")]
        common = ["search", "--task", "lcqmc", "--delta", "lora", "--data", data, "--no-shortcuts"]
        return [*common, "--backbone", small_backbone, "--out", out, *given, *more]

    return line


BUDGET = ("--trials", 7, "--space", "train.lr=log:1e-5..3e-1", "--space", "delta.lora_r=2,4")


def record_of(out: Path) -> RunRecord:
    (path,) = [p for p in out.glob("*/run.json") if ".none" not in p.parent.name]
    return read_record(path)


def trials_of(record: RunRecord) -> list[dict[str, Any]]:
    assert record.search is not None
    return [trial.model_dump(exclude={"seconds"}) for trial in record.search.trials]


def test_a_search_chooses_on_dev_and_scores_test_once(
    words: Callable[..., list[object]],
    cli: CLI,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    scored: list[str],
) -> None:
    out = tmp_path / "whole"
    code, text, error = cli(*words(out, *BUDGET, "--control", "none"))
    assert code == 0, error
    assert scored == ["dev", "test"]
    record = record_of(out)
    assert record.search is not None
    assert record.spec.search is not None
    trials = record.search.trials
    assert len(trials) == record.spec.search.trials == 7
    finished = [trial.dev for trial in trials if trial.state == "finished"]
    best = trials[record.search.chosen - 1]
    assert best.dev == max(d for d in finished if d is not None)
    assert record.training is not None
    assert record.training.best_dev == best.dev, "it is the trial itself, scored"
    assert [f"trial      {n}/7" in text for n in range(1, 8)] == [True] * 7
    assert f"best       trial {record.search.chosen}:" in text
    assert "result     test accuracy" in text
    left = [path.name for path in (out / ".search" / record.search.study).iterdir()]
    assert left == [JOURNAL], "folders of trials are removed"

    plain = words(tmp_path / "plain", "--control", "none")[1:]
    chosen = [w for key, text in best.settings.items() for w in ("--set", f"{key}={text}")]
    assert cli(*plain, *chosen)[0] == 0
    other = record_of(tmp_path / "plain")
    assert other.delta.sha256 == record.delta.sha256
    assert other.scores == record.scores
    assert other.run_id != record.run_id, "found by a search: another run"

    again = ("--config", out / record.run_id / "run.json", "--out", tmp_path / "again", "--dry-run")
    code, text, error = cli(*again)
    assert code == 0, error
    assert "the same training; a search found its settings" in text

    again = ("--config", out / record.run_id / "run.json", "--out", tmp_path / "again")
    code, text, error = cli("search", *again, "--control", "none", "--no-shortcuts")
    assert code == 0, error
    assert f"the same run, {record.run_id}" in text
    assert "the predictions are those of" in text
    assert trials_of(record_of(tmp_path / "again")) == trials_of(record)
    scored.pop()

    code, text, error = cli(*words(out, *BUDGET, "--control", "none"))
    assert (code, scored.count("test")) == (0, 2), error
    assert "already exists" in text

    # A larger budget goes on with the same trials, and a stopped search is as one that was not.
    parts = tmp_path / "parts"
    assert cli(*words(parts, "--trials", 3, *BUDGET[2:], "--control", "none"))[0] == 0
    small = record_of(parts)
    assert trials_of(small) == trials_of(record)[:3]
    real_stops, calls = rule.Pruned.stops, [0]

    def interrupted(self: rule.Pruned, scores: Any) -> bool:
        calls[0] += 1
        if calls[0] == 3:
            raise KeyboardInterrupt
        return real_stops(self, scores)

    monkeypatch.setattr(rule.Pruned, "stops", interrupted)
    assert cli(*words(parts, *BUDGET, "--control", "none"))[0] == 130
    assert cli(*words(parts, *BUDGET, "--control", "none"))[0] == 0
    found = [read_record(p) for p in parts.glob("*/run.json") if p.parent.name != small.run_id]
    assert [trials_of(each) for each in found] == [trials_of(record)]
    assert [(each.run_id, each.delta.sha256) for each in found] == [
        (record.run_id, record.delta.sha256)
    ]

    assert cli(*words(out, "--control", "none")[1:], *chosen)[0] == 0
    code, table, error = cli("leaderboard", out, "--format", "json")
    assert code == 0, error
    searched = "7 trials seed 1: train.lr=log:1e-05..0.3 delta.lora_r=2|4"
    rows = json.loads(table)["rows"]
    assert {row["settings"].get("search") for row in rows} == {searched, None}


@pytest.mark.skipif(not hasattr(os, "fork"), reason="POSIX")
def test_a_search_that_is_killed_anywhere_ends_the_same(
    words: Callable[..., list[object]], cli: CLI, tmp_path: Path
) -> None:
    budget = ("--trials", 3, *BUDGET[2:], "--control", "none")
    assert cli(*words(tmp_path / "whole", *budget))[0] == 0

    def action(counted: Counted) -> None:
        os.fsync, os.replace = counted(os.fsync), counted(os.replace)
        main(list(map(str, words(tmp_path / "killed", *budget))))

    draw, kills = random.Random(1), 0
    while killed_within(action, draw.randrange(5, 60)):
        kills += 1
    assert kills
    whole, killed = record_of(tmp_path / "whole"), record_of(tmp_path / "killed")
    assert trials_of(killed) == trials_of(whole)
    assert killed.delta.sha256 == whole.delta.sha256
    assert killed.scores == whole.scores


def test_failed_trials_are_recorded_and_seeds_share_what_was_found(
    words: Callable[..., list[object]], cli: CLI, tmp_path: Path
) -> None:
    space = ("--space", "train.lr=1e-3,1e30", "--trials", 4, "--control", "none")
    code, text, error = cli(*words(tmp_path, *space, "--seeds", "1-2", "--json"))
    assert code == 0, error
    events = [json.loads(line) for line in text.splitlines()]
    trials = [event for event in events if event["event"] == "search_trial"]
    assert len(trials) == 2, "every point was tried"
    assert {trial["state"] for trial in trials} == {"finished", "failed"}
    (failed,) = [trial for trial in trials if trial["state"] == "failed"]
    assert "the loss is" in failed["error"]
    assert [event["event"] for event in events if event["event"] in ("search", "run")] == [
        "search",
        "run",
        "run",
    ]
    records = [read_record(path) for path in tmp_path.glob("*/run.json")]
    assert {record.spec.seed for record in records} == {1, 2}
    assert len({json.dumps(trials_of(record)) for record in records}) == 1

    code, text, error = cli(*words(tmp_path / "x", "--space", "train.lr=1e29,1e30"))
    assert code == 2
    assert "all 2 trials failed, the first one because" in error
    assert not list((tmp_path / "x").glob("*/run.json"))


MISTAKES = [
    (("--delta", "none"), "with --delta none, which trains nothing"),
    (("--task", "lcqmc,ccpm"), "2 tasks, expected one"),
    (("--set", "train.lr=1", "--space", "train.lr=1..2"), "it is set as well"),
    (("--space", "delta.lora_r=0..8"), "lora_r is 0"),
    (("--space", "delta.lora_r=2,1000"), "at most rank"),
    (("--space", "decode.beams=1,2"), "has no effect"),
    (("--space", "encode.max_length=4..64"), "encode.max_length is 4"),
    (("--trials", "0"), "--trials is 0"),
    (("--seconds", "0"), "--seconds is 0"),
]


@pytest.mark.parametrize(("given", "sentence"), MISTAKES)
def test_mistakes_are_found_before_anything_is_written(
    words: Callable[..., list[object]], cli: CLI, tmp_path: Path, given: Any, sentence: str
) -> None:
    out = tmp_path / "out"
    code, _, error = cli(*words(out), *given)
    assert (code, out.exists()) == (2, False)
    assert sentence in error


def test_a_slip_in_a_name_gets_no_setting_of_another_delta() -> None:
    with pytest.raises(UserError, match="slots"):
        make_space({"delta.slot": "1,2"})
    with pytest.raises(UserError, match="there is no such setting") as error:
        make_space({"delta.slot": "1,2"}, delta="lora")
    assert "slots" not in str(error.value)


def test_a_dry_run_writes_nothing(
    words: Callable[..., list[object]], cli: CLI, tmp_path: Path
) -> None:
    code, text, error = cli(*words(tmp_path / "out", "--dry-run"))
    assert (code, (tmp_path / "out").exists()) == (0, False), error
    assert "budget     20 trials; TPE, median pruning, seed 1" in text
    code, text, _ = cli(*words(tmp_path / "out", "--dry-run", "--json", "--seconds", 60))
    (planned,) = [e for e in map(json.loads, text.splitlines()) if e["event"] == "plan"]
    assert planned["search"]["space"].keys() == {"train.lr", "delta.lora_r"}
    assert planned["search"]["seconds"] == 60


def test_a_file_has_options_space_and_settings(cli: CLI, tmp_path: Path) -> None:
    file = tmp_path / "search.yaml"
    content = {
        **{"task": "lcqmc", "delta": "lora", "trials": 5, "seeds": "2-3", "prune": False},
        "space": {"train": {"lr": "log:1e-4..1e-2"}, "delta.lora_r": [2, 4]},
        "set": {"train.max_steps": 7, "train.warmup": 3},
    }
    file.write_text(json.dumps(content), encoding="utf-8")

    def planned(*more: object) -> dict[str, Any]:
        common = ("search", "--config", file, "--out", tmp_path / "x", "--dry-run", "--json")
        code, text, error = cli(*common, *more)
        assert code == 0, error
        (plan,) = [e for e in map(json.loads, text.splitlines()) if e["event"] == "plan"]
        return plan

    plan = planned()
    assert plan["seeds"] == [2, 3]
    space = {"train.lr": "log:0.0001..0.01", "delta.lora_r": "2,4"}
    asked = {"space": space, "trials": 5, "seconds": None, "sampler": "tpe", "pruner": None}
    assert {key: plan["search"][key] for key in asked} == asked
    over = planned("--space", "train.warmup=1..9", "--trials", 6, "--set", "train.lr=0.5")
    assert (over["search"]["space"], over["search"]["trials"]) == ({"train.warmup": "1..9"}, 6)

    for changed, sentence in FILE_MISTAKES:
        file.write_text(json.dumps({**content, **changed}), encoding="utf-8")
        code, _, error = cli("search", "--config", file, "--out", tmp_path / "x")
        assert (code, sentence in error) == (2, True), error
        assert f"--config {file}" in error or "task" in changed


FILE_MISTAKES: list[tuple[dict[str, Any], str]] = [
    ({"space": {"train.lr": "4.."}}, "space train.lr: "),
    ({"space": [1]}, "space is [1], expected a mapping"),
    ({"set": {"train.lr": 1}}, "space train.lr: it is set as well"),
    ({"set": {"train.max_steps": 0}}, "set: train.max_steps is 0"),
    ({"task": None}, "--task is missing"),
    ({"seeds": "3-1"}, "seeds is 3-1, expected a range"),
    ({"epochs": 3}, "there is no option 'epochs'"),
]


@pytest.mark.parametrize("here", [True, False])
def test_scores_that_are_not_finite_in_one_process_end_all(here: bool) -> None:
    """As rank 1 of two: its own scores are broken, or those of rank 0; the other does not wait."""
    sentence, gathered = "the scores of example 7 are not finite", list[str]()

    def predict(rows: object) -> Iterator[object]:
        if here:
            raise NotFiniteError(sentence)
        yield from ()

    def gather(items: list[str]) -> list[str]:
        gathered.extend(items)
        return []

    engine = SimpleNamespace(
        **{"rank": 1, "world_size": 2, "main": False, "gather": gather},
        join=lambda model: contextlib.nullcontext(),
        reduce_sums=lambda values: [values[0] + (not here)],
        broadcast=lambda value: sentence,
    )
    task = load_task("lcqmc")
    file = find_splits(task, sample_folder(task), ("dev",))["dev"]
    predictor: Any = SimpleNamespace(task=task, engine=engine, model=None, predict=predict)
    with pytest.raises(NotFiniteError, match=sentence):
        Selection(predictor, read_split(task, file), 8).score()
    assert gathered == [sentence if here else ""]


def test_the_file_of_the_documentation_is_one(
    cli: CLI, small_backbone: Path, tmp_path: Path
) -> None:
    page = (REPOSITORY / "docs" / "search.md").read_text(encoding="utf-8")
    file = tmp_path / "search.yaml"
    file.write_text(page.partition("```yaml\n")[2].partition("```")[0], encoding="utf-8")
    given = ("--backbone", small_backbone, "--out", tmp_path / "x", "--dry-run")
    code, text, error = cli("search", "--config", file, *given)
    assert (code, "budget     12 trials" in text) == (0, True), error


def test_several_processes_get_the_command_itself(
    words: Callable[..., list[object]], cli: CLI, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[tuple[list[str], int]] = []
    monkeypatch.setattr(search, "launch", lambda argv, nproc: started.append((argv, nproc)))
    line = words(tmp_path / "out", "--nproc", 2)
    assert cli(*line)[0] == 0
    assert started == [([str(word) for word in line], 2)]
    assert cli(*line, "--delta", "none")[0] == 2, "mistakes are found before"
    assert len(started) == 1


def test_two_processes_and_no_optuna_are_sentences(
    words: Callable[..., list[object]], cli: CLI, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    code, text, _ = cli(*words(tmp_path, "--dry-run"))
    (name,) = [Path(line.split()[1]).name for line in text.splitlines() if line.startswith("study")]
    with run_lock(tmp_path, name, wait=False):
        code, _, error = cli(*words(tmp_path))
    assert (code, "another process is working on this search" in error) == (2, True)
    monkeypatch.setattr(study, "find_spec", lambda _: None)
    code, _, error = cli(*words(tmp_path))
    assert (code, "pip install 'cpm-tune[search]'" in error) == (2, True)
