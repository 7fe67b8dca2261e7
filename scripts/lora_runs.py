"""LoRA runs on a backbone and on its random control, for worth.py: recipes, runs, and a summary."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from cpm_tune.common.folders import predictions_file
from cpm_tune.common.reading import read_json
from cpm_tune.data.readers import json_lines

TUNE = Path(__file__).resolve().parent.parent / "tune.py"

LORA = {
    "delta_type": "lora",
    "lora_r": 8,
    "lora_alpha": 16,
    "modified_modules": [
        *("@attention.q", "@attention.k", "@attention.v", "@attention.o", "@ffn.in", "@ffn.out"),
    ],
}
RECIPE = {
    "train.lr": 3e-3,
    "train.schedule": "linear",
    "train.warmup": 20,
    "train.batch_size": 64,
    "train.epochs": 60,
    "train.max_steps": 150,
    "train.eval_every": 50,
    "train.dev_rows": 300,
    "train.patience": 0,
    "encode.max_length": 200,
}
DROPPING = {**LORA, "lora_dropout": 0.1}
LONG = {  # for the real LCQMC, whose rows teach for longer
    **RECIPE,
    "train.warmup": 50,
    "train.epochs": 200,
    "train.max_steps": 1500,
    "train.eval_every": 150,
    "train.dev_rows": 800,
}


@dataclass(frozen=True)
class Job:
    """A task to tune LoRA on, and how."""

    task: str
    arguments: tuple[str, ...] = ()
    recipe: dict[str, Any] = field(default_factory=lambda: RECIPE)
    lora: dict[str, Any] = field(default_factory=lambda: LORA)


def run_job(
    name: str, job: Job, folder: Path, backbone: Path, seed: int, common: Sequence[str]
) -> None:
    """Run tune.py for one seed on the backbone and on its random control."""
    lora = folder / f"{name}.lora.json"
    lora.write_text(json.dumps(job.lora), encoding="utf-8")
    command = [sys.executable, str(TUNE), "--task", job.task, "--delta", str(lora)]
    command += ["--backbone", str(backbone), "--seed", str(seed), "--quiet", *common]
    command += ["--control", "zero-shot", "--control", "random-backbone"]
    command += ["--out", str(folder / "results" / name), *job.arguments]
    for key, value in job.recipe.items():
        command += ["--set", f"{key}={value}"]
    if code := subprocess.run(command, check=False).returncode:  # it has printed why
        sys.exit(code)


def summary(folder: Path, seeds: Sequence[int]) -> dict[str, Any] | None:
    """Mean test accuracies, and their difference with a 95% interval over test rows."""
    right: dict[str, dict[int, Any]] = {"checkpoint": {}, "random": {}}
    zero_shot, majority = None, 0.0
    for file in sorted(folder.glob("*/run.json")):
        record = read_json(file)
        if record["status"] != "finished":
            continue
        rows = [row for _, row in json_lines(file.parent / predictions_file("test"))]
        hits = np.array([row["prediction"] == row["target"] for row in rows], dtype=float)
        targets = [row["target"] for row in rows]
        majority = max(targets.count(t) for t in set(targets)) / len(targets)
        init = record["spec"]["backbone"]["init"]
        if record["spec"]["delta"]["delta_type"] == "none":
            zero_shot = float(hits.mean()) if init == "checkpoint" else zero_shot
        elif record["spec"]["seed"] in seeds:
            right[init][record["spec"]["seed"]] = hits
    both = sorted(right["checkpoint"].keys() & right["random"].keys())
    if not both:
        return None
    trained = np.mean([right["checkpoint"][seed] for seed in both], axis=0)
    control = np.mean([right["random"][seed] for seed in both], axis=0)
    difference = trained - control
    generator = np.random.default_rng(1)
    drawn = [
        difference[generator.integers(len(difference), size=len(difference))].mean()
        for _ in range(2000)
    ]
    return {
        "n_test": len(difference),
        "seeds": both,
        "majority": majority,
        "zero_shot": zero_shot,
        "pretrained": [float(right["checkpoint"][seed].mean()) for seed in both],
        "random": [float(right["random"][seed].mean()) for seed in both],
        "difference": float(difference.mean()),
        "low": float(np.quantile(drawn, 0.025)),
        "high": float(np.quantile(drawn, 0.975)),
    }
