"""Estimated against measured memory: whole runs on a random backbone of 100 million parameters.

    python benchmarks/estimate_memory.py

Every setting runs in a separate process. The baseline is its resident memory after a run of the
bundled backbone (everything is imported, pools are warm); measured is how much higher its peak is
in the real run (load, train, evaluate, checkpoint). CPU, one thread.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

from cpm_tune.backbone.ant.config import CPMAntConfig

SHAPE = CPMAntConfig(dim_model=768, dim_ff=2048, num_layers=11, num_heads=12, dim_head=64)
SETTINGS: dict[str, tuple[str, dict[str, object]]] = {
    "LoRA, batch 8, length 128": ("lora", {}),
    "the same with checkpointing": ("lora", {"run.checkpointing": True}),
    "full fine-tuning": ("full", {}),
    "full fine-tuning with checkpointing": ("full", {"run.checkpointing": True}),
    "LoRA, batch 16, length 256, 2,048 at a time": (
        "lora",
        {"train.batch_size": 16, "encode.max_length": 256, "run.micro_tokens": 2048},
    ),
}


def write_backbone(folder: Path, layers: int) -> None:
    """A random backbone; the bundled one's vocabulary, made as long as the published ones'."""
    import torch

    from cpm_tune.backbone.ant.checkpoint import save_native
    from cpm_tune.backbone.ant.folder import open_folder
    from cpm_tune.backbone.bundled import FOLDER
    from cpm_tune.backbone.opening import random_backbone

    there = open_folder(FOLDER)
    words = there.vocabulary.read_text(encoding="utf-8").split("\n")[: there.config.vocab_size]
    words += [f"<filler-{n}>" for n in range(SHAPE.vocab_size - len(words))]
    shape = replace(SHAPE, num_layers=layers, mask_modules=())
    model = random_backbone(shape, 1, torch.float32)
    save_native(folder, model, "\n".join(words) + "\n", trained=True)


def write_data(folder: Path, length: int) -> None:
    """Texts of which every example fills its sequence."""
    folder.mkdir()
    for split, n in (("train", 16), ("dev", 8), ("test", 8)):
        rows = [
            {"id": i, "sentence1": "山水" * length, "sentence2": "花鸟" * length, "label": i % 2}
            for i in range(n)
        ]
        lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        (folder / f"{split}.jsonl").write_text(lines, encoding="utf-8")


def resident(name: str) -> int:
    """VmRSS or VmHWM of this process, in bytes."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(name + ":"):
            return 1024 * int(line.split()[1])
    raise RuntimeError(f"no {name} in /proc/self/status")


def measure(backbone: str, setting: str) -> dict[str, float]:
    """Carry out a setting in this process; bytes measured and estimated."""
    import torch

    from cpm_tune.common.environment import reset_peak_memory
    from cpm_tune.memory.estimate import estimate, work_of
    from cpm_tune.planning.inputs import read_inputs
    from cpm_tune.planning.plan import Request, make_plan
    from cpm_tune.runs.execute import execute

    torch.set_num_threads(1)
    delta, changes = SETTINGS[setting]
    settings = {
        **{"train.batch_size": 8, "train.max_steps": 2, "train.eval_every": 1, "train.lr": 1e-4},
        **{"run.device": "cpu", "encode.max_length": 128, "run.micro_tokens": 1024},
        **changes,
    }
    with tempfile.TemporaryDirectory() as scratch:
        data, out = Path(scratch) / "data", Path(scratch) / "out"
        write_data(data, int(settings["encode.max_length"]))  # type: ignore[call-overload]
        tiny = Request(
            "lcqmc",
            template="cpm-2",
            delta=delta,
            data=data,
            settings={**settings, "train.max_steps": 1},
        )
        execute(make_plan(tiny), out)
        plan = make_plan(replace(tiny, backbone=backbone, settings=settings))
        inputs = read_inputs(plan)
        ctypes.CDLL(None).malloc_trim(0)  # what the first run left free is not there to be used
        before = resident("VmRSS")
        reset_peak_memory()
        execute(plan, out, inputs)
        measured = resident("VmHWM") - before
    skeleton = inputs.skeleton
    peak = estimate(work_of(plan, skeleton)).peak
    return {"measured": measured, "estimated": peak, "parameters": skeleton.n_backbone}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--layers", type=int, default=SHAPE.num_layers)
    parser.add_argument("--setting", action="append", choices=SETTINGS, help="default: all")
    parser.add_argument("--one", nargs=2, metavar=("BACKBONE", "SETTING"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.one:
        print(json.dumps(measure(*args.one)))
        return
    with tempfile.TemporaryDirectory() as scratch:
        backbone = Path(scratch) / "backbone"
        write_backbone(backbone, args.layers)
        for setting in args.setting or SETTINGS:
            words = [sys.executable, __file__, "--one", str(backbone), setting]
            done = subprocess.run(words, stdout=subprocess.PIPE, text=True, check=True)
            found = json.loads(done.stdout.splitlines()[-1])
            ratio = found["estimated"] / found["measured"] - 1
            print(
                f"{setting:38} {found['parameters'] / 1e6:6.1f} M parameters  measured "
                f"{found['measured'] / 2**20:6.0f} MiB  estimated "
                f"{found['estimated'] / 2**20:6.0f} MiB  {ratio:+.1%}",
                flush=True,
            )


if __name__ == "__main__":
    main()
