"""The command `leaderboard compare`."""

from __future__ import annotations

import sys

from cpm_tune.commands.options.leaderboard import Compare
from cpm_tune.leaderboard.compare import Method, compare_rows
from cpm_tune.leaderboard.compare_text import render
from cpm_tune.metrics import get_metric


def run(options: Compare) -> int:
    """Compare rows and print the report."""
    if options.metric is not None:
        get_metric(options.metric)
    method = Method(
        options.split,
        options.metric,
        options.test,
        options.resamples,
        options.seed,
        with_interval=not options.matrix or options.format == "json",
    )
    report, warnings = compare_rows(options.rows, options.results, method, every=options.matrix)
    for warning in warnings:
        print(f"note: {warning}", file=sys.stderr)
    print(render(report, options.format, options.matrix, options.difference))
    return 0
