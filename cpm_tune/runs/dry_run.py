"""What a run would do: the output of `--dry-run`."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from cpm_tune.common.folders import RECORD
from cpm_tune.common.sizes import counted
from cpm_tune.data.batches import total_steps
from cpm_tune.memory.estimate import estimate, work_of
from cpm_tune.planning.inputs import before_scoring, read_inputs
from cpm_tune.planning.plan import Plan


def dry_run_text(plan: Plan, out: Path, nproc: int = 1) -> str:
    """The spec, the trained modules, the number of steps, an estimate of the memory."""
    inputs = read_inputs(plan)
    skeleton, modules = inputs.skeleton, Counter[str]()
    for name, shape in skeleton.trained.items():
        modules[".".join(part for part in name.split(".") if not part.isdigit())] += shape.numel()
    lines = [plan.spec.model_dump_json(indent=1), "", f"scoring    {plan.scoring}"]
    lines += [f"trained    {n:>12,}  {name}" for name, n in modules.items()]
    n, n_backbone = skeleton.n_trained, skeleton.n_backbone
    lines.append(f"trained    {n:>12,}  in all, {n / n_backbone:.3%} of {n_backbone:,}")
    if plan.spec.recipe is not None:
        n = plan.spec.recipe.rows_used(len(inputs.splits["train"]))
        steps = total_steps(n, plan.spec.recipe)
        lines.append(
            f"steps      {steps:>12,}  at most, of "
            f"{counted(plan.spec.recipe.batch_size, 'example')}; {counted(n, 'row')}"
        )
    memory = estimate(work_of(plan, skeleton, nproc))
    lines.append(
        f"memory     about {memory.process / 2**30:.2f} GiB per process on a CPU, if all sequences "
        f"have the maximum length: Python and libraries {memory.libraries / 2**30:.2f}, weights "
        f"{memory.weights / 2**30:.2f}, delta and optimiser "
        f"{(memory.delta + memory.gradients + memory.optimizer) / 2**30:.2f}, activations "
        f"{memory.activations / 2**30:.2f}, the heap's free blocks {memory.heap / 2**30:.2f}"
    )
    finished = (out / plan.spec.run_id / RECORD).is_file()
    lines.append(f"run        {out / plan.spec.run_id}{'  (already finished)' if finished else ''}")
    lines += [f"warning    {warning}" for warning in before_scoring(plan, inputs)]
    lines += [f"note       {note}" for note in plan.notes]
    return "\n".join(lines)
