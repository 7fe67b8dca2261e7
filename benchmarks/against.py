"""A benchmark's own side in this checkout against the same in another one, in alternating pairs.

    python benchmarks/against.py OTHER training --pairs 9
    python benchmarks/against.py OTHER training options generation --dtypes fp32 bf16

OTHER is another checkout of this project, such as a worktree of an older commit; it runs with this
Python, but with its own package and its own benchmarks/. No peer is run, so PEFT is not needed.
Both have the same weights, ids and threads in one process each, and take turns; which of the two
begins changes with every pair. A round repeats the benchmark's work until it takes about --seconds,
the same number of times on both sides.

Printed are the ratio of every pair (the other's seconds by ours: above 1, this checkout is faster),
their median and spread, by wall clock and by CPU time, and how far the first round's numbers are
apart. Run it on an idle machine: stop other work, let a laptop neither sleep nor run hot, and trust
a median only if it is well outside of the spread. If others compute too, look at the CPU time.
"""

from __future__ import annotations

import argparse
import importlib
import os
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

from timing import ROOT, Contestant, Work, apart, spread

SIDES: dict[str, tuple[str, str, dict[str, Any]]] = {  # module, contestant, its settings
    "training": ("peers", "ours_training", {"kind": "lcqmc", "batch": 32}),
    "options": ("options", "ours", {"n": 8}),
    "generation": ("generation", "ours", {"batch": 16, "length": 73, "new": 31, "beams": 3}),
}


def side(checkout: str, module: str, contestant: str, settings: dict[str, Any]) -> Work:
    """Prepare a contestant of a checkout, in a process that has imported neither's package yet."""
    sys.path[:0] = [checkout, str(Path(checkout) / "benchmarks")]
    sys.modules.pop("timing", None)
    package = importlib.import_module("cpm_tune")
    if not Path(str(package.__file__)).is_relative_to(checkout):
        raise SystemExit(f"{checkout}: the package comes from {package.__file__} instead")
    work: Work = getattr(importlib.import_module(module), contestant)(**settings)
    return work


def rounds(contestant: Contestant, times: int) -> tuple[float, float]:
    """Wall and CPU seconds of so many rounds."""
    wall = cpu = 0.0
    for _ in range(times):
        contestant.start()
        taken = contestant.result()
        wall, cpu = wall + taken[0], cpu + taken[1]
    return wall, cpu


def first_round(contestant: Contestant) -> list[float]:
    """Warm up; the numbers that the round returns."""
    contestant.start()
    return contestant.result()[2]


def compare(name: str, other: Path, pairs: int, seconds: float, more: dict[str, Any]) -> None:
    """Measure one benchmark and print its pairs."""
    module, function, settings = SIDES[name]
    chosen = {"module": module, "contestant": function, "settings": {**settings, **more}}
    ours, theirs = (Contestant(side, {"checkout": str(c), **chosen}) for c in (ROOT, other))
    with closing(ours), closing(theirs):
        difference = apart(first_round(ours), first_round(theirs))
        times = max(1, round(seconds / (rounds(ours, 1)[0] + rounds(theirs, 1)[0]) * 2))
        print(
            f"{name}, {more['dtype']}, {more['threads']} threads: {times} per round; numbers of "
            f"the first round apart {difference:.1e}",
            flush=True,
        )
        clocks: tuple[list[float], list[float]] = ([], [])
        for number in range(pairs):
            order = (ours, theirs) if number % 2 == 0 else (theirs, ours)
            taken = {contestant: rounds(contestant, times) for contestant in order}
            for clock, ratios in enumerate(clocks):
                ratios.append(taken[theirs][clock] / max(taken[ours][clock], 1e-9))
            print(
                f"  pair {number + 1}: {taken[ours][0]:6.2f} s here, {taken[theirs][0]:6.2f} s "
                f"there: x{clocks[0][-1]:.3f}  (CPU x{clocks[1][-1]:.3f})",
                flush=True,
            )
    print(f"  wall clock {spread(clocks[0])}\n  CPU time   {spread(clocks[1])}", flush=True)


def main() -> None:
    """Parse the command line, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("other", metavar="OTHER", type=Path, help="another checkout")
    parser.add_argument("benchmarks", metavar="NAME", nargs="+", choices=SIDES)
    parser.add_argument("--pairs", type=int, default=9, help="default: 9")
    parser.add_argument("--seconds", type=float, default=5.0, help="of a round (default: 5)")
    parser.add_argument("--dtypes", nargs="+", choices=("fp32", "bf16"), default=["fp32"])
    parser.add_argument("--threads", type=int, default=2, help="default: 2")
    asked = parser.parse_args()
    other = asked.other.resolve()
    if not (other / "benchmarks/peers.py").is_file():
        parser.error(f"{asked.other}: not a checkout of this project (no benchmarks/peers.py)")
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # as tune.py: idle threads do not spin
    for name in asked.benchmarks:
        for dtype in asked.dtypes:
            more = {"dtype": dtype, "threads": asked.threads}
            compare(name, other, asked.pairs, asked.seconds, more)


if __name__ == "__main__":
    main()
