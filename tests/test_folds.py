"""Protocols with several train and dev files, as FewCLUE's: one fold a run, one row for all."""

from __future__ import annotations

import json
import statistics
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from conftest import CLI, write_jsonl

from cpm_tune.bench.suite import make_suite
from cpm_tune.bench.trials import make_trials
from cpm_tune.data.splits import find_splits, folds_sha256
from cpm_tune.errors import UserError
from cpm_tune.leaderboard.board import Cost
from cpm_tune.leaderboard.means import cell_of, note_folds
from cpm_tune.planning.plan import Request, make_plan
from cpm_tune.schema.record import ScoreRecord, read_record
from cpm_tune.schema.spec import DataSpec
from cpm_tune.task.registry import load_task

IDIOMS = ["画蛇添足", "雪中送炭", "草木皆兵", "一帆风顺", "心想事成", "水落石出", "万事如意"]


def passages(n: int, start: int) -> list[dict[str, Any]]:
    """Invented records in FewCLUE's form."""
    return [
        {"id": k, "candidates": IDIOMS, "content": f"这第{k}件事#idiom#。", "answer": k % 7}
        for k in range(start, start + n)
    ]


@pytest.fixture(scope="module")
def fewclue(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder chid of FewCLUE: five folds, all of them together, and both tests."""
    folder = tmp_path_factory.mktemp("fewclue") / "chid"
    folder.mkdir()
    for fold in range(5):
        write_jsonl(folder / f"train_{fold}.json", passages(14, 100 * fold))
        write_jsonl(folder / f"dev_{fold}.json", passages(14, 100 * fold + 50))
    for split in ("train", "dev"):
        write_jsonl(folder / f"{split}_few_all.json", passages(70, 600))
    write_jsonl(folder / "test_public.json", passages(14, 1000))
    unlabelled = [{k: v for k, v in row.items() if k != "answer"} for row in passages(14, 1100)]
    write_jsonl(folder / "test.json", unlabelled)
    return folder


def test_a_fold_has_its_own_train_and_dev_and_the_one_test(fewclue: Path) -> None:
    task = load_task("chid")
    for fold in range(5):
        splits = find_splits(task, fewclue, fold=fold)
        names = {name: [path.name for path in file.paths] for name, file in splits.items()}
        assert names == {
            "train": [f"train_{fold}.json"],
            "dev": [f"dev_{fold}.json"],
            "test": ["test_public.json"],
        }
    assert find_splits(task, fewclue)["train"].path.name == "train_few_all.json"
    with pytest.raises(UserError, match=r"train \(.*train_5"):
        find_splits(task, fewclue, fold=5)


def test_numbered_files_alone_are_mentioned(fewclue: Path, tmp_path: Path) -> None:
    for name in ("train_0.json", "dev_0.json", "test_public.json"):
        (tmp_path / name).write_bytes((fewclue / name).read_bytes())
    with pytest.raises(UserError, match=r"Numbered files are read with --fold 0\."):
        find_splits(load_task("chid"), tmp_path)


def test_runs_on_folds_of_the_same_files_share_a_fingerprint(fewclue: Path, tmp_path: Path) -> None:
    specs = [make_plan(Request("chid", data=fewclue, fold=fold)).spec for fold in range(5)]
    assert len({spec.run_id for spec in specs}) == 5
    assert len({spec.data.seen for spec in specs}) == 1
    assert specs[0].data.folds == folds_sha256(load_task("chid"), fewclue)
    for path in fewclue.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    write_jsonl(tmp_path / "dev_3.json", passages(14, 5))
    other = make_plan(Request("chid", data=tmp_path, fold=0)).spec
    assert (other.data.train, other.data.dev) == (specs[0].data.train, specs[0].data.dev)
    assert other.data.seen != specs[0].data.seen, "another set of folds"
    plain = make_plan(Request("chid", data=fewclue)).spec
    assert {"fold", "folds"}.isdisjoint(json.loads(plain.model_dump_json())["data"])
    with pytest.raises(ValueError, match="belong together"):
        DataSpec(train="a", dev="b", test="c", fold=1)


def test_the_board_has_mean_and_spread_over_the_folds(
    fewclue: Path, small_backbone: Path, cli: CLI, tmp_path: Path, one_thread: None
) -> None:
    common = ["--task", "chid", "--delta", "bitfit", "--data", fewclue, "--out", tmp_path]
    common += ["--backbone", small_backbone, "--control", "none", "--no-shortcuts"]
    for fold in (0, 1, 2):
        code, _, error = cli(*common, "--set", "train.max_steps=1", "--fold", fold)
        assert code == 0, error
    paths = sorted(tmp_path.glob("*/run.json"))
    records = [read_record(path) for path in paths]
    assert {record.spec.data.fold for record in records} == {0, 1, 2}
    for path in paths:
        code, text, error = cli("--config", path, "--out", tmp_path / "again", "--dry-run")
        assert (code, "the same run" in text) == (0, True), error
    values = [100 * record.test.value for record in records]
    code, text, error = cli("leaderboard", tmp_path, "--format", "json")
    assert code == 0, error
    board = json.loads(text)
    (column,), (row,) = board["columns"], board["rows"]
    assert column["protocol"] == [
        f"each run on one of the folds {records[0].spec.data.seen[0][:8]}"
    ]
    (cell,) = row["cells"].values()
    assert cell["mean"] == pytest.approx(statistics.fmean(values))
    assert cell["std"] == pytest.approx(statistics.stdev(values))
    assert "3 folds" in cell["interval"]
    code, text, error = cli("leaderboard", tmp_path)
    assert " runs " in text
    assert " seeds " not in text
    code, text, error = cli("leaderboard", "compare", tmp_path, "bitfit", "bitfit")
    assert "differ in" not in error, "one system"


@dataclass(frozen=True)
class _Run:
    """What a cell asks of a record."""

    run_id: str
    spec: Any
    scores: Any
    ranks_by: str = "accuracy"

    @property
    def test(self) -> ScoreRecord:
        score: ScoreRecord = self.scores["test"]["accuracy"]
        return score


def runs(values: dict[tuple[int, int], float]) -> list[Any]:
    """Runs with these accuracies by fold and seed, whose own intervals have no width."""
    return [
        _Run(
            f"f{fold}s{seed}",
            SimpleNamespace(seed=seed, data=SimpleNamespace(fold=fold)),
            {
                "test": {
                    "accuracy": ScoreRecord(
                        value=value,
                        low=value,
                        high=value,
                        n=9,
                        signature="accuracy",
                        higher_is_better=True,
                    )
                }
            },
        )
        for (fold, seed), value in values.items()
    ]


def test_seeds_are_averaged_within_each_fold_first() -> None:
    both = {(0, 1): 0.5, (0, 2): 0.7, (1, 1): 0.2, (1, 2): 0.4, (2, 1): 0.45}
    each = {(0, 1): 0.6, (1, 1): 0.3, (2, 1): 0.45}
    cell, of_means = (cell_of(runs(values), Cost(), ()) for values in (both, each))
    for name in ("mean", "std", "low", "high"):
        assert getattr(cell, name) == pytest.approx(getattr(of_means, name)), name
    assert "3 folds, seeds of each averaged first" in cell.interval
    assert len(cell.runs) == 5


def test_a_row_without_all_folds_has_a_note_and_no_place() -> None:
    whole, part = (runs({(fold, 1): 0.5 + fold / 10 for fold in range(n)}) for n in (3, 2))
    part = [replace(run, run_id=f"other-{run.run_id}") for run in part]
    cells = [cell_of(of, Cost(), ()) for of in (whole, part)]
    note_folds(cells, {run.run_id: run for run in (*whole, *part)})
    assert [cell.missing_folds for cell in cells] == [[], [2]]
    assert cells[1].notes == ["folds 0, 1 of 3, so it has no place"]


def test_a_mistake_of_several_folds_is_reported_once(fewclue: Path, tmp_path: Path) -> None:
    for path in fewclue.glob("*"):
        if path.name not in ("dev_1.json", "dev_3.json"):
            (tmp_path / path.name).write_bytes(path.read_bytes())
    given = {"data": tmp_path, "deltas": ("lora", "bitfit"), "folds": (0, 1, 2, 3)}
    with pytest.raises(UserError) as raised:
        make_trials(make_suite(Path("suites/fewclue.yaml"), given))
    (line,) = str(raised.value).split("\n")
    assert line.startswith(f"chid, lora, cpm-ant-tiny: {tmp_path}: no file for dev (dev_1.json")
    assert line.endswith(" The same for fold 3.")


def test_the_suite_runs_five_folds(fewclue: Path) -> None:
    given = {"data": fewclue.parent}
    trials = make_trials(make_suite(Path("suites/fewclue.yaml"), given))
    tuned = [trial for trial in trials if trial.control is None]
    assert sorted((trial.delta, trial.request.fold) for trial in tuned) == [
        (delta, fold) for delta in ("lora", "prefix") for fold in range(5)
    ]
    assert all(f"fold={trial.request.fold}" in trial.name for trial in tuned)
