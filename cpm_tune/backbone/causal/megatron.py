"""CPM-1's checkpoints as TsinghuaAI published them: one file per model-parallel rank.

Each rank's query_key_value is its queries, then its keys, then its values. Merged and under the
names of transformers' GPT-2, whose Conv1D weights are transposed, they give GPT2LMHeadModel's
logits. Source: TsinghuaAI/CPM-1-Generate (MIT), the files' listing and the model's code; no
published file has been opened.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cpm_tune.backbone.ranks.files import rank_files
from cpm_tune.backbone.ranks.reading import (
    Entry,
    State,
    Weight,
    read_state,
    weights_of,
    write_ranks,
)
from cpm_tune.backbone.ranks.rules import COLUMNS, ROWS, SAME, THIRDS, Rule
from cpm_tune.errors import UserError

MODEL = "CPM-1"
_EOD, _PAD = 7, 5  # ids of CPM-1's vocabulary
_HEADS = {(32, 2560): 32, (24, 1024): 16, (12, 768): 12}  # (layers, width) -> attention heads

# CPM-1's name -> (GPT-2's, how it is divided, its rows and columns in widths).
_AROUND = {
    "word_embeddings.weight": ("transformer.wte.weight", ROWS),
    "position_embeddings.weight": ("transformer.wpe.weight", SAME),
    "transformer.final_layernorm.weight": ("transformer.ln_f.weight", SAME),
    "transformer.final_layernorm.bias": ("transformer.ln_f.bias", SAME),
}
_LAYER: dict[str, tuple[str, Rule, tuple[int, ...]]] = {
    "input_layernorm.weight": ("ln_1.weight", SAME, (1,)),
    "input_layernorm.bias": ("ln_1.bias", SAME, (1,)),
    "attention.query_key_value.weight": ("attn.c_attn.weight", THIRDS, (3, 1)),
    "attention.query_key_value.bias": ("attn.c_attn.bias", THIRDS, (3,)),
    "attention.dense.weight": ("attn.c_proj.weight", COLUMNS, (1, 1)),
    "attention.dense.bias": ("attn.c_proj.bias", SAME, (1,)),
    "post_attention_layernorm.weight": ("ln_2.weight", SAME, (1,)),
    "post_attention_layernorm.bias": ("ln_2.bias", SAME, (1,)),
    "mlp.dense_h_to_4h.weight": ("mlp.c_fc.weight", ROWS, (4, 1)),
    "mlp.dense_h_to_4h.bias": ("mlp.c_fc.bias", ROWS, (4,)),
    "mlp.dense_4h_to_h.weight": ("mlp.c_proj.weight", COLUMNS, (1, 4)),
    "mlp.dense_4h_to_h.bias": ("mlp.c_proj.bias", SAME, (1,)),
}


@dataclass(frozen=True)
class Shape:
    """The size of a CPM-1, as its weights have it."""

    vocabulary: int
    positions: int
    width: int
    layers: int


def read_checkpoint(folder: Path) -> tuple[Shape, dict[str, Weight]]:
    """The shape of a checkpoint, and its weights under GPT-2's names; lm_head is tied to wte.

    Reads no values before a weight's `whole`. Raises UserError for broken files, and with what is
    missing, unexpected or of another shape.
    """
    files = rank_files(folder)
    ranks = [read_state(file) for file in files]
    shape = _shape(files[0], ranks[0], len(ranks))
    return shape, weights_of(files, ranks, _entries(shape), MODEL)


def _shape(file: Path, rank: State, n: int) -> Shape:
    """The sizes that the embeddings and the names of layers say."""
    sizes = []
    for name in ("word_embeddings.weight", "position_embeddings.weight"):
        if name not in rank or len(rank[name].shape) != 2:
            raise UserError(
                f"{file}: no {name} of two dimensions, expected a rank of CPM-1 (or of CPM-2, with "
                "word_embeds.weight)."
            )
        sizes.append(rank[name].shape)
    (rows, width), (positions, _) = sizes
    layers = {match[1] for name in rank if (match := re.match(_NUMBERED, name))}
    return Shape(rows * n, positions, width, len(layers))


_NUMBERED = re.compile(r"transformer\.layers\.(0|[1-9]\d{0,8})\.")


def _entries(shape: Shape) -> dict[str, Entry]:
    """CPM-1's names in the order of the network -> where each belongs, and its shape."""
    width = shape.width
    around = ((shape.vocabulary, width), (shape.positions, width), (width,), (width,))
    outer = {
        name: Entry((theirs,), rule, size)
        for (name, (theirs, rule)), size in zip(_AROUND.items(), around, strict=True)
    }
    entries = {name: entry for name, entry in outer.items() if "embeddings" in name}
    for number in range(shape.layers):
        for name, (theirs, rule, factors) in _LAYER.items():
            size = tuple(width * factor for factor in factors)
            entries[f"transformer.layers.{number}.{name}"] = Entry(
                (f"transformer.h.{number}.{theirs}",), rule, size, transposed=len(size) == 2
            )
    return {**entries, **outer}


def gpt2_config(shape: Shape, heads: int | None = None, dtype: str = "float16") -> dict[str, Any]:
    """The values of a config.json for transformers' GPT2LMHeadModel.

    `heads`: the number of attention heads, which the weights do not say; default: that of the
    published sizes. Raises UserError if there is none for this size, or it does not divide it.
    """
    heads = heads or _HEADS.get((shape.layers, shape.width))
    if heads is None:
        raise UserError(
            f"a CPM-1 of {shape.layers} layers and width {shape.width} is none of the published "
            "sizes, and weights do not say how many attention heads it has; give their number."
        )
    if heads < 1 or shape.width % heads:
        raise UserError(f"{heads} attention heads do not divide the width {shape.width}.")
    return {
        "architectures": ["GPT2LMHeadModel"],
        "model_type": "gpt2",
        "vocab_size": shape.vocabulary,
        "n_positions": shape.positions,
        "n_embd": shape.width,
        "n_layer": shape.layers,
        "n_head": heads,
        "activation_function": "gelu_new",
        "layer_norm_epsilon": 1e-5,
        "attn_pdrop": 0.1,
        "embd_pdrop": 0.1,
        "resid_pdrop": 0.1,
        "bos_token_id": _EOD,
        "eos_token_id": _EOD,
        "pad_token_id": _PAD,
        "tie_word_embeddings": True,
        "torch_dtype": dtype,
    }


def write_checkpoint(
    folder: Path, weights: Mapping[str, Weight], heads: int, n: int, iteration: int = 1
) -> None:
    """Write GPT-2's weights as a checkpoint of `n` ranks into an empty folder, a rank at a time.

    A head that is a copy of the token embedding is left out. Raises UserError if the weights are
    not those of a CPM-1, or cannot be divided over `n` ranks.
    """
    if n < 1 or heads % n:
        raise UserError(
            f"--ranks {n}: {heads} attention heads cannot be divided over {n} ranks; give a number "
            "that divides them."
        )
    write_ranks(
        folder,
        weights,
        _entries(_shape_of(weights)),
        n,
        MODEL,
        iteration=iteration,
        left_out=("lm_head.weight",),
    )


def _shape_of(weights: Mapping[str, Weight]) -> Shape:
    """The sizes of GPT-2's weights; 0 where they say none."""
    tokens, positions = (
        weights[name].shape if name in weights and len(weights[name].shape) == 2 else (0, 0)
        for name in ("transformer.wte.weight", "transformer.wpe.weight")
    )
    layers = {match[1] for name in weights if (match := re.match(r"transformer\.h\.(\d+)\.", name))}
    return Shape(tokens[0], positions[0], tokens[1], len(layers))
