"""Training speed, memory and matrix-product utilisation beside transformers + PEFT and a plain loop.

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

import torch
from peers import CONFIG, DTYPES, ours_training, plain_training, texts, transformers_training
from timing import Contestant, Timed, in_turns, report


def step_flops(rows: list[list[int]]) -> float:
    """Multiplications and additions of the frozen matrices that a step cannot do without.

    Forward and the gradient of every input, twice a weight each; the first layer has no gradient of
    its input; behind the last layer's keys and values only target positions count; attention
    within each text; head at the targets.
    """
    d, ff, inner = CONFIG.dim_model, CONFIG.dim_ff, CONFIG.num_heads * CONFIG.dim_head
    lengths = [len(text) + CONFIG.prompt_length for text in rows]
    tokens, targets = sum(lengths), len(rows)
    layer = 2 * (4 * d * inner + 3 * d * ff)
    keys, rest = 2 * 2 * d * inner, 2 * (2 * d * inner + 3 * d * ff)
    attention = sum(4 * inner * n * n for n in lengths)
    forward = (CONFIG.num_layers - 1) * (layer * tokens + attention)
    forward += keys * tokens + rest * targets + 2 * d * CONFIG.vocab_size * targets
    return 2 * forward - 2 * 3 * d * inner * tokens + (CONFIG.num_layers - 1) * attention / 2


def gemm_rate(dtype: str, threads: int, tokens: int) -> float:
    """FLOP/s of this machine at the product of a feed-forward layer, the best of several."""
    torch.set_num_threads(threads)
    x = torch.randn(tokens, CONFIG.dim_model).to(DTYPES[dtype])
    weight = torch.randn(CONFIG.dim_ff, CONFIG.dim_model).to(DTYPES[dtype])
    best = float("inf")
    for _ in range(30):
        start = time.perf_counter()
        torch.nn.functional.linear(x, weight)
        best = min(best, time.perf_counter() - start)
    return 2 * tokens * CONFIG.dim_model * CONFIG.dim_ff / best


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
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
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
    ways = {}
    peers = {"transformers + PEFT": transformers_training, "plain": plain_training}
    for dtype in asked.dtypes:
        ways[f"ours, {dtype}"] = (ours_training, {**settings, "dtype": dtype})
    for name, prepare in ({} if asked.only_ours else peers).items():
        for dtype in asked.dtypes:
            ways[f"{name}, {dtype}"] = (prepare, {**settings, "dtype": dtype})
    timed = in_turns(ways, asked.rounds)
    rows = texts(asked.kind, asked.batch)
    tokens = sum(map(len, rows)) + CONFIG.prompt_length * len(rows)
    print(f"{asked.kind}: {asked.batch} samples, {tokens:,} tokens a step, {asked.threads} threads")
    for dtype in asked.dtypes:
        ours = f"ours, {dtype}"
        others: dict[str, Timed] = {k: v for k, v in timed.items() if not k.startswith("ours")}
        report({ours: timed[ours], **others}, asked.batch)
        rate = gemm_rate(dtype, asked.threads, tokens)
        used = step_flops(rows) / statistics.median(timed[ours].wall) / rate
        print(
            f"{dtype}: {step_flops(rows) / 1e9:.0f} GFLOP a step, {rate / 1e9:.0f} GFLOP/s in "
            f"matrix products: utilisation {used:.0%}"
        )


if __name__ == "__main__":
    main()
