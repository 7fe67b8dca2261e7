"""What grows with the size of the input, and what does not: rows, a large file, many records.

    python benchmarks/growth.py rows                 # 1,000 to 1,000,000 rows, a minute or two each
    python benchmarks/growth.py file --gigabytes 5   # needs 12 GB of disk
    python benchmarks/growth.py board --records 50000

rows: `tune.py --task lcqmc` on files of more and more rows. Seconds are CPU time, user and system,
of the whole process: the first start reads, checks and stores the rows; the next one has them in
the cache. A sample's time is that of 40 more steps. file: `benchmarks/big_file.py`. board: as
`benchmarks/leaderboard.py records`, in a process of its own. Aims: a sample's time flat, a cached
start independent of the rows, 5 GB under 1.5 GiB, 50,000 records under 10 s.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from timing import ROOT, TUNE, Usage, usage

SIZES = (1_000, 10_000, 100_000, 1_000_000)
BATCH, FEW, MANY = 8, 2, 42  # samples of a step, and steps
CHARACTERS = "天地玄黄宇宙洪荒日月盈昃辰宿列张寒来暑往秋收冬藏"
BASE = len(CHARACTERS)


def write(folder: Path, n: int) -> None:
    """Rows in LCQMC's form, no two alike: `n` of train, 64 of dev and test."""
    for split, count in (("train", n), ("dev", 64), ("test", 64)):
        with (folder / f"{split}.jsonl").open("w", encoding="utf-8") as file:
            for number in range(count):
                digits = [CHARACTERS[(number // BASE**k) % BASE] for k in range(5)]
                first, second = "".join(digits) * 2, "".join(reversed(digits)) * 2
                label = number % 2
                file.write(
                    f'{{"sentence1": "{first}", "sentence2": "{second}", "label": {label}}}\n'
                )


def tune(folder: Path, steps: int) -> Usage:
    """A run of so many steps, with the cache in the folder."""
    with tempfile.TemporaryDirectory(dir=folder) as out:
        words = [TUNE, "--task", "lcqmc", "--delta", "lora", "--data", str(folder), "--out", out]
        words += ["--control", "none", "--set", f"train.max_steps={steps}"]
        words += ["--set", f"train.batch_size={BATCH}", "--set", f"train.eval_every={steps}"]
        environment = {**os.environ, "XDG_CACHE_HOME": str(folder / "cache")}
        return usage([*words, "--set", "run.threads=1"], env=environment, stderr=subprocess.DEVNULL)


def rows(sizes: list[int]) -> None:
    """Print a line of a table for each number of rows."""
    print("| rows | first start s | cached start s | ms per sample | peak MiB |")
    print("|---|---|---|---|---|")
    for n in sizes:
        with tempfile.TemporaryDirectory() as scratch:
            folder = Path(scratch)
            write(folder, n)
            first, cached, longer = tune(folder, FEW), tune(folder, FEW), tune(folder, MANY)
            sample = (longer.cpu - cached.cpu) / (BATCH * (MANY - FEW))
            print(
                f"| {n:,} | {first.cpu:.1f} | {cached.cpu:.1f} | {1000 * sample:.1f} | "
                f"{longer.peak / 2**20:.0f} |",
                flush=True,
            )


def board(records: int) -> None:
    """Read and aggregate made-up records; print CPU seconds."""
    words = [
        str(ROOT / "benchmarks" / "leaderboard.py"),
        "records",
        "--rows",
        str(records // 21 + 1),
    ]
    subprocess.run([sys.executable, *words], check=True)


def main() -> None:
    """Parse the command line and measure."""
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("what", choices=("rows", "file", "board"))
    parser.add_argument("--sizes", type=int, nargs="+", default=list(SIZES))
    parser.add_argument("--gigabytes", type=float, default=5.0)
    parser.add_argument("--records", type=int, default=50_000)
    asked = parser.parse_args()
    if asked.what == "rows":
        rows(asked.sizes)
    elif asked.what == "file":
        words = [str(ROOT / "benchmarks" / "big_file.py"), "--gb", str(asked.gigabytes)]
        subprocess.run([sys.executable, *words], check=True)
    else:
        board(asked.records)


if __name__ == "__main__":
    main()
