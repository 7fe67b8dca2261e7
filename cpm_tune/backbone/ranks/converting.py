"""Converts a model between the files of model-parallel ranks and Hugging Face's format."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from cpm_tune.backbone.placing import check_free
from cpm_tune.backbone.ranks.reading import Weight
from cpm_tune.backbone.storage.finite import check_finite
from cpm_tune.backbone.storage.writers import Target, write_shards
from cpm_tune.common.folders import disk_trouble, new_folder
from cpm_tune.common.progress import working
from cpm_tune.errors import UserError


@dataclass(frozen=True)
class Convertible:
    """A model that can be written in both formats.

    weights: by transformers' names. write_ranks: the files of so many ranks and what belongs to
    them. write_about: config and vocabulary of Hugging Face's format, for weights of a dtype.
    """

    path: Path
    weights: Iterable[Weight]
    write_ranks: Callable[[Path, Mapping[str, Weight], int], None]
    write_about: Callable[[Path, torch.dtype], None]


def convert(
    model: Convertible,
    out: Path,
    to: str,
    *,
    dtype: torch.dtype | None,
    max_shard: int,
    ranks: int,
    overwrite: bool,
) -> None:
    """Write a model to a new folder: hf, or reference (`ranks` files). Values keep their bits, or
    are converted to `dtype`; one tensor at a time is in memory.

    Raises UserError for another format, for weights that are not finite, and for an `out` that
    exists (without `overwrite`).
    """
    if to not in ("hf", "reference"):
        raise UserError(f"--to {to} is CPM-Ant's own format; use --to hf or --to reference.")
    check_free(out, overwrite, model.path)
    weights = {weight.name: _checked(model.path, weight, dtype) for weight in model.weights}
    with (
        new_folder(out, "", overwrite=overwrite) as part,
        disk_trouble(out, "make room"),
        working("writing", len(weights) * (ranks if to == "reference" else 1), "tensor") as work,
    ):
        counted = {name: _counted(weight, work.advance) for name, weight in weights.items()}
        if to == "reference":
            model.write_ranks(part, counted, ranks)
        else:
            write_shards(part, [_target(weight) for weight in counted.values()], max_shard)
            model.write_about(part, next(iter(weights.values())).dtype)


def _checked(path: Path, weight: Weight, dtype: torch.dtype | None) -> Weight:
    def whole() -> Tensor:
        tensor = weight.whole().to(dtype or weight.dtype)
        check_finite(path, weight.name, tensor)
        return tensor

    return Weight(weight.name, weight.shape, dtype or weight.dtype, whole)


def _counted(weight: Weight, advance: Callable[[], object]) -> Weight:
    def whole() -> Tensor:
        advance()
        return weight.whole()

    return Weight(weight.name, weight.shape, weight.dtype, whole)


def _target(weight: Weight) -> Target:
    def chunks() -> Iterator[Tensor]:
        yield weight.whole().contiguous().view(-1)

    return Target(weight.name, weight.shape, weight.dtype, chunks)
