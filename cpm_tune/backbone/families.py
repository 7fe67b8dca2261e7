"""The families of models: CPM-Ant, causal language models, encoder-decoders, and those that other
packages bring.

A package adds a family by an entry point of the group `cpm_tune.families`, whose object is a
`cpm_tune.backbone.protocol.Family` or makes one when it is called. The package's own families are
asked first, so a package can neither take nor break them.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from functools import cache, partial
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import TypeVar

from cpm_tune.backbone.ant.family import ANT
from cpm_tune.backbone.ant.folder import CPMAntFolder
from cpm_tune.backbone.causal.family import CAUSAL
from cpm_tune.backbone.encdec.family import ENCDEC
from cpm_tune.backbone.pretraining import Pretraining
from cpm_tune.backbone.protocol import BackboneConfig, BackboneFolder, Family
from cpm_tune.errors import UserError, absent

GROUP = "cpm_tune.families"
T = TypeVar("T")
_OWN: tuple[Family, ...] = (CAUSAL, ENCDEC, ANT)
_MEMBERS = ("name", "title", "presets", "recognises", "open")


@cache
def _installed() -> tuple[Family, ...]:
    """The families of installed packages, by the names of their entry points.

    Raises UserError for one that does not load, lacks a member, or has a name that is taken.
    """
    known: dict[str, Family] = {}
    presets = {preset for family in _OWN for preset in family.presets}
    for point in sorted(entry_points(group=GROUP), key=lambda point: point.name):
        who = _of(point)
        family = _try(partial(_loaded, point), f"{who} does not load")
        if absent := [name for name in _MEMBERS if not hasattr(family, name)]:
            raise UserError(f"{who} has no '{absent[0]}'; repair or uninstall it.")
        if not isinstance(family.name, str) or not re.fullmatch(r"[\w-]{1,40}", family.name):
            raise UserError(f"{who} is called {family.name!r}, expected letters and digits.")
        if family.name in {*known, *(own.name for own in _OWN)}:
            raise UserError(f"{who}: there is a family '{family.name}' already; uninstall one.")
        if taken := presets & {*family.presets}:
            raise UserError(f"{who}: there is a backbone '{min(taken)}' already; uninstall one.")
        presets |= {*family.presets}
        known[family.name] = family
    return tuple(known.values())


def _loaded(point: EntryPoint) -> Family:
    loaded = point.load()
    family: Family = (
        loaded if hasattr(loaded, "recognises") and not isinstance(loaded, type) else loaded()
    )
    return family


def _try(action: Callable[[], T], what: str) -> T:
    """Do what an installed package does; raise UserError for whatever goes wrong there."""
    try:
        return action()
    except UserError:
        raise
    except Exception as error:  # somebody else's code
        reason = f"{type(error).__name__}: {error}"[:200]
        raise UserError(f"{what} ({reason}); repair or uninstall it.") from error


def _of(point: EntryPoint) -> str:
    package = f" of the package {point.dist.name}" if point.dist else ""
    return f"the model family '{point.name}'{package}"


def families() -> tuple[Family, ...]:
    """All families: the package's own, then those of installed packages."""
    return (ANT, CAUSAL, ENCDEC, *_installed())


def presets() -> dict[str, BackboneConfig]:
    """The published sizes of all families by name."""
    return {name: config for family in families() for name, config in family.presets.items()}


def pretrainings() -> dict[str, Pretraining]:
    """How families can be pre-trained, by the names of their vocabularies' kinds; CPM-Ant's first.

    Raises UserError if the kinds of two families have one name.
    """
    known: dict[str, Pretraining] = {}
    for family in families():
        kind: Pretraining | None = getattr(family, "pretraining", None)
        if kind is not None and known.setdefault(kind.name, kind) is not kind:
            raise UserError(f"two families pre-train '{kind.name}'; uninstall one of them.")
    return known


def pretraining_in(family: str) -> Pretraining | None:
    """How the models of a family are pre-trained, by its name; None if they cannot be."""
    return next((getattr(f, "pretraining", None) for f in families() if f.name == family), None)


def roles_in(family: str) -> Mapping[str, tuple[str, ...]]:
    """The roles that all models of a family have, by its name; none if models differ."""
    return next((getattr(f, "roles", {}) for f in families() if f.name == family), {})


def pretraining_of(vocabulary: Path) -> Pretraining:
    """The kind of a vocabulary file; CPM-Ant's if it is none, whose errors say what one is."""
    known = list(pretrainings().values())
    return next((kind for kind in known if kind.recognises(vocabulary)), known[0])


def open_ant(path: Path, purpose: str) -> CPMAntFolder:
    """Open a CPM-Ant folder for what CPM-Ant alone can do; raise UserError for another family's."""
    folder = open_folder(path)
    if not isinstance(folder, CPMAntFolder):
        raise UserError(
            f"{path}: {purpose} works with CPM-Ant only, and this backbone is of the family "
            f"'{folder.config.family}'."
        )
    return folder


def open_folder(path: Path) -> BackboneFolder:
    """Open a backbone's folder, of whichever family; raise UserError with what is wrong."""
    if not path.is_dir():
        raise UserError(f"backbone {path}: {absent(path)}.")
    for family in _OWN:
        if family.recognises(path):
            return family.open(path)
    for family in _installed():
        who = f"{path}: the model family '{family.name}' cannot"
        if _try(partial(family.recognises, path), f"{who} look at it"):
            return _try(partial(family.open, path), f"{who} open it")
    return ANT.open(path)  # its errors say what a folder lacks
