"""Measures what a pre-trained backbone is worth, always beside a random one of the same shape.

    python scripts/worth.py --backbone DIR --corpus PREPARED --out DIR

Held-out loss against a unigram baseline, the form of generated quatrains, and LoRA probes with the
same recipe on the pre-trained and on a random frozen backbone. The probes' rows are made here from
held-out documents of the prepared corpus (nothing of it is kept in the repository) and run by
tune.py like any task. Finished runs are not run again, so this can be interrupted.
"""

from __future__ import annotations

import argparse
import json
import random
import re
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from probes import (
    MODERN,
    PROBES,
    VERSE,
    Texts,
    couplets,
    heldout_texts,
    overlap_baseline,
    write_lcqmc,
    write_probe,
)

from cpm_tune.backbone.checkpoint import load_weights, open_folder, random_backbone
from cpm_tune.backbone.model import CPMAnt
from cpm_tune.backbone.tokenizer import Tokenizer
from cpm_tune.errors import UserError
from cpm_tune.pretrain.evaluate import HeldOut, generate
from cpm_tune.pretrain.objective import (
    GENERATION,
    Layout,
    PieceMask,
    TargetLosses,
    build_rows,
)
from cpm_tune.pretrain.store import Corpus, Split
from cpm_tune.record import write_atomically

TUNE = Path(__file__).resolve().parent.parent / "tune.py"
SHORTEST, WIDTH = 8, 256

LORA = {
    "delta_type": "lora",
    "lora_r": 8,
    "lora_alpha": 16,
    "modified_modules": [
        *("project_q", "project_k", "project_v", "attention_out", "w_0", "w_1", "w_out"),
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


def heldout_losses(corpus: Corpus, model: CPMAnt, tokenizer: Tokenizer) -> dict[str, Any]:
    """Per source and objective, and for verse and modern text together (by tokens)."""
    layout = Layout.of(model.config, tokenizer, WIDTH)
    heldout = HeldOut(corpus, corpus.sources, tokenizer, layout, SHORTEST)
    losses = heldout.losses(model, batch=16, bf16=False)
    groups: dict[str, Any] = {}
    for label, names in (("verse", VERSE), ("modern", MODERN)):
        parts = [part for name in names if name in losses for part in losses[name].values()]
        tokens = sum(part["tokens"] for part in parts)
        if tokens:
            groups[label] = {
                key: sum(part[key] * part["tokens"] for part in parts) / tokens
                for key in ("nats_per_character", "unigram_nats_per_character")
            }
    return {"sources": losses, "groups": groups}


def seen_before(corpus: Corpus, tokenizer: Tokenizer) -> dict[str, dict[str, float]]:
    """Which part of each source's held-out lines, and of their tokens, stands in its training
    documents as well: the split is by document, and documents quote and repeat each other."""
    (newline,) = tokenizer.encode("\n")
    result = {}
    for name in corpus.sources:
        known = set(_lines(corpus.split(name, "train"), newline))
        lines = list(_lines(corpus.split(name, "heldout"), newline))
        again = [line for line in lines if line in known]
        result[name] = {
            "lines": len(again) / len(lines),
            "tokens": sum(map(len, again)) / sum(map(len, lines)),
        }
    return result


def _lines(split: Split, newline: int) -> Iterator[bytes]:
    for number in range(len(split)):
        tokens = np.asarray(split.document(number), dtype=np.int32)
        for line in np.split(tokens, np.flatnonzero(tokens == newline)):
            if len(line := line[line != newline]):
                yield line.tobytes()


def quatrain_form(texts: Texts, model: CPMAnt, tokenizer: Tokenizer) -> dict[str, Any]:
    """Titles of 100 held-out quatrains, one poem sampled for each; how many have a verse form.

    The form: the first four clauses are Chinese characters only and all five, or all seven, long.
    `whole`: the poem ends there as well; a title does not say how long its poem is.
    """
    titles = []
    for text in [*texts["tang"], *texts["song"]]:
        title, _, body = text.partition("\n")
        if title.startswith("《") and _form(body) and len(_clauses(body)) == 4:
            titles.append(title)
    titles = sorted(set(titles))
    random.Random(1).shuffle(titles)
    good, whole, examples = 0, 0, []
    for number, title in enumerate(titles[:100]):
        text = generate(model, tokenizer, title + "\n", length=64, seed=number)[0]
        good += _form(text)
        whole += _form(text) and len(_clauses(text)) == 4
        if number < 5:
            examples.append(f"{title}\n{text}")
    counts = {"samples": len(titles[:100]), "with_form": good, "whole": whole}
    return {**counts, "examples": examples}


def next_line_of_four(texts: Texts, model: CPMAnt, tokenizer: Tokenizer) -> dict[str, Any]:
    """Without any tuning: which of four lines follows? 400 couplets, the wrong three from others.

    `likelihood`: by log p(line | first line); `gain`: by what the first line adds to it.
    """
    drawn = random.Random(1)
    known = [pair for group in couplets(texts) for pair in group]
    asked = drawn.sample(known, min(400, len(known)))
    shown = []
    for _, second in asked:
        others = sorted({b for _, b in known if len(b) == len(second)} - {second})
        shown.append([second, *drawn.sample(others, 3)])
    given = _log_p(
        [(a + "，", b) for (a, _), four in zip(asked, shown, strict=True) for b in four],
        model,
        tokenizer,
    )
    alone = _log_p([("", b) for four in shown for b in four], model, tokenizer)
    return {
        "n": len(asked),
        "likelihood": _first_of_four(given),
        "gain": _first_of_four(given - alone),
    }


def _first_of_four(scores: NDArray[np.float64]) -> float:
    """How often the first of four scores is the best; a tie counts as a guess among the tied."""
    four = scores.reshape(-1, 4)
    best = four == four.max(1, keepdims=True)
    return float((best[:, 0] / best.sum(1)).mean())


@torch.no_grad()
def _log_p(
    items: Sequence[tuple[str, str]], model: CPMAnt, tokenizer: Tokenizer
) -> NDArray[np.float64]:
    """log p(line and its full stop | text before), by the generation objective: (items,)."""
    layout = Layout.of(model.config, tokenizer, 48 + model.config.prompt_length)
    losses = TargetLosses(model, bf16=False, compiled=False)
    result = []
    for start in range(0, len(items), 64):
        rows: list[tuple[int, list[tuple[NDArray[np.int64], PieceMask]]]] = []
        for before, line in items[start : start + 64]:
            head, ids = tokenizer.encode(before), tokenizer.encode(line + "。")
            piece = np.array([*head, *ids], dtype=np.int64)
            masked = np.arange(len(piece) + 2) > len(head)
            rows.append((len(rows), [(piece, PieceMask(GENERATION, masked))]))
        built = build_rows(rows, layout)
        nats = losses(built).double().numpy() * (built.token != tokenizer.eos).numpy()
        result.append(-np.bincount(built.source, nats, len(rows)))
    return np.concatenate(result)


def _clauses(text: str) -> list[str]:
    return [clause for clause in re.split(r"[，。！？；\n]+", text) if clause]


def _form(text: str) -> bool:
    first = _clauses(text)[:4]
    return (
        len(first) == 4
        and len({len(clause) for clause in first}) == 1
        and len(first[0]) in (5, 7)
        and all(re.fullmatch(r"[\u4e00-\u9fff]+", clause) for clause in first)
    )


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
    if code := subprocess.run(command, check=False).returncode:  # it has said why
        sys.exit(code)


def keep(file: Path, key: str, value: Any) -> None:
    """Put one result into worth.json, beside what is there (by another process, perhaps)."""
    known = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
    *path, last = key.split("/")
    place = known
    for part in path:
        place = place.setdefault(part, {})
    place[last] = value
    write_atomically(file, json.dumps(known, ensure_ascii=False, indent=1) + "\n")


def summary(folder: Path, seeds: Sequence[int]) -> dict[str, Any] | None:
    """Mean test accuracies, and their difference with a 95% interval over test rows."""
    right: dict[str, dict[int, Any]] = {"checkpoint": {}, "random": {}}
    zero_shot, majority = None, 0.0
    for file in sorted(folder.glob("*/run.json")):
        record = json.loads(file.read_text(encoding="utf-8"))
        if record["status"] != "finished":
            continue
        rows = [json.loads(x) for x in (file.parent / "predictions.test.jsonl").open()]
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


def main() -> None:
    """Run what is asked for; print a table and write worth.json."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--backbone", metavar="DIR", type=Path, required=True)
    parser.add_argument(
        "--corpus", metavar="DIR", type=Path, help="prepared; not needed for lcqmc and lcqmc-real"
    )
    parser.add_argument("--out", metavar="DIR", type=Path, required=True)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument(
        "--lcqmc", metavar="FILE", type=Path, help="LCQMC's dev.jsonl, if you have it"
    )
    parser.add_argument(
        "--only",
        metavar="NAME",
        nargs="+",
        help="loss, seen, four, form, lcqmc, lcqmc-real, or probes by name",
    )
    parser.add_argument("--precision", choices=["fp32", "bf16"], default="fp32", help="of LoRA")
    parser.add_argument("--threads", metavar="N", type=int, default=0, help="of LoRA (0: all)")
    args = parser.parse_args()
    probes = {probe.name: probe for probe in PROBES}
    every = [
        "loss",
        "seen",
        "four",
        "form",
        "lcqmc",
        *probes,
        *(["lcqmc-real"] if args.lcqmc else []),
    ]
    wanted = args.only or every
    if unknown := [name for name in wanted if name not in every]:
        parser.error(f"--only {unknown[0]}: expected of {', '.join(every)} (lcqmc-real: --lcqmc)")
    folder = open_folder(args.backbone)
    tokenizer, model = folder.tokenizer(), load_weights(folder, torch.float32).eval()
    if from_corpus := [name for name in wanted if name not in ("lcqmc", "lcqmc-real")]:
        if not args.corpus:
            parser.error(f"{from_corpus[0]} is made from the corpus: give --corpus")
        corpus = Corpus.open(args.corpus)
        if {*from_corpus} - {"loss", "seen"}:
            texts = heldout_texts(corpus, tokenizer)
    args.out.mkdir(parents=True, exist_ok=True)
    file = args.out / "worth.json"
    if "loss" in wanted:
        losses = heldout_losses(corpus, model, tokenizer)
        keep(file, "heldout", losses)
        print(json.dumps(losses["groups"], indent=1))
    if "seen" in wanted:
        seen = seen_before(corpus, tokenizer)
        keep(file, "heldout lines in training", seen)
        print(json.dumps(seen, indent=1))
    control = random_backbone(folder.config, 1, torch.float32).eval()
    if "four" in wanted:
        four = {
            "pretrained": next_line_of_four(texts, model, tokenizer),
            "random": next_line_of_four(texts, control, tokenizer),
        }
        keep(file, "next-line-of-four", four)
        print(json.dumps(four))
    if "form" in wanted:
        form = {
            "pretrained": quatrain_form(texts, model, tokenizer),
            "random": quatrain_form(texts, control, tokenizer),
        }
        keep(file, "quatrains", form)
        print(json.dumps(form, ensure_ascii=False, indent=1))
    jobs = {}
    for name in wanted:
        if name in probes:
            write_probe(probes[name], texts, args.out)
            places = ("--include", str(args.out / "tasks"), "--data", str(args.out / name))
            jobs[name] = Job(name, places)
        elif name == "lcqmc":
            jobs[name] = Job("lcqmc")
        elif name == "lcqmc-real":
            write_lcqmc(args.lcqmc, args.out / name)
            keep(file, "lcqmc-real-overlap", overlap_baseline(args.out / name))
            jobs[name] = Job("lcqmc", ("--data", str(args.out / name)), LONG, DROPPING)
    common = ["--precision", args.precision, "--set", f"run.threads={args.threads}"]
    for seed in args.seeds:
        for name, job in jobs.items():
            run_job(name, job, args.out, args.backbone, seed, common)
            found = summary(args.out / "results" / name, args.seeds)
            keep(file, f"probes/{name}", found)
            print(name, json.dumps(found), flush=True)


if __name__ == "__main__":
    try:
        main()
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
