"""What a run would do: text for `--dry-run`."""

from __future__ import annotations

from pathlib import Path

from cpm_tune.backbone.model import CPMAnt
from cpm_tune.common.folders import RECORD
from cpm_tune.common.sizes import counted
from cpm_tune.data.batches import total_steps
from cpm_tune.delta.insert import insert
from cpm_tune.memory.estimate import estimate, work_of
from cpm_tune.planning.inputs import read_inputs
from cpm_tune.planning.plan import Plan


def dry_run_text(plan: Plan, out: Path, nproc: int = 1) -> str:
    """The resolved spec, what would be trained, how many steps, an estimate of memory."""
    import torch

    inputs = read_inputs(plan)
    with torch.device("meta"):
        model = CPMAnt(plan.folder.config)
        n_backbone = sum(p.numel() for p in model.parameters())
        delta = insert(model, plan.delta, plan.spec.backbone.sha256, 0, inputs.encoder.tokenizer)
    modules: dict[str, int] = {}
    for name, parameter in delta.parameters.items():
        owner = ".".join(part for part in name.split(".") if not part.isdigit())
        modules[owner] = modules.get(owner, 0) + parameter.numel()
    lines = [plan.spec.model_dump_json(indent=1), ""]
    lines += [f"trained    {n:>12,}  {name}" for name, n in modules.items()]
    share = delta.n_trainable / n_backbone
    lines.append(f"trained    {delta.n_trainable:>12,}  in all, {share:.3%} of {n_backbone:,}")
    if plan.spec.recipe is not None:
        n = len(inputs.splits["train"])
        steps = total_steps(n, plan.spec.recipe)
        lines.append(
            f"steps      {steps:>12,}  at most, of "
            f"{counted(plan.spec.recipe.batch_size, 'example')}; {counted(n, 'row')}"
        )
    found = estimate(work_of(plan, nproc))
    lines.append(
        f"memory     about {found.peak / 2**30:.2f} GiB a process, if all sequences are as long as "
        f"they may be: weights {found.weights / 2**30:.2f}, delta and optimiser "
        f"{(found.delta + found.gradients + found.optimizer) / 2**30:.2f}, activations "
        f"{found.activations / 2**30:.2f} (Python and libraries come on top)"
    )
    there = (out / plan.spec.run_id / RECORD).is_file()
    lines.append(f"run        {out / plan.spec.run_id}{'  (finished before)' if there else ''}")
    lines += [f"note       {note}" for note in plan.notes]
    return "\n".join(lines)
