"""What a delta adds to forward and backward: ratios to the bare frozen backbone, in one process.

Run by hand, on a quiet machine: `python benchmarks/delta_overhead.py [--deltas lora adapter ...]`.
The bare backbone (d 512, 6 layers, fp32, one thread) computes the same loss at the same positions
and the gradient of its input embeddings' output, as any delta in the first layer makes it do;
weights are frozen in both. They take turns; medians and quartiles of the ratios of neighbours are
printed, by wall clock and by this process' CPU time (less noisy where others compute too).
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Sequence
from functools import partial

import torch
from peers import CONFIG
from timing import spread, timed
from torch import Tensor

from cpm_tune.backbone.ant.model import CPMAnt
from cpm_tune.backbone.opening import random_backbone
from cpm_tune.delta.config import SoftPromptConfig, parse_config
from cpm_tune.delta.insert import insert
from cpm_tune.task.registry import load_preset

SHA = "0" * 64


def step(model: CPMAnt, ids: Tensor, segment: Tensor) -> None:
    """Loss at the last position of every row, and its gradients."""
    embedded = model.embed(ids, segment).requires_grad_(True)
    bias = model.position_bias(segment)
    hidden = model.encoder(embedded, bias)
    loss = model.logits(hidden[:, -1]).float().logsumexp(-1).mean()
    torch.autograd.backward(loss)
    for parameter in model.parameters():
        parameter.grad = None


def main(argv: Sequence[str] | None = None) -> None:
    """Measure and print."""
    p = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    p.add_argument("--deltas", metavar="NAME", nargs="+", default=["lora"])
    p.add_argument("--rows", type=int, default=8, help="packed rows a step (default: 8)")
    p.add_argument("--width", type=int, default=256, help="tokens a row (default: 256)")
    p.add_argument("--rounds", type=int, default=15)
    args = p.parse_args(argv)
    torch.set_num_threads(1)
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(CONFIG.vocab_size, (args.rows, args.width), generator=generator)
    segment = torch.full_like(ids, 2)
    bare = random_backbone(CONFIG, 1, torch.float32).requires_grad_(False).train()
    for name in args.deltas:
        config = parse_config(load_preset(name), name)
        if isinstance(config, SoftPromptConfig):
            raise SystemExit("a soft prompt lengthens the input: there are no same positions.")
        tuned = random_backbone(CONFIG, 1, torch.float32).train()
        insert(tuned, config, SHA, seed=1)
        times: list[tuple[tuple[float, ...], tuple[float, ...]]] = []
        for _ in range(args.rounds + 1):  # the first is for warming up
            without = timed(partial(step, bare, ids, segment))[:2]
            times.append((without, timed(partial(step, tuned, ids, segment))[:2]))
        for clock, label in enumerate(("wall", "CPU")):
            ratios = [with_it[clock] / without[clock] for without, with_it in times[1:]]
            base = statistics.median(without[clock] for without, _ in times[1:])
            print(
                f"{name:18} {label:5} {spread(ratios)}; bare {base:.3f} s for "
                f"{args.rows * args.width:,} positions",
                flush=True,
            )


if __name__ == "__main__":
    main()
