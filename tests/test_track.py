"""Weights & Biases and MLflow, offline: what they are told, and that they cannot cost a run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import ClassVar

import pytest
from bench_runs import SETTINGS, write_data
from conftest import CLI

from cpm_tune.schema.record import RunRecord, read_record
from cpm_tune.tracking import sinks
from cpm_tune.tracking.sink import Entry, RunInfo

pytestmark = pytest.mark.usefixtures("one_thread")


def tuned(cli: CLI, backbone: Path, folder: Path, *more: object) -> tuple[Path, RunRecord]:
    data = write_data(folder / "data")
    settings = [word for k, v in SETTINGS.items() for word in ("--set", f"{k}={v}")]
    where = ("--data", data, "--backbone", backbone, "--out", folder / "out")
    code, said, error = cli(
        *("--task", "lcqmc", "--delta", "lora", "--control", "none", *where, *settings, *more)
    )
    assert code == 0, said + error
    (run,) = (folder / "out").glob("lcqmc.lora.*")
    return run, read_record(run / "run.json")


def test_mlflow_has_the_curve_the_settings_and_the_scores(
    cli: CLI, small_backbone: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mlflow = pytest.importorskip("mlflow", reason="MLflow is not installed (extra mlflow)")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"file:{tmp_path / 'mlruns'}")
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")  # no database in the slim package
    _, record = tuned(cli, small_backbone, tmp_path, "--track", "mlflow")
    client = mlflow.MlflowClient(f"file:{tmp_path / 'mlruns'}")
    (run,) = client.search_runs([client.get_experiment_by_name("cpm-tune").experiment_id])
    assert run.info.run_name == record.run_id
    assert run.info.status == "FINISHED"
    assert run.data.params["recipe.max_steps"] == "4"
    assert run.data.metrics["final/test/accuracy"] == record.test.value
    losses = client.get_metric_history(run.info.run_id, "train/loss")
    assert [metric.step for metric in losses] == [1, 2, 3, 4]
    curve = client.get_metric_history(run.info.run_id, "dev/accuracy")
    assert record.training is not None
    assert [(m.step, m.value) for m in curve] == [(p.step, p.dev) for p in record.training.curve]
    assert record.execution.track == ("mlflow",)


def test_wandb_keeps_an_offline_run_in_the_folder(
    cli: CLI, small_backbone: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("wandb", reason="Weights & Biases is not installed (extra wandb)")
    monkeypatch.setenv("WANDB_MODE", "offline")
    run, record = tuned(cli, small_backbone, tmp_path, "--track", "wandb")
    (file,) = run.glob("wandb/offline-run-*/*.wandb")
    written = file.read_bytes()
    for said in (record.run_id, "train/loss", "dev/accuracy", "final/test/accuracy"):
        assert said.encode() in written


class Listed:
    """A service that keeps what it is given."""

    package = "json"
    entries: ClassVar[list[Entry]] = []
    ended: ClassVar[list[bool]] = []

    def __init__(self, run: RunInfo) -> None:
        self.entries.clear()

    def log(self, entry: Entry) -> None:
        self.entries.append(entry)

    def finish(self, ok: bool) -> None:
        self.ended.append(ok)


def test_a_new_sink_is_one_entry_of_the_registry(
    cli: CLI, small_backbone: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sinks.SINKS, "listed", Listed)
    run, record = tuned(cli, small_backbone, tmp_path, "--track", "listed")
    lines = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    *training, last = Listed.entries
    assert [entry.line for entry in training] == lines
    assert [sorted(entry.values) for entry in training if "dev" not in entry.line] == [
        ["train/grad_norm", "train/loss", "train/lr"]
    ] * 4
    assert last.values["final/test/accuracy"] == record.test.value
    assert Listed.ended == [True]
    assert record.execution.track == ("listed",)


class Broken:
    """A service that is lost after the first step."""

    package = "json"

    def __init__(self, run: RunInfo) -> None:
        self.n = 0

    def log(self, entry: Entry) -> None:
        self.n += 1
        if self.n > 1:
            raise ConnectionError("the service is gone")

    def finish(self, ok: bool) -> None:
        raise AssertionError("was dropped before")


def test_a_service_that_is_lost_does_not_cost_the_run(
    cli: CLI, small_backbone: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sinks.SINKS, "mlflow", Broken)
    _, record = tuned(cli, small_backbone, tmp_path, "--track", "mlflow")
    assert record.status == "finished"


def test_a_tracker_that_is_not_installed_or_unknown_is_one_sentence(
    cli: CLI, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sinks.WandB, "package", "no_such_package")
    code, _, error = cli("--task", "lcqmc", "--track", "wandb")
    assert code == 2
    assert "pip install 'cpm-tune[wandb]'" in error
    code, _, error = cli("bench", "--tasks", "lcqmc", "--track", "wandbee")
    assert code == 2
    assert "run.track" in error
