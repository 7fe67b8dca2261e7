"""Writes a backbone as transformers' CpmAntForCausalLM, with the files of its tokenizer."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch

from cpm_tune.backbone.ant.config import HUGGING_FACE, CPMAntConfig
from cpm_tune.backbone.ant.folder import PLUS
from cpm_tune.backbone.ant.formats import HEAD, hugging_face_parts
from cpm_tune.backbone.ant.model import CPMAnt
from cpm_tune.common.saved import write_tensors
from cpm_tune.errors import UserError

# Its CpmAntForCausalLM has a head of the tokens alone. Before, the head had the soft prompts' rows
# as well, and no file fits both: 5.15.1 refuses ours (7000 rows, expected 7032), 5.16.0 reads it.
READ_BY = "transformers 5.16.0 or later"
_TOKENS = {
    "bos_token": "<s>",
    "eos_token": "</s>",
    "pad_token": "<pad>",
    "unk_token": "<unk>",
    "bod_token": "<d>",
    "eod_token": "</d>",
    "line_token": "</n>",
    "space_token": "</_>",
}


def check_whole(config: CPMAntConfig, instead: str) -> None:
    """Raise UserError for a shape that transformers has no class for; `instead` are options."""
    if config.is_pruned:
        raise UserError(
            "transformers' CpmAnt has every sub-block, but this backbone lacks some "
            f"(mask_modules); use {instead}."
        )


def save_hugging_face(folder: Path, model: CPMAnt, vocabulary: str, *, plus: bool = False) -> None:
    """Write config.json, model.safetensors, vocab.txt and tokenizer_config.json to a folder.

    The backbone must have all sub-blocks (no mask_modules). Weights keep their dtype. `plus`: a
    CPM-Ant+.
    """
    weights = model.state_dict()
    state = {
        name: torch.cat([weights[part] for part in parts]) if len(parts) > 1 else weights[parts[0]]
        for name, parts in hugging_face_parts(weights).items()
    }
    write_tensors(folder / "model.safetensors", state, {"format": "pt"})
    values = hugging_face_config(model.config, state[HEAD].dtype)
    _write(folder / "config.json", {**values, "tokenizer": PLUS} if plus else values)
    (folder / "vocab.txt").write_text(vocabulary, encoding="utf-8")
    write_tokenizer(folder)


def write_tokenizer(folder: Path) -> None:
    """Write what makes transformers read vocab.txt with CPM-Ant's tokenizer."""
    _write(folder / "tokenizer_config.json", {"tokenizer_class": "CpmAntTokenizer", **_TOKENS})


def hugging_face_config(config: CPMAntConfig, dtype: torch.dtype) -> dict[str, Any]:
    """The values of config.json for weights of this dtype."""
    spelling = {ours: theirs for theirs, ours in HUGGING_FACE.items()}
    shape = config.to_dict().items()
    kept = {spelling.get(k, k): v for k, v in shape if k != "mask_modules"}
    return {
        "architectures": ["CpmAntForCausalLM"],
        "model_type": "cpmant",
        "torch_dtype": str(dtype).removeprefix("torch."),
        "tie_word_embeddings": False,
        **kept,
    }


def _write(path: Path, values: dict[str, Any]) -> None:
    path.write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")
