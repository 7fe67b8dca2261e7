"""Opens an encoder-decoder: weights read one at a time from files, or drawn at random."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from cpm_tune.backbone.encdec.cpm2_ranks import read_checkpoint
from cpm_tune.backbone.encdec.folder import EncDecFolder
from cpm_tune.backbone.opening import open_whole
from cpm_tune.backbone.ranks.reading import Weight
from cpm_tune.backbone.storage.shard_index import check_shards
from cpm_tune.backbone.storage.stored import Stored, stored_tensors
from cpm_tune.errors import UserError

# Transformers has a stack's position bias in its first layer; here it is the stack's own.
_THERE = "{}.block.0.layer.0.SelfAttention.relative_attention_bias.weight"
_HERE = "{}.relative_attention_bias.weight"
OURS = {_THERE.format(stack): _HERE.format(stack) for stack in ("encoder", "decoder")}
THEIRS = {ours: theirs for theirs, ours in OURS.items()}
_EMBEDDING, _HEAD = "shared.weight", "lm_head.weight"
# The same embedding again, and a table that old files have and nothing uses.
_UNUSED = {
    *("encoder.embed_tokens.weight", "decoder.embed_tokens.weight"),
    "decoder.block.0.layer.1.EncDecAttention.relative_attention_bias.weight",
}


def open_backbone(folder: EncDecFolder, dtype: torch.dtype, **how: Any) -> Any:
    """See `cpm_tune.backbone.protocol.BackboneFolder.open`."""
    return open_whole(folder.config, named_tensors(folder), dtype, folder.path, **how)


def named_tensors(folder: EncDecFolder) -> Iterator[tuple[str, Tensor]]:
    """The tensors of a folder's files by the network's names; raise UserError as `read_weights`."""
    for weight in read_weights(folder):
        yield OURS.get(weight.name, weight.name), weight.whole()


def read_weights(folder: EncDecFolder) -> list[Weight] | list[Stored]:
    """The weights of a folder by transformers' names, the embedding once, read when they are asked
    for.

    Raises UserError for a tensor that the index has and the files lack, and for a head that is
    another one than the embedding although config.json says they are tied.
    """
    if folder.format == "mp_rank":
        return list(read_checkpoint(folder.path)[1].values())
    stored = {each.name: each for each in stored_tensors(folder.weights)}
    check_shards(folder.path, folder.weights, stored)
    if _EMBEDDING not in stored:
        same = next((stored[name] for name in sorted(_UNUSED) if name in stored), None)
        if same is not None:
            stored[_EMBEDDING] = replace(same, name=_EMBEDDING)
    if folder.config.tied and _HEAD in stored:
        _check_tied(folder, stored[_HEAD], stored.get(_EMBEDDING))
        del stored[_HEAD]
    return [each for name, each in stored.items() if name not in _UNUSED]


def _check_tied(folder: EncDecFolder, head: Stored, embedding: Stored | None) -> None:
    same = embedding is not None and head.shape == embedding.shape
    if not (same and torch.equal(head.whole(), embedding.whole())):  # type: ignore[union-attr]
        raise UserError(
            f"{folder.path}: {_HEAD} differs from {_EMBEDDING}, but config.json says that they are "
            "tied; set tie_word_embeddings to false there, which transformers 5 changes when it "
            "saves a model."
        )
