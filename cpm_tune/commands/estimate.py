"""The command `estimate`: the memory that tuning needs in each process, by part; runs nothing."""

from __future__ import annotations

from pathlib import Path

from cpm_tune.backbone.bundled import NAMES, resolve
from cpm_tune.backbone.families import open_folder, presets
from cpm_tune.backbone.protocol import BackboneConfig, check_length
from cpm_tune.commands.options.look import Estimate
from cpm_tune.common.texts import table
from cpm_tune.delta.config import parse_config
from cpm_tune.errors import UserError, absent, did_you_mean
from cpm_tune.memory.estimate import Memory, Work, estimate
from cpm_tune.planning.placement import check_placement
from cpm_tune.planning.skeleton import make_skeleton
from cpm_tune.schema.spec import Execution
from cpm_tune.task.registry import load_preset


def run(options: Estimate) -> int:
    """Print the estimate."""
    execution = Execution(
        engine=options.engine or "auto",
        device=options.device,
        micro_tokens=options.micro_tokens,
        checkpointing=options.checkpointing,
        shard=options.shard,
        offload=options.offload,
        zero=options.zero,
    )
    delta = parse_config(load_preset(options.delta), f"delta {options.delta}")
    check_placement(execution, delta, options.precision, options.quantize)
    config = _shape(options.backbone)
    check_length(options.length, config, "--length")
    work = Work(
        skeleton=make_skeleton(config, delta),
        batch_size=options.batch_size,
        length=options.length,
        sequences=options.sequences,
        answer_tokens=options.answer_tokens,
        precision=options.precision,
        quantize=options.quantize,
        nproc=options.nproc,
        generates=options.answer_tokens > 0,
        execution=execution,
        gpu=options.device == "cuda",
    )
    print(_text(work, estimate(work)))
    return 0


def _shape(name: str) -> BackboneConfig:
    known = presets()
    if name in known and not Path(name).is_dir():
        return known[name]
    if name not in NAMES and not Path(name).is_dir():
        near = did_you_mean(name, [*known, *NAMES])
        raise UserError(f"--backbone {name}: {absent(Path(name), 'a backbone')}.{near}")
    return open_folder(resolve(name)).config


def _text(work: Work, memory: Memory) -> str:
    def size(n: int) -> str:
        return f"{n / 2**30:.2f} GiB" if n >= 2**30 / 10 else f"{n / 2**20:.1f} MiB"

    if not memory.weights:
        weights = "trained, see delta"
    elif not work.sharded:
        weights = "the whole backbone"
    elif work.execution.offload and not work.bmtrain and work.gpu:
        weights = "the embeddings; layers are in host memory"
    else:
        weights = f"1/{work.nproc} of the layers, the embeddings"
    skeleton, tokens = work.skeleton, f"{work.examples * work.sequences} x {work.length} tokens"
    rows = [
        ("weights", size(memory.weights), weights),
        ("gathered", size(memory.gathered), "layers in use that are sharded otherwise"),
        (
            "delta",
            size(memory.delta),
            f"{skeleton.n_trained:,} of {skeleton.n_backbone:,} values, fp32",
        ),
        ("gradients", size(memory.gradients), "of the delta, fp32"),
        ("optimiser", size(memory.optimizer), "two moments of AdamW, fp32"),
        (
            "activations",
            size(memory.activations),
            f"of {tokens}{', one layer recomputed at a time' * work.checkpointing}",
        ),
        ("peak", size(memory.peak), "highest total at any moment, not the sum of the rows"),
    ]
    if work.gpu:
        rows.append(("host", size(memory.host), "host memory per process"))
    else:
        rows.insert(-1, ("copies", size(memory.copies), "the best delta and restored values"))
        rows.append(("heap", size(memory.heap), "freed memory between blocks in use"))
    rows.append(("libraries", size(memory.libraries), "Python, torch and others, host memory"))
    rows.append(("process", size(memory.process), "host memory in all"))
    rows = [row for row in rows if row[0] != "gathered" or memory.gathered]
    head = table(("each process", "memory", "content"), rows)
    return head + "\n\nAdd about 1 GiB of GPU memory for CUDA's context." * work.gpu
