"""What the benchmarks share: seconds of a call, usage of a command, contestants in turns, ratios.

A contestant is a function at module level that prepares its work and returns it: work() does one
round and returns numbers to compare (losses, scores). Each contestant has a separate process; one
at a time works. Wall clock, CPU time (less noisy if others compute too) and memory are measured.
"""

from __future__ import annotations

import multiprocessing
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).resolve().parent.parent
TUNE = str(ROOT / "tune.py")
Work = Callable[[], Sequence[float]]

# A process is born with the peak of the one that started it, hence a small one between.
_LAUNCHER = """
import resource, subprocess, sys
code = subprocess.call(sys.argv[1:], stdout=subprocess.DEVNULL)
used = resource.getrusage(resource.RUSAGE_CHILDREN)
peak = used.ru_maxrss * (1 if sys.platform == "darwin" else 1024)
print(peak, used.ru_utime + used.ru_stime)
sys.exit(code)
"""


class Usage(NamedTuple):
    """What a command took: peak resident bytes, seconds of wall clock and of CPU."""

    peak: int
    wall: float
    cpu: float


def usage(arguments: Sequence[str], **options: Any) -> Usage:
    """Run Python with these arguments in a separate process; its output is not shown.

    `options` are those of subprocess.run. Raises CalledProcessError if the command fails.
    """
    started = time.perf_counter()
    words = [sys.executable, "-c", _LAUNCHER, sys.executable, *arguments]
    output = subprocess.run(words, stdout=subprocess.PIPE, check=True, **options).stdout
    peak, cpu = output.split()
    return Usage(int(peak), time.perf_counter() - started, float(cpu))


def timed(work: Callable[[], Any]) -> tuple[float, float, Any]:
    """Wall and CPU seconds of one call in this process, and what it returned."""
    wall, cpu = time.perf_counter(), time.process_time()
    value = work()
    return time.perf_counter() - wall, time.process_time() - cpu, value


def spread(ratios: Sequence[float]) -> str:
    """The median of ratios with their quartiles and extremes."""
    low, middle, high = ratios[0], ratios[0], ratios[0]
    if len(ratios) > 1:
        low, middle, high = statistics.quantiles(ratios, n=4, method="inclusive")
    return (
        f"x{middle:.3f}  (quartiles {low:.3f} to {high:.3f}, all {min(ratios):.3f} to "
        f"{max(ratios):.3f})"
    )


@dataclass
class Timed:
    """What a contestant's rounds took, and what the first of them returned.

    `peak` and `base`: bytes of the process at its highest, and before the first round.
    """

    wall: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)
    values: list[float] = field(default_factory=list)
    peak: int = 0
    base: int = 0


def _memory() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def _serve(pipe: Connection, prepare: Callable[..., Work], settings: Mapping[str, Any]) -> None:
    work = prepare(**settings)
    base = _memory()
    while pipe.recv():
        wall, cpu, values = timed(work)
        pipe.send((wall, cpu, list(values), _memory(), base))


class Contestant:
    """A process that waits until it is asked for a round."""

    def __init__(self, prepare: Callable[..., Work], settings: Mapping[str, Any]) -> None:
        context = multiprocessing.get_context("spawn")
        self._pipe, other = context.Pipe()
        self._process = context.Process(target=_serve, args=(other, prepare, settings), daemon=True)
        self._process.start()
        other.close()

    def start(self) -> None:
        """Begin a round."""
        self._pipe.send(True)

    def result(self) -> tuple[float, float, list[float], int, int]:
        """Wait for the round: wall and CPU seconds, values, peak and base memory."""
        return self._pipe.recv()

    def close(self) -> None:
        """End the process."""
        self._pipe.send(False)
        self._process.join()


def in_turns(
    ways: Mapping[str, tuple[Callable[..., Work], Mapping[str, Any]]], rounds: int
) -> dict[str, Timed]:
    """Run every way `rounds` times, in turns, after one round to warm up."""
    results = {name: Timed() for name in ways}
    with ExitStack() as stack:
        racing = {}
        for name, (prepare, settings) in ways.items():
            racing[name] = Contestant(prepare, settings)
            stack.callback(racing[name].close)
        for number in range(rounds + 1):
            for name, contestant in racing.items():
                contestant.start()
                wall, cpu, values, peak, base = contestant.result()
                result = results[name]
                if number == 0:
                    result.values = values
                else:
                    result.wall.append(wall)
                    result.cpu.append(cpu)
                result.peak, result.base = peak, base
    return results


def apart(a: Sequence[float], b: Sequence[float]) -> float:
    """The largest difference of what both have, relative where numbers are above one."""
    return max(abs(x - y) / max(1.0, abs(y)) for x, y in zip(a, b, strict=False))


def report(
    results: Mapping[str, Timed],
    samples: int,
    what: str = "samples",
    of_others: Mapping[str, int] | None = None,
) -> None:
    """Print a line for each; the others are compared with the first.

    `samples` is how many a round has, `of_others` for those that do another number.
    """
    first = next(iter(results))
    ours = results[first]
    for name, result in results.items():
        more = samples / (of_others or {}).get(name, samples)
        result = replace(
            result, wall=[w * more for w in result.wall], cpu=[c * more for c in result.cpu]
        )
        wall, cpu = statistics.median(result.wall), statistics.median(result.cpu)
        line = f"{name:28} {samples / wall:8.2f} {what}/s  CPU {cpu / samples * 1e3:6.0f} ms each"
        line += f"  peak {result.peak / 2**20:6.0f} MiB"
        line += f" (work {(result.peak - result.base) / 2**20:5.0f})"
        if name != first:
            ratios = [w / o for w, o in zip(result.wall, ours.wall, strict=True)]
            by_cpu = [w / o for w, o in zip(result.cpu, ours.cpu, strict=True)]
            line += f"  {first} is x{statistics.median(ratios):.2f}"
            line += f" (CPU x{statistics.median(by_cpu):.2f})"
            if result.values and ours.values:
                line += f"; values apart {apart(result.values, ours.values):.1e}"
        print(line, flush=True)
