"""What every backbone is as a torch module, and its batches and caches."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, is_dataclass, replace
from typing import Any, Protocol, Self, cast

import numpy as np
import torch
from torch import Tensor, nn

from cpm_tune.backbone.example import Answer, Example, Ids
from cpm_tune.backbone.protocol import BackboneConfig, Layout
from cpm_tune.backbone.storage.shards import fill, whole_shape
from cpm_tune.errors import UserError

_ALIGNED = 64  # bytes: where each tensor of a batch begins
LowRank = tuple[Tensor, Tensor]  # A (rank, in), B (out, rank): what is added is a multiple of B A
MOST_LOGITS = 2**27  # logits of one forward pass: 512 MiB in fp32


@dataclass(frozen=True)
class Batch:
    """What is scored in a batch; families add what their model reads.

    The targets are the answers' tokens, those of an answer in order.
    target_token: int64 (targets,). target_candidate: int64 (targets,), which candidate each counts
    for. in_score: bool (targets,), False where a target is in the loss only. candidates: int64
    (examples, options), candidate numbers, -1 where an example has fewer. gold: int64 (examples,),
    the column of the right one, -1 if there is none.
    """

    target_token: Tensor
    target_candidate: Tensor
    in_score: Tensor
    candidates: Tensor
    gold: Tensor
    n_candidates: int

    def to(self, device: torch.device) -> Self:
        """Move to a device, all tensors in one copy; nothing waits for it."""
        return self if device.type == "cpu" else self.copied(device)

    def copied(self, device: torch.device) -> Self:
        """A copy on a device."""
        tensors = list(_tensors_in(self))
        sizes = [-(-part.nbytes // _ALIGNED) * _ALIGNED for part in tensors]
        pinned = device.type == "cuda" and torch.cuda.is_available()
        whole = torch.empty(sum(sizes), dtype=torch.uint8, pin_memory=pinned)
        for part, place in zip(tensors, torch.split(whole, sizes), strict=True):
            place[: part.nbytes] = part.contiguous().flatten().view(torch.uint8)
        places = torch.split(whole.to(device, non_blocking=True), sizes)
        moved = (
            place[: part.nbytes].view(part.dtype).view(part.shape)
            for part, place in zip(tensors, places, strict=True)
        )
        return cast(Self, _with_tensors(self, moved))


def _tensors_in(value: Any) -> Iterator[Tensor]:
    """The tensors in a batch, also those in dataclasses and tuples within."""
    if isinstance(value, Tensor):
        yield value
    elif is_dataclass(value):
        yield from _tensors_in(tuple(vars(value).values()))
    elif isinstance(value, tuple):
        for part in value:
            yield from _tensors_in(part)


def _with_tensors(value: Any, tensors: Iterator[Tensor]) -> Any:
    """The same with other tensors, in the order of `_tensors_in`."""
    if isinstance(value, Tensor):
        return next(tensors)
    if is_dataclass(value) and not isinstance(value, type):
        return replace(value, **{k: _with_tensors(v, tensors) for k, v in vars(value).items()})
    if isinstance(value, tuple):
        return tuple(_with_tensors(part, tensors) for part in value)
    return value


def scored(examples: Sequence[Example]) -> dict[str, Any]:
    """The fields of `Batch` for these examples."""
    token: list[int] = []
    owner: list[int] = []
    in_score: list[bool] = []
    n_options = max(len(example.candidates) for example in examples)
    table = np.full((len(examples), n_options), -1, dtype=np.int64)
    n_candidates = 0
    for e, example in enumerate(examples):
        for k, answer in enumerate(example.candidates):
            table[e, k] = n_candidates
            token += answer.ids
            owner += [n_candidates] * len(answer.ids)
            in_score += [place >= answer.lead for place in range(len(answer.ids))]
            n_candidates += 1
    return {
        "target_token": torch.tensor(token),
        "target_candidate": torch.tensor(owner),
        "in_score": torch.tensor(in_score),
        "candidates": torch.from_numpy(table),
        "gold": torch.tensor([example.gold for example in examples]),
        "n_candidates": n_candidates,
    }


def collated(layout: Layout, examples: Sequence[Example]) -> Any:
    """The layout's Batch of whole examples; raise UserError if targets or candidates are wrong."""
    batch = layout.collate(examples)
    answers = [answer for example in examples for answer in example.candidates]
    expected = len(answers), sum(len(answer.ids) for answer in answers)
    given = batch.n_candidates, len(batch.target_token)
    if given != expected or len(batch.target_candidate) != expected[1]:
        raise UserError(
            f"{type(layout).__name__} makes {given[1]} targets of {given[0]} candidates, expected "
            f"{expected[1]} of {expected[0]}: a mistake of this family of models."
        )
    return batch


def checked_scores(model: Backbone, batch: Any, tokens: Tensor | None = None) -> Iterator[Tensor]:
    """`Backbone.scores`; raise UserError if shapes or dtype are not those that it promises."""
    columns = model.config.shape.vocabulary if tokens is None else tokens.shape[1]
    targets, n = len(batch.target_token), 0
    for part in model.scores(batch, tokens):
        n += len(part)
        if part.shape[1:] != (columns,) or part.dtype != torch.float32 or n > targets:
            raise _wrong(model, f"{tuple(part.shape)}, {part.dtype}", (targets, columns))
        yield part
    if n != targets:
        raise _wrong(model, f"{n} rows", (targets, columns))


def check_logits(model: Backbone, logits: Tensor, rows: int, beams: int) -> Tensor:
    """What a cache returns; raise UserError if it is not fp32 (rows, beams, vocabulary)."""
    expected = rows, beams, model.config.shape.vocabulary
    if logits.shape != expected or logits.dtype != torch.float32:
        raise _wrong(model, f"{tuple(logits.shape)}, {logits.dtype}", expected)
    return logits


def _wrong(model: Backbone, given: str, expected: tuple[int, ...]) -> UserError:
    return UserError(
        f"the logits of {type(model).__name__} are {given}, expected {expected}, torch.float32: a "
        f"mistake of the family {model.config.family}."
    )


def dummy_fields(sequences: int, answer_tokens: int) -> dict[str, Any]:
    """The fields of `Batch` for sequences that are each one example with one candidate."""
    owner = torch.arange(sequences)
    return {
        "target_token": torch.zeros(sequences * answer_tokens, dtype=torch.int64),
        "target_candidate": owner.repeat_interleave(answer_tokens),
        "in_score": torch.ones(sequences * answer_tokens, dtype=torch.bool),
        "candidates": owner[:, None],
        "gold": torch.zeros(sequences, dtype=torch.int64),
        "n_candidates": sequences,
    }


def row_length(tokens: int, sizes: int = 16) -> int:
    """The length of a row with that many tokens: one of `sizes`, a power of two, from a power of
    two to the next.

    For every new shape of a product, oneDNN spends a few milliseconds and keeps a small block of
    memory, behind which the heap cannot use again what a step has freed.
    """
    step = 1 << max(0, (tokens - 1).bit_length() - sizes.bit_length())
    return -(-tokens // step) * step


def micro_batches(
    examples: Iterable[Example], layout: Layout, tokens: int, vocabulary: int
) -> Iterator[list[Example]]:
    """Cut a run of examples into groups of at most `tokens` tokens and MOST_LOGITS logits over the
    vocabulary (at least one example each)."""
    group: list[Example] = []
    size = logits = 0
    for example in examples:
        added = layout.n_tokens(example)
        targets = sum(len(answer.ids) for answer in example.candidates)
        more = targets * vocabulary
        if group and (size + added > tokens or logits + more > MOST_LOGITS):
            yield group
            group, size, logits = [], 0, 0
        group.append(example)
        size, logits = size + added, logits + more
    if group:
        yield group


class Cache(Protocol):
    """Keys and values (or states) of contexts and of what was generated after them."""

    def start(self) -> Tensor:
        """Encode the contexts; return the logits after each: fp32 (rows, 1, vocabulary)."""
        ...

    def step(self, tokens: Tensor, parents: Tensor) -> Tensor:
        """Feed every beam's new token after its parent, a beam of the step before.

        tokens, parents: int64 (rows, beams) -> the logits after each, fp32 (rows, beams,
        vocabulary).
        """
        ...

    def keep(self, rows: Sequence[int]) -> None:
        """Keep only these rows, in this order."""
        ...


class Recomputed:
    """A cache that keeps the ids alone: right for every family, and slow."""

    def __init__(self, model: Backbone, layout: Layout, contexts: Sequence[Ids]) -> None:
        self._model, self._layout = model, layout
        self._contexts = list(contexts)
        self._written: list[list[Ids]] = [[layout.lead] for _ in contexts]  # of each beam

    def start(self) -> Tensor:
        return self._logits()

    def step(self, tokens: Tensor, parents: Tensor) -> Tensor:
        self._written = [
            [(*row[parent], token) for token, parent in zip(*pair, strict=True)]
            for row, *pair in zip(self._written, tokens.tolist(), parents.tolist(), strict=True)
        ]
        return self._logits()

    def keep(self, rows: Sequence[int]) -> None:
        self._contexts = [self._contexts[row] for row in rows]
        self._written = [self._written[row] for row in rows]

    def _logits(self) -> Tensor:
        asked = [
            Example("", (context,), (Answer(0, (*ids, 0)),), 0, False)
            for context, written in zip(self._contexts, self._written, strict=True)
            for ids in written
        ]
        batch = self._layout.collate(asked).to(next(self._model.parameters()).device)
        owner = batch.target_candidate
        last = torch.cat((owner.diff() != 0, owner.new_ones(1, dtype=torch.bool)))
        logits = torch.cat(list(self._model.scores(batch)))[last]
        return logits.view(len(self._contexts), -1, logits.shape[1])


@dataclass(frozen=True)
class PromptTable:
    """Where a soft prompt goes in.

    `embedding` looks its tokens up: row `first` and those after it, which it does not have, are the
    soft prompt's; their ids are `first_free` and so on. Trained values are `unscaled` times the
    embeddings. `tokens` (vocabulary, width): the embeddings of the backbone's own tokens. `prompts`
    (types, rows, width): its own soft prompts.
    """

    embedding: nn.Embedding
    first: int
    first_free: int
    unscaled: float
    tokens: Tensor
    prompts: Tensor | None = None


class Backbone(nn.Module, ABC):
    """A frozen model: batches to logits.

    `config` says what it is. `streamed`: its weights come and go; `quantized`: its linear weights
    have 8 bits: neither can be trained. `sharded`, which engines set: processes share the layers
    and pass them together.
    """

    config: BackboneConfig
    streamed = False
    quantized = False
    sharded = False
    hides_pairs = False
    layers_wrappable = True
    fan_in_fan_out = False  # whether transformers' class has its linear weights transposed

    @property
    @abstractmethod
    def layers(self) -> Sequence[nn.ModuleList]:
        """The stacks of layers (one, or encoder and decoder), for checkpointing and sharding.

        A layer is called with hidden states first and returns hidden states; gradients of its other
        arguments are those of `tensors_in`. Engines that need that refuse a backbone whose
        `layers_wrappable` is false.
        """

    @property
    def layer_names(self) -> tuple[str, ...]:
        """The names of all layers within the model, in its order."""
        inside = {id(layer) for stack in self.layers for layer in stack}
        return tuple(name for name, module in self.named_modules() if id(module) in inside)

    def rate_of(self, name: str) -> float:
        """What a parameter's learning rate in pre-training is multiplied by: as much as its random
        weights are smaller than others of its shape because of something that is not scaled."""
        return 1.0

    def tensors_in(self, arguments: Sequence[Any]) -> tuple[Tensor, ...]:
        """The tensors that may have gradients within a layer's arguments by place after the
        first, for engines that handle tensors alone; `with_tensors` gives the arguments with these
        in their place."""
        return ()

    def with_tensors(self, arguments: Sequence[Any], tensors: Sequence[Tensor]) -> Sequence[Any]:
        """See `tensors_in`."""
        return arguments

    @abstractmethod
    def scores(self, batch: Any, tokens: Tensor | None = None) -> Iterator[Tensor]:
        """Yield the fp32 logits at the batch's targets, in order, in slices.

        A slice is (targets, vocabulary), or with `tokens` int64 (targets, k) for these alone:
        (targets, k). Without gradients a slice has at most MOST_LOGITS values.
        """

    def cache(
        self,
        layout: Any,
        contexts: Sequence[Ids],
        beams: int,
        slots: int,
        blanks: Sequence[Sequence[int]] = (),
    ) -> Cache:
        """A cache for `beams` continuations of each context, with room for `slots` tokens (of all
        beams) after it. `blanks`: of each context, the positions to be filled in order, equally
        many; only for families that fill blanks.

        By default nothing is kept and every step computes whole sequences again.
        """
        return Recomputed(self, layout, contexts)

    @abstractmethod
    def dummy(self, tokens: Tensor, answer_tokens: int) -> Any:
        """A batch of sequences without meaning, to measure memory or to compare: int64 (sequences,
        length), each with its last `answer_tokens` positions as targets."""

    @torch.no_grad()
    def init_weights(self, seed: int) -> Self:
        """Draw all weights at random, the same for a seed on every machine; return the model.

        Matrices and embeddings N(0, 1/columns); vectors called `weight` (norms') are 1, others 0.
        """
        generator = torch.Generator().manual_seed(seed)
        for name, weight in self.named_parameters():
            shape = whole_shape(weight)
            if len(shape) == 1:
                fill(weight, torch.full(shape, float(name.endswith("weight"))))
            else:
                fill(weight, torch.randn(shape, generator=generator).mul_(shape[-1] ** -0.5))
        return self

    def fill_buffers(self) -> None:
        """Give buffers the values that no file has; skeletons have none. A family with buffers has
        to: by default they are refused."""
        if names := [name for name, _ in self.named_buffers()]:
            raise UserError(
                f"models of the family {self.config.family} have buffers ({names[0]}), and no "
                "`fill_buffers` to give them values; add it to the family."
            )

    def prompt_table(self) -> PromptTable | None:
        """Where a soft prompt goes in; None if it cannot."""
        return None

    def hidden_pairs(self, ids: Tensor) -> Tensor | None:
        """(query, key) pairs that a delta hides, bool (batch, length, length); None: no pair. Only
        families whose attention heeds it set `hides_pairs`."""
        return None

    def adds_input_of(self, module: str) -> None:
        """A delta will add what it makes of this module's input to another module's output: both
        have to be of the same positions from now on, until the delta is taken out."""

    def to_transformers(self, loras: Mapping[str, LowRank]) -> dict[str, LowRank]:
        """LoRAs by names of this backbone's modules, as those of transformers' modules for it."""
        return dict(loras)

    def from_transformers(self, loras: Mapping[str, LowRank]) -> dict[str, LowRank]:
        """The way back of `to_transformers`."""
        return dict(loras)

    def widths(self, module: nn.Module) -> tuple[int, int] | None:
        """Sizes of the last dimension of a module's input and output; None where no delta goes."""
        if isinstance(module, nn.Linear):
            return module.in_features, module.out_features
        return None
