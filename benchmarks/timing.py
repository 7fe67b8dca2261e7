"""Times contestants in turns, each in a separate process, and prints medians and ratios.

A contestant is a function at module level that prepares its work and returns it: work() does one
round and returns numbers to compare (losses, scores). One process at a time works; its wall-clock,
its CPU time (less noisy where others compute too) and its memory are taken.
"""

from __future__ import annotations

import multiprocessing
import resource
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from multiprocessing.connection import Connection
from typing import Any

Work = Callable[[], Sequence[float]]


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
        wall, cpu = time.perf_counter(), time.process_time()
        values = list(work())
        taken = time.perf_counter() - wall, time.process_time() - cpu
        pipe.send((*taken, values, _memory(), base))


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
    timed = {name: Timed() for name in ways}
    with ExitStack() as stack:
        racing = {}
        for name, (prepare, settings) in ways.items():
            racing[name] = Contestant(prepare, settings)
            stack.callback(racing[name].close)
        for number in range(rounds + 1):
            for name, contestant in racing.items():
                contestant.start()
                wall, cpu, values, peak, base = contestant.result()
                own = timed[name]
                if number == 0:
                    own.values = values
                else:
                    own.wall.append(wall)
                    own.cpu.append(cpu)
                own.peak, own.base = peak, base
    return timed


def apart(a: Sequence[float], b: Sequence[float]) -> float:
    """The largest difference of what both have, relative where numbers are above one."""
    return max(abs(x - y) / max(1.0, abs(y)) for x, y in zip(a, b, strict=False))


def report(
    timed: Mapping[str, Timed],
    samples: int,
    what: str = "samples",
    of_others: Mapping[str, int] | None = None,
) -> None:
    """Print a line for each; the first is the one that the others are compared with.

    `samples` is how many a round has, `of_others` for those that do another number.
    """
    first = next(iter(timed))
    ours = timed[first]
    for name, own in timed.items():
        more = samples / (of_others or {}).get(name, samples)
        own = replace(own, wall=[w * more for w in own.wall], cpu=[c * more for c in own.cpu])
        wall, cpu = statistics.median(own.wall), statistics.median(own.cpu)
        line = f"{name:28} {samples / wall:8.2f} {what}/s  CPU {cpu / samples * 1e3:6.0f} ms each"
        line += f"  peak {own.peak / 2**20:6.0f} MiB (work {(own.peak - own.base) / 2**20:5.0f})"
        if name != first:
            ratios = [w / o for w, o in zip(own.wall, ours.wall, strict=True)]
            by_cpu = [w / o for w, o in zip(own.cpu, ours.cpu, strict=True)]
            line += f"  {first} is x{statistics.median(ratios):.2f}"
            line += f" (CPU x{statistics.median(by_cpu):.2f})"
            if own.values and ours.values:
                line += f"; values apart {apart(own.values, ours.values):.1e}"
        print(line, flush=True)
