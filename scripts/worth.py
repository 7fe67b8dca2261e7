"""Measures what a pre-trained backbone is worth.

    python scripts/worth.py --backbone DIR --corpus PREPARED --out DIR

Held-out loss next to a unigram baseline; and next to a random backbone of the same shape: the form
of generated quatrains, which line follows which, and LoRA probes with one recipe on both frozen.
The probes' rows are made here from held-out documents of the prepared corpus (nothing of it is kept
in the repository) and run by tune.py like any task. Finished runs are not repeated, so this can be
interrupted. Results are in OUT/worth.json.
"""

from __future__ import annotations

import argparse
import json
import random
import re
import sys
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lora_runs import DROPPING, LONG, Job, run_job, summary
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

from cpm_tune.backbone.base import Backbone
from cpm_tune.backbone.bundled import resolve
from cpm_tune.backbone.families import open_folder, pretraining_in
from cpm_tune.backbone.pretraining import Objective
from cpm_tune.backbone.protocol import BackboneFolder
from cpm_tune.backbone.tokens import Tokenizer
from cpm_tune.common.reading import read_json
from cpm_tune.common.writing import write_atomically
from cpm_tune.errors import UserError
from cpm_tune.pretrain.evaluate import HeldOut, generate
from cpm_tune.pretrain.losses import TargetLosses
from cpm_tune.pretrain.store import Corpus, CorpusSplit

SHORTEST, WIDTH = 8, 256
_ROOM = 64  # tokens of a couplet, and what the objective puts around it
MEASURES = ("loss", "seen", "four", "form")
REAL = "lcqmc-real"
_PROBES = {probe.name: probe for probe in PROBES}


def objective_of(model: Backbone, tokenizer: Tokenizer, width: int) -> Objective:
    """What the backbone was pre-trained for, in rows of one width."""
    kind = pretraining_in(model.config.family)
    if kind is None:
        raise UserError(f"backbones of the family '{model.config.family}' are not pre-trained.")
    return kind.objective(model.config, tokenizer, width=width, shortest=SHORTEST)


def heldout_losses(corpus: Corpus, model: Backbone, tokenizer: Tokenizer) -> dict[str, Any]:
    """Per source and objective, and for verse and modern text together (by tokens)."""
    objective = objective_of(model, tokenizer, WIDTH)
    heldout = HeldOut(corpus, list(corpus.weights()), tokenizer, objective)
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
    """Which part of each source's held-out lines, and of their characters, is in its training
    documents as well: the split is by document, and documents quote and repeat each other."""
    result = {}
    for name in corpus.weights():
        known = {hash(line) for line in _lines(corpus.split(name, "train"), tokenizer)}
        lines = list(_lines(corpus.split(name, "heldout"), tokenizer))
        if not lines:
            continue
        again = [line for line in lines if hash(line) in known]
        result[name] = {
            "lines": len(again) / len(lines),
            "characters": sum(map(len, again)) / sum(map(len, lines)),
        }
    return result


def _lines(split: CorpusSplit, tokenizer: Tokenizer) -> Iterator[str]:
    for number in range(len(split)):
        text = tokenizer.decode(split.document(number).tolist())
        yield from filter(None, map(str.strip, text.split("\n")))


def quatrain_form(texts: Texts, model: Backbone, tokenizer: Tokenizer) -> dict[str, Any]:
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
    objective = objective_of(model, tokenizer, WIDTH)
    for number, title in enumerate(titles[:100]):
        text = generate(model, tokenizer, objective, title + "\n", length=64, seed=number)[0]
        good += _form(text)
        whole += _form(text) and len(_clauses(text)) == 4
        if number < 5:
            examples.append(f"{title}\n{text}")
    counts = {"samples": len(titles[:100]), "with_form": good, "whole": whole}
    return {**counts, "examples": examples}


def next_line_of_four(texts: Texts, model: Backbone, tokenizer: Tokenizer) -> dict[str, Any]:
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
    items: Sequence[tuple[str, str]], model: Backbone, tokenizer: Tokenizer
) -> NDArray[np.float64]:
    """log p(line and its full stop | text before), by the generation objective: (items,)."""
    objective = objective_of(model, tokenizer, _ROOM)
    losses = TargetLosses(model, objective.losses, bf16=False, compiled=False)
    result = []
    for start in range(0, len(items), 64):
        rows = [
            objective.predicting(tokenizer.encode(before), tokenizer.encode(line + "。"))
            for before, line in items[start : start + 64]
        ]
        built = objective.batch(list(enumerate(rows)))
        nats = losses(built).double().numpy() * (built.token != tokenizer.eos).numpy()
        result.append(-np.bincount(built.source, nats, len(rows)))
    return np.concatenate(result)


def _clauses(text: str) -> list[str]:
    return [clause for clause in re.split(r"[，。！？；,!?;\n]+", text) if clause]


def _form(text: str) -> bool:
    first = _clauses(text)[:4]
    return (
        len(first) == 4
        and len({len(clause) for clause in first}) == 1
        and len(first[0]) in (5, 7)
        and all(re.fullmatch(r"[\u4e00-\u9fff]+", clause) for clause in first)
    )


def begin(out: Path) -> Path:
    """Make the folder of results and return its worth.json, which must be ours if it is there."""
    file = out / "worth.json"
    try:
        out.mkdir(parents=True, exist_ok=True)
        if file.exists() and not isinstance(read_json(file), dict):
            raise ValueError("no object")
    except OSError as error:
        raise UserError(f"--out {out}: cannot be written ({error.strerror}).") from error
    except ValueError as error:
        raise UserError(f"{file}: not a file of this script ({error}); move it away.") from error
    return file


def keep(file: Path, key: str, value: Any) -> None:
    """Add one result to worth.json, which another process may have written to as well."""
    known = read_json(file) if file.is_file() else {}
    *path, last = key.split("/")
    place = known
    for part in path:
        place = place.setdefault(part, {})
    place[last] = value
    write_atomically(file, json.dumps(known, ensure_ascii=False, indent=1) + "\n")


def measure(wanted: Collection[str], corpus: Corpus, backbone: BackboneFolder, file: Path) -> None:
    """What needs no tuning: print it and put it into `file`."""
    tokenizer, model = backbone.tokenizer(), backbone.open(torch.float32).eval()
    if "loss" in wanted:
        losses = heldout_losses(corpus, model, tokenizer)
        keep(file, "heldout", losses)
        print(json.dumps(losses, indent=1), flush=True)
    if "seen" in wanted:
        seen = seen_before(corpus, tokenizer)
        keep(file, "heldout lines in training", seen)
        print(json.dumps(seen, indent=1), flush=True)
    asked = {"four": next_line_of_four, "form": quatrain_form}
    if not asked.keys() & {*wanted}:
        return
    texts = heldout_texts(corpus, tokenizer)
    control = backbone.open(torch.float32, random_seed=1).eval()
    for name, question in asked.items():
        if name in wanted:
            both = {"pretrained": model, "random": control}
            answers = {key: question(texts, each, tokenizer) for key, each in both.items()}
            keep(file, name, answers)
            print(json.dumps({name: answers}, ensure_ascii=False, indent=1), flush=True)


def make_jobs(
    wanted: Sequence[str], corpus: Corpus | None, backbone: BackboneFolder, args: argparse.Namespace
) -> dict[str, Job]:
    """Write the data of the LoRA runs that are wanted; how each is run, by name."""
    jobs = {}
    texts: Texts = {}
    for name in wanted:
        if name == "lcqmc":
            jobs[name] = Job("lcqmc")
        elif name == REAL:
            write_lcqmc(args.lcqmc, args.out / name)
            overlap = overlap_baseline(args.out / name)
            keep(args.out / "worth.json", f"{name}-overlap", overlap)
            print(f"{name}: by the overlap of characters alone", json.dumps(overlap), flush=True)
            jobs[name] = Job("lcqmc", ("--data", str(args.out / name)), LONG, DROPPING)
        elif corpus is not None:
            texts = texts or heldout_texts(corpus, backbone.tokenizer())
            write_probe(_PROBES[name], texts, args.out)
            places = ("--include", str(args.out / "tasks"), "--data", str(args.out / name))
            jobs[name] = Job(name, places)
    return jobs


def main() -> None:
    """Run what is asked for; print it and write worth.json."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--backbone", metavar="NAME|DIR", required=True)
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
        choices=[*MEASURES, *_PROBES, "lcqmc", REAL],
        help="of loss, seen (any corpus); four, form, next-line, en-zh, segmentation (the corpus "
        "of scripts/corpus.py); lcqmc, lcqmc-real. Default: all",
    )
    parser.add_argument("--precision", choices=["fp32", "bf16"], default="fp32", help="of LoRA")
    parser.add_argument("--threads", metavar="N", type=int, default=0, help="of LoRA (0: all)")
    args = parser.parse_args()
    every = [*MEASURES, "lcqmc", *_PROBES, *([REAL] if args.lcqmc else [])]
    wanted = args.only or every
    if REAL in wanted and not args.lcqmc:
        parser.error(f"--only {REAL} needs --lcqmc FILE")
    from_corpus = [name for name in wanted if name not in ("lcqmc", REAL)]
    if from_corpus and not args.corpus:
        parser.error(f"{from_corpus[0]} is made from the corpus: give --corpus")
    file = begin(args.out)
    backbone = open_folder(resolve(args.backbone))
    corpus = Corpus.open(args.corpus) if from_corpus else None
    if corpus:
        if (vocabulary := corpus.kind.vocabulary_of(backbone)) is None:
            raise UserError(f"{corpus.path}: prepared for {corpus.kind.title}, not this backbone.")
        corpus.check_vocabulary(vocabulary)
        if not any(entry["heldout"]["documents"] for entry in corpus.about["sources"].values()):
            raise UserError(f"{corpus.path}: no document is held out, there is nothing to measure.")
        measure(wanted, corpus, backbone, file)
    tuned = [name for name in wanted if name not in MEASURES]
    jobs = make_jobs(tuned, corpus, backbone, args)
    common = ["--precision", args.precision, "--set", f"run.threads={args.threads}"]
    for seed in args.seeds:
        for name, job in jobs.items():
            run_job(name, job, args.out, backbone.path, seed, common)
            results = summary(args.out / "results" / name, args.seeds)
            keep(file, f"probes/{name}", results)
            print(name, json.dumps(results), flush=True)


if __name__ == "__main__":
    try:
        main()
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
