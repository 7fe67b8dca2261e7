"""What the tests of `bench` share: a tiny suite, and what is left of its runs without timings."""

from __future__ import annotations

import json
import multiprocessing
from multiprocessing import forkserver
from pathlib import Path
from typing import Any

from conftest import rows, write_jsonl

SETTINGS = {"train.max_steps": 4, "train.eval_every": 2, "train.lr": 0.01}
TIMINGS = {
    "training": ("seconds", "samples_per_second"),
    "environment": ("seconds", "finished_at", "peak_memory_bytes", "energy_joules"),
}


def write_data(folder: Path) -> Path:
    """Folders lcqmc and ccpm, of few rows."""
    for split, n, start in (("train", 16, 0), ("dev", 8, 100), ("test", 8, 200)):
        (folder / "lcqmc").mkdir(parents=True, exist_ok=True)
        (folder / "ccpm").mkdir(exist_ok=True)
        write_jsonl(folder / "lcqmc" / f"{split}.jsonl", rows(n, start))
        poems = [
            {"translation": r["sentence1"], "choices": list("春夏秋冬"), "answer": r["label"]}
            for r in rows(n, start)
        ]
        name = "valid" if split == "dev" else split
        write_jsonl(folder / "ccpm" / f"{name}.jsonl", poems)
    return folder


def words(out: Path, data: Path, backbone: Path, *more: object, **settings: object) -> list[str]:
    """The command line of a tiny suite; `settings` are those of training."""
    line = ["bench", "--data", data, "--backbones", backbone, "--out", out, *more]
    training = {f"train.{key}": value for key, value in settings.items()}
    for key, value in {**SETTINGS, **training}.items():
        line += ["--set", f"{key}={value}"]
    return list(map(str, line))


def results(out: Path) -> dict[str, Any]:
    """Every file of every finished run that is the same whenever it is made."""
    files: dict[str, Any] = {}
    for run in sorted(p for p in out.iterdir() if not p.name.startswith(".")):
        record = json.loads((run / "run.json").read_text())
        for part, names in TIMINGS.items():
            for name in names:
                if record[part] is not None:
                    del record[part][name]
        files[f"{run.name}/run.json"] = record
        for file in (*run.glob("predictions.*"), *run.glob("delta.*")):
            files[f"{run.name}/{file.name}"] = file.read_bytes()
        if (run / "log.jsonl").exists():
            lines = map(json.loads, (run / "log.jsonl").read_text().splitlines())
            files[f"{run.name}/log.jsonl"] = [
                {key: value for key, value in line.items() if key != "time"} for line in lines
            ]
    return files


def command(arguments: list[str], server: str) -> None:
    """Run a command line in this process and end with its exit code."""
    from cpm_tune.commands.cli import main

    forkserver._forkserver._forkserver_address = server  # workers come from the tests' server
    forkserver._forkserver.ensure_running = lambda: None
    raise SystemExit(main(arguments))


def start(arguments: list[str]) -> Any:
    """Run a command line in a process of its own, forked from a server that has imported
    everything: what is killed is a whole process, but it starts in no time."""
    from cpm_tune.bench.processes import PRELOADED

    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([PRELOADED])
    forkserver.ensure_running()
    server = forkserver._forkserver._forkserver_address
    process = context.Process(target=command, args=(arguments, server))
    process.start()
    return process
