"""Options of the commands that write backbones: convert, prune."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from cpm_tune.common.option import Option
from cpm_tune.schema.options import (
    BackboneName,
    Device,
    MemoryLimit,
    NotInFile,
    Precision,
    ReportOptions,
    Seed,
)

SourceBackbone = Annotated[BackboneName, Option(metavar="SRC", positional=True)]
NewFolder = Annotated[Path, Option("new folder", "DST", positional=True)]
CheckpointFormat = Annotated[Literal["native", "reference", "hf"], Option("checkpoint format")]
Replace = Annotated[NotInFile, Option("replace a backbone folder at DST")]


@dataclass(frozen=True, kw_only=True)
class Convert(ReportOptions):
    """Write a backbone in another checkpoint format: original (.pt), Hugging Face's, or ours.

    At any moment one tensor at most is in memory. A round trip gives the same bits, unless
    --dtype changes them. hf is read by transformers 5.16.0 or later.

    examples:
      tune.py convert cpm-ant-tiny tiny-hf --to hf
      tune.py convert tiny-hf tiny-reference --to reference
      tune.py convert cpm-ant-tiny tiny-bf16 --to native --dtype bf16
      tune.py convert CPM-1/80000 cpm1-hf --to hf
      tune.py convert cpm2-hf cpm2 --to reference --ranks 4
    """

    source: SourceBackbone
    out: NewFolder
    to: CheckpointFormat
    dtype: Annotated[
        Precision | None, Option("type of the weights", default="each tensor's own")
    ] = None
    max_shard_size: Annotated[str, Option("maximum shard size (hf only)", "SIZE")] = "5GB"
    ranks: Annotated[int, Option("files of CPM-1's and CPM-2's original format", "N", 1)] = 1
    overwrite: Replace = False


@dataclass(frozen=True, kw_only=True)
class Prune(ReportOptions):
    """Remove the attention and feed-forward sub-layers that a text needs least.

    Writes a smaller backbone folder (mask_modules). Prints the importance of each sub-layer and the
    loss, compared with random choices of the same size. Tuning recovers a part
    (docs/backbone.md).

    examples:
      tune.py prune cpm-ant-tiny small --attention-layers 3 --ffn-layers 3 --text texts.txt
    """

    source: SourceBackbone
    out: NewFolder
    attention_layers: Annotated[int, Option("attention sub-layers to keep", "N")]
    ffn_layers: Annotated[int, Option("feed-forward sub-layers to keep", "N")]
    text: Annotated[Path, Option("documents to measure on: .txt, or .jsonl", "FILE")]
    to: CheckpointFormat = "native"
    pieces: Annotated[int, Option("pieces of text to measure on", "N", 2)] = 256
    seed: Annotated[Seed, Option("seed of pieces, masks and random choices", "N")] = 0
    precision: Annotated[Literal["fp32", "bf16"], Option("precision of measuring")] = "fp32"
    device: Device = "auto"
    memory_limit: MemoryLimit = None
    overwrite: Replace = False
