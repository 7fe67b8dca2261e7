"""Converts a backbone folder from one format to another, a part of a tensor at a time."""

from __future__ import annotations

import contextlib
import json
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from cpm_tune.backbone.ant.config import CPMAntConfig
from cpm_tune.backbone.ant.folder import PLUS, CPMAntFolder
from cpm_tune.backbone.ant.formats import (
    CHUNK,
    Piece,
    divisor,
    folded,
    hugging_face_parts,
    joint_table,
    pieces,
    unfolded,
)
from cpm_tune.backbone.ant.hugging_face import check_whole, hugging_face_config, write_tokenizer
from cpm_tune.backbone.ant.rounding_residual import RoundingResidual
from cpm_tune.backbone.placing import check_free
from cpm_tune.backbone.storage.finite import check_finite
from cpm_tune.backbone.storage.writers import Target, write_pt, write_safetensors, write_shards
from cpm_tune.common.folders import new_folder
from cpm_tune.common.progress import Work, working
from cpm_tune.errors import UserError

SHARD = 5_000_000_000  # bytes of a file in Hugging Face's format, transformers' former default


def convert(
    folder: CPMAntFolder,
    out: Path,
    to: str,
    *,
    dtype: torch.dtype | None = None,
    max_shard: int = SHARD,
    overwrite: bool = False,
    config: CPMAntConfig | None = None,
) -> None:
    """Write a backbone folder in the format `to` (reference, hf or native), atomically.

    Each tensor keeps its dtype unless one is given. `config`: the folder's with more sub-blocks
    masked, whose weights are left out. The vocabulary keeps its bytes. If scaling changes within a
    dtype, scaling.npz is added (`backbone/ant/rounding_residual.py`), and the way back is exact.

    Raises UserError for files that do not fit or are broken, weights that are not finite in the
    dtype, sub-blocks that `to` cannot leave out, and an `out` that exists (without `overwrite`).
    """
    config = config or folder.config
    if to == "hf":
        check_whole(config, "--to native or --to reference")
    check_free(out, overwrite, folder.path)
    folder.tokenizer()  # the vocabulary has the size that the config says
    weights = pieces(folder, config)
    with (
        new_folder(out, "", overwrite=overwrite) as part,
        contextlib.closing(RoundingResidual(folder.path, part)) as residual,
        working("writing", len(weights), "tensor") as work,
    ):
        targets = _targets(weights, folder, config, to, dtype, residual, work)
        widest = max((target.dtype for target in targets), key=lambda kind: kind.itemsize)
        values: dict[str, Any]
        try:
            if to == "hf":
                write_shards(part, targets, max_shard)
                write_tokenizer(part)
                values = hugging_face_config(config, widest)
            elif to == "native":
                write_safetensors(part / "model.safetensors", targets)
                values = {"format": "cpm-tune", **config.to_dict()}
            else:
                write_pt(part / f"{out.name}.pt", targets)
                values = {**config.to_dict(), "half": widest == torch.float16}
                if not config.is_pruned:
                    values.pop("mask_modules")  # older code does not know it
            residual.close()
            if dtype is None and residual.source.is_file() and _same_scaling(weights, to, config):
                shutil.copyfile(residual.source, residual.target)
            if to == "native" or not folder.trained:
                values["trained"] = folder.trained
            if folder.plus and to != "reference":
                values["tokenizer"] = PLUS
            name = f"{out.name}.json" if to == "reference" else "config.json"
            (part / name).write_text(json.dumps(values, indent=1) + "\n", encoding="utf-8")
            vocabulary = "vocab.txt"
            if to == "reference":
                vocabulary = "ant_plus.txt" if folder.plus else "ant.txt"
            shutil.copyfile(folder.vocabulary, part / vocabulary)
        except OSError as error:
            raise UserError(f"{out}: cannot be written ({error.strerror}); make room.") from error


def _same_scaling(weights: Mapping[str, Piece], to: str, config: CPMAntConfig) -> bool:
    return all(divisor(name, p.shape, to, config) == p.divisor for name, p in weights.items())


def _targets(
    weights: Mapping[str, Piece],
    folder: CPMAntFolder,
    config: CPMAntConfig,
    to: str,
    dtype: torch.dtype | None,
    residual: RoundingResidual,
    work: Work,
) -> list[Target]:
    """The tensors of the new folder, each made of one or more weights."""

    def target(name: str, parts: Sequence[str]) -> Target:
        kinds = {weights[part].stored.dtype for part in parts}
        kind = dtype or max(kinds, key=lambda kind: kind.itemsize)
        rows = sum(weights[part].shape[0] for part in parts)

        def chunks() -> Iterator[Tensor]:
            for part in parts:
                by = divisor(part, weights[part].shape, to, config)
                yield from _values(part, weights[part], by, kind, folder, residual)
                work.advance()

        return Target(name, (rows, *weights[parts[0]].shape[1:]), kind, chunks)

    named: dict[str, tuple[str, ...]] = {name: (name,) for name in weights}
    if to == "hf":
        named = hugging_face_parts(weights)
    elif to == "reference" and folder.plus:
        named = joint_table(weights)
    return [target(name, parts) for name, parts in named.items()]


def _values(
    name: str,
    piece: Piece,
    by: float,
    dtype: torch.dtype,
    folder: CPMAntFolder,
    residual: RoundingResidual,
) -> Iterator[Tensor]:
    """Yield a weight's values as the new format has them: folded ones times `by`."""
    for begin, values in piece.chunks():
        if by == piece.divisor:
            result = values.to(dtype)
        else:
            result = _scaled(values, piece.divisor, by).to(dtype)
            if dtype == values.dtype:
                block = f"{name}.{begin // CHUNK}"
                result = residual.restore(block, values, result)
                back = _scaled(result, by, piece.divisor).to(dtype)
                residual.keep(block, values, result, back)
        check_finite(folder.path, name, result)
        yield result


def _scaled(values: Tensor, by: float, wanted: float) -> Tensor:
    return folded(values, by) if wanted == 1 else unfolded(values, wanted)
