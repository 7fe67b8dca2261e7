"""What a command is asked for: its options over those of a --config file, as a request."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Generic

from cpm_tune.commands.arguments import G, over_file
from cpm_tune.errors import UserError
from cpm_tune.planning.plan import Request
from cpm_tune.planning.settings import flat_settings, in_file, parse_settings
from cpm_tune.schema.options import RunOptions


@dataclass(frozen=True)
class Asked(Generic[G]):
    """`options` with those of the file, the request that they make, `space` of the file by dotted
    keys; `naming` names the file in the mistakes of its settings."""

    options: G
    request: Request
    space: Mapping[str, Any]
    naming: AbstractContextManager[None]


def asked(options: Any, searched: Collection[str] | None = None) -> Asked[Any]:
    """Read the --config file of `tune` or `search`. `searched`: the settings that the command line
    searches, which the file's `set` is not for; None if the command searches nothing.

    Raises UserError with every mistake, a line each.
    """
    settings, space, file = dict[str, Any](), dict[str, Any](), options.config
    if file is not None:
        mappings = ("set",) if searched is None else ("set", "space")
        options, given = over_file(options, file, mappings)
        settings = _flat(given, "set", file)
        space = _flat(given, "space", file) if "space" in given else {}
        settings = {k: v for k, v in settings.items() if k not in (searched or ())}
    if not options.task:
        raise UserError("--task is missing; `list tasks` prints the names.")
    over = options.execution_settings() | parse_settings(options.settings)
    naming: AbstractContextManager[None] = nullcontext()
    if file is not None:
        naming = in_file(f"--config {file}: set", settings.keys() - over.keys())
    chosen = {field.name: getattr(options, field.name) for field in fields(RunOptions)}
    return Asked(options, Request(**chosen, settings=settings | over), space, naming)


def _flat(given: Mapping[str, Mapping[Any, Any]], name: str, file: Path) -> dict[str, Any]:
    try:
        return flat_settings(given[name])
    except ValueError as error:
        raise UserError(f"--config {file}: {name}: {error}.") from error
