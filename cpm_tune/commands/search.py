"""The command `search`: settings chosen on dev, and one run with the best of them."""

from __future__ import annotations

from dataclasses import fields

from cpm_tune.commands.options.search import Search
from cpm_tune.common.door import load
from cpm_tune.common.progress import shown
from cpm_tune.errors import UserError
from cpm_tune.planning.plan import Request
from cpm_tune.planning.settings import parse_settings
from cpm_tune.schema.options import RunOptions, chosen_controls
from cpm_tune.search.plan import make_search
from cpm_tune.search.space import parse_items
from cpm_tune.task.registry import expand


def run(options: Search) -> int:
    """Search, or print the plan with --dry-run."""
    tasks = expand(options.task, options.include)
    if tasks != [options.task]:
        raise UserError(
            f"--task {options.task}: {len(tasks)} tasks, expected one; a suite of `bench` searches "
            "for each task (docs/bench.md)."
        )
    settings = options.execution_settings() | parse_settings(options.settings)
    chosen = {field.name: getattr(options, field.name) for field in fields(RunOptions)}
    search = make_search(
        Request(**chosen, settings=settings),
        parse_items(options.space),
        trials=options.trials,
        seconds=options.seconds,
        prune=options.prune,
    )
    controls = chosen_controls(options.control)
    with shown(unless=options.quiet or options.dry_run):
        load("cpm_tune.search.session:search_and_run")(
            search,
            out=options.out,
            seeds=tuple(dict.fromkeys(options.seeds)),
            controls=controls,
            dry_run=options.dry_run,
            quiet=options.quiet,
        )
    return 0
