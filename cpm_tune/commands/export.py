"""The command `export`."""

from __future__ import annotations

from cpm_tune.commands.options.runs import Export
from cpm_tune.runs.export import export_run


def run(options: Export) -> int:
    """Write a finished run's delta for another program."""
    export_run(
        options.run,
        options.to,
        options.out,
        backbone=options.backbone,
        hub_dataset=options.hub_dataset,
    )
    return 0
