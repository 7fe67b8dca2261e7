"""CPM-2's checkpoints as TsinghuaAI published them, and as the weights of transformers' mT5.

Each rank's `project` is its queries, then its keys, then its values; `project_kv` in the decoder's
cross-attention its keys, then its values. What the decoder and the encoder embed with is one table;
the head is another. Source: TsinghuaAI/CPM-2-Finetune and CPM-2-Pretrain (MIT); no published file
has been opened.
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
from cpm_tune.backbone.ranks.rules import COLUMNS, HALVES, ROWS, SAME, THIRDS
from cpm_tune.errors import UserError

MODEL = "CPM-2"
_BLOCK = re.compile(r"(encoder|decoder)\.blocks\.(0|[1-9]\d{0,8})\.")
_EXPERTS = re.compile(r".*\.ff\..*expert.*")
_PROMPT = "encoder.prompt_embeds.weight"
_NORM = "layer_norm.weight"
_SELF, _CROSS = "self_attn.self_attn", "cross_attn.cross_attn"
_BIAS = "relative_attention_bias.weight"


@dataclass(frozen=True)
class Sizes:
    """The size of a CPM-2, as its weights have it; `inner`: of the queries of all heads."""

    vocabulary: int
    width: int
    inner: int
    heads: int
    buckets: int
    feed_forward: int
    encoder: int
    decoder: int


# --- reading ---


def read_checkpoint(folder: Path) -> tuple[Sizes, dict[str, Weight]]:
    """The sizes of a checkpoint, and its weights under mT5's names, the shared embedding once.

    Reads no values before a weight's `whole`. Raises UserError for broken files, for a mixture of
    experts or a tuned prompt, and with what is missing, unexpected or of another shape.
    """
    files = rank_files(folder)
    ranks = [read_state(file) for file in files]
    for file, state in zip(files, ranks, strict=True):
        if any(_EXPERTS.fullmatch(name) for name in state):
            raise UserError(
                f"{file}: a mixture of experts (CPM-2's of 198B parameters), whose output for a "
                "text depends on the others of its batch, is not supported; use CPM-2's 11B "
                "checkpoint."
            )
        if _PROMPT in state:
            raise UserError(
                f"{file}: contains a tuned prompt ({_PROMPT}), which cannot be read; use the "
                "checkpoint that it was tuned on."
            )
    sizes = _sizes(files[0], ranks[0], len(ranks))
    return sizes, weights_of(files, ranks, _entries(sizes), MODEL)


def _sizes(file: Path, rank: State, n: int) -> Sizes:
    """The sizes that shapes and the names of blocks say."""

    def shape(name: str) -> tuple[int, int]:
        if name not in rank or len(rank[name].shape) != 2:
            raise UserError(f"{file}: no {name} of two dimensions, expected a rank of CPM-2.")
        rows, columns = rank[name].shape
        return rows, columns

    blocks: dict[str, set[str]] = {"encoder": set(), "decoder": set()}
    for name in rank:
        if match := _BLOCK.match(name):
            blocks[match[1]].add(match[2])
    rows, width = shape("word_embeds.weight")
    inner, _ = shape(f"encoder.blocks.0.{_SELF}.project.weight")
    buckets, heads = shape(f"encoder.blocks.0.{_SELF}.{_BIAS}")
    feed_forward, _ = shape("encoder.blocks.0.ff.dense_relu_dense.wi_0.weight")
    if 0 in (rows, width, inner, buckets, heads, feed_forward) or inner % (3 * heads):
        raise UserError(
            f"{file}: {heads} attention heads do not divide a projection of {inner} rows for "
            "queries, keys and values; expected a rank of CPM-2."
        )
    n_encoder, n_decoder = (len(blocks[stack]) for stack in ("encoder", "decoder"))
    return Sizes(
        rows * n, width, inner // 3 * n, heads * n, buckets, feed_forward * n, n_encoder, n_decoder
    )


def _entries(sizes: Sizes) -> dict[str, Entry]:
    """CPM-2's names in the order of the network -> where each belongs, and its shape."""
    table, norm = (sizes.vocabulary, sizes.width), (sizes.width,)
    entries = {
        "word_embeds.weight": Entry(
            ("shared.weight",),
            ROWS,
            table,
            copies=("encoder.word_embeds.weight", "decoder.word_embeds.weight"),
        ),
        "lm_head.weight": Entry(("lm_head.weight",), ROWS, table),
    }
    for stack, layers in (("encoder", sizes.encoder), ("decoder", sizes.decoder)):
        name = f"{stack}.final_layernorm.weight"
        entries[name] = Entry((f"{stack}.final_layer_norm.weight",), SAME, norm)
        for number in range(layers):
            ours, theirs = f"{stack}.blocks.{number}", f"{stack}.block.{number}.layer"
            entries |= {
                f"{ours}.{name}": Entry(
                    tuple(f"{theirs}.{each}" for each in entry.names), entry.rule, entry.shape
                )
                for name, entry in _block(sizes, stack == "decoder", number == 0).items()
            }
    return entries


def _block(sizes: Sizes, decoder: bool, first: bool) -> dict[str, Entry]:
    """The entries of a block, by names within it."""
    width, inner, wide, norm = sizes.width, sizes.inner, sizes.feed_forward, (sizes.width,)
    attention = "0.SelfAttention"
    qkv = tuple(f"{attention}.{kind}.weight" for kind in "qkv")
    entries = {f"{_SELF}.project.weight": Entry(qkv, THIRDS, (3 * inner, width))}
    if first:
        bias = (sizes.buckets, sizes.heads)
        entries[f"{_SELF}.{_BIAS}"] = Entry((f"{attention}.{_BIAS}",), COLUMNS, bias)
    entries[f"{_SELF}.dense.weight"] = Entry((f"{attention}.o.weight",), COLUMNS, (width, inner))
    entries[f"self_attn.{_NORM}"] = Entry((f"0.{_NORM}",), SAME, norm)
    if decoder:
        cross = "1.EncDecAttention"
        kv = (f"{cross}.k.weight", f"{cross}.v.weight")
        entries |= {
            f"{_CROSS}.project_q.weight": Entry((f"{cross}.q.weight",), ROWS, (inner, width)),
            f"{_CROSS}.project_kv.weight": Entry(kv, HALVES, (2 * inner, width)),
            f"{_CROSS}.dense.weight": Entry((f"{cross}.o.weight",), COLUMNS, (width, inner)),
            f"cross_attn.{_NORM}": Entry((f"1.{_NORM}",), SAME, norm),
        }
    place = 2 if decoder else 1
    for name, rule, shape in (
        ("wi_0", ROWS, (wide, width)),
        ("wi_1", ROWS, (wide, width)),
        ("wo", COLUMNS, (width, wide)),
    ):
        theirs = f"{place}.DenseReluDense.{name}.weight"
        entries[f"ff.dense_relu_dense.{name}.weight"] = Entry((theirs,), rule, shape)
    entries[f"ff.{_NORM}"] = Entry((f"{place}.{_NORM}",), SAME, norm)
    return entries


def mt5_config(sizes: Sizes, dtype: str = "float16") -> dict[str, Any]:
    """The values of a config.json for transformers' MT5ForConditionalGeneration.

    What the weights do not say is CPM-2's. `eos_token_id` (<s_1>) is the vocabulary's to say.
    """
    return {
        "architectures": ["MT5ForConditionalGeneration"],
        "model_type": "mt5",
        "vocab_size": sizes.vocabulary,
        "d_model": sizes.width,
        "d_kv": sizes.inner // sizes.heads,
        "d_ff": sizes.feed_forward,
        "num_layers": sizes.encoder,
        "num_decoder_layers": sizes.decoder,
        "num_heads": sizes.heads,
        "relative_attention_num_buckets": sizes.buckets,
        "relative_attention_max_distance": 128,
        "feed_forward_proj": "gated-gelu",
        "layer_norm_epsilon": 1e-6,
        "dropout_rate": 0.0,
        "tie_word_embeddings": False,
        "decoder_start_token_id": 1,
        "pad_token_id": 5,
        "torch_dtype": dtype,
    }


# --- writing ---


def sizes_of(values: Mapping[str, Any]) -> Sizes:
    """The sizes that a config.json's values say."""
    heads = int(values["num_heads"])
    return Sizes(
        vocabulary=int(values["vocab_size"]),
        width=int(values["d_model"]),
        inner=heads * int(values["d_kv"]),
        heads=heads,
        buckets=int(values["relative_attention_num_buckets"]),
        feed_forward=int(values["d_ff"]),
        encoder=int(values["num_layers"]),
        decoder=int(values["num_decoder_layers"]),
    )


def write_checkpoint(
    folder: Path, weights: Mapping[str, Weight], values: Mapping[str, Any], n: int, iteration: int
) -> None:
    """Write mT5's weights as a checkpoint of `n` ranks into an empty folder, a rank at a time.

    `values`: of its config.json. Raises UserError if the weights are not those of such a CPM-2, or
    cannot be divided over `n` ranks.
    """
    sizes, heads = sizes_of(values), int(values["num_heads"])
    if n < 1 or heads % n:
        raise UserError(
            f"--ranks {n}: {heads} attention heads cannot be divided over {n} ranks; give a number "
            "that divides them."
        )
    copies = ("encoder.embed_tokens.weight", "decoder.embed_tokens.weight")
    entries = _entries(sizes)
    write_ranks(folder, weights, entries, n, MODEL, iteration=iteration, left_out=copies)
