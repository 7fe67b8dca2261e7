"""Training: speed, memory and utilisation, next to transformers + PEFT and a plain padded loop.

Run by hand, on a quiet machine: `python benchmarks/training.py [--kind long] [--dtypes fp32 bf16]`.
d 512, 6 layers, ff 1280, vocabulary 30,720, soft prompt 32, LoRA r 8 on q and v. `--kind lcqmc`:
lengths like LCQMC's pairs; `long`: 50 to 1,000 tokens. A round is one optimiser step; the losses of
the first are compared. The FLOPs of a step are counted below and divided by the time of the
machine's own matrix products. `--processes`: two processes of one thread against one of two.
"""

from __future__ import annotations

import argparse
import statistics
import time
from functools import partial
from itertools import islice
from typing import Any

import torch
from peers import CONFIG, DTYPES, batches, ours_training, plain_training, transformers_training
from timing import Contestant, in_turns, report, timed

from cpm_tune.backbone.ant.config import CPMAntConfig
from cpm_tune.backbone.fused import linear


def step_flops(rows: list[list[int]], config: CPMAntConfig = CONFIG) -> float:
    """Multiplications and additions of the frozen matrices that a step cannot do without.

    Forward and the gradient of every input, twice a weight each; the first layer has no gradient of
    its input; after the last layer's keys and values only target positions count; attention
    within each text; head at the targets.
    """
    d, ff, inner = config.dim_model, config.dim_ff, config.num_heads * config.dim_head
    lengths = [len(text) + config.prompt_length for text in rows]
    tokens, targets = sum(lengths), len(rows)
    layer = 2 * (4 * d * inner + 3 * d * ff)
    keys, rest = 2 * 2 * d * inner, 2 * (2 * d * inner + 3 * d * ff)
    attention = sum(4 * inner * n * n for n in lengths)
    forward = (config.num_layers - 1) * (layer * tokens + attention)
    forward += keys * tokens + rest * targets + 2 * d * config.vocab_size * targets
    return 2 * forward - 2 * 3 * d * inner * tokens + (config.num_layers - 1) * attention / 2


def gemm_rate(dtype: str, threads: int, tokens: int) -> tuple[float, float]:
    """FLOP a second, and a CPU second, at a feed-forward layer's product: the best of several."""
    torch.set_num_threads(threads)
    x = torch.randn(tokens, CONFIG.dim_model).to(DTYPES[dtype])
    weight = torch.randn(CONFIG.dim_ff, CONFIG.dim_model).to(DTYPES[dtype])
    flops = 2 * tokens * CONFIG.dim_model * CONFIG.dim_ff
    rates = []
    with torch.no_grad():
        for _ in range(30):
            wall, cpu, _ = timed(partial(linear, x, weight))
            rates.append((flops / max(wall, 1e-9), flops / max(cpu, 1e-9)))
    # The CPU clock ticks coarsely: its median, not its best.
    return max(w for w, _ in rates), statistics.median(c for _, c in rates)


def scaling(batch: int, dtype: str, rounds: int) -> None:
    """Throughput of two processes of one thread, each with half the batch, and one of two."""
    one = {"kind": "lcqmc", "batch": batch, "dtype": dtype}
    whole = Contestant(ours_training, {**one, "threads": 2})
    halves = [Contestant(ours_training, {**one, "threads": 1, "share": 2}) for _ in range(2)]
    ratios = []
    for number in range(rounds + 1):
        whole.start()
        alone = whole.result()[0]
        start = time.perf_counter()
        for half in halves:
            half.start()
        for half in halves:
            half.result()
        if number:
            ratios.append(alone / (time.perf_counter() - start))
    for contestant in (whole, *halves):
        contestant.close()
    print(f"{dtype}: two processes of one thread: x{statistics.median(ratios):.2f} of one of two")


def main() -> None:
    """Parse the command line, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--kind", choices=("lcqmc", "long"), default="lcqmc")
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--dtypes", nargs="+", choices=tuple(DTYPES), default=["fp32", "bf16"])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--only-ours", action="store_true")
    parser.add_argument("--processes", action="store_true")
    asked = parser.parse_args()
    if asked.processes:
        for dtype in asked.dtypes:
            scaling(asked.batch, dtype, asked.rounds)
        return
    settings = {"kind": asked.kind, "batch": asked.batch, "threads": asked.threads}
    ways: dict[str, Any] = {}
    peers = {"transformers + PEFT": transformers_training, "plain": plain_training}
    for dtype in asked.dtypes:
        ways[f"ours, {dtype}"] = (ours_training, {**settings, "dtype": dtype})
    for name, prepare in ({} if asked.only_ours else peers).items():
        for dtype in asked.dtypes:
            ways[f"{name}, {dtype}"] = (prepare, {**settings, "dtype": dtype})
    results = in_turns(ways, asked.rounds)
    steps = list(islice(batches(asked.kind, asked.batch), 1, asked.rounds + 1))
    tokens = sum(len(text) + CONFIG.prompt_length for rows in steps for text in rows) // len(steps)
    print(f"{asked.kind}: {asked.batch} samples, {tokens:,} tokens a step, {asked.threads} threads")
    for dtype in asked.dtypes:
        ours = results[f"ours, {dtype}"]
        others = {name: result for name, result in results.items() if not name.startswith("ours")}
        report({f"ours, {dtype}": ours, **others}, asked.batch)
        flops = sum(map(step_flops, steps))
        wall, cpu = gemm_rate(dtype, asked.threads, tokens)
        print(
            f"{dtype}: {flops / len(steps) / 1e9:.0f} GFLOP a step; matrix products do "
            f"{wall / 1e9:.0f} GFLOP/s ({cpu / 1e9:.0f} a CPU second); utilisation "
            f"{flops / sum(ours.wall) / wall:.0%} ({flops / sum(ours.cpu) / cpu:.0%} by CPU time)"
        )


if __name__ == "__main__":
    main()
