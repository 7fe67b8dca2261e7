"""What a run would do: the output of `--dry-run`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from cpm_tune.common.folders import RECORD
from cpm_tune.common.sizes import counted
from cpm_tune.data.batches import total_steps
from cpm_tune.data.splits import sample_folder
from cpm_tune.memory.estimate import estimate, work_of
from cpm_tune.planning.inputs import before_scoring, read_inputs, used_splits
from cpm_tune.planning.plan import Plan


def would_do(plan: Plan, out: Path, nproc: int = 1) -> dict[str, Any]:
    """What a run would do, as JSON values: its spec, the trained tensors with their sizes, the
    number of steps, an estimate of the memory in bytes per process, warnings and notes."""
    inputs = read_inputs(plan)
    skeleton, recipe = inputs.skeleton, plan.spec.recipe
    splits = used_splits(plan, inputs.splits)
    used = None if recipe is None else recipe.rows_used(len(splits["train"]))
    memory = estimate(work_of(plan, skeleton, nproc))
    return {
        "id": plan.spec.run_id,
        "folder": str(out / plan.spec.run_id),
        "finished": (out / plan.spec.run_id / RECORD).is_file(),
        "scoring": plan.scoring,
        "rows": {split: len(rows) for split, rows in splits.items()},
        "steps": None if recipe is None or used is None else total_steps(used, recipe),
        "rows_used": used,
        "trained": {name: shape.numel() for name, shape in skeleton.trained.items()},
        "trained_values": skeleton.n_trained,
        "backbone_values": skeleton.n_backbone,
        "memory": {
            "process": memory.process,
            "libraries": memory.libraries,
            "weights": memory.weights,
            "delta_and_optimizer": memory.delta + memory.gradients + memory.optimizer,
            "activations": memory.activations,
            "heap": memory.heap,
        },
        "warnings": before_scoring(plan, inputs),
        "notes": list(plan.notes),
        "spec": plan.spec.model_dump(mode="json"),
    }


def dry_run_text(plan: Plan, would: dict[str, Any]) -> str:
    """The same in about ten lines."""
    spec, n, memory = plan.spec, would["trained_values"], would["memory"]
    bundled = all(f.path.parent == sample_folder(plan.task) for f in plan.splits.values())
    where = ", sample data" if bundled else ""
    rows = ", ".join(f"{count:,} {split}" for split, count in would["rows"].items())
    modules = ", ".join(map(str, spec.delta.get("modified_modules", ())))
    lines = [
        f"run        {would['folder']}{'  (already finished)' * would['finished']}",
        f"task       {spec.task} v{spec.task_version}, template {spec.template}",
        f"scoring    {would['scoring']}",
        f"data       {rows} rows{where}",
        f"backbone   {plan.folder.name}, {spec.weights}",
        f"delta      {plan.delta_name}" + (f" on {modules}" if modules else ""),
        f"trained    {n:,} values, {n / would['backbone_values']:.3%} of "
        f"{would['backbone_values']:,}",
    ]
    if (recipe := spec.recipe) is not None:
        lines.append(
            f"steps      {would['steps']:,} at most, of {counted(recipe.batch_size, 'example')}; "
            f"lr {recipe.lr:g} {recipe.schedule}, seed {spec.seed}"
        )
    sizes = {key: value / 2**30 for key, value in memory.items()}
    lines.append(
        f"memory     about {sizes['process']:.2f} GiB per process on a CPU, if all sequences have "
        f"the maximum length ({spec.encoding.max_length}): weights {sizes['weights']:.2f}, "
        f"activations {sizes['activations']:.2f}"
    )
    lines += [f"warning    {warning}" for warning in would["warnings"]]
    lines += [f"note       {note}" for note in would["notes"]]
    return "\n".join([*lines, "all settings: --dry-run --json"])
