"""The tiny backbone that needs no download: built on this machine, the same on every machine.

Until a pre-trained one ships, its weights are random: enough to run every command and test, not to
show what pre-training is worth. Everything that uses it says so.
"""

from __future__ import annotations

import contextlib
from pathlib import Path

from cpm_tune.backbone.config import PRESETS, CPMAntConfig
from cpm_tune.backbone.tokenizer import SPECIALS
from cpm_tune.errors import UserError
from cpm_tune.paths import cache_dir

NAME = "cpm-ant-tiny"
SEED = 20220916
REVISION = 2


def vocabulary() -> list[str]:
    """Special entries, printable ASCII, Chinese punctuation and the characters of GB 2312."""
    ascii_marks = [chr(code) for code in range(0x21, 0x7F)]
    marks = list("，。、；：？！“”‘’（）《》〈〉【】…—·～￥％")
    rows = (bytes((high, low)) for high in range(0xB0, 0xF8) for low in range(0xA1, 0xFF))
    characters = [c for row in rows if (c := row.decode("gb2312", errors="ignore"))]
    return ["<pad>", *(s for s in SPECIALS if s != "<pad>"), "</n>", "</_>"] + (
        ascii_marks + marks + characters
    )


def tiny_config() -> CPMAntConfig:
    """The tiny model's shape: 4.9 million parameters, half of them embeddings."""
    return CPMAntConfig(
        vocab_size=len(vocabulary()),
        dim_model=256,
        dim_ff=640,
        num_layers=4,
        num_heads=4,
        dim_head=64,
        position_bias_num_buckets=32,
        position_bias_max_distance=128,
        prompt_types=4,
        prompt_length=8,
        segment_types=4,
    )


def build(path: Path) -> Path:
    """Write the tiny backbone to a folder, unless it is there; return the folder."""
    if not path.exists():
        import torch

        from cpm_tune.backbone.checkpoint import random_backbone, save_native

        model = random_backbone(tiny_config(), SEED, torch.float32)
        with contextlib.suppress(UserError):  # another process made the same folder meanwhile
            save_native(path, model, "\n".join(vocabulary()) + "\n", trained=False)
    return path


def resolve(name_or_path: str) -> Path:
    """Return the folder of a backbone given by name or path."""
    if name_or_path == NAME:
        return build(cache_dir("backbones") / f"{NAME}-r{REVISION}" / NAME)
    if name_or_path in PRESETS and not Path(name_or_path).is_dir():
        raise UserError(
            f"--backbone {name_or_path}: its weights are not shipped; download the checkpoint and "
            "give its folder."
        )
    return Path(name_or_path)


if __name__ == "__main__":
    print(resolve(NAME))
