"""The command `bench`: many runs from one command or one file."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

from cpm_tune.bench import session
from cpm_tune.bench.options import SuiteOptions
from cpm_tune.bench.slurm import parse_slurm
from cpm_tune.bench.suite import make_suite
from cpm_tune.commands.options.bench import Bench
from cpm_tune.planning.settings import parse_settings
from cpm_tune.schema.options import chosen_controls


def run(options: Bench) -> int:
    """Plan a suite, run what is not finished, print how it ended."""
    given: dict[str, Any] = {
        field.name: getattr(options, field.name)
        for field in fields(SuiteOptions)
        if field.name in options.given
    }
    if options.control:
        given["controls"] = chosen_controls(options.control)
    if settings := options.execution_settings() | parse_settings(options.settings):
        given["set"] = settings
    suite = make_suite(options.suite, given)
    cluster = None
    if options.executor != "local":
        cluster = session.Cluster(
            options.ray_address,
            options.cpus_per_process or 1,
            options.gpus_per_process,
            parse_slurm(options.slurm) if options.executor == "slurm" else None,
        )
    return session.bench(
        suite,
        where="bench" if options.suite is None else str(options.suite),
        jobs=options.jobs or 0,
        cluster=cluster,
        dry_run=options.dry_run,
        only_failed=options.only_failed,
        quiet=options.quiet,
    )
