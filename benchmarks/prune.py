"""What pruning costs and a LoRA recovers: by importance, at random, and after some tuning.

    python benchmarks/prune.py --text texts.jsonl --keep 3,3 2,2

For each size (attention and feed-forward sub-layers that remain) prints the loss on text that was
neither measured nor tuned on: of the whole backbone, pruned by importance, pruned at random
(several seeds), and both with a LoRA on all linear layers, tuned on the measured half by the
pre-training objective.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from cpm_tune.backbone.ant.checkpoint import load_weights
from cpm_tune.backbone.ant.folder import open_folder
from cpm_tune.backbone.ant.model import CPMAnt
from cpm_tune.backbone.ant.objective import target_nats
from cpm_tune.backbone.bundled import resolve
from cpm_tune.backbone.pretraining import TrainingBatch
from cpm_tune.delta.config import LoraConfig
from cpm_tune.delta.insert import insert
from cpm_tune.pretrain import prune
from cpm_tune.pretrain.losses import TargetLosses
from cpm_tune.schema.options import BUNDLED

LORA = LoraConfig(
    modified_modules=("project_q", "project_k", "project_v", "attention_out", "w_0", "w_1", "w_out")
)


def recovered(model: CPMAnt, sample: prune.Sample, steps: int, lr: float, seed: int) -> float:
    """The reported loss after so many steps of a LoRA, which is then removed."""
    delta = insert(model, LORA, "0" * 64, seed)
    optimizer = torch.optim.AdamW(delta.parameters.values(), lr=lr, weight_decay=0.0)
    losses = TargetLosses(model, target_nats, bf16=False, compiled=False)
    order = np.random.default_rng(seed).integers(len(sample.measure), size=steps)
    for step, number in enumerate(order):
        for group in optimizer.param_groups:
            group["lr"] = lr * (1 - step / steps)
        optimizer.zero_grad()
        losses(sample.measure[number]).mean().backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    loss = prune.mean_loss(model, sample.report)
    delta.remove()
    return loss


def row(name: str, model: CPMAnt, report: Sequence[TrainingBatch], *more: float) -> str:
    """A line of the table."""
    return f"{name:24} {prune.mean_loss(model, report):8.4f}" + "".join(f" {x:12.4f}" for x in more)


def main() -> None:
    """Measure every size."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--text", metavar="FILE", type=Path, required=True)
    parser.add_argument("--backbone", metavar="NAME|DIR", default=BUNDLED)
    parser.add_argument("--keep", metavar="N,M", nargs="+", default=["3,3", "2,2"])
    parser.add_argument("--pieces", metavar="N", type=int, default=2048)
    parser.add_argument("--steps", metavar="N", type=int, default=200)
    parser.add_argument("--lr", metavar="X", type=float, default=3e-3)
    parser.add_argument("--random", metavar="N", type=int, default=5, help="random choices")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    folder = open_folder(resolve(args.backbone))
    model = load_weights(folder, torch.float32).eval()
    sample = prune.read_sample(args.text, folder.tokenizer(), folder.config, args.pieces, args.seed)
    few = prune.Sample(sample.measure[:: max(1, len(sample.measure) // 8)], sample.report)
    scores = prune.importance(model, few.measure)

    def tuned() -> float:
        return recovered(model, sample, args.steps, args.lr, args.seed)

    print(f"{'nats per masked token':24} {'as it is':>8} {'with a LoRA':>12}")
    print(row("whole", model, sample.report, tuned()), flush=True)
    for said in args.keep:
        keep = dict(zip(prune.KINDS, map(int, said.split(",")), strict=True))
        with prune.skipped(model, prune.least(scores, keep)):
            print(row(f"{said} by importance", model, sample.report, tuned()), flush=True)
        found, after = [], 0.0
        for number in range(args.random):
            with prune.skipped(model, prune.at_random(folder.config, keep, args.seed + number)):
                found.append(prune.mean_loss(model, sample.report))
                after = after if number else tuned()
        print(f"{said + ' at random, first':24} {found[0]:8.4f} {after:12.4f}")
        mean, spread = statistics.mean(found), f"{min(found):.4f} to {max(found):.4f}"
        print(
            f"{said + ' at random, mean':24} {mean:8.4f}   (of {args.random}: {spread})", flush=True
        )


if __name__ == "__main__":
    main()
