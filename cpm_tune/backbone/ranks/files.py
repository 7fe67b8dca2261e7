"""The files of model-parallel ranks, and whose they are. Imports no torch.

latest_checkpointed_iteration.txt      80000
80000/mp_rank_00_model_states.pt       the first of N files, the weights under `module`
"""

from __future__ import annotations

import re
from pathlib import Path

from cpm_tune.common.door import load
from cpm_tune.errors import UserError

LATEST = "latest_checkpointed_iteration.txt"
MAX_RANKS = 64
_FILE = re.compile(r"mp_rank_(\d\d)_model_states\.pt")
_CPM_2 = re.compile(r"(?:.*\.)?(?:word_embeds\.weight|(?:encoder|decoder)\.blocks\.\d+\..*)")


def has_ranks(folder: Path) -> bool:
    """Whether a folder has the files of model-parallel ranks, by their names."""
    return (folder / LATEST).is_file() or any(map(_is_rank, _listed(folder)))


def is_cpm2(folder: Path) -> bool:
    """Whether a folder has ranks whose weights have CPM-2's names. Reads no values."""
    if not has_ranks(folder):
        return False
    try:
        names = load("cpm_tune.backbone.ranks.reading:names")(rank_files(folder)[0])
    except UserError:
        return False
    return any(_CPM_2.fullmatch(name) for name in names)


def rank_files(folder: Path) -> tuple[Path, ...]:
    """The files of all ranks in order: of the iteration that `folder` names, or in `folder` itself.

    Raises UserError if one is missing.
    """
    place = folder
    if (folder / LATEST).is_file():
        place = folder / _iteration(folder / LATEST)
    files = sorted(file for file in _listed(place) if _is_rank(file))
    if not files:
        raise UserError(f"{place}: no checkpoint here, expected mp_rank_00_model_states.pt.")
    if len(files) > MAX_RANKS:
        raise UserError(f"{place}: {len(files)} ranks, at most {MAX_RANKS} are read.")
    for number, file in enumerate(files):
        if file.name != rank_name(number):
            raise UserError(
                f"{place}: {rank_name(number)} is missing, but {files[-1].name} is there; get "
                "every rank's file."
            )
    return tuple(files)


def rank_name(number: int) -> str:
    """The name of a rank's file."""
    return f"mp_rank_{number:02}_model_states.pt"


def _listed(folder: Path) -> list[Path]:
    try:
        return list(folder.iterdir())
    except OSError:
        return []


def _is_rank(file: Path) -> bool:
    return _FILE.fullmatch(file.name) is not None and file.is_file()


def _iteration(file: Path) -> str:
    """The name of the folder that the newest checkpoint is in."""
    with file.open("rb") as raw:
        text = raw.read(100).decode("ascii", "replace").strip()
    if not re.fullmatch(r"\d{1,18}|release", text):
        raise UserError(f"{file}: contains {text[:40]!r}, expected an iteration such as 80000.")
    return text
