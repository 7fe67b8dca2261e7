"""Trains a tiny backbone on the corpus of scripts/corpus.py; the same line again resumes it.

    python scripts/train_tiny.py cpm-1-tiny --corpus CORPUS --out OUT

CORPUS is the folder of `scripts/corpus.py --out CORPUS`. OUT then contains the vocabulary, the
prepared corpus and the run; OUT/run/backbone is the backbone, OUT/run/log.jsonl its log. Each part
is a `tune.py pretrain` command, which is printed; a part that is complete is not done again.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).parent.parent
# So that no step waits for memory from the system (docs/pretraining.md, Speed on CPUs).
_ENVIRONMENT = {
    "OMP_WAIT_POLICY": "PASSIVE",
    "MALLOC_MMAP_MAX_": "0",
    "MALLOC_TRIM_THRESHOLD_": "8000000000",
    "MALLOC_TOP_PAD_": "268435456",
}


@dataclass(frozen=True)
class Tiny:
    """A model: options of `vocab` and `run`, the vocabulary's file, and its config without
    vocab_size."""

    vocab: tuple[str, ...]
    file: str
    config: dict[str, Any]
    run: tuple[str, ...]


TINY = {
    "cpm-1-tiny": Tiny(
        vocab=("--kind", "sentencepiece", "--size", "11000"),
        file="spiece.model",
        config={
            "model_type": "gpt2",
            "n_positions": 512,
            "n_embd": 256,
            "n_layer": 4,
            "n_head": 4,
        },
        run=("--steps", "5500", "--rows", "8", "--lr", "6e-3"),
    ),
    "cpm-2-tiny": Tiny(
        vocab=("--kind", "cpm-2", "--size", "7190", "--pieces", "500"),
        file="vocab.txt",
        config={
            "model_type": "mt5",
            "d_model": 256,
            "d_kv": 64,
            "d_ff": 512,
            "num_layers": 2,
            "num_decoder_layers": 2,
            "num_heads": 4,
        },
        run=("--steps", "9000", "--rows", "16", "--width", "256", "--lr", "3e-3"),
    ),
}
COVER = REPOSITORY / "tasks" / "sample" / "lcqmc_topics.json"


def pretrain(*words: str | Path) -> None:
    """Run a part of `tune.py pretrain`; end with its exit code if it fails."""
    command = [sys.executable, str(REPOSITORY / "tune.py"), "pretrain", *map(str, words)]
    print("$", shlex.join(command), flush=True)
    code = subprocess.run(command, env={**_ENVIRONMENT, **os.environ}).returncode
    if code:
        raise SystemExit(code)


def main() -> None:
    """Do what is left to do."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("name", choices=TINY)
    parser.add_argument("--corpus", type=Path, required=True, metavar="DIR")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR")
    parser.add_argument("--threads", default="2", metavar="N")
    parser.add_argument("--steps", metavar="N", help="length of the run (default: the model's)")
    args = parser.parse_args()
    tiny, out, sources = TINY[args.name], args.out, args.corpus / "sources.json"
    vocabulary, prepared, run, config = (
        out / name for name in (tiny.file, "prepared", "run", "config.json")
    )
    length = ("--steps", args.steps) if args.steps else ()
    out.mkdir(parents=True, exist_ok=True)
    if not vocabulary.is_file():
        to = ("--cover", COVER, "--out", vocabulary)
        pretrain("vocab", "--sources", sources, *tiny.vocab, *to)
    if not (prepared / "corpus.json").is_file():
        pretrain("prepare", "--sources", sources, "--vocab", vocabulary, "--out", prepared)
    if (run / "checkpoint.pt").is_file():
        pretrain("run", "--out", run, "--resume", *length)
        return
    size = json.loads((prepared / "corpus.json").read_bytes())["vocab_size"]
    config.write_text(json.dumps({**tiny.config, "vocab_size": size}, indent=1) + "\n")
    start = ("--corpus", prepared, "--config", config, "--out", run, "--threads", args.threads)
    every = ("--checkpoint-minutes", "5", "--heldout-minutes", "30")
    pretrain("run", *start, *tiny.run, *every, *length)


if __name__ == "__main__":
    main()
