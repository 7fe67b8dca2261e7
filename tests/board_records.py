"""Made-up records, for tests and benchmarks of the leaderboard only: no run stands behind them."""

from __future__ import annotations

import json
import math
import random
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from cpm_tune.schema.record import RunRecord, write_record
from cpm_tune.schema.spec import (
    BackboneSpec,
    DataSpec,
    Decoding,
    Encoding,
    Execution,
    Recipe,
    RunSpec,
)

LITE = {  # task: metric, signature's range, typical score
    "ccpm": ("accuracy", "0..1", 0.80),
    "c3": ("accuracy", "0..1", 0.55),
    "sogou_log": ("ndcg_10", "0..1", 0.33),
    "lcsts": ("rouge_l_char_f", "0..1", 0.30),
    "kdconv": ("bleu_4", "0..100", 10.0),
    "wmt20_enzh": ("bleu_zh", "0..100", 12.0),
    "math23k": ("equation_accuracy", "0..1", 0.42),
}
CHOSEN = ("ccpm", "c3", "sogou_log", "lcqmc")  # tasks with options to score
OTHER = {"lcqmc": ("accuracy", "0..1", 0.82), "cmeee": ("span_f1", "0..1", 0.55)}
DELTAS = {  # name: trainable, strength
    "lora": (6_291_456, 1.02),
    "adapter": (25_200_000, 1.0),
    "prefix": (98_304_000, 0.97),
    "bitfit": (1_572_864, 0.93),
    "soft_prompt": (131_072, 0.86),
    "none": (0, 0.55),
}
BACKBONES = {"cpm-ant-10b": 1.0, "cpm-ant-1b": 0.84}
SECONDARY = {"lcsts": "rouge_l_cpm2", "kdconv": "bleu_4_cpm2"}


def _sha(text: str) -> str:
    return f"{abs(hash_of(text)):064x}"[-64:]


def hash_of(text: str) -> int:
    """A hash that is the same in every process."""
    value = 0
    for byte in text.encode():
        value = (value * 1_000_003 + byte) % (1 << 256)
    return value


def make_record(
    task: str,
    backbone: str,
    delta: str,
    seed: int,
    *,
    lr: float = 5e-3,
    world_size: int = 1,
    sample: bool = False,
    template: str = "cpm-ant",
    template_version: int = 1,
    protocol: Mapping[str, Any] | None = None,
    family: Mapping[str, Any] | None = None,
    numbers: int = 1,
) -> RunRecord:
    """One finished run with plausible numbers, the same for the same arguments.

    `protocol` are the spec's scoring, shots and chat template, `family` is more of its backbone.
    """
    metric, span, typical = {**LITE, **OTHER}[task]
    noise = random.Random(f"{task} {backbone} {delta} {seed} {lr}")
    n_trainable, strength = DELTAS.get(delta, (200_000, 0.9))
    value = typical * strength * BACKBONES.get(backbone, 0.7) * noise.gauss(1, 0.015)
    value = min(value, 0.99) if span == "0..1" else value
    trains = delta != "none"
    spec = RunSpec(
        task=task,
        task_version=1,
        template=template,
        template_version=template_version,
        **(protocol or {}),
        template_sha256=_sha(f"template {task} {template}"),
        metrics=(metric,),
        data=DataSpec(
            train=_sha(task + "train"),
            dev=_sha(task + "dev"),
            test=_sha(task + "test"),
            sample=sample,
        ),
        backbone=BackboneSpec(sha256=_sha(backbone), **(family or {})),
        delta={"delta_type": re.sub(r"\W", "_", delta)[:40], "rank": 8}
        if trains
        else {"delta_type": "none"},
        encoding=Encoding(),
        decoding=Decoding(max_new_tokens=32, beams=3) if span == "0..100" else None,
        recipe=Recipe(lr=lr) if trains else None,
        seed=seed,
    )
    half = 0.02 * (1 if span == "0..1" else 20)

    def score(v: float, name: str) -> dict[str, object]:
        signature = f"{name}|made up|{span}|95% interval: Wilson"
        parts = {"value": v, "low": v - half, "high": v + half, "n": 2000}
        return {**parts, "signature": signature, "higher_is_better": True}

    split = {
        "path": f"/x/tasks/sample/{task}/test.jsonl" if sample else "x",
        "sha256": _sha(task),
        "n": 2000,
        "n_skipped": 0,
        "n_truncated": 3,
    }
    test = {metric: score(value, metric)}
    if task in SECONDARY:
        test[SECONDARY[task]] = score(value * 1.08, SECONDARY[task])
    speed = noise.uniform(20, 30) * (1 if world_size == 1 else 0.93 * world_size)
    return RunRecord.model_validate(
        {
            "status": "finished",
            "run_id": spec.run_id,
            "spec_sha256": spec.sha256,
            "spec": spec,
            "execution": Execution(),
            "ranks_by": metric,
            "scoring": spec.scoring or ("yes-logit" if task in CHOSEN else "generation"),
            "numbers": numbers,
            "comparable": not sample,
            "note": "sample data, not comparable with real results" if sample else "",
            "data": {"dev": split, "test": split},
            "backbone": {
                "name": backbone,
                "path": "b",
                "sha256": _sha(backbone),
                "trained": True,
                "n_parameters": 10_000_000_000,
            },
            "delta": {
                "name": delta,
                "n_trainable": n_trainable,
                "bytes": 2 * n_trainable,
                "sha256": None,
            },
            "scores": {"dev": {metric: score(value, metric)}, "test": test},
            "controls": {"majority": {"value": typical / 2, "low": typical / 3, "high": typical}},
            "training": {
                "steps": 500,
                "best_step": 400,
                "stopped_early": False,
                "curve": _curve(value, noise),
                "samples_per_second": speed,
                "seconds": 16_000 / speed,
            }
            if trains
            else None,
            "environment": {
                "packages": {},
                "python": "3.11",
                "git_sha": None,
                "git_dirty": None,
                "device": "cpu",
                "engine": "torch",
                "world_size": world_size,
                "threads": 1,
                "deterministic": True,
                "peak_memory_bytes": 21_000_000_000 + 40 * n_trainable,
                "seconds": (16_000 if trains else 900) / speed * 1.2,
                "finished_at": "2026-01-01T00:00:00+00:00",
            },
        }
    )


def _curve(best: float, noise: random.Random) -> list[dict[str, float]]:
    return [
        {
            "step": step,
            "loss": 1.8 * math.exp(-step / 180) + 0.35 + noise.gauss(0, 0.02),
            "dev": best * (1 - 0.5 * math.exp(-step / 90)) * noise.gauss(1, 0.008),
        }
        for step in range(50, 501, 50)
    ]


def write_predictions(folder: Path, task: str, seed: int, n: int = 60) -> None:
    """A predictions.test.jsonl beside the record, in the form of the task's answer kind."""
    noise = random.Random(f"{task} {seed}")
    lines: list[dict[str, object]] = []
    for i in range(n):
        if task in ("ccpm", "c3", "lcqmc"):
            scores = [round(noise.gauss(0, 2), 6) for _ in range(2 if task == "lcqmc" else 4)]
            best, right = scores.index(max(scores)), noise.random() < 0.75
            lines.append(
                {
                    "id": f"{i}",
                    "scores": scores,
                    "prediction": best,
                    "target": best if right else (best + 1) % len(scores),
                }
            )
        elif task == "math23k":
            wrong = noise.random() < 0.4
            text = f"{i + 2}*{'4' if wrong else '3'}"
            lines.append(
                {
                    "id": f"{i}",
                    "text": text,
                    "prediction": text,
                    "target": {"answer": f"{3 * i + 6}"},
                }
            )
        else:
            text = "今天天气很好，适合出门散步。"[: noise.randint(4, 14)]
            lines.append(
                {
                    "id": f"{i}",
                    "text": text,
                    "prediction": text,
                    "target": "今天天气很好，适合出门散步。",
                }
            )
    said = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)
    (folder / "predictions.test.jsonl").write_text(said, encoding="utf-8")


def store(folder: Path, record: RunRecord, predictions: bool = True) -> Path:
    """Write a record as a run of a results folder."""
    place = folder / record.run_id
    place.mkdir(parents=True, exist_ok=True)
    write_record(place, record)
    if predictions:
        write_predictions(place, record.spec.task, record.spec.seed)
    return place


def suite(
    tasks: Sequence[str] = (*LITE, *OTHER),
    deltas: Sequence[str] = tuple(DELTAS),
    backbones: Sequence[str] = tuple(BACKBONES),
    seeds: Sequence[int] = (1, 2, 3),
) -> Iterator[RunRecord]:
    """Every combination; the last delta but one lacks a task, one run had two processes."""
    for backbone in backbones:
        for delta in deltas:
            for task in tasks:
                if delta == "soft_prompt" and task == "wmt20_enzh":
                    continue
                for seed in seeds if delta != "none" else seeds[:1]:
                    many = seed == 3 and delta == "lora"
                    yield make_record(task, backbone, delta, seed, world_size=2 if many else 1)
