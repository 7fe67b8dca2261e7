"""What the `tune` command does: a run with its controls, told to the user step by step."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from cpm_tune.plan import Plan, Request, make_plan
from cpm_tune.record import RunRecord
from cpm_tune.run import Outcome, execute, read_inputs


def tune(
    request: Request,
    *,
    out: Path = Path("results"),
    controls: Sequence[str] = ("zero-shot",),
    overwrite: bool = False,
    dry_run: bool = False,
    quiet: bool = True,
) -> Outcome | None:
    """Run a request and its controls; print what happens. Returns None for a dry run.

    Controls: "zero-shot" (the backbone without delta) and "random-backbone" (the same delta on a
    random backbone of the same shape). Each is a run with a record of its own.
    """
    plan = make_plan(request)
    if dry_run:
        from cpm_tune.show import dry_run_text

        print(dry_run_text(plan, out))
        return None
    read_inputs(plan)  # a mistake in any file is found before anything is run
    say = _silent if quiet else _print
    live = not quiet and sys.stderr.isatty()
    say(_describe(plan))
    zero_shot = None
    if "zero-shot" in controls and plan.spec.recipe is not None:
        other = replace(request, delta="none", settings=_without_training(request))
        zero_shot = execute(make_plan(other), out, wait=True)
        say(f"zero-shot  {_score(zero_shot.record)}{_again(zero_shot)}")
    outcome = execute(plan, out, overwrite=overwrite, live=live, zero_shot=zero_shot)
    random = None
    if "random-backbone" in controls and not request.random_backbone:
        random = execute(make_plan(replace(request, random_backbone=True)), out, live=live)
    print(_result(outcome, random))
    return outcome


def _without_training(request: Request) -> dict[str, object]:
    settings = request.settings or {}
    return {k: v for k, v in settings.items() if k.partition(".")[0] in ("encode", "run")}


def _silent(text: str) -> None:
    return None


def _print(text: str) -> None:
    print(text, flush=True)


def _again(outcome: Outcome) -> str:
    return "  (finished before)" if outcome.reused else ""


def _describe(plan: Plan) -> str:
    spec = plan.spec
    where = "sample data" if spec.data.sample else str(plan.splits["dev"].path.parent)
    lines = [
        f"task       {spec.task} v{spec.task_version}, "
        f"template {spec.template} v{spec.template_version}",
        f"data       {where}",
        f"backbone   {plan.folder.name}",
        f"delta      {plan.delta_name}",
    ]
    lines += [f"note       {note}" for note in plan.notes]
    return "\n".join(lines)


def _score(record: RunRecord) -> str:
    test = record.test
    return f"test {record.ranks_by} {test.value:.4f}  [{test.low:.4f}, {test.high:.4f}]"


def _result(outcome: Outcome, random: Outcome | None) -> str:
    record = outcome.record
    lines = [f"result     {_score(record)}  n={record.test.n}"]
    for name, control in record.controls.items():
        note = f"  {control.note}" if control.note else ""
        lines.append(f"  control  {name} {control.value:.4f}{note}")
    if random is not None:
        lines.append(f"  control  random-backbone {random.record.test.value:.4f}  {random.folder}")
    if record.training is not None:
        t = record.training
        early = ", stopped early" if t.stopped_early else ""
        lines.append(
            f"training   best step {t.best_step} of {t.steps}{early}; {t.samples_per_second:.1f} "
            f"samples/s; {record.delta.n_trainable:,} trained values, {record.delta.bytes:,} bytes"
        )
    lines += [f"warning    {warning}" for warning in record.warnings]
    if record.note:
        lines.append(f"note       {record.note}")
    done = "was there already, not run again (--overwrite runs it)" if outcome.reused else "written"
    lines.append(f"record     {outcome.folder}/run.json  {done}")
    return "\n".join(lines)
