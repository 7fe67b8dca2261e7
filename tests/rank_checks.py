"""What the tests of both kinds of model-parallel ranks share."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from cpm_tune.backbone.ranks.files import rank_files
from cpm_tune.errors import UserError


def change(folder: Path, rank: int, **changes: Any) -> None:
    """Replace tensors of one rank; None removes one."""
    file = rank_files(folder)[rank]
    state = torch.load(file, weights_only=False)["module"]
    for name, value in changes.items():
        state.pop(name) if value is None else state.update({name: value})
    torch.save({"module": state}, file)


def assert_refused(read: Callable[[Path], tuple[Any, Any]], folder: Path, words: str) -> None:
    """That reading a checkpoint and all its weights ends in one sentence with these words."""
    with pytest.raises(UserError) as caught:
        [weight.whole() for weight in read(folder)[1].values()]
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)
