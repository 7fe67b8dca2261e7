"""The command without a name: one run, or one per task, with controls."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from cpm_tune.commands.asked import asked
from cpm_tune.commands.options.tune import Tune
from cpm_tune.common.door import load
from cpm_tune.common.program import program
from cpm_tune.common.progress import shown
from cpm_tune.common.reading import read_mapping
from cpm_tune.engine.launch import launch
from cpm_tune.engine.rank import launched, rank_info
from cpm_tune.errors import UserError
from cpm_tune.planning.plan import make_plan
from cpm_tune.schema.options import chosen_controls
from cpm_tune.schema.record import read_record
from cpm_tune.task.registry import expand


def run(options: Tune) -> int:
    """Tune, or print the plan with --dry-run."""
    known = asked(options)
    options, request, file = known.options, known.request, options.config
    if options.rendezvous and options.nnodes == 1:
        raise UserError("--rendezvous is for several machines; add --nnodes N, or omit it.")
    controls = chosen_controls(options.control)
    after: Callable[[Path], None] | None = None
    if options.forgetting and options.only is None and not options.dry_run:
        if options.nnodes > 1 or launched():
            raise UserError(
                f"--forgetting is measured by one process: run `{program()} forgetting RUN` when "
                "the run has finished."
            )
        after = load("cpm_tune.commands.forgetting:after_run")
    processes = options.nproc * options.nnodes
    start: Callable[[str], None] | None = None
    if processes > 1 and not options.dry_run and not launched():
        machines = (options.nproc, options.nnodes, options.rendezvous)
        if options.nnodes > 1:  # machines would not agree on which task they are at
            launch(options.words, *machines)
            return 0

        def start(name: str) -> None:
            launch([*options.words, "--only", name], *machines)

    plan = before = None
    if start is None and expand(request.task, request.include) == [request.task]:
        with known.naming:
            plan = make_plan(request)  # mistakes are reported before torch is imported
        if (
            file is not None
            and not options.quiet
            and "spec_sha256" in read_mapping(file, "--config", "")
        ):
            for line in load("cpm_tune.commands.again:compared")(file, plan.spec):
                print(f"again      {line}")
            if read_record(file).spec_sha256 == plan.spec.sha256 and not options.dry_run:
                before = load("cpm_tune.commands.again:Results")(file)
    other = start is not None or rank_info(os.environ).rank != 0  # another process shows it
    with shown(unless=options.quiet or options.dry_run or other):
        load("cpm_tune.runs.session:tune_all")(
            request,
            out=options.out,
            controls=controls,
            overwrite=options.overwrite,
            resume=options.resume,
            dry_run=options.dry_run,
            quiet=options.quiet,
            nproc=processes,
            only=options.only,
            start=start,
            plan=plan,
            after=after,
        )
    if before is not None and plan is not None and not other:
        for line in before.compared(options.out / plan.spec.run_id):
            print(f"again      {line}")
    return 0
