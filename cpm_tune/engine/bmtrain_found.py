"""Whether BMTrain can run. Does not import torch, which fails with a wrong NCCL."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from importlib.metadata import distributions

VERSION = "1.0.1"
INSTALL = f"pip install --no-deps bmtrain=={VERSION}"


def trouble() -> tuple[str, str] | None:
    """The problem and its fix; None if BMTrain can run here."""
    if importlib.util.find_spec("bmtrain") is None:
        old = sys.version_info < (3, 12)
        needs = f"version {VERSION} is for Python up to 3.11: make the environment with it"
        return "bmtrain is not installed", INSTALL if old else needs
    here = next((dist.version for dist in distributions(name="bmtrain")), VERSION)
    if here != VERSION:
        return f"bmtrain {here} is installed, expected {VERSION}", INSTALL
    if conflict := nccl_conflict():
        return conflict
    if not _sees_cuda():
        return "BMTrain needs a CUDA device, and torch sees none", "use --engine torch"
    try:
        importlib.import_module("bmtrain")
    except ImportError as error:
        line = str(error).splitlines()[0]
        return f"bmtrain {here} does not import ({line})", "install the CUDA build of torch"
    return None


def nccl_conflict() -> tuple[str, str] | None:
    """Two packages of NCCL write the same libnccl.so.2: torch's, and the one that BMTrain names as
    its dependency. Both libraries get the one that was installed last."""
    versions = {
        dist.metadata["Name"]: dist.version
        for dist in distributions()
        if (dist.metadata["Name"] or "").startswith("nvidia-nccl-cu")
    }
    if len(versions) < 2 or "nvidia-nccl-cu11" not in versions:
        return None
    others = [
        f"{name}=={versions[name]}" for name in sorted(versions) if name != "nvidia-nccl-cu11"
    ]
    return (
        f"nvidia-nccl-cu11 {versions['nvidia-nccl-cu11']}, which bmtrain's dependencies brought, "
        f"overwrites the libnccl.so.2 of torch's {others[-1].replace('==', ' ')}",
        "pip uninstall -y nvidia-nccl-cu11 && "
        f"pip install --force-reinstall --no-deps {others[-1]}  (bmtrain works with torch's)",
    )


def _sees_cuda() -> bool:
    """Ask the torch that BMTrain imported, if it did: what that sees is what counts."""
    module = sys.modules.get("bmtrain.init")
    torch = module.torch if module else importlib.import_module("torch")
    return bool(torch.cuda.is_available())
