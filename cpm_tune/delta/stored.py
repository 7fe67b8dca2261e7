"""Reads a delta's two files, a JSON object and tensors, whoever wrote them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from cpm_tune.backbone.storage.finite import is_finite
from cpm_tune.backbone.storage.stored import stored_tensors
from cpm_tune.common.folders import DELTA, DELTA_CONFIG
from cpm_tune.common.reading import parse_json, read_json
from cpm_tune.common.texts import shortened
from cpm_tune.delta.config import DeltaConfig, parse_config
from cpm_tune.errors import UserError

_WRAPPERS = ("base_model.model.", "module.", "model.", "_orig_mod.", "cpmant.")
ABOUT = "cpm_tune"  # the key of our description in a file's header


def read_delta(folder: Path, backbone_sha256: str) -> tuple[DeltaConfig, dict[str, Tensor]]:
    """Return a saved delta's config and tensors.

    Raises UserError for broken files, or if it belongs to another backbone.
    """
    about, state = read_files(folder / DELTA_CONFIG, folder / DELTA, ("backbone_sha256", "config"))
    owner, config = about["backbone_sha256"], about["config"]
    if not isinstance(owner, str) or not isinstance(config, dict):
        raise UserError(
            f"{folder / DELTA_CONFIG}: backbone_sha256 is {shortened(owner)} and config is "
            f"{shortened(config)}; expected a text and an object."
        )
    header = _header(folder / DELTA)
    if header is not None and header != about:
        raise UserError(
            f"{folder / DELTA_CONFIG}: not what {DELTA} was saved with; the file was changed."
        )
    check_owner(folder, owner, backbone_sha256)
    return parse_config(config, str(folder / DELTA_CONFIG)), state


def check_owner(folder: Path, owner: str, here: str, name: str = "") -> None:
    """Raise UserError if a delta's backbone (sha256, and its name if known) is not `here`."""
    if owner != here:
        which = f"backbone {name}" if name else "another backbone"
        raise UserError(
            f"{folder}: this delta was tuned on {which} (sha256 {owner[:12]}…), not on the one "
            f"here (sha256 {here[:12]}…); pass the one it was tuned on as --backbone."
        )


def _header(weights: Path) -> Any:
    """Our description in the header of a file of tensors; None if another program wrote it."""
    from safetensors import safe_open

    with safe_open(weights, framework="pt") as file:
        about = (file.metadata() or {}).get(ABOUT)
    try:
        return None if about is None else parse_json(about)
    except ValueError as error:
        raise UserError(f"{weights}: its header is broken ({error}).") from error


def read_files(
    config: Path, weights: Path, keys: Sequence[str]
) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Return the object in `config`, which has all `keys`, and the tensors in `weights` by name.

    Raises UserError for a missing or broken file, and for tensors that are not of finite
    floating-point numbers.
    """
    for file in (config, weights):
        if not file.is_file():
            raise UserError(
                f"{file.parent}: no readable delta, {file.name} is missing; pass the folder of a "
                "run, of a saved delta, of a LoRA of PEFT's, or of OpenDelta's or CPM-Live's files."
            )
    try:
        values = read_json(config)
    except (OSError, ValueError) as error:
        raise UserError(f"{config}: cannot be read as JSON ({error}).") from error
    if not isinstance(values, dict) or (absent := [key for key in keys if key not in values]):
        fault = f"has no '{absent[0]}'" if isinstance(values, dict) else "is not an object"
        raise UserError(f"{config}: {fault}; expected an object with {', '.join(keys)}.")
    return values, read_tensors(weights)


def read_tensors(weights: Path) -> dict[str, Tensor]:
    """Return copies of the tensors in a file of safetensors or torch's.

    Raises UserError for a broken file, or tensors that are not of finite floating-point numbers.
    """
    try:
        tensors = {stored.name: stored.whole().clone() for stored in stored_tensors([weights])}
    except UserError as error:
        reason = str(error).removeprefix(f"{weights}: ")
        raise UserError(f"{weights}: cannot be read as a file of tensors: {reason}") from error
    for name, tensor in tensors.items():
        if not is_finite(tensor):
            raise UserError(f"{weights}: {name} contains NaN or inf; this delta is broken.")
    return tensors


def without_wrappers(names: Iterable[str]) -> dict[str, str]:
    """Names of tensors -> what they are without the parts that wrappers put before all of them."""
    names = list(names)
    short = dict(zip(names, names, strict=True))
    while names:
        wrapper = next((w for w in _WRAPPERS if all(n.startswith(w) for n in short.values())), "")
        if not wrapper:
            break
        short = {name: inner.removeprefix(wrapper) for name, inner in short.items()}
    return short
