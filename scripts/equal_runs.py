"""Shows that two checkouts compute the same: twelve small runs from each, compared byte by byte.

    python scripts/equal_runs.py OTHER_CHECKOUT

Each checkout runs its own tune.py with this Python, on one thread, with the bundled backbone, its
own sample data and caches of its own. Compared are the run ids, the delta and prediction files, the
training curves and the scores; times and paths are not. It takes about three minutes on two cores.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent.parent
RUNS: Mapping[str, Sequence[str]] = {
    "choose by 是": ("--task", "lcqmc", "--delta", "lora"),
    "choose by verbaliser": ("--task", "lcqmc", "--template", "cpm-2", "--delta", "bitfit"),
    "ranking": ("--task", "sogou_log", "--delta", "adapter"),
    "generation": (
        *("--task", "lcsts", "--delta", "low_rank_adapter"),
        *("--set", "decode.beams=2", "--set", "decode.max_new_tokens=8"),
    ),
    "soft prompt with slots": ("--task", "lcqmc", "--template", "cpm-2", "--delta", "soft_prompt"),
    "prefix": ("--task", "ccpm", "--delta", "prefix"),
}
PRECISIONS = ("fp32", "bf16")
LIMITS = (
    *("--limit", "24", "--control", "none"),
    *("--set", "train.max_steps=4", "--set", "train.eval_every=2", "--set", "train.batch_size=8"),
)


def main(argv: Sequence[str] | None = None) -> int:
    """Run, compare, print one line per run; return 1 if anything differs."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("other", metavar="OTHER_CHECKOUT", type=Path)
    parser.add_argument("--out", metavar="DIR", type=Path, help="keep the runs in this new folder")
    args = parser.parse_args(argv)
    checkouts = {"here": HERE, "other": args.other.resolve()}
    for checkout in checkouts.values():
        if not (checkout / "tune.py").is_file():
            parser.error(f"{checkout}: expected a checkout with a tune.py")
    if args.out is not None and args.out.exists():
        parser.error(f"{args.out} already exists; choose another folder")
    with tempfile.TemporaryDirectory() as scratch:
        out = (args.out or Path(scratch)).resolve()
        with ThreadPoolExecutor(2) as pool:
            for checkout, failure in zip(
                checkouts.values(),
                pool.map(_run_all, checkouts.values(), _folders(out)),
                strict=True,
            ):
                if failure:
                    print(f"{checkout}: {failure}", file=sys.stderr)
                    return 1
        return _compare_all(*_folders(out))


def _folders(out: Path) -> tuple[Path, Path]:
    return out / "here", out / "other"


def _names() -> list[tuple[str, str]]:
    return [(name, precision) for name in RUNS for precision in PRECISIONS]


def _folder(out: Path, name: str, precision: str) -> Path:
    return out / f"{name.replace(' ', '-')}.{precision}"


def _run_all(checkout: Path, out: Path) -> str:
    """Make the runs of one checkout; return why one failed, or ""."""
    home = out / ".home"
    home.mkdir(parents=True)
    environment = {
        **os.environ,
        "PYTHONPATH": str(checkout),
        "HOME": str(home),
        "XDG_CACHE_HOME": str(home / ".cache"),
        "OMP_NUM_THREADS": "1",
    }
    for name, precision in _names():
        command = [sys.executable, "tune.py", *RUNS[name], *LIMITS, "--precision", precision]
        command += ["--quiet", "--out", str(_folder(out, name, precision))]
        done = subprocess.run(
            command, cwd=checkout, env=environment, capture_output=True, text=True
        )
        if done.returncode:
            return f"{' '.join(command)}: exit code {done.returncode}\n{done.stderr.strip()}"
    return ""


def _compare_all(here: Path, other: Path) -> int:
    different = 0
    for name, precision in _names():
        differences = compare(_folder(here, name, precision), _folder(other, name, precision))
        different += bool(differences)
        print(f"{name + ', ' + precision:28} {'; '.join(differences) or 'equal'}", flush=True)
    print(f"{len(_names()) - different} of {len(_names())} runs are equal")
    return 1 if different else 0


def compare(here: Path, other: Path) -> list[str]:
    """Say what differs between two results folders that contain the same runs; [] if nothing does.

    A run is its id, its delta and prediction files by SHA-256, its training curve and its scores.
    """
    ours, theirs = (
        {path.parent.name: facts(path.parent) for path in sorted(out.glob("*/run.json"))}
        for out in (here, other)
    )
    if list(ours) != list(theirs) or not ours:
        return [f"runs: {', '.join(ours) or 'none'} here, {', '.join(theirs) or 'none'} there"]
    return [
        f"{key}: {left.get(key)} here, {right.get(key)} there"
        for left, right in zip(ours.values(), theirs.values(), strict=True)
        for key in dict.fromkeys((*left, *right))
        if left.get(key) != right.get(key)
    ]


def facts(run: Path) -> dict[str, Any]:
    """What the same computation leaves the same: hashes of files, and parts of the record."""
    record = json.loads((run / "run.json").read_text(encoding="utf-8"))
    files = sorted((*run.glob("delta.safetensors"), *run.glob("predictions.*")))
    values: dict[str, Any] = {
        file.name: hashlib.sha256(file.read_bytes()).hexdigest()[:12] for file in files
    }
    values["status"] = record["status"]
    values |= _flat("scores", record["scores"])
    if record["training"] is not None:
        values |= _flat("curve", record["training"]["curve"])
    return values


def _flat(key: str, value: Any) -> dict[str, Any]:
    if not isinstance(value, dict | list):
        return {key: value}
    items = value.items() if isinstance(value, dict) else enumerate(value)
    return {k: v for name, inner in items for k, v in _flat(f"{key}.{name}", inner).items()}


if __name__ == "__main__":
    sys.exit(main())
