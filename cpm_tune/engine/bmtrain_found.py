"""Whether BMTrain is there and can run. Needs no torch: a wrong NCCL keeps torch from importing."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from importlib.metadata import PackageNotFoundError, distributions, version

VERSION = "1.0.1"
INSTALL = f"pip install --no-deps bmtrain=={VERSION}"


def trouble() -> tuple[str, str] | None:
    """What is wrong and what to do; None if BMTrain can run here."""
    if importlib.util.find_spec("bmtrain") is None:
        said = "bmtrain is not installed"
        if sys.version_info >= (3, 12):
            return said, f"version {VERSION} is for Python up to 3.11: make the environment with it"
        return said, INSTALL
    found = installed()
    if found and found != VERSION:
        return f"bmtrain {found} is installed, expected {VERSION}", INSTALL
    if two := nccl_conflict():
        return two
    if not _sees_cuda():
        return "BMTrain needs a CUDA device, and torch sees none", "use --engine torch"
    try:
        importlib.import_module("bmtrain")
    except ImportError as error:
        line = str(error).splitlines()[0]
        return f"bmtrain {found} does not import ({line})", "install the CUDA build of torch"
    return None


def installed() -> str | None:
    """The version that is installed."""
    try:
        return version("bmtrain")
    except PackageNotFoundError:
        return None


def nccl_conflict() -> tuple[str, str] | None:
    """Two packages of NCCL write the same libnccl.so.2: torch's own, and the one that BMTrain
    names as its dependency. The one that was installed last is what both get."""
    found = {
        dist.metadata["Name"]: dist.version
        for dist in distributions()
        if (dist.metadata["Name"] or "").startswith("nvidia-nccl-cu")
    }
    if len(found) < 2 or "nvidia-nccl-cu11" not in found:
        return None
    others = [f"{name}=={found[name]}" for name in sorted(found) if name != "nvidia-nccl-cu11"]
    return (
        f"nvidia-nccl-cu11 {found['nvidia-nccl-cu11']}, which bmtrain's dependencies brought, "
        f"overwrites the libnccl.so.2 of torch's {others[-1].replace('==', ' ')}",
        "pip uninstall -y nvidia-nccl-cu11 && "
        f"pip install --force-reinstall --no-deps {others[-1]}  (bmtrain works with torch's)",
    )


def _sees_cuda() -> bool:
    """BMTrain's own torch is asked, if it has been imported: what that sees is what counts."""
    module = sys.modules.get("bmtrain.init")
    torch = module.torch if module else importlib.import_module("torch")
    return bool(torch.cuda.is_available())
