"""Peak memory of one run after another in one process."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = """
import torch
from cpm_tune.engine.memory import set_memory
from cpm_tune.common.environment import peak_memory_bytes, reset_peak_memory

set_memory(torch.nn.Linear(1, 1))
reset_peak_memory()
small = peak_memory_bytes()
blocks = [torch.ones(2**18) for _ in range(300)]  # 300 MiB
pins = [torch.ones(64)]  # keeps the heap from shrinking
large = peak_memory_bytes()
del blocks
reset_peak_memory()
after = peak_memory_bytes()
print(small, large, after)
"""


@pytest.mark.skipif(
    not Path("/proc/self/clear_refs").exists() or sys.platform != "linux", reason="needs Linux"
)
def test_a_run_is_not_charged_with_the_freed_memory_of_the_one_before() -> None:
    said = subprocess.run(
        [sys.executable, "-c", PROGRAM], check=True, capture_output=True, text=True
    ).stdout
    small, large, after = map(int, said.split())
    assert large - small > 290 * 2**20
    assert after - small < 30 * 2**20
