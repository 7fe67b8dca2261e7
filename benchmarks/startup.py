"""Seconds until something happens: --help, list tasks, the demo's first step, encoded pairs.

Run by hand, on a quiet machine: `python benchmarks/startup.py [--pairs lcqmc.jsonl]`. Medians of
wall clock and CPU time, of separate processes. The pairs (lines {"sentence1", "sentence2"}, by
default the sample's; repeated if there are fewer) are encoded as training does it, twice.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from itertools import cycle, islice
from pathlib import Path

from timing import ROOT, TUNE, usage


def command(arguments: Sequence[str], rounds: int) -> None:
    """Print how long a command takes."""
    uses = [usage([TUNE, *arguments]) for _ in range(rounds)]
    _, wall, cpu = map(statistics.median, zip(*uses, strict=True))
    print(f"{' '.join(arguments):24} {wall:.2f} s, CPU {cpu:.2f} s")


def first_step(rounds: int) -> None:
    """Print when the demo's first optimiser step is done, counted from the command's start."""
    taken = []
    for _ in range(rounds):
        with tempfile.TemporaryDirectory() as out:
            start = time.time()
            running = subprocess.Popen(
                [sys.executable, TUNE, "--task", "lcqmc", "--delta", "lora", "--out", out],
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
            line = ""
            while running.poll() is None and not line.endswith("\n"):
                time.sleep(0.02)
                for log in Path(out).glob("*/log.jsonl"):
                    line = log.read_text().partition("\n")[0] + "\n" * bool(log.stat().st_size)
            taken.append(json.loads(line)["time"] - start)
            running.terminate()
            running.wait()
    print(f"{'first step of the demo':24} {statistics.median(taken):.2f} s")


def encoding(pairs: Path, n: int) -> None:
    """Print how long the encoding of n pairs takes, in steps of 32 in the order of training: in a
    process whose caches are empty, and in another one after it."""
    lines = [json.loads(line) for line in pairs.read_text(encoding="utf-8").splitlines()]
    with tempfile.TemporaryDirectory() as scratch:
        with (Path(scratch) / "train.jsonl").open("w", encoding="utf-8") as file:
            for k, line in enumerate(islice(cycle(lines), n)):
                row = {name: line[name] for name in ("sentence1", "sentence2")}
                file.write(json.dumps({**row, "label": k % 2}, ensure_ascii=False) + "\n")
        code = f"""
import time
from pathlib import Path
import numpy as np
from cpm_tune.backbone.ant.folder import open_folder
from cpm_tune.backbone.bundled import FOLDER
from cpm_tune.data.encode import Encoder
from cpm_tune.data.encoded import encoded_at
from cpm_tune.data.splits import find_splits
from cpm_tune.data.store import read_split
from cpm_tune.task.registry import load_task
from cpm_tune.schema.spec import Encoding
task, folder = load_task("lcqmc"), open_folder(FOLDER)
start = time.perf_counter()
rows = read_split(task, find_splits(task, Path({scratch!r}), ("train",))["train"]).rows
print(f"reading {{len(rows):,}} rows of {len(lines):,} different: "
      f"{{time.perf_counter() - start:.1f}} s")
tokenizer, encoding = folder.tokenizer(), Encoding()
layout = folder.layout(encoding, tokenizer)
encoder = Encoder(task, task.templates[0], layout, tokenizer, encoding.max_length)
order = np.random.default_rng(1).permutation(len(rows)).tolist()
start = time.perf_counter(), time.process_time()
for k in range(0, len(order), 32):
    encoded_at(rows, order[k : k + 32], encoder, "train")
wall, cpu = time.perf_counter() - start[0], time.process_time() - start[1]
print(f"encoding them: {{wall:.2f}} s, CPU {{cpu:.2f}} s")
"""
        environment = {**os.environ, "XDG_CACHE_HOME": scratch}
        for state in ("the first time", "from the cache"):
            print(state, flush=True)
            subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT, env=environment)
        size = sum(f.stat().st_size for f in Path(scratch).glob("cpm-tune/encoded/*"))
        print(f"the cache file: {size / 2**20:.0f} MiB")


def main() -> None:
    """Parse the command line, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--pairs", type=Path, default=ROOT / "tasks/sample/lcqmc/train.jsonl")
    parser.add_argument("--n", type=int, default=100_000)
    parser.add_argument("--rounds", type=int, default=5)
    asked = parser.parse_args()
    command(["--help"], asked.rounds)
    command(["list", "tasks"], asked.rounds)
    first_step(3)
    encoding(asked.pairs, asked.n)


if __name__ == "__main__":
    main()
