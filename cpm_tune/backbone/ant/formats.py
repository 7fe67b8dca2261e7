"""The checkpoint formats: where each weight of CPM-Ant is in a folder, and how it is scaled there.

Native and Hugging Face's weights are folded, those of the original format (reference) are not, see
`cpm_tune.backbone.ant.model`. Hugging Face's token embedding has the soft prompts after the tokens,
and its head is a copy of the tokens, or up to transformers 5.15 of that whole table. CPM-Ant+'s
table, in the original format, has the soft prompts after the tokens as well.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate

import torch
from torch import Tensor

from cpm_tune.backbone.ant.config import CPMAntConfig
from cpm_tune.backbone.ant.folder import CPMAntFolder
from cpm_tune.backbone.ant.model import skeleton
from cpm_tune.backbone.storage.fit import check_fit
from cpm_tune.backbone.storage.shard_index import check_shards
from cpm_tune.backbone.storage.stored import Stored, stored_tensors
from cpm_tune.errors import UserError

TOKENS, PROMPTS, HEAD = "input_embedding.weight", "prompt_embedding.weight", "lm_head.weight"
_CLASS = "cpmant."  # before the names of CpmAntForCausalLM, except its head
MAX_PREFIX = 8  # parts of names that wrappers may have added
CHUNK = 2**20  # values that are in memory at a time


def shapes(config: CPMAntConfig) -> dict[str, tuple[int, ...]]:
    """Names and shapes of a backbone's weights, in the order of its state dict."""
    state = skeleton(config).state_dict()
    return {name: tuple(weight.shape) for name, weight in state.items()}


def joint_table(names: Iterable[str]) -> dict[str, tuple[str, ...]]:
    """The tensors of formats whose token embedding has the soft prompts at its end: for each, which
    of our weights it has, in order."""
    return {
        name: (name, PROMPTS) if name == TOKENS else (name,) for name in names if name != PROMPTS
    }


def hugging_face_parts(names: Iterable[str]) -> dict[str, tuple[str, ...]]:
    """The tensors of Hugging Face's format: for each, which of our weights it has, in order."""
    parts = {f"{_CLASS}{name}": parts for name, parts in joint_table(names).items()}
    return {**parts, HEAD: (TOKENS,)}


def divisor(name: str, shape: Sequence[int], form: str, config: CPMAntConfig) -> float:
    """By what a checkpoint format's weights have to be divided to be folded."""
    if form != "reference" or len(shape) != 2:
        return 1.0
    if name.endswith(("_embedding.weight", HEAD)):
        return math.sqrt(config.dim_model)
    return math.sqrt(shape[1]) if name.startswith("encoder.") else 1.0


def folded(values: Tensor, by: float) -> Tensor:
    """Unscaled values to folded ones, in fp32 at least."""
    return values if by == 1 else values.to(_wide(values)) / by


def unfolded(values: Tensor, by: float) -> Tensor:
    """Folded values to unscaled ones, in fp32 at least."""
    return values if by == 1 else values.to(_wide(values)) * by


def _wide(values: Tensor) -> torch.dtype:
    return torch.promote_types(values.dtype, torch.float32)


@dataclass(frozen=True)
class Piece:
    """A weight of the backbone: a part of a stored tensor, from flat index `start` on."""

    stored: Stored
    start: int
    shape: tuple[int, ...]
    divisor: float

    @property
    def numel(self) -> int:
        return math.prod(self.shape)

    def values(self) -> Tensor:
        """The weight as it is stored, mapped from the file: not to be changed."""
        flat = self.stored.whole().reshape(-1)
        return flat[self.start : self.start + self.numel].view(self.shape)

    def chunks(self) -> Iterator[tuple[int, Tensor]]:
        """Yield (flat index, values as stored), CHUNK at a time, always in the same memory."""
        buffer = torch.empty(min(CHUNK, self.numel), dtype=self.stored.dtype)
        for begin in range(0, self.numel, CHUNK):
            part = buffer[: min(CHUNK, self.numel - begin)]
            self.stored.read_into(part, self.start + begin)
            yield begin, part

    def phase(self, dtype: torch.dtype, alignment: int) -> int:
        """Where `load_weights` has the weight in memory, modulo an alignment: as in the file if it
        is mapped, otherwise 0."""
        stored = self.stored
        if self.divisor != 1 or dtype != stored.dtype:
            return 0
        begin = stored.offset if stored.loaded is None else stored.loaded.data_ptr()
        return (begin + self.start * dtype.itemsize) % alignment

    def read_into(self, out: Tensor) -> None:
        """Fill a contiguous CPU tensor of any dtype with the folded weight."""
        if self.divisor == 1 and out.dtype == self.stored.dtype:
            self.stored.read_into(out, self.start)
            return
        for begin, part in self.chunks():
            out.view(-1)[begin : begin + len(part)] = folded(part, self.divisor)


def pieces(folder: CPMAntFolder, config: CPMAntConfig | None = None) -> dict[str, Piece]:
    """Every weight that `config` (default: the folder's own) has, in the order of its state dict.

    Reads no values but those of an lm_head. Raises UserError for broken files and with what is
    missing, unexpected or of another shape.
    """
    weights: dict[str, Piece] = {}
    tensors = list(stored_tensors(folder.weights))
    if folder.format == "hf":
        check_shards(folder.path, folder.weights, {stored.name for stored in tensors})
    prefix = _shared_prefix(folder, [stored.name for stored in tensors])
    joint = folder.format == "hf" or not any(t.name == prefix + PROMPTS for t in tensors)
    for stored in tensors:
        for name, start, shape in _parts(stored, prefix, folder, joint):
            if name in weights:
                raise UserError(f"{folder.path}: tensor {name} occurs twice; keep one checkpoint.")
            by = divisor(name, shape, folder.format, folder.config)
            weights[name] = Piece(stored, start, shape, by)
    head, expected = weights.pop(HEAD, None), shapes(folder.config)
    check_fit(folder.path, {name: piece.shape for name, piece in weights.items()}, expected)
    if head is not None and not _tied(head, weights):
        raise UserError(
            f"{folder.path}: lm_head differs from the token embedding, but CPM-Ant's head is tied "
            "to it; this checkpoint was tuned with an untied head and cannot be used."
        )
    return {name: weights[name] for name in (shapes(config) if config else expected)}


def _parts(
    stored: Stored, prefix: str, folder: CPMAntFolder, joint: bool
) -> Iterator[tuple[str, int, tuple[int, ...]]]:
    """The weights of a stored tensor: name, flat index of the first value, shape."""
    name, shape, tokens = stored.name.removeprefix(prefix), stored.shape, folder.config.vocab_size
    if folder.format == "hf":
        name = name.removeprefix(_CLASS)
    longer = len(shape) == 2 and (folder.format == "hf" or shape[0] > tokens)
    if name == TOKENS and joint and longer:
        tokens = min(tokens, shape[0])
        yield name, 0, (tokens, shape[1])
        yield PROMPTS, tokens * shape[1], (shape[0] - tokens, shape[1])
        return
    yield name, 0, shape


def _shared_prefix(folder: CPMAntFolder, names: Sequence[str]) -> str:
    """What wrappers (module., model.) have put before every name: without it, most are known.

    Raises UserError if it says that the weights are Hugging Face's, and so scaled otherwise than
    the folder's config says.
    """
    expected = shapes(folder.config)
    known = {*expected, HEAD}
    if folder.format == "hf":
        known |= {_CLASS + name for name in expected}
    parts = names[0].split(".")[:MAX_PREFIX] if names else []
    prefixes = [p for p in accumulate(f"{part}." for part in parts) if _begin(names, p)]
    prefix = max(
        ["", *prefixes], key=lambda p: sum(name.removeprefix(p) in known for name in names)
    )
    theirs = f"{prefix}{_CLASS}{TOKENS}" in names or prefix.endswith(_CLASS)
    if folder.format != "hf" and theirs and prefix + PROMPTS not in names:
        raise UserError(
            f"{folder.path}: names begin with {_CLASS}, so these are weights of Hugging Face's "
            "CpmAnt, which are scaled otherwise than the config says; give them its config.json "
            "(model_type cpmant) and the name pytorch_model.bin."
        )
    return prefix


def _begin(names: Sequence[str], prefix: str) -> bool:
    return all(name.startswith(prefix) for name in names)


def _tied(head: Piece, weights: Mapping[str, Piece]) -> bool:
    """Whether a head is a copy of the tokens, or of the tokens and the prompts after them."""
    tokens, prompts = weights[TOKENS], weights[PROMPTS]
    if head.shape == tokens.shape:
        return _equal(head, tokens)
    both = (tokens.shape[0] + prompts.shape[0], *tokens.shape[1:])
    parts = (tokens, 0), (prompts, tokens.numel)
    return head.shape == both and all(
        _equal(replace(head, start=head.start + start, shape=part.shape), part)
        for part, start in parts
    )


def _equal(head: Piece, tokens: Piece) -> bool:
    same = zip(head.chunks(), tokens.chunks(), strict=True)
    return all(torch.equal(a, b) for (_, a), (_, b) in same)
