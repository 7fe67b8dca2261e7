"""The frozen backbone's linear weights in 8 bits (torchao, an optional extra).

int8 with one scale per row of the weight, chosen by its largest value; activations, norms,
embeddings and the delta keep their precision. A quarter of fp32's memory, half of bf16's.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator
from typing import Any

from cpm_tune.errors import UserError


@contextlib.contextmanager
def quiet_logging() -> Iterator[None]:
    """Silence warnings, such as torchao's of every CUDA kernel that this machine cannot load."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(before)


def check_int8() -> None:
    """Raise UserError if torchao cannot be used."""
    try:
        with quiet_logging():
            from torchao.quantization import Int8WeightOnlyConfig  # noqa: F401
    except ImportError as error:
        raise UserError(
            f"--quantize int8 needs torchao ({error}): pip install 'cpm-tune[int8]'."
        ) from error


def quantize_int8(backbone: Any) -> Any:
    """Replace the layers' linear weights by int8 ones, in place; return the backbone.

    They cannot be trained. Raises UserError if torchao is missing.
    """
    check_int8()
    with quiet_logging():
        from torchao.quantization import Int8WeightOnlyConfig, quantize_

        backbone.requires_grad_(False)
        for stack in backbone.layers:
            quantize_(stack, Int8WeightOnlyConfig())
    backbone.quantized = True
    return backbone
