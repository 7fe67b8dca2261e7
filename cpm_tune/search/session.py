"""What the `search` command does: trials on dev, then the run with the best settings."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from cpm_tune.common.events import emit, listening
from cpm_tune.common.folders import check_results
from cpm_tune.common.progress import working
from cpm_tune.common.sizes import counted
from cpm_tune.planning.inputs import before_scoring, read_inputs
from cpm_tune.runs.dry_run import dry_run_text, would_do
from cpm_tune.runs.execute import Outcome
from cpm_tune.runs.session import describe, tune
from cpm_tune.runs.shared import SharedBackbone
from cpm_tune.schema.record import SearchRecord, TrialRecord
from cpm_tune.search.plan import Search
from cpm_tune.search.trials import find, hand_over


def search_and_run(
    search: Search,
    *,
    out: Path,
    seeds: Sequence[int] = (),
    controls: Sequence[str] = ("zero-shot",),
    dry_run: bool = False,
    quiet: bool = True,
    nproc: int = 1,
) -> list[Outcome]:
    """Carry out a search, then a run with the best settings for each of the seeds (none: the
    search's own); print what happens. Nothing is run if `dry_run`; `nproc` is the number of
    processes that it estimates for."""
    check_results(out)
    if dry_run:
        would = would_do(search.plan, out, nproc)
        emit("plan", **would, search=_about(search, out), seeds=list(seeds or [search.spec.seed]))
        if not listening():
            runs = ", ".join(map(str, seeds or [search.spec.seed]))
            print(f"{dry_run_text(search.plan, would)}\n{_header(search, out)}")
            print(
                f"seeds      {runs}: of the runs with the best settings; the plan is of the trials"
            )
        return []
    with working("reading the data"):
        inputs = read_inputs(search.plan)  # mistakes in any file are reported before anything runs
    engine, main = inputs.engine, inputs.engine.main  # one process prints
    if main and not quiet:
        warnings = [f"warning    {text}" for text in before_scoring(search.plan, inputs)]
        print("\n".join([describe(search.plan), *warnings, _header(search, out)]), flush=True)

    def watch(number: int, trial: TrialRecord, new: bool) -> None:
        emit("search_trial", number=number, existed=not new, **trial.model_dump(mode="json"))
        if not quiet:
            print(trial_line(number, search.spec.trials, trial), flush=True)

    backbone = SharedBackbone()
    record, values = find(search, out, backbone.load, engine, known=inputs.splits, watch=watch)
    backbone.check()
    backbone.forget()
    if main:
        emit("search", **record.model_dump(mode="json", exclude={"trials"}), **_best(record))
        print(best_text(record), flush=True)
        if record.earlier:
            runs = ", ".join(record.earlier)
            print(f"note       earlier looks at test, on another budget: {runs}", flush=True)
    outcomes = []
    for seed in seeds or (search.spec.seed,):
        plan = search.run_plan(values, record, seed)
        if main:
            hand_over(search, out, plan, values)
        request = replace(search.request, seed=seed)
        outcome = tune(request, out=out, controls=controls, plan=plan)
        assert outcome is not None
        outcomes.append(outcome)
    if main and len(outcomes) > 1:
        print(_over_seeds(outcomes), flush=True)
    return outcomes


def _about(search: Search, out: Path) -> dict[str, Any]:
    return {"folder": search.folder(out), **search.spec.model_dump(mode="json")}


def _header(search: Search, out: Path) -> str:
    spec = search.spec
    pruned = "median pruning" if spec.pruner else "no pruning"
    limit = "" if spec.seconds is None else f" or {spec.seconds:,} s, whichever ends first"
    lines = [
        f"search     {key}={values}{_now(search.first[key])}" for key, values in spec.space.items()
    ]
    return "\n".join(
        [
            *lines,
            f"budget     {counted(spec.trials, 'trial')}{limit}; TPE, {pruned}, seed {spec.seed}",
            f"study      {search.folder(out)}",
        ]
    )


def _now(value: Any) -> str:
    return "" if value is None else f"  (without a search {short(str(value))})"


def trial_line(number: int, of: int, trial: TrialRecord) -> str:
    """One trial in one line."""
    settings = " ".join(f"{key}={short(text)}" for key, text in trial.settings.items())
    if trial.state == "failed":
        what = f"failed: {trial.error}"
    elif trial.repeats:
        what = f"as trial {trial.repeats}"
    else:
        dev = "" if trial.dev is None else f"dev {trial.dev:.4f}"
        pruned = "  pruned" if trial.state == "pruned" else ""
        what = f"{dev}  {trial.steps:,} steps  {trial.seconds:.1f} s{pruned}"
    return f"trial      {number:>{len(str(of))}}/{of}  {settings}  {what}"


def short(text: str) -> str:
    """A number with four digits; another text as it is."""
    try:
        return f"{float(text):.4g}"
    except ValueError:
        return text


def _best(record: SearchRecord) -> dict[str, Any]:
    best = record.trials[record.chosen - 1]
    return {"dev": best.dev, "settings": best.settings, "n_trials": len(record.trials)}


def best_text(record: SearchRecord) -> str:
    """The chosen trial, and how many ended how."""
    best, states = record.trials[record.chosen - 1], [trial.state for trial in record.trials]
    ended = ", ".join(f"{states.count(state)} {state}" for state in dict.fromkeys(states))
    settings = " ".join(f"{key}={short(text)}" for key, text in best.settings.items())
    return (
        f"best       trial {record.chosen}: dev {record.metric} {best.dev:.4f}  {settings}\n"
        f"           {counted(len(states), 'trial')} ({ended}) in {record.seconds:,.1f} s; chosen "
        "on dev alone"
    )


def _over_seeds(outcomes: Sequence[Outcome]) -> str:
    records = [outcome.record for outcome in outcomes]
    if not all(record.labelled for record in records):
        return f"seeds      {len(records)} runs; the test split has no answers"
    values = [record.test.value for record in records]
    middle = math.fsum(values) / len(values)
    spread = statistics.stdev(values)
    return (
        f"seeds      {len(values)} seeds: test {records[0].ranks_by} mean {middle:.4f}, standard "
        f"deviation {spread:.4f}"
    )
