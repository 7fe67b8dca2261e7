"""What the `tune` command does: runs with their controls, reported step by step."""

from __future__ import annotations

import sys
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from cpm_tune.common.events import emit, listening
from cpm_tune.common.folders import check_results
from cpm_tune.common.progress import labelled, working
from cpm_tune.common.sizes import counted
from cpm_tune.data.splits import data_folder, sample_folder
from cpm_tune.engine.rank import launched
from cpm_tune.errors import ProcessLostError, UserError
from cpm_tune.planning.inputs import before_scoring, read_inputs
from cpm_tune.planning.plan import Plan, Request, make_plan
from cpm_tune.runs.dry_run import dry_run_text, would_do
from cpm_tune.runs.execute import Outcome, execute
from cpm_tune.runs.finished import other_numbers
from cpm_tune.schema.record import SHORTCUTS, RunRecord, shown_scores
from cpm_tune.task import Generate
from cpm_tune.task.registry import expand, load_task


def tune(
    request: Request,
    *,
    out: Path = Path("results"),
    controls: Sequence[str] = ("zero-shot",),
    overwrite: bool = False,
    resume: bool = True,
    dry_run: bool = False,
    quiet: bool = True,
    nproc: int = 1,
    plan: Plan | None = None,
) -> Outcome | None:
    """Run a request and its controls; print what happens. Returns None for a dry run.

    Controls: "zero-shot" (the backbone without delta) and "random-backbone" (the same delta on a
    random backbone of the same shape). Each is a run with its own record. `nproc` is the number of
    processes that a dry run estimates for. `plan` is the request's, if it has been made.
    """
    plan = plan or make_plan(request)
    check_results(out)
    if dry_run:
        would = would_do(plan, out, nproc)
        emit("plan", **would)
        if not listening():
            print(dry_run_text(plan, would))
        return None
    with working("reading the data"):
        inputs = read_inputs(plan)  # mistakes in any file are reported before anything runs
    main = inputs.engine.main  # one process prints
    controlled: list[Outcome] = []

    def say(text: str) -> None:
        if main and not quiet:
            print(text, flush=True)

    def zero_shot() -> Outcome:
        with labelled("zero-shot"):
            control = execute(plan.zero_shot(), out, inputs, wait=True)
        say(f"zero-shot  {_score(control.record)}{'  (already finished)' * control.reused}")
        controlled.append(control)
        return control

    warnings = before_scoring(plan, inputs)
    say("\n".join([describe(plan), *(f"warning    {w}" for w in warnings)]))
    wanted = "zero-shot" in controls and plan.spec.recipe is not None
    how: dict[str, Any] = {"resume": resume, "say": say}
    outcome = execute(
        plan, out, inputs, overwrite=overwrite, zero_shot=zero_shot if wanted else None, **how
    )
    if wanted and not controlled:  # the run had finished before
        zero_shot()
    random = None
    if "random-backbone" in controls and not request.random_backbone:
        with labelled("random-backbone"):
            random = execute(plan.on_random_backbone(), out, inputs, **how)
    if main:
        _emit(outcome)
        known = () if quiet else warnings  # printed above
        print(_result(outcome, random, known), flush=True)
    return outcome


def tune_all(
    request: Request,
    *,
    dry_run: bool = False,
    quiet: bool = True,
    only: str | None = None,
    start: Callable[[str], None] | None = None,
    after: Callable[[Path], None] | None = None,
    **how: Any,
) -> None:
    """Run a request for every task it names: `request.task` is a list of tasks and suites.

    If a task fails, the others still run, and a UserError at the end names the failed ones. With
    `start`, that function runs each task: it starts several processes, which get its name as
    `only`. `after` gets the folder of each run when it has finished.
    """
    names = expand(request.task, request.include)
    if not names:
        raise UserError("--task names no task; `list tasks` shows the names.")
    single = names == [request.task]

    def carry_out(name: str) -> None:
        one = request if single else _one_of(request, name)
        folder: Path | None = None
        if start is not None:
            start(name)
            folder = how["out"] / make_plan(one).spec.run_id if after is not None else None
        elif (outcome := tune(one, dry_run=dry_run, quiet=quiet, **how)) is not None:
            folder = outcome.folder
        if after is not None and folder is not None:
            after(folder)

    if only is not None or single:
        carry_out(only or request.task)
        return
    failed: list[str] = []
    for number, name in enumerate(names, start=1):
        if not quiet:
            print(f"{'' if number == 1 else chr(10)}[{number}/{len(names)}] {name}", flush=True)
        try:
            carry_out(name)
        except Exception as error:  # whatever it is, the other tasks run
            if launched():
                raise  # the other processes of a launcher may not have failed, and wait
            known = isinstance(error, UserError | ProcessLostError)
            reason = str(error) if known else repr(error)
            print(f"failed     {reason}", file=sys.stderr, flush=True)
            failed.append(name)
    if failed:
        raise UserError(f"{len(failed)} of {len(names)} tasks failed: {', '.join(failed)}.")


def _one_of(request: Request, name: str) -> Request:
    """The request for one task of several, without settings that only others have."""
    settings, scoring = dict(request.settings or {}), request.scoring
    task, data = load_task(name, request.include), request.data
    if isinstance(task.answer, Generate):
        scoring = None
    else:
        settings = {k: v for k, v in settings.items() if not k.startswith("decode.")}
    if data is not None and (folder := data_folder(task, data)) == data:
        data = data / name
    elif data is not None:
        data = folder
    return replace(request, task=name, settings=settings, data=data, scoring=scoring)


def describe(plan: Plan) -> str:
    """What is run: task, scoring, data, backbone, delta, and notes."""
    spec = plan.spec
    place = plan.splits["dev"].path.parent
    where = "sample data" if place == sample_folder(plan.task) else str(place)
    lines = [
        f"task       {spec.task} v{spec.task_version}, "
        f"template {spec.template} v{spec.template_version}",
        f"scoring    {plan.scoring}",
        f"data       {where}",
        f"backbone   {plan.folder.name}",
        f"delta      {plan.delta_name}",
    ]
    lines += [f"note       {note}" for note in plan.notes]
    return "\n".join(lines)


def _score(record: RunRecord) -> str:
    if not record.labelled:
        dev = record.scores["dev"][record.ranks_by]
        return f"dev {record.ranks_by} {dev.value:.4f}; the test split has no answers"
    test = record.test
    return f"test {record.ranks_by} {test.value:.4f}  [{test.low:.4f}, {test.high:.4f}]"


def _emit(outcome: Outcome) -> None:
    """Report a run as an event."""
    record = outcome.record
    emit(
        "run",
        id=record.spec.run_id,
        folder=outcome.folder,
        existed=outcome.reused,
        metric=record.ranks_by,
        scores={split: shown_scores(scores) for split, scores in record.scores.items()},
        warnings=list(record.warnings),
    )


def _overlaps(record: RunRecord) -> Iterator[str]:
    """A line per split that has rows of test, or their texts, as well."""
    for name, overlap in record.overlap.items():
        if overlap.near or overlap.shared:
            counts = f"of test, {overlap.near:,} rows are (nearly) the same as rows of {name}"
            if overlap.shared:
                counts += f", {overlap.shared:,} have a text in common with them"
            scores = {"these alone": overlap.among, "without them": overlap.without}
            known = [f"{what} {score.value:.4f}" for what, score in scores.items() if score]
            yield "; ".join([counts, *([", ".join(known)] if known else [])])


def _unbeaten(record: RunRecord) -> Iterator[str]:
    """A sentence if a shortcut is as good as the run."""
    if (unbeaten := record.unbeaten_shortcut) is not None:
        name, control = unbeaten
        yield (
            f"the shortcut {name} gets {control.value:.4f} without any model: this run's score is "
            "not above that by more than its interval"
        )


def _result(outcome: Outcome, random: Outcome | None, known: Collection[str]) -> str:
    """The result in words, without warnings that are `known`."""
    record = outcome.record
    n = f"  n={record.test.n}" if record.labelled else ""
    lines = [f"result     {_score(record)}{n}"]
    if record.labelled:
        others = {k: s for k, s in record.scores["test"].items() if k != record.ranks_by}
        if others:
            lines.append("  also     " + ", ".join(f"{k} {s.value:.4f}" for k, s in others.items()))
    else:
        files = ", ".join(name for name in record.predictions if "dev" not in name)
        lines.append(f"  written  {files}")
    for name, control in record.controls.items():
        note = f"  {control.note}" if control.note else ""
        kind = "shortcut" if name in SHORTCUTS else "control "
        lines.append(f"  {kind} {name} {control.value:.4f}{note}")
    if random is not None and random.record.labelled:
        lines.append(f"  control  random-backbone {random.record.test.value:.4f}  {random.folder}")
    if record.training is not None:
        t = record.training
        early = ", stopped early" if t.stopped_early else ""
        lines.append(
            f"training   best step {t.best_step} of {t.steps} (dev {record.ranks_by} "
            f"{t.best_dev:.4f}){early}; {t.samples_per_second:.1f} samples/s; "
            f"{record.delta.n_trainable:,} trained values, {record.delta.bytes:,} bytes"
        )
    cut = {k: s for k, s in record.data.items() if s.n_truncated or s.n_unparsed}
    for name, split in cut.items():
        lines.append(
            f"{name:10} {split.n_truncated or 0:,} of {split.n:,} rows truncated, "
            + (
                f"{counted(split.n_unparsed, 'text')} not readable"
                if record.scoring == "generation"
                else f"{split.n_unparsed:,} without a prediction"
            )
        )
    lines += [f"overlap    {text}" for text in _overlaps(record)]
    for name, split in record.data.items():
        if dropped := split.n_shots_dropped:
            of = split.n * record.spec.shots
            lines.append(f"{name:10} {dropped:,} of {of:,} shots dropped: no room for them")
    warnings = (*_unbeaten(record), *(text for text in record.warnings if text not in known))
    lines += [f"warning    {warning}" for warning in warnings]
    if record.note:
        lines.append(f"note       {record.note}")
    if outcome.reused and (note := other_numbers(record)):
        again = "remove its folder to compute" if record.search else "--overwrite computes"
        lines.append(f"note       {note}; {again} it again")
    again = "remove its folder to rerun" if record.search else "--overwrite reruns"
    done = f"already exists; {again} it" if outcome.reused else "written"
    lines.append(f"record     {outcome.folder}/run.json  {done}")
    return "\n".join(lines)
