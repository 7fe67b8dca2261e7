"""The environment of a result: package versions, this package's git state, peak memory."""

from __future__ import annotations

import contextlib
import ctypes
import os
import platform
import re
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from cpm_tune.common.paths import PACKAGE
from cpm_tune.version import VERSION

try:
    import resource
except ImportError:  # Windows
    resource = None  # type: ignore[assignment]

_DRIVER = Path("/proc/driver/nvidia/version")
PACKAGES = (
    "torch",
    "opendelta",
    "transformers",
    "bmtrain",
    "torchao",
    "datasets",
    "scikit-learn",
    "scipy",
    "numpy",
    "jieba",
    "safetensors",
)


def package_versions() -> dict[str, str]:
    """Versions of the installed packages that take part in a result."""
    versions = {"cpm-tune": VERSION}
    for name in PACKAGES:
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            continue
    return versions


def git_state() -> tuple[str | None, bool | None]:
    """Commit of this package's checkout and whether it has changes; (None, None) outside one."""
    if not (PACKAGE.parent / ".git").exists():
        return None, None
    try:
        sha, status = (
            subprocess.run(
                ["git", "-C", str(PACKAGE.parent), *command],
                capture_output=True,
                text=True,
                check=True,
                timeout=10,
            ).stdout.strip()
            for command in (
                ("rev-parse", "HEAD"),
                ("status", "--porcelain", "--untracked-files=no"),
            )
        )
    except (OSError, subprocess.SubprocessError):
        return None, None
    return sha, bool(status)


def reset_peak_memory(device: Any = None) -> None:
    """Reset the peak that `peak_memory_bytes` reports, if the system can (CUDA, Linux), so that a
    process with several runs does not report the largest of them for all."""
    if (cuda := _cuda_of(device)) is not None:
        cuda.reset_peak_memory_stats(device)
    with contextlib.suppress(OSError, AttributeError, TypeError):
        ctypes.CDLL(None).malloc_trim(0)  # glibc: return freed memory to the system
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")  # proc(5): resets VmHWM


def peak_memory_bytes(device: Any = None) -> int:
    """Peak memory of this process since `reset_peak_memory`: that of `device` if it is a CUDA
    device, otherwise resident memory, 0 if the system does not report it (Windows)."""
    if (cuda := _cuda_of(device)) is not None:
        return int(cuda.max_memory_allocated(device))
    with contextlib.suppress(OSError):
        peak = re.search(r"VmHWM:\s*(\d+) kB", Path("/proc/self/status").read_text())
        if peak:
            return int(peak[1]) * 1024
    if resource is None:
        return 0
    unit = 1 if platform.system() == "Darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def gpu(device: Any) -> dict[str, str]:
    """What a CUDA `device` is, and the versions under torch by which results differ; empty for
    others."""
    if (cuda := _cuda_of(device)) is None:
        return {}
    torch = sys.modules["torch"]
    about = {
        "name": cuda.get_device_name(device),
        "capability": ".".join(map(str, cuda.get_device_capability(device))),
        "cuda": str(torch.version.cuda),
        "cudnn": str(torch.backends.cudnn.version()),
    }
    with contextlib.suppress(OSError):
        driver = re.search(r"Kernel Module.*?(\d+\.[\d.]+)", _DRIVER.read_text())
        if driver:
            about["driver"] = driver[1]
    return about


def _cuda_of(device: Any) -> Any:
    """torch.cuda for a torch.device that is a CUDA device in use; None for others, for which
    nothing may begin to use a GPU."""
    if getattr(device, "type", "cpu") != "cuda":
        return None
    cuda = sys.modules["torch"].cuda
    return cuda if cuda.is_initialized() else None


def machine_memory() -> int | None:
    """Bytes of memory of this machine; None if the system does not report them."""
    if not hasattr(os, "sysconf"):  # Windows
        return None
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def address_space_limit() -> int | None:
    """Bytes of address space that this process may use (`ulimit -v`); None without a limit."""
    if resource is None:
        return None
    limit = resource.getrlimit(resource.RLIMIT_AS)[0]
    return None if limit == resource.RLIM_INFINITY else limit
