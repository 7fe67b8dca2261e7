"""The families of models: CPM-Ant, causal language models, and those that other packages bring.

A package adds a family by an entry point of the group `cpm_tune.families`, whose object is a
`cpm_tune.backbone.protocol.Family` or makes one when it is called.
"""

from __future__ import annotations

from functools import cache
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path

from cpm_tune.backbone.ant.family import ANT
from cpm_tune.backbone.ant.folder import CPMAntFolder
from cpm_tune.backbone.causal.family import CAUSAL
from cpm_tune.backbone.protocol import BackboneConfig, BackboneFolder, Family
from cpm_tune.errors import UserError

GROUP = "cpm_tune.families"
_OWN: tuple[Family, ...] = (ANT, CAUSAL)


@cache
def families() -> tuple[Family, ...]:
    """All families: the package's own, then those of installed packages, by name.

    Raises UserError for one that cannot be loaded, or whose name is taken.
    """
    known = {family.name: family for family in _OWN}
    for point in sorted(entry_points(group=GROUP), key=lambda point: point.name):
        family = _loaded(point)
        if family.name in known:
            raise UserError(
                f"{_of(point)}: there is a family '{family.name}' already; uninstall one of them."
            )
        known[family.name] = family
    return tuple(known.values())


def _loaded(point: EntryPoint) -> Family:
    try:
        loaded = point.load()
    except Exception as error:  # somebody else's code
        raise UserError(f"{_of(point)} does not load ({error}); repair or uninstall it.") from error
    family: Family = loaded() if isinstance(loaded, type) else loaded
    return family


def _of(point: EntryPoint) -> str:
    package = f" of the package {point.dist.name}" if point.dist else ""
    return f"the model family '{point.name}'{package}"


def open_ant(path: Path, purpose: str) -> CPMAntFolder:
    """Open a CPM-Ant folder for what CPM-Ant alone can do; raise UserError for another family's."""
    folder = open_folder(path)
    if not isinstance(folder, CPMAntFolder):
        raise UserError(
            f"{path}: {purpose} works with CPM-Ant only, and this backbone is of the family "
            f"'{folder.config.family}'."
        )
    return folder


def presets() -> dict[str, BackboneConfig]:
    """The published sizes of all families by name."""
    return {name: config for family in families() for name, config in family.presets.items()}


def open_folder(path: Path) -> BackboneFolder:
    """Open a backbone's folder, of whichever family; raise UserError with what is wrong."""
    if not path.is_dir():
        raise UserError(f"backbone {path}: there is no such folder.")
    others = (family for family in families() if family is not ANT and family.recognises(path))
    return next(others, ANT).open(path)
