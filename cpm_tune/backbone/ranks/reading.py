"""Reads and writes checkpoints of model-parallel ranks as the weights of one model.

A linear layer is divided over the ranks by its outputs or its inputs, an embedding by its rows;
layer norms and biases of layers that are divided by inputs are in every file. Which tensor is
divided how, and where it belongs in transformers' model, is a table of the model's own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from cpm_tune.backbone.ranks.files import LATEST, MAX_RANKS, rank_name
from cpm_tune.backbone.ranks.rules import Rule, divide, merge
from cpm_tune.backbone.storage.stored import Stored, state_of, tensors_of
from cpm_tune.backbone.storage.writers import Target, write_pt
from cpm_tune.errors import UserError

STATE = "module"
_WRAPPER = "module."


@dataclass(frozen=True)
class Weight:
    """A weight of transformers' model, made of every rank's part when it is asked for."""

    name: str
    shape: tuple[int, ...]
    dtype: torch.dtype
    whole: Callable[[], Tensor]


@dataclass(frozen=True)
class Entry:
    """Where a tensor of a checkpoint belongs in transformers' model.

    names: of the weight, or of several, of which the tensor has one after the other in its rows.
    shape: of all ranks together, as the checkpoint has it. copies: names of the same tensor, which
    a checkpoint may have or not.
    """

    names: tuple[str, ...]
    rule: Rule
    shape: tuple[int, ...]
    transposed: bool = False
    copies: tuple[str, ...] = ()

    @property
    def size(self) -> tuple[int, ...]:
        """The shape of each weight."""
        rows, *more = self.shape
        each = (rows // len(self.names), *more)
        return each[::-1] if self.transposed else each


State = Mapping[str, Stored]


def names(file: Path) -> frozenset[str]:
    """The names under `module` in a rank's file; raise UserError for a broken file."""
    return frozenset(str(name) for name in _module(file))


def _module(file: Path) -> Mapping[str, object]:
    state = state_of(file)
    module = state.get(STATE) if isinstance(state, dict) else None
    if not isinstance(module, dict) or not module:
        raise UserError(f"{file}: no weights under '{STATE}', expected a rank of CPM-1 or CPM-2.")
    return module


def read_state(file: Path) -> dict[str, Stored]:
    """The tensors under `module`, by their names without wrappers'; raise UserError for a broken
    file."""
    tensors = {stored.name: stored for stored in tensors_of(file, _module(file))}
    while all(name.startswith(_WRAPPER) for name in tensors):
        tensors = {name.removeprefix(_WRAPPER): stored for name, stored in tensors.items()}
    return tensors


def weights_of(
    files: Sequence[Path], ranks: Sequence[State], entries: Mapping[str, Entry], model: str
) -> dict[str, Weight]:
    """The weights by transformers' names; no value is read before a weight's `whole`.

    Raises UserError unless every rank has exactly its parts of a `model`, of one dtype.
    """
    _check(files, ranks, entries, model)
    made = (
        _weight(files[0], ranks, name, entry, number)
        for name, entry in entries.items()
        for number in range(len(entry.names))
    )
    return {weight.name: weight for weight in made}


def _weight(file: Path, ranks: Sequence[State], name: str, entry: Entry, number: int) -> Weight:
    """The weight that is the `number`th in the rows of a tensor."""
    n = len(entry.names)
    rule = entry.rule if n == 1 else Rule(entry.rule.dimension)

    def whole() -> Tensor:
        parts = [state[name].whole().chunk(n)[number] for state in ranks]
        merged = merge(rule, parts, str(file), name)
        return merged.t().contiguous() if entry.transposed else merged

    return Weight(entry.names[number], entry.size, ranks[0][name].dtype, whole)


def _check(
    files: Sequence[Path], ranks: Sequence[State], entries: Mapping[str, Entry], model: str
) -> None:
    copies = {copy: entry for entry in entries.values() for copy in entry.copies}
    for file, state in zip(files, ranks, strict=True):
        wrong = [f"missing {name}" for name in entries if name not in state]
        wrong += [f"unexpected {name}" for name in state if name not in {*entries, *copies}]
        for name, entry in {**entries, **copies}.items():
            if name in state and state[name].shape != entry.rule.part(entry.shape, len(ranks)):
                shape, whole = state[name].shape, entry.shape
                wrong.append(f"{name} has shape {shape}, a part of {len(ranks)} of {whole}")
            elif name in state and name in ranks[0] and state[name].dtype != ranks[0][name].dtype:
                wrong.append(f"{name} is {state[name].dtype}, in rank 0 {ranks[0][name].dtype}")
        if wrong:
            more = f" and {len(wrong) - 4} more" if len(wrong) > 4 else ""
            shown = "; ".join(fault[:200] for fault in wrong[:4])
            raise UserError(f"{file}: not a rank of {model}'s: {shown}{more}.")
        for name, entry in entries.items():
            for copy in entry.copies:
                if copy in state and not _same(state[name], state[copy]):
                    raise UserError(
                        f"{file}: {copy} differs from {name}, of which it is a copy; the file is "
                        "damaged, get it again."
                    )


def _same(a: Stored, b: Stored) -> bool:
    """Whether two tensors are the same bytes of a file, or else equal."""
    return (a.offset == b.offset and a.loaded is b.loaded) or torch.equal(a.whole(), b.whole())


def write_ranks(
    folder: Path,
    weights: Mapping[str, Weight],
    entries: Mapping[str, Entry],
    n: int,
    model: str,
    *,
    iteration: int,
    left_out: Sequence[str] = (),
) -> None:
    """Write weights as a checkpoint of `n` ranks into an empty folder, a rank at a time.

    left_out: names of weights that the ranks do not have. Raises UserError if the weights are not
    those of a `model`, or cannot be divided over `n` ranks; then the folder is still empty.
    """
    size_of = {name: entry.size for entry in entries.values() for name in entry.names}
    wrong = [f"missing {name}" for name in size_of if name not in weights]
    wrong += [f"unexpected {name}" for name in weights.keys() - size_of.keys() - {*left_out}]
    for name, size in size_of.items():
        if name in weights and tuple(weights[name].shape) != size:
            wrong.append(f"{name} has shape {tuple(weights[name].shape)}, not {size}")
    if wrong:
        raise UserError(f"these are not the weights of a {model}: {'; '.join(sorted(wrong)[:4])}.")
    whole = [name for name, e in entries.items() if n < 1 or e.rule.part(e.shape, n) is None]
    if not 0 < n <= MAX_RANKS or whole:
        raise UserError(
            f"--ranks {n}: {whole[0] if whole else 'the model'} cannot be divided over {n} ranks."
        )
    place = folder / str(iteration)
    place.mkdir()
    for rank in range(n):
        targets = [_target(name, entry, weights, n, rank) for name, entry in entries.items()]
        write_pt(place / rank_name(rank), targets, lambda state: _around(state, entries, iteration))
    (folder / LATEST).write_text(f"{iteration}\n", encoding="ascii")


def _target(name: str, entry: Entry, weights: Mapping[str, Weight], n: int, rank: int) -> Target:
    """A rank's part of a tensor, to be written; the whole is made when its turn comes."""

    def chunks() -> Iterator[Tensor]:
        parts = [weights[each].whole() for each in entry.names]
        whole = parts[0] if len(parts) == 1 else torch.cat(parts)
        whole = whole.t() if entry.transposed else whole
        yield divide(entry.rule, whole, n)[rank].contiguous().view(-1)

    shape = entry.rule.part(entry.shape, n) or ()
    return Target(name, shape, weights[entry.names[0]].dtype, chunks)


def _around(
    state: Mapping[str, Tensor], entries: Mapping[str, Entry], iteration: int
) -> dict[str, Any]:
    """What a rank's file contains."""
    copies = {copy: state[name] for name, entry in entries.items() for copy in entry.copies}
    return {STATE: {**state, **copies}, "iteration": iteration}
