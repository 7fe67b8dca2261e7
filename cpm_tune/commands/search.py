"""The command `search`: settings chosen on dev, and one run with the best of them."""

from __future__ import annotations

import os

from cpm_tune.commands.asked import asked
from cpm_tune.commands.options.search import Search
from cpm_tune.common.door import load
from cpm_tune.common.progress import shown
from cpm_tune.common.reading import read_mapping
from cpm_tune.engine.launch import launch
from cpm_tune.engine.rank import launched, rank_info
from cpm_tune.errors import UserError
from cpm_tune.schema.options import chosen_controls
from cpm_tune.search.plan import make_search
from cpm_tune.search.space import parse_items
from cpm_tune.task.registry import expand


def run(options: Search) -> int:
    """Search, or print the plan with --dry-run."""
    space = parse_items(options.space)
    known = asked(options, space)
    options, file = known.options, options.config
    tasks = expand(options.task, options.include)
    if tasks != [options.task]:
        raise UserError(
            f"--task {options.task}: {len(tasks)} tasks, expected one; a suite of `bench` searches "
            "for each task (docs/bench.md)."
        )
    with known.naming:
        search = make_search(
            known.request,
            space or known.space,
            trials=options.trials,
            seconds=options.seconds,
            prune=options.prune,
            where=f"--config {file}: space" if known.space and not space else "--space",
        )
    controls = chosen_controls(options.control)
    before = None
    if options.nproc > 1 and not options.dry_run and not launched():
        launch(["search", *options.words], options.nproc)
        return 0
    repeats = file is not None and "spec_sha256" in read_mapping(file, "--config", "")
    if repeats and not options.dry_run:
        before = load("cpm_tune.commands.again:Results")(file)
    main = rank_info(os.environ).rank == 0
    with shown(unless=options.quiet or options.dry_run or not main):
        outcomes = load("cpm_tune.search.session:search_and_run")(
            search,
            out=options.out,
            seeds=tuple(dict.fromkeys(options.seeds)),
            controls=controls,
            dry_run=options.dry_run,
            quiet=options.quiet,
            nproc=options.nproc,
        )
    for outcome in outcomes:
        if main and before is not None and outcome.record.spec.seed == before.spec.seed:
            lines = load("cpm_tune.commands.again:compared")(file, outcome.record.spec)
            if outcome.record.spec == before.spec:
                lines += before.compared(outcome.folder)
            print("\n".join(f"again      {line}" for line in lines))
    return 0
