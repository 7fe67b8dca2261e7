"""The fast way (sequences end to end, each attending within itself, the last layer at target
positions alone) gives what the plain way gives: values, gradients, for every delta."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from delta_table import DELTAS, SHA, backbone, perturb, sequence
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from cpm_tune.backbone.ant.packing import EXACT, FEW, SIMILAR, pack
from cpm_tune.backbone.ant.spans import gathered
from cpm_tune.delta.config import LoraConfig, NoneConfig, ParallelAdapterConfig
from cpm_tune.delta.insert import insert

pytestmark = pytest.mark.usefixtures("one_thread")

WAYS = pytest.mark.parametrize("shortest", [EXACT, SIMILAR, FEW])
TEXTS = (14, 14, 14, 9, 9, 5)  # some of one length, the longest first
NO_ATTENTION = ((True, False), (True, False))
LAST_WITHOUT = ((False, False), (True, False))
FIRST_ONLY = ((False, True), (True, True))


def batch(model: Any, config: Any, ragged: bool) -> dict[str, Any]:
    """Sequences end to end; with `ragged` each has another part that is context, else all is."""
    rows = [sequence(model, config, 7 * k, n) for k, n in enumerate(TEXTS)]
    for k, row in enumerate(rows):
        length = row["ids"].shape[1]
        row["context"] = torch.arange(length)[None] < (length - 1 - k % 3 if ragged else length)
        row["span"] = torch.full_like(row["ids"], k)
    return {
        **{name: torch.cat([row[name] for row in rows], dim=1) for name in rows[0]},
        "lengths": tuple(row["ids"].shape[1] for row in rows),
    }


def both(
    model: Any, row: dict[str, Any], targets: Tensor, shortest: float
) -> tuple[Tensor, Tensor]:
    """Hidden states at targets: plain, and fast with padding at the row's end."""
    row = dict(row)
    lengths = row.pop("lengths")
    plain = model(**row).flatten(0, 1)[targets]
    padded = {name: F.pad(part, (0, 5)) for name, part in row.items()}
    segment, context = padded["segment"][0].numpy(), padded["context"][0].numpy()
    packing = pack(lengths, segment, context, targets.numpy(), shortest)
    return plain, model(padded["ids"], padded["segment"], packing=packing)[0]


def targets_of(model: Any, config: Any) -> Tensor:
    """None in the second sequence, several in others, in no order, one of them twice."""
    ends = torch.tensor(batch(model, config, ragged=False)["lengths"]).cumsum(0)
    return torch.tensor([ends[2] - 1, ends[0] - 1, ends[0] - 2, ends[5] - 1, ends[0] - 1, ends[3]])


@WAYS
@pytest.mark.parametrize("ragged", [False, True], ids=["all context", "partly context"])
@pytest.mark.parametrize("name", ["none", *DELTAS])
def test_values_and_gradients_are_those_of_the_plain_way(
    name: str, ragged: bool, shortest: float
) -> None:
    config = NoneConfig() if name == "none" else DELTAS[name]
    model = backbone()
    delta = insert(model, config, SHA, seed=1)
    perturb(delta)
    targets = targets_of(model, config)
    plain, fast = both(model, batch(model, config, ragged), targets, shortest)
    assert torch.allclose(plain, fast, atol=1e-5)
    if not delta.parameters:
        return
    weight = torch.randn(plain.shape, generator=torch.Generator().manual_seed(3))
    for (key, parameter), expected, got in zip(
        delta.parameters.items(),
        torch.autograd.grad((plain * weight).sum(), list(delta.parameters.values())),
        torch.autograd.grad((fast * weight).sum(), list(delta.parameters.values())),
        strict=True,
    ):
        scale = max(1.0, float(expected.abs().max()))
        assert torch.allclose(expected, got, atol=1e-5 * scale), (key, parameter.shape)


@WAYS
@pytest.mark.parametrize("pair", [("project_k", "attention_out"), ("self_att", "self_att")])
def test_a_delta_that_begins_at_all_positions_gets_them(
    pair: tuple[str, str], shortest: float
) -> None:
    config = ParallelAdapterConfig(bottleneck_dim=4, modified_modules=pair)
    model = backbone(dim_head=32, num_heads=2)
    delta = insert(model, config, SHA, seed=1)
    perturb(delta)
    row, targets = batch(model, config, ragged=True), targets_of(model, config)
    plain, fast = both(model, row, targets, shortest)
    assert torch.allclose(plain, fast, atol=1e-5)
    delta.remove()
    assert model.last_layer_at_targets


@WAYS
@pytest.mark.parametrize("masked", [NO_ATTENTION, LAST_WITHOUT, FIRST_ONLY])
def test_absent_sub_blocks_change_nothing_about_it(masked: Any, shortest: float) -> None:
    config = LoraConfig(modified_modules=("w_0",)) if masked == NO_ATTENTION else LoraConfig()
    model = backbone(mask_modules=masked)
    if masked != FIRST_ONLY:
        perturb(insert(model, config, SHA, seed=1))
    row, targets = batch(model, config, ragged=True), targets_of(model, config)
    plain, fast = both(model, row, targets, shortest)
    assert torch.allclose(plain, fast, atol=1e-5)


def test_rows_that_are_not_packed_may_have_targets_too() -> None:
    model, ids = backbone(), torch.arange(2 * 12).view(2, 12)
    segment, context = torch.full_like(ids, 2), ids % 12 < 9
    whole = model(ids, segment, context, length=torch.tensor([12, 10]))
    some = model(ids, segment, context, length=torch.tensor([12, 10]), targets=torch.tensor([9, 4]))
    assert torch.allclose(whole[:, [9, 4]], some, atol=1e-5)


@WAYS
def test_sequences_of_different_segments_keep_their_own_bias(shortest: float) -> None:
    model, config = backbone(), NoneConfig()
    row = batch(model, config, ragged=True)
    row["segment"] = torch.where(row["span"] % 2 == 0, row["segment"], 3 - row["segment"])
    plain, fast = both(model, row, targets_of(model, config), shortest)
    assert torch.allclose(plain, fast, atol=1e-5)


@settings(deadline=None, max_examples=60)
@given(
    lengths=st.lists(st.integers(1, 70), min_size=1, max_size=12),
    shortest=st.sampled_from([EXACT, SIMILAR, FEW]),
    data=st.data(),
)
def test_a_packing_finds_every_token_and_target_again(
    lengths: list[int], shortest: float, data: st.DataObject
) -> None:
    lengths.sort(reverse=True)
    tokens = sum(lengths)
    row = tokens + data.draw(st.integers(1, 9))
    targets = data.draw(st.lists(st.integers(0, tokens - 1), min_size=1, max_size=20))
    packing = pack(
        lengths, np.zeros(row, np.int64), np.ones(row, bool), np.array(targets), shortest
    )
    assert sum(part.n for part in packing.parts) == len(lengths)
    x = torch.arange(row)[:, None]
    where = x if packing.padded is None else gathered(x, packing.padded)
    if packing.padded is not None:
        assert torch.equal(gathered(where, packing.padded, back=True)[:tokens], x[:tokens])
    at = packing.rows
    assert at[packing.targets].tolist() == targets
    asked, first, begin = gathered(at[:, None], packing.queries)[:, 0], 0, 0
    assert torch.equal(
        gathered(asked[:, None], packing.queries, back=True)[: len(set(targets)), 0],
        at[: len(set(targets))],
    )
    for part in packing.parts:
        chosen = part.chosen.expand(part.n, -1)  # type: ignore[union-attr]
        inside = where[begin : begin + part.n * part.length].view(part.n, -1).gather(1, chosen)
        own = asked[first : first + part.n * part.queries].view(part.n, -1)
        assert torch.equal(inside[own < tokens], own[own < tokens])
        first, begin = first + part.n * part.queries, begin + part.n * part.length
