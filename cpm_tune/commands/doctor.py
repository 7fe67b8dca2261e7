"""The command `doctor`: what works on this machine, what does not, and how to fix it.

Third-party packages are imported by the checks alone: one that is broken is a line of the report.
"""

from __future__ import annotations

import importlib.util
import os
import platform
import shutil
import sys
from collections.abc import Callable
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from cpm_tune.backbone.bundled import FOLDERS
from cpm_tune.backbone.families import open_folder
from cpm_tune.commands.options.look import Doctor
from cpm_tune.common.door import load
from cpm_tune.common.environment import machine_memory
from cpm_tune.common.extras import EXTRAS
from cpm_tune.common.paths import cache_dir
from cpm_tune.data.splits import check_first_rows, data_folder, find_splits
from cpm_tune.delta.opendelta_import import INSTALL, opendelta
from cpm_tune.engine.bmtrain_found import nccl_conflict, trouble
from cpm_tune.errors import UserError, absent
from cpm_tune.task.registry import load_tasks

Check = tuple[str, str, str]  # state (ok, warn, FAIL, or - for optional), result, how to fix it


def run(options: Doctor) -> int:
    """Print a line per check; 1 if something needed does not work."""
    if options.data is not None and not options.data.is_dir():
        raise UserError(f"--data {options.data}: {absent(options.data)}.")
    if options.backbone is not None:
        for state, name, result in load("cpm_tune.commands.doctor_backbone:lines")(
            options.backbone
        ):
            print(f"{state:4}  {name:24} {result}")
        return 0
    checks: list[tuple[str, Callable[[], Check]]] = [
        ("python", _python),
        ("torch", _torch),
        ("cuda", _cuda),
        ("opendelta", _opendelta),
        ("transformers", lambda: _package("transformers", "pip install transformers==5.23.0")),
        ("datasets", lambda: _package("datasets", "pip install datasets==5.2.0")),
        ("jieba", lambda: _package("jieba", "pip install jieba==0.42.1")),
        ("bmtrain", _bmtrain),
        ("memory", _memory),
        ("disk", _disk),
        ("cache", _cache),
        ("backbones", _backbones),
        *((f"extra {name}", partial(_extra, name)) for name in EXTRAS),
    ]
    rows = []
    for name, check in checks:
        try:
            rows.append((name, *check()))
        except Exception as error:  # a broken install may raise anything
            first = f"{type(error).__name__}: {error}".splitlines()[0]
            rows.append((name, "FAIL", first, ""))
    for name, state, result, fix in (*rows, *_data(options.data, options.samples)):
        print(f"{state:4}  {name:13} {result}" + (f"\n{'':20}{fix}" if fix else ""))
    failed = any(state == "FAIL" for _, state, _, _ in rows)
    print("\nfix the checks marked FAIL." if failed else "\neverything needed works.")
    return 1 if failed else 0


def _python() -> Check:
    state = "ok" if sys.version_info >= (3, 11) else "FAIL"
    return state, f"{platform.python_version()} on {platform.system()}", ""


def _package(name: str, fix: str) -> Check:
    try:
        return "ok", version(name), ""
    except PackageNotFoundError:
        return "FAIL", "not installed", fix


def _extra(name: str) -> Check:
    package, purpose = EXTRAS[name]
    try:
        return "ok", f"{package} {version(package)}, for {purpose}", ""
    except PackageNotFoundError:
        return "-", f"not installed: pip install 'cpm-tune[{name}]', for {purpose}", ""


def _torch() -> Check:
    import torch

    return "ok", f"{torch.__version__}, {torch.get_num_threads()} threads", ""


def _cuda() -> Check:
    import torch

    if torch.cuda.is_available():
        names = {torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())}
        return "ok", f"{torch.cuda.device_count()} x {', '.join(sorted(names))}", ""
    if torch.version.cuda is None:
        return "-", "CPU build of torch; for a GPU, install the CUDA build", ""
    fix = f"for a GPU, check that its driver has CUDA {torch.version.cuda} or later"
    return "-", "no device found; runs use the CPU", fix


def _opendelta() -> Check:
    if importlib.util.find_spec("opendelta") is None:
        return (
            "-",
            "not installed, optional: for low_rank_adapter, parallel_adapter and compacter",
            INSTALL,
        )
    try:
        opendelta()
        return "ok", f"{version('opendelta')} (imports without its web and hub parts)", ""
    except UserError as error:
        return "warn", str(error), ""


def _bmtrain() -> Check:
    problem = trouble()
    if problem is None:
        return "ok", version("bmtrain"), ""
    what, fix = problem
    return ("FAIL" if nccl_conflict() else "-"), f"{what}, optional: for --engine bmtrain", fix


def _memory() -> Check:
    total = machine_memory()
    if total is None:
        return "warn", "cannot be read on this system", ""
    state = "ok" if total >= 4 * 2**30 else "warn"
    return state, f"{total / 2**30:.1f} GiB; {os.cpu_count()} cores", ""


def _disk() -> Check:
    free = shutil.disk_usage(Path.cwd()).free / 2**30
    return ("ok" if free > 1 else "warn"), f"{free:.1f} GiB free here", ""


def _cache() -> Check:
    folder = cache_dir("data")
    if not os.access(folder, os.W_OK):
        return "FAIL", f"{folder} cannot be written", "set XDG_CACHE_HOME to a folder you may write"
    return "ok", str(folder.parent), ""


def _backbones() -> Check:
    for path in FOLDERS.values():
        open_folder(path).tokenizer()
    return "ok", ", ".join(FOLDERS), ""


def _data(data: Path | None, samples: bool) -> list[tuple[str, str, str, str]]:
    """A line per task; of sample data only what is wrong and a sum, unless `samples`."""
    rows = []
    for task in load_tasks():
        name = "sample data" if data is None else "data"
        try:
            splits = find_splits(task, data_folder(task, data), fingerprints=False)
            check_first_rows(task, splits)
        except UserError as error:
            rows.append((name, "warn", f"{task.name}: {error}", ""))
        else:
            files = ", ".join(dict.fromkeys(file.path.name for file in splits.values()))
            notes = [t for f in splits.values() for t in (f.note, f.warning) if t]
            rows.append((name, "ok", "; ".join([f"{task.name}: {files}", *notes]), ""))
    if data is None and not samples:
        wrong = [row for row in rows if row[1] != "ok"]
        n = len(rows) - len(wrong)
        rows = [*wrong, ("sample data", "ok", f"{n} tasks (one line per task: --samples)", "")]
    return rows
