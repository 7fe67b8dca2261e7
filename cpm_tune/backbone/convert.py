"""Takes a backbone folder from one layout to another, a part of a tensor at a time."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from cpm_tune.backbone.checkpoint import check_finite
from cpm_tune.backbone.config import CPMAntConfig
from cpm_tune.backbone.folder import BackboneFolder, open_folder
from cpm_tune.backbone.hugging_face import hugging_face_config, write_tokenizer
from cpm_tune.backbone.layouts import (
    CHUNK,
    HEAD,
    PROMPTS,
    TOKENS,
    Piece,
    divisor,
    folded,
    pieces,
    unfolded,
)
from cpm_tune.backbone.rounding_residual import Remainder
from cpm_tune.backbone.writers import Target, write_pt, write_safetensors, write_shards
from cpm_tune.common.folders import new_folder
from cpm_tune.errors import UserError

SHARD = 5_000_000_000  # bytes of a file in Hugging Face's layout, as transformers had it


def convert(
    folder: BackboneFolder,
    out: Path,
    to: str,
    *,
    dtype: torch.dtype | None = None,
    max_shard: int = SHARD,
    overwrite: bool = False,
    config: CPMAntConfig | None = None,
) -> None:
    """Write a backbone folder anew as `to`: reference, hf or native. `out` appears whole or not.

    Each tensor keeps its dtype unless one is given. `config`: the folder's with more sub-blocks
    masked, whose weights are left out. The vocabulary keeps its bytes. Where scaling changes within
    a dtype, scaling.npz is added (`backbone/rounding_residual.py`), and the way back is exact.

    Raises UserError for files that do not fit or are broken, weights that are not finite in the
    dtype, sub-blocks that `to` cannot leave out, and an `out` that is there (without `overwrite`).
    """
    config = config or folder.config
    if to == "hf":
        check_whole(config)
    check_free(out, overwrite, folder.path)
    folder.tokenizer()  # the vocabulary has the size that the config says
    found = pieces(folder, config)
    with new_folder(out, "", overwrite=overwrite) as part, contextlib.ExitStack() as held:
        rest = held.enter_context(contextlib.closing(Remainder(folder.path, part)))
        targets = _targets(found, folder, config, to, dtype, rest)
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
                if not _masked(config):
                    values.pop("mask_modules")  # older code does not know it
            rest.close()
            if dtype is None and _same_scaling(found, to, config) and rest.source.is_file():
                shutil.copyfile(rest.source, rest.target)
            if to == "native" or not folder.trained:
                values["trained"] = folder.trained
            name = f"{out.name}.json" if to == "reference" else "config.json"
            (part / name).write_text(json.dumps(values, indent=1) + "\n", encoding="utf-8")
            vocabulary = "ant.txt" if to == "reference" else "vocab.txt"
            shutil.copyfile(folder.vocabulary, part / vocabulary)
        except OSError as error:
            raise UserError(f"{out}: cannot be written ({error.strerror}); make room.") from error


def _same_scaling(found: Mapping[str, Piece], to: str, config: CPMAntConfig) -> bool:
    return all(divisor(name, p.shape, to, config) == p.divisor for name, p in found.items())


def check_free(place: Path, overwrite: bool, source: Path) -> None:
    """Raise UserError if `place` cannot be written, lies inside the backbone folder `source`, or
    is there already; with `overwrite`, only if it is something else than a backbone folder."""
    if source.resolve() in place.resolve().parents:
        raise UserError(f"{place}: lies inside {source}, which is read; choose another place.")
    above = next(folder for folder in place.absolute().parents if folder.exists())
    if not above.is_dir():
        raise UserError(f"{place}: cannot be written ({above} is a file); choose another place.")
    if not os.access(above, os.W_OK):
        raise UserError(f"{place}: cannot be written ({above}: no permission); choose another.")
    if not place.exists():
        return
    if not overwrite:
        raise UserError(f"{place}: is there already; choose another, or give --overwrite.")
    try:
        open_folder(place)
        inner = [path for path in place.iterdir() if path.is_dir()]
    except (UserError, OSError):
        inner = [place]
    if inner:
        raise UserError(
            f"{place}: is there, and is not a backbone folder alone; --overwrite replaces nothing "
            "else, choose another place."
        )


def check_whole(config: CPMAntConfig) -> None:
    """Raise UserError for a shape that transformers has no class for."""
    if _masked(config):
        raise UserError(
            "transformers' CpmAnt has every sub-block, this backbone lacks some (mask_modules); "
            "use --to native or --to reference."
        )


def _masked(config: CPMAntConfig) -> bool:
    return any(flag for pair in config.mask_modules for flag in pair)


def _targets(
    found: Mapping[str, Piece],
    folder: BackboneFolder,
    config: CPMAntConfig,
    to: str,
    dtype: torch.dtype | None,
    rest: Remainder,
) -> list[Target]:
    def target(name: str, *parts: str) -> Target:
        kinds = {found[part].stored.dtype for part in parts}
        kind = dtype or max(kinds, key=lambda kind: kind.itemsize)
        rows = sum(found[part].shape[0] for part in parts)

        def chunks() -> Iterator[Tensor]:
            for part in parts:
                by = divisor(part, found[part].shape, to, config)
                yield from _values(part, found[part], by, kind, folder, rest)

        return Target(name, (rows, *found[parts[0]].shape[1:]), kind, chunks)

    if to != "hf":
        return [target(name, name) for name in found]
    named = [
        target(f"cpmant.{name}", name, *([PROMPTS] if name == TOKENS else []))
        for name in found
        if name != PROMPTS
    ]
    return [*named, target(HEAD, TOKENS)]


def _values(
    name: str, piece: Piece, by: float, dtype: torch.dtype, folder: BackboneFolder, rest: Remainder
) -> Iterator[Tensor]:
    """Yield a weight's values as the new layout has them: folded ones times `by`."""
    for begin, values in piece.chunks():
        if by == piece.divisor:
            result = values.to(dtype)
        else:
            result = _scaled(values, piece.divisor, by).to(dtype)
            if dtype == values.dtype:
                block = f"{name}.{begin // CHUNK}"
                result = rest.restore(block, values, result)
                back = _scaled(result, by, piece.divisor).to(dtype)
                rest.keep(block, values, result, back)
        check_finite(folder.path, name, result)
        yield result


def _scaled(values: Tensor, by: float, wanted: float) -> Tensor:
    return folded(values, by) if wanted == 1 else unfolded(values, wanted)
