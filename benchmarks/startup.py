"""Seconds until something happens: --help, list tasks, the demo's first step, encoded pairs.

Run by hand, on a quiet machine: `python benchmarks/startup.py [--pairs lcqmc.jsonl]`. Medians of
wall clock and CPU time, of processes of their own. The pairs (lines {"sentence1", "sentence2"}, by
default the sample's; repeated if there are fewer) are encoded as training does it.
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
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
TUNE = [sys.executable, str(ROOT / "tune.py")]


def command(arguments: Sequence[str], rounds: int) -> None:
    """Print how long a command takes."""
    wall, cpu = [], []
    for _ in range(rounds):
        before, start = os.times(), time.perf_counter()
        subprocess.run([*TUNE, *arguments], check=True, stdout=subprocess.DEVNULL)
        wall.append(time.perf_counter() - start)
        after = os.times()
        cpu.append(sum(after[2:4]) - sum(before[2:4]))
    said = " ".join(arguments)
    print(f"{said:24} {statistics.median(wall):.2f} s, CPU {statistics.median(cpu):.2f} s")


def first_step(rounds: int) -> None:
    """Print when the demo's first optimiser step is done, counted from the command's start."""
    taken = []
    for _ in range(rounds):
        with tempfile.TemporaryDirectory() as out:
            start = time.time()
            running = subprocess.Popen(
                [*TUNE, "--task", "lcqmc", "--delta", "lora", "--out", out],
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
    """Print how long the encoding of n pairs takes, in a process whose caches are empty."""
    code = f"""
import json
import time
from itertools import cycle, islice
from pathlib import Path
from cpm_tune.backbone.checkpoint import open_folder
from cpm_tune.backbone.embedded import FOLDER
from cpm_tune.data.encode import Encoder
from cpm_tune.registry import load_task
from cpm_tune.spec import Encoding
task, folder = load_task("lcqmc"), open_folder(FOLDER)
tokenizer = folder.tokenizer()
encoder = Encoder(task, task.templates[0], Encoding(), folder.config, tokenizer)
lines = [json.loads(line) for line in Path({str(pairs)!r}).read_text().splitlines()]
rows = [{{"id": k, "sentence1": line["sentence1"], "sentence2": line["sentence2"], "target": 0}}
        for k, line in enumerate(islice(cycle(lines), {n}))]
start = time.perf_counter(), time.process_time()
made = sum(1 for row in rows if encoder.encode(row, train=True))
wall, cpu = time.perf_counter() - start[0], time.process_time() - start[1]
print(f"encoding {{made:,}} pairs of {{len(lines):,}} different: {{wall:.1f}} s, CPU {{cpu:.1f}} s")
"""
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)


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
