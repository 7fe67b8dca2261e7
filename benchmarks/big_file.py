"""How long a large training file takes until the first training step, and how much memory.

Makes LCSTS-form files in a temporary folder (same seed, same bytes; it needs about twice the size
on disk) and runs `tune.py --task lcsts --delta lora --set train.max_steps=1` on them with an empty
cache, in a separate process. With --read-only only `read_split` is run.

    python benchmarks/big_file.py --gb 2
    python benchmarks/big_file.py --gb 0.3 --read-only
"""

from __future__ import annotations

import argparse
import json
import os
import random
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from timing import ROOT

SEED = 7
BLOCK = 5_000  # rows written at a time
READ = """
import sys, time
from pathlib import Path
from cpm_tune.data.splits import find_splits
from cpm_tune.data.store import read_split
from cpm_tune.task.registry import load_task
task = load_task("lcsts")
started = time.perf_counter()
split = read_split(task, find_splits(task, Path(sys.argv[1]), ("train",))["train"])
print(len(split), time.perf_counter() - started)
"""


def make(folder: Path, gigabytes: float) -> None:
    """Write train.jsonl of about that size, and dev and test of 100 rows each."""
    drawn = random.Random(SEED)
    sample = ROOT / "tasks" / "sample" / "lcsts" / "train.jsonl"
    rows = map(json.loads, sample.read_text(encoding="utf-8").splitlines())
    text = "".join(row["text"] + row["summary"] for row in rows)

    def lines(n: int) -> bytes:
        starts = [drawn.randrange(len(text) - 200) for _ in range(n)]
        made = (
            f'{{"text": "{text[i : i + 60 + i % 80]}", "summary": "{text[i + 140 : i + 158]}"}}\n'
            for i in starts
        )
        return "".join(made).encode()

    for split in ("dev", "test"):
        (folder / f"{split}.jsonl").write_bytes(lines(100))
    with (folder / "train.jsonl").open("wb") as file:
        while file.tell() < gigabytes * 1e9:
            file.write(lines(BLOCK))


def tune(folder: Path, environment: dict[str, str]) -> None:
    """Run one training step; print the seconds until its line in the log, and the peak memory."""
    out = folder / "results"
    command = [sys.executable, "tune.py", "--task", "lcsts", "--delta", "lora"]
    command += ["--data", str(folder), "--out", str(out)]
    command += ["--set", "train.max_steps=1", "--set", "train.batch_size=8"]
    started = time.perf_counter()
    process = subprocess.Popen(command, cwd=ROOT, env=environment)
    first = None
    while process.poll() is None:
        if first is None and any(log.stat().st_size for log in out.glob("*/log.jsonl")):
            first = time.perf_counter() - started
        time.sleep(0.1)
    if process.returncode or first is None:
        raise SystemExit(f"tune.py ended with code {process.returncode}; see above")
    whole = time.perf_counter() - started
    print(f"first training step after {first:.1f} s; the run took {whole:.1f} s")


def read(folder: Path, environment: dict[str, str]) -> None:
    """Run `read_split`; print its speed."""
    command = [sys.executable, "-c", READ, str(folder)]
    said = subprocess.run(command, cwd=ROOT, env=environment, check=True, stdout=subprocess.PIPE)
    n, seconds = said.stdout.split()
    size = (folder / "train.jsonl").stat().st_size / 1e6
    print(
        f"read_split: {int(n):,} rows in {float(seconds):.1f} s, "
        f"{int(n) / float(seconds):,.0f} rows/s, {size / float(seconds):.1f} MB/s"
    )


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description="Time and memory of a large training file.")
    parser.add_argument("--gb", type=float, default=2.0, help="size of the training file")
    parser.add_argument("--read-only", action="store_true", help="only read it")
    parser.add_argument("--dir", type=Path, help="where the temporary folder is made")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=args.dir) as scratch:
        folder = Path(scratch)
        started = time.perf_counter()
        make(folder, args.gb)
        size = (folder / "train.jsonl").stat().st_size / 1e9
        print(f"made {size:.2f} GB in {time.perf_counter() - started:.1f} s", flush=True)
        environment = {**os.environ, "XDG_CACHE_HOME": str(folder / "cache")}
        (read if args.read_only else tune)(folder, environment)
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss  # kilobytes on Linux
    print(f"peak memory of the process: {peak / 1e6:.2f} GB")


if __name__ == "__main__":
    main()
