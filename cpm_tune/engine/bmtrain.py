"""The bmtrain engine."""

from __future__ import annotations

import importlib.util
from typing import TYPE_CHECKING

from cpm_tune.errors import UserError

if TYPE_CHECKING:
    from cpm_tune.engine import Engine
    from cpm_tune.spec import Execution


def make_bmtrain(execution: Execution, precision: str) -> Engine:
    """Return the bmtrain engine; raise UserError where it cannot run."""
    if importlib.util.find_spec("bmtrain") is None:
        raise UserError(
            "--engine bmtrain: bmtrain is not installed; on a CUDA machine with Python 3.11: "
            "pip install --no-deps bmtrain==1.0.1, or use --engine torch."
        )
    raise UserError("--engine bmtrain is not there yet; use --engine torch.")
