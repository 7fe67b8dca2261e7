"""Seconds of a run, and the energy that processors and a GPU take meanwhile, if they count it.

Processors count in Linux' powercap (RAPL), which only root may read on most systems; NVIDIA's GPUs
through NVML, with the package nvidia-ml-py. The counters are the machine's: other work counts, too.
"""

from __future__ import annotations

import contextlib
import time
from pathlib import Path
from typing import Any

POWERCAP = Path("/sys/class/powercap")


class RunMeter:
    """Counts from when it is made. `device`: a torch.device, whose GPU counts if it is one."""

    def __init__(self, device: Any = None, powercap: Path = POWERCAP) -> None:
        self._started = time.perf_counter()
        # intel-rapl:0 is a processor (AMD's have that name, too), intel-rapl:0:1 a part of it
        self._zones = [z for z in powercap.glob("intel-rapl:*") if z.name.count(":") == 1]
        self._nvml, self._gpu = _gpu(device)
        self._before = self._read()

    def seconds(self) -> float:
        """Wall-clock time so far."""
        return round(time.perf_counter() - self._started, 3)

    def joules(self) -> float | None:
        """The energy so far, in joules; None if no counter can be read."""
        total, before = 0.0, self._before
        for name, (now, most) in (after := self._read()).items():
            start = before.get(name, (now, most))[0]
            total += max(0, now - start + most * (now < start)) / 1e6
        return round(total, 3) if after and before else None

    def _read(self) -> dict[str, tuple[int, int]]:
        """By counter: microjoules, and after how many it begins at 0 again."""
        values = {}
        for zone in self._zones:
            with contextlib.suppress(OSError, ValueError):
                now, most = (
                    int((zone / name).read_text()) for name in ("energy_uj", "max_energy_range_uj")
                )
                values[zone.name] = now, most
        if self._gpu is not None:
            with contextlib.suppress(self._nvml.NVMLError):
                values["gpu"] = self._nvml.nvmlDeviceGetTotalEnergyConsumption(self._gpu) * 1000, 0
        return values


def _gpu(device: Any) -> tuple[Any, Any]:
    """NVML and its handle of a CUDA device; None for others, and without NVML."""
    if getattr(device, "type", "cpu") != "cuda":
        return None, None
    try:
        import pynvml as nvml

        nvml.nvmlInit()
    except Exception:  # no package, no library, no driver: of classes of its own
        return None, None
    import torch

    with contextlib.suppress(nvml.NVMLError, AttributeError):
        uuid = torch.cuda.get_device_properties(device).uuid
        return nvml, nvml.nvmlDeviceGetHandleByUUID(f"GPU-{uuid}")
    return None, None
