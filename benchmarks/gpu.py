"""One CUDA GPU: the tests marked gpu, then training and generation beside transformers + PEFT.

    python benchmarks/gpu.py --out gpu.json                  # at most 8 minutes
    python benchmarks/gpu.py --out gpu.json --minutes 4 --shapes 300M 1B
    python benchmarks/gpu.py --out gpu.json --device cpu --tiny   # what it does, in a minute

Needs Python 3.11 or later and torch 2.8 or later for CUDA; transformers and PEFT for the other
side, pytest for the tests. Weights are random, in the shapes of CPM-Ant with about that many
parameters, in bf16, with LoRA (r 8, on q and v); texts have lengths like LCQMC's pairs.

Each part is a process of its own (benchmarks/gpu_work.py): one that fails, runs out of memory or
leaves the GPU unusable is an entry with its error. Parts that no longer fit into the time are
skipped, with that as the reason. The JSON is written again after every part.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
import xml.etree.ElementTree as ET
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
SHAPES = ("300M", "1B", "10B")
ERROR_LINES = 12  # of a failed part's output, in the JSON


@dataclass(frozen=True)
class Part:
    """A part by name; `least`: seconds below which it is not begun, `most`: that it may take."""

    name: str
    least: float
    most: float


def parts(shapes: Sequence[str]) -> list[Part]:
    """All parts: what says most comes first."""
    first = [Part("about", 5, 60), Part("tests", 30, 170), Part("products", 5, 40)]
    for shape in shapes:
        large = 20 if shape == "10B" else 0
        first += [
            Part(f"train {shape} {who}", 12 + large, 45 + large) for who in ("ours", "transformers")
        ]
        first += [
            Part(f"generate {shape} {who}", 12 + large, 45 + large)
            for who in ("ours", "transformers")
        ]
    return first


def run(part: Part, seconds: float, device: str, tiny: bool) -> dict[str, Any]:
    """Run a part in a process of its own, for at most so many seconds; what it found or its error,
    with the seconds that it took."""
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        result = Path(folder) / "result"
        log = Path(folder) / "log"
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), *_paths()])}
        if part.name == "tests":
            environment["CPM_TUNE_TEST_DEVICE"] = device
            words = ["-m", "pytest", "-q", "-m", "gpu", "-p", "no:cacheprovider"]
            words += [str(ROOT / "tests" / "test_gpu.py"), f"--junitxml={result}"]
        else:
            words = [str(ROOT / "benchmarks" / "gpu_work.py"), *part.name.split()]
            words += ["--device", device, "--out", str(result), *(["--tiny"] if tiny else [])]
        with log.open("wb") as output:
            process = subprocess.Popen(
                [sys.executable, *words],
                stdout=output,
                stderr=subprocess.STDOUT,
                cwd=ROOT,
                env=environment,
                start_new_session=True,
            )
            try:
                code = process.wait(seconds)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)  # with the processes that it started
                process.wait()
                code = None
        entry: dict[str, Any] = {"seconds": round(time.monotonic() - started, 1)}
        found = _found(part, result)
        lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
    if code is None:
        entry["error"] = f"stopped after {seconds:.0f} s"
    elif code and part.name != "tests":
        entry["error"] = "\n".join(lines[-ERROR_LINES:]) or f"exit code {code}"
    elif found is None:
        entry["error"] = "\n".join(["it left no result", *lines[-ERROR_LINES:]])
    return {**entry, **(found or {})}


def _paths() -> list[str]:
    return [path for path in os.environ.get("PYTHONPATH", "").split(os.pathsep) if path]


def _found(part: Part, result: Path) -> dict[str, Any] | None:
    if not result.is_file():
        return None
    if part.name != "tests":
        value: dict[str, Any] = json.loads(result.read_text())
        return value
    cases = list(ET.parse(result).iter("testcase"))
    failed = {
        case.attrib["name"]: str(problem.attrib.get("message", ""))[:300]
        for case in cases
        for problem in (*case.iter("failure"), *case.iter("error"))
    }
    skipped = {
        case.attrib["name"]: str(why.attrib.get("message", ""))[:300]
        for case in cases
        for why in case.iter("skipped")
    }
    passed = len(cases) - len(failed) - len(skipped)
    return {"passed": passed, "failed": failed, "skipped": skipped}


def compared(results: dict[str, dict[str, Any]], shapes: Sequence[str]) -> dict[str, float]:
    """Our samples or tokens per second divided by transformers', where both are there."""
    ratios = {}
    for what in ("train", "generate"):
        for shape in shapes:
            ours, theirs = (
                results.get(f"{what} {shape} {who}", {}).get("per_second")
                for who in ("ours", "transformers")
            )
            if ours and theirs:
                ratios[f"{what} {shape}"] = round(ours / theirs, 2)
    return ratios


def measure(out: Path, minutes: float, shapes: Sequence[str], device: str, tiny: bool) -> int:
    """Run the parts while there is time; return 1 if one failed."""
    begun = time.monotonic()
    end, results = begun + 60 * minutes, dict[str, dict[str, Any]]()
    for part in parts(shapes):
        left = end - time.monotonic()
        if left < part.least:
            skipped = f"{left:.0f} s of the {minutes:g} minutes were left, it needs {part.least:g}"
            results[part.name] = {"skipped": skipped}
        else:
            results[part.name] = run(part, min(left, part.most), device, tiny)
        whole = {
            "device": device,
            "tiny": tiny,
            "seconds": round(time.monotonic() - begun, 1),
            "parts": results,
            "ours by transformers": compared(results, shapes),
        }
        out.write_text(json.dumps(whole, indent=1) + "\n", encoding="utf-8")
        print(f"{part.name}: {json.dumps(results[part.name])}", flush=True)
    return int(any("error" in found or found.get("failed") for found in results.values()))


def main() -> int:
    """Parse the command line, measure, write."""
    parser = argparse.ArgumentParser(description=str(__doc__).split("\n")[0])
    parser.add_argument("--out", type=Path, default=Path("gpu.json"))
    parser.add_argument("--minutes", type=float, default=8)
    parser.add_argument("--shapes", nargs="*", choices=SHAPES, default=list(SHAPES))
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--tiny", action="store_true", help="shapes for a CPU")
    asked = parser.parse_args()
    return measure(asked.out, asked.minutes, asked.shapes, asked.device, asked.tiny)


if __name__ == "__main__":
    sys.exit(main())
