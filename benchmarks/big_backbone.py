"""Peak memory of large backbones: streaming `convert`, and scoring and generation within a limit.

    python benchmarks/big_backbone.py convert --gigabytes 2
    python benchmarks/big_backbone.py limit --gigabytes 3 --limit 1GB

Writes a random bf16 (or --dtype) checkpoint to a temporary folder. `convert` converts it
from format to format, each time in a separate process, and prints the peak resident memory of that
process next to the bound: twice the largest tensor plus 500 MB. `limit` scores two rows (twice) and
generates some tokens, once with the whole backbone and once within the limit, in separate
processes. It prints peaks and times, and whether all numbers are the same. Then it repeats this
with a zero-shot run.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from timing import TUNE, usage

from cpm_tune.backbone.ant.config import CPMAntConfig
from cpm_tune.backbone.ant.folder import open_folder
from cpm_tune.backbone.ant.formats import shapes
from cpm_tune.backbone.bundled import FOLDER
from cpm_tune.backbone.storage.writers import Target, write_safetensors
from cpm_tune.engine.device import DTYPES

VOCABULARY = 30720


def write_random(folder: Path, gigabytes: float, dtype: torch.dtype) -> CPMAntConfig:
    """Write a native checkpoint of about that size, 2,048 wide, drawn tensor by tensor."""
    layer = 4 * 2048 * 2048 + 3 * 2048 * 5120
    layers = max(2, round((gigabytes * 1e9 / dtype.itemsize - 2048 * VOCABULARY) / layer))
    config = CPMAntConfig(
        VOCABULARY, 2048, 5120, num_layers=layers, num_heads=16, prompt_types=4, segment_types=8
    )
    generator = torch.Generator().manual_seed(1)

    def target(name: str, shape: tuple[int, ...]) -> Target:
        def values() -> Iterator[torch.Tensor]:
            if len(shape) == 1:
                yield torch.ones(shape, dtype=dtype)
                return
            for _ in range(shape[0]):
                yield (torch.randn(shape[1], generator=generator) / shape[1] ** 0.5).to(dtype)

        return Target(name, shape, dtype, values)

    folder.mkdir()
    write_safetensors(folder / "model.safetensors", [target(*x) for x in shapes(config).items()])
    about = {"format": "cpm-tune", "trained": False, **config.to_dict()}
    (folder / "config.json").write_text(json.dumps(about))
    entries = (FOLDER / "vocab.txt").read_text(encoding="utf-8").splitlines()
    entries += [f"entry{number}" for number in range(VOCABULARY - len(entries))]
    (folder / "vocab.txt").write_text("\n".join(entries) + "\n", encoding="utf-8")
    return config


def conversions(folder: Path, scratch: Path, dtype: torch.dtype) -> None:
    """native -> reference -> hf -> native; then compare the bits."""
    config = open_folder(folder).config
    largest = max(torch.Size(shape).numel() for shape in shapes(config).values())
    bound = 2 * largest * dtype.itemsize / 1e6 + 500
    size = sum(f.stat().st_size for f in folder.iterdir()) / 1e9
    print(f"checkpoint {size:.2f} GB, largest tensor {largest * dtype.itemsize / 1e6:.0f} MB")
    print("from       to          peak MB   bound MB   seconds")
    source = folder
    for number, to in enumerate(("reference", "hf", "native")):
        out = scratch / f"{number}-{to}"
        used = usage([TUNE, "convert", str(source), str(out), "--to", to])
        print(
            f"{open_folder(source).format:10} {to:10} {used.peak / 1e6:8.0f} {bound:10.0f} "
            f"{used.wall:9.1f}"
        )
        if source != folder:
            shutil.rmtree(source)
        source = out
    files = (folder / "model.safetensors", source / "model.safetensors")
    same = subprocess.run(["cmp", *map(str, files)], check=False).returncode == 0
    print(f"the last file is {'the same as' if same else 'OTHER than'} the first, byte for byte")


def work(folder: Path, dtype: torch.dtype, limit: int | None, tokens: int) -> dict[str, Any]:
    """Score and generate with a backbone; return the results and the times."""
    from cpm_tune.backbone.ant.layout import AntLayout
    from cpm_tune.decode import Request, generate
    from cpm_tune.schema.spec import Decoding

    began = time.perf_counter()
    model = open_folder(folder).open(dtype, limit=limit).eval()
    opened = time.perf_counter()
    generator = torch.Generator().manual_seed(3)
    ids = torch.randint(8, VOCABULARY, (2, 24), generator=generator)
    segment = torch.full_like(ids, 2)
    with torch.inference_mode():
        model(ids, segment)  # the first pass also looks for values that are no numbers
        first = time.perf_counter()
        scores = model.logits(model(ids, segment)[:, -1]).float().log_softmax(-1)
    scored = time.perf_counter()
    request = Request(Decoding(max_new_tokens=tokens), AntLayout((), 1, 2, 0))
    rows = [tuple(row) for row in ids.tolist()]
    written = generate(model, rows, request)
    done = time.perf_counter()
    return {
        "result": [
            scores.double().sum().item(),
            scores[:, :8].tolist(),
            [w[0].ids for w in written],
        ],
        "open": opened - began,
        "first": first - opened,
        "score": scored - first,
        "write": done - scored,
    }


def limited(folder: Path, dtype: str, limit: str, tokens: int) -> None:
    """The same work whole and within the limit, each in a separate process."""
    size = sum(f.stat().st_size for f in folder.iterdir()) / 1e9
    print(f"checkpoint {size:.2f} GB, {dtype}, 2 rows of 24 tokens, {tokens} tokens written")
    print("backbone      peak MB   open s  first s  score s  write s")
    results = []
    for name in ("whole", limit):
        out = folder.parent / "result.json"
        words = [__file__, "work", "--folder", str(folder), "--dtype", dtype, "--out", str(out)]
        words += ["--tokens", str(tokens), *(["--limit", limit] if name == limit else [])]
        peak = usage(words).peak / 1e6
        found = json.loads(out.read_text())
        results.append(found["result"])
        times = " ".join(f"{found[part]:8.1f}" for part in ("open", "first", "score", "write"))
        print(f"{name:12} {peak:8.0f} {times}", flush=True)
    print("the numbers are " + ("the same" if results[0] == results[1] else "DIFFERENT"))
    print("tune.py --task lcqmc --delta none --limit 2: peak MB, seconds with the file's sha256")
    lines = []
    for name in ("whole", limit):
        out = folder.parent / f"runs-{name}"
        words = [
            str(TUNE),
            "--task",
            "lcqmc",
            "--delta",
            "none",
            "--control",
            "none",
            "--limit",
            "2",
        ]
        words += ["--backbone", str(folder), "--precision", dtype, "--out", str(out)]
        words += ["--memory-limit", limit] if name == limit else []
        used = usage(words)
        print(f"{name:12} {used.peak / 1e6:8.0f} {used.wall:8.1f}", flush=True)
        lines.append(next(out.glob("*/predictions.test.jsonl")).read_text())
    print("the predictions are " + ("the same" if lines[0] == lines[1] else "DIFFERENT"))


def main() -> None:
    """Make a checkpoint and measure."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("what", choices=["convert", "limit", "work"])
    parser.add_argument("--gigabytes", metavar="X", type=float, default=2.0)
    parser.add_argument("--dtype", choices=list(DTYPES), default="bf16")
    parser.add_argument("--limit", metavar="SIZE")
    parser.add_argument("--tokens", metavar="N", type=int, default=4)
    parser.add_argument("--dir", metavar="DIR", type=Path, help="where the temporary files go")
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--out", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    dtype = DTYPES[args.dtype]
    if args.what == "work":
        from cpm_tune.common.sizes import parse_size

        limit = parse_size(args.limit, "--limit") if args.limit else None
        args.out.write_text(json.dumps(work(args.folder, dtype, limit, args.tokens)))
        return
    with tempfile.TemporaryDirectory(dir=args.dir) as scratch:
        folder = Path(scratch) / "random"
        write_random(folder, args.gigabytes, dtype)
        if args.what == "convert":
            conversions(folder, Path(scratch), dtype)
        else:
            limited(folder, args.dtype, args.limit or "1GB", args.tokens)


if __name__ == "__main__":
    main()
