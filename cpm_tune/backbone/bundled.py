"""The bundled backbones, and how names and paths become folders.

The README.md of each has its training data, the command, and its scores.
"""

from __future__ import annotations

from pathlib import Path

from cpm_tune.backbone import hub
from cpm_tune.backbone.families import presets
from cpm_tune.common.paths import PACKAGE
from cpm_tune.errors import UserError, did_you_mean
from cpm_tune.schema.options import BUNDLED

NAMES = (BUNDLED, "cpm-1-tiny", "cpm-2-tiny")  # the default is the first
FOLDERS = {name: PACKAGE / "backbone" / name for name in NAMES}
FOLDER = FOLDERS[BUNDLED]


def resolve(name_or_path: str) -> Path:
    """Return the folder of a backbone given by name, path, or hub:OWNER/NAME (downloaded then)."""
    if name_or_path in FOLDERS:
        return FOLDERS[name_or_path]
    if name_or_path.startswith(hub.PREFIX):
        return hub.download(name_or_path)
    if name_or_path in presets() and not Path(name_or_path).is_dir():
        raise UserError(
            f"--backbone {name_or_path}: its weights are not shipped; download the checkpoint and "
            "pass its folder."
        )
    if hub.looks_like_id(name_or_path) and not Path(name_or_path).exists():
        raise UserError(
            f"--backbone {name_or_path}: there is no such folder; for a model of the Hugging Face "
            f"hub pass {hub.PREFIX}{name_or_path}."
        )
    path = Path(name_or_path)
    if len(path.parts) == 1 and not path.exists():
        hint = did_you_mean(name_or_path, {*NAMES, *presets()})
        if "Did you mean" in hint:
            raise UserError(f"--backbone {name_or_path}: there is no such folder.{hint}")
    return path
