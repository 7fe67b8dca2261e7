"""A few hundred damaged folders; `python tests/fuzz_checkpoints.py` does thousands."""

from __future__ import annotations

import pytest
from fuzz_checkpoints import run


@pytest.mark.parametrize("seed", ["ci 1", "ci 2"])
def test_every_damaged_folder_is_read_or_one_sentence(seed: str) -> None:
    def report(which: str, error: Exception) -> None:
        raise AssertionError(which) from error

    run(150, seed, report)
