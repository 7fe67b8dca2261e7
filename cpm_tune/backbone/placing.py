"""Where a new backbone folder may be written."""

from __future__ import annotations

import os
from pathlib import Path

from cpm_tune.common.door import load
from cpm_tune.common.folders import clear_up
from cpm_tune.errors import UserError


def check_free(place: Path, overwrite: bool, source: Path) -> None:
    """Raise UserError if `place` cannot be written, is inside the backbone folder `source`, or
    exists; with `overwrite`, only if it is something other than a backbone folder."""
    if source.resolve() in place.resolve().parents:
        raise UserError(f"{place}: this is inside {source}, which is read; choose another path.")
    above = next((folder for folder in place.absolute().parents if folder.exists()), place)
    if not above.is_dir():
        raise UserError(f"{place}: cannot be written ({above} is a file); choose another path.")
    if not os.access(above, os.W_OK):
        raise UserError(
            f"{place}: cannot be written ({above}: no permission); choose another path."
        )
    clear_up(place)
    if not place.exists():
        return
    if not overwrite:
        raise UserError(f"{place} already exists; choose another path or pass --overwrite.")
    if not _is_backbone_alone(place):
        raise UserError(
            f"{place} exists and is not a backbone folder alone; --overwrite replaces nothing "
            "else, choose another path."
        )


def _is_backbone_alone(place: Path) -> bool:
    """Whether a folder is a backbone's without other folders, but for one of ranks."""
    try:
        load("cpm_tune.backbone.families:open_folder")(place)
        inner = [path for path in place.iterdir() if path.is_dir()]
        return all(file.match("mp_rank_*.pt") for path in inner for file in path.iterdir())
    except (UserError, OSError):
        return False
