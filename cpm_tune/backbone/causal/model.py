"""A causal language model of transformers as a backbone: batches to logits by its own forward.

Many models scale or cap their logits, so these are never computed by hand: before the head, only
the hidden states that are scored are kept, and the model's own forward goes on with them.
"""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Self

import torch
from torch import Tensor, nn

from cpm_tune.backbone.base import (
    MOST_LOGITS,
    Backbone,
    Cache,
    LowRank,
    PromptTable,
)
from cpm_tune.backbone.causal.cache import CausalCache, SharedCache
from cpm_tune.backbone.causal.config import CausalConfig
from cpm_tune.backbone.causal.split import fused_loras, parts_of_loras, split, transposed
from cpm_tune.backbone.example import Ids
from cpm_tune.backbone.padded_batch import PaddedBatch, dummy_batch, similar_rows
from cpm_tune.backbone.storage.shards import fill, whole_shape

ATTENTION = ("self_attn", "attn", "attention", "self_attention")
FFN = ("mlp", "ffn", "feed_forward", "block_sparse_moe")


def is_norm(module: nn.Module) -> bool:
    """Whether a module is a layer norm of any kind."""
    return "Norm" in type(module).__name__


def layers_in(model: nn.Module, n: int) -> nn.ModuleList:
    """The stack of layers of a model of transformers' that has `n`."""
    return next(m for m in model.modules() if isinstance(m, nn.ModuleList) and len(m) == n)


class CausalLM(Backbone):
    """`model` is transformers' own, with its projections as `cpm_tune.backbone.causal.split` has
    them."""

    config: CausalConfig

    def __init__(self, config: CausalConfig, model: Any) -> None:
        super().__init__()
        self.config = config
        split(model)
        self.model = model
        self.fan_in_fan_out = bool(transposed(model))
        model.config.pad_token_id = None  # or it warns of padding, which is on the right here
        stack = layers_in(model, model.config.num_hidden_layers)
        names = {id(module): name for name, module in self.named_modules()}
        self._stack = names[id(stack)]
        self.trunk = self._stack.rpartition(".")[0]  # the module that owns the layers
        self._takes = set(inspect.signature(model.forward).parameters)
        # `cache` from transformers 5.24 on, before that `past_key_values`
        self._cache = next((n for n in ("cache", "past_key_values") if n in self._takes), "")
        # CPM-1's: no argument of a layer but hidden states has gradients.
        self.layers_wrappable = model.config.model_type == "gpt2"
        self._mark_attention()

    def _mark_attention(self) -> None:
        """Say of each attention module that can have more keys how wide they are."""
        if self.model.config._attn_implementation != "cpm_tune_sdpa":
            return
        for layer in self.layers[0]:
            for name, block in layer.named_children():
                ends = [
                    [
                        m
                        for n, m in block.named_modules()
                        if n.rpartition(".")[2] in (p, f"{p}_proj")
                    ]
                    for p in "kv"
                ]
                if name in ATTENTION and all(len(end) == 1 for end in ends):
                    key, value = (end[0].out_features for end in ends)
                    if key == value:
                        block.key_width = key

    @property
    def layers(self) -> Sequence[nn.ModuleList]:
        stack = self.get_submodule(self._stack)
        assert isinstance(stack, nn.ModuleList)
        return (stack,)

    def scores(self, batch: PaddedBatch, tokens: Tensor | None = None) -> Iterator[Tensor]:
        """See `Backbone.scores`: one slice, or without gradients as many as bound its size."""
        n = len(batch.target_row)
        most = n
        if not torch.is_grad_enabled():
            most = max(1, MOST_LOGITS // self.config.shape.vocabulary)
        ids = batch.ids[:, : self.config.shape.limit]  # padding may have more
        groups = similar_rows(ids, batch.lengths, together=self.sharded)
        for start in range(0, n, most):
            cut = slice(start, start + most)
            row, place = batch.target_row[cut], batch.target_place[cut]
            asked = None if tokens is None else tokens[cut]
            yield self._of_groups(ids, groups, row, place, asked)

    def _of_groups(
        self,
        ids: Tensor,
        groups: Sequence[tuple[int, int, int]],
        row: Tensor,
        place: Tensor,
        tokens: Tensor | None,
    ) -> Tensor:
        """fp32 logits at targets, those of each group of rows by a pass of its own."""
        if len(groups) == 1:
            return self._pass(ids, row, place, tokens)
        parts, order = list[Tensor](), list[Tensor]()
        for first, end, length in groups:
            (inside,) = ((row >= first) & (row < end)).nonzero(as_tuple=True)
            if len(inside):
                some = None if tokens is None else tokens[inside]
                part = ids[first:end, :length]
                parts.append(self._pass(part, row[inside] - first, place[inside], some))
                order.append(inside)
        back = torch.cat(order).argsort()
        return torch.cat(parts)[back]

    def _pass(self, ids: Tensor, row: Tensor, place: Tensor, tokens: Tensor | None) -> Tensor:
        with self._head_sees(lambda hidden: hidden[row, place][None]) as reached:
            logits = self.model(input_ids=ids, use_cache=False).logits
        logits = logits[0] if reached else logits[row, place]
        return logits.float() if tokens is None else logits.gather(1, tokens).float()

    @contextlib.contextmanager
    def _head_sees(self, keep: Any) -> Iterator[list[bool]]:
        """Give the head only what `keep` makes of hidden states (rows, length, width); the list has
        an entry afterwards if the model called its head as a module."""
        reached: list[bool] = []

        def only(module: nn.Module, given: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
            reached.append(True)
            return (keep(given[0]), *given[1:])

        hook = self.model.get_output_embeddings().register_forward_pre_hook(only)
        try:
            yield reached
        finally:
            hook.remove()

    def following(self, ids: Tensor, past: Any, last: int, **named: Any) -> tuple[Tensor, Any]:
        """The fp32 logits (rows, last, vocabulary) after the last ids of each row, and the keys and
        values so far. `named`: those of attention_mask, position_ids that the model takes."""
        named = {key: value for key, value in named.items() if key in self._takes}
        with self._head_sees(lambda hidden: hidden[:, -last:]):
            out = self.model(input_ids=ids, use_cache=True, **{self._cache: past}, **named)
        return out.logits[:, -last:].float(), out[self._cache]

    @property
    def caches(self) -> bool:
        """Whether the model keeps keys and values, and nothing else, of what it has read."""
        return self._cache != "" and not self.model._is_stateful

    @property
    def shares_prefixes(self) -> bool:
        """Whether all beams of a text can be in one row: if attention is ours, which takes any
        mask, sees everything before, and positions are given."""
        config = self.model.config
        kinds = {*(getattr(config, "layer_types", None) or ())} - {"full_attention"}
        windows = getattr(config, "sliding_window", None) is not None or kinds
        ours = config._attn_implementation == "cpm_tune_sdpa"
        return ours and not windows and "position_ids" in self._takes

    def cache(
        self,
        layout: Any,
        contexts: Sequence[Ids],
        beams: int,
        slots: int,
        blanks: Sequence[Sequence[int]] = (),
    ) -> Cache:
        if not self.caches:
            return super().cache(layout, contexts, beams, slots, blanks)
        if self.shares_prefixes:
            return SharedCache(self, contexts, layout.tokenizer.pad, slots, beams)
        return CausalCache(self, contexts, layout.tokenizer.pad, slots // beams)

    def dummy(self, tokens: Tensor, answer_tokens: int) -> PaddedBatch:
        return dummy_batch(tokens, answer_tokens)

    def prompt_table(self) -> PromptTable | None:
        """The input embeddings; None for models that look ids up in further tables."""
        if getattr(self.model.config, "hidden_size_per_layer_input", None):
            return None
        table = self.model.get_input_embeddings()
        scale = getattr(table, "scalar_embed_scale", None) or 1.0
        spread = getattr(self.model.config, "initializer_range", None) or 1.0
        rows = table.weight.shape[0]
        tokens = table.weight if scale == 1 else table.weight.detach() * scale
        first_free = max(rows, self.config.shape.vocabulary)
        return PromptTable(table, rows, first_free, 1 / (spread * scale), tokens)

    def widths(self, module: nn.Module) -> tuple[int, int] | None:
        if (sizes := super().widths(module)) is not None:
            return sizes
        weight = getattr(module, "weight", None)
        if is_norm(module) and isinstance(weight, Tensor) and len(whole_shape(weight)) == 1:
            width = whole_shape(weight)[0]
            return width, width
        if id(module) in self._blocks:
            width = self.config.shape.width
            return width, width
        return None

    @property
    def _blocks(self) -> set[int]:
        """The attention and feed-forward sub-blocks, by identity."""
        return {
            id(block)
            for layer in self.layers[0]
            for name, block in layer.named_children()
            if name in (*ATTENTION, *FFN)
        }

    def to_transformers(self, loras: Mapping[str, LowRank]) -> dict[str, LowRank]:
        return {
            name.removeprefix("model."): pair for name, pair in fused_loras(self, loras).items()
        }

    def from_transformers(self, loras: Mapping[str, LowRank]) -> dict[str, LowRank]:
        names = [name for name, _ in self.named_modules()]
        whole = {}  # names of files may lack the first parts
        for given, pair in loras.items():
            ours = [name for name in names if f".{name}".endswith(f".{given}")]
            whole[ours[0] if len(ours) == 1 else given] = pair
        return parts_of_loras(self, whole)

    def to_empty(self, *given: Any, **named: Any) -> Self:
        """As torch's, with tied weights tied again."""
        super().to_empty(*given, **named)
        self.model.tie_weights()
        return self

    @torch.no_grad()
    def init_weights(self, seed: int) -> Self:
        """As `Backbone.init_weights`; vectors are those that a new model has."""
        fill_buffers(self.model)
        generator = torch.Generator().manual_seed(seed)
        for module in self.modules():
            for name, weight in module.named_parameters(recurse=False):
                shape = whole_shape(weight)
                if len(shape) == 1:
                    one = is_norm(module) and name == "weight" and not _adds_one(module)
                    fill(weight, torch.full(shape, float(one)))
        for weight in self.parameters():
            shape = whole_shape(weight)
            if len(shape) > 1:
                fill(weight, torch.randn(shape, generator=generator).mul_(shape[-1] ** -0.5))
        return self


def _adds_one(module: nn.Module) -> bool:
    """Whether a norm multiplies with 1 + weight, as Gemma's."""
    return type(module).__name__.startswith(("Gemma", "VaultGemma", "Qwen3Next", "RecurrentGemma"))


@torch.no_grad()
def fill_buffers(model: Any) -> None:
    """Compute the buffers that no file has (angles of rotary positions), after a model without
    values got memory and before its parameters get theirs."""
    for module in model.modules():
        if module._buffers:
            model._init_weights(module)
