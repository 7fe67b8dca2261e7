"""The objective: what is masked, what each prediction can see, packing, the order of rows."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cpm_tune.backbone.ant.config import CPMAntConfig
from cpm_tune.backbone.ant.objective import (
    GENERATION,
    INFILLING,
    PieceMask,
    RowFormat,
    build_rows,
    draw_mask,
    target_nats,
)
from cpm_tune.backbone.opening import random_backbone
from cpm_tune.backbone.rows import cut_and_pack
from cpm_tune.pretrain.losses import TargetLosses
from cpm_tune.pretrain.order import RowOrder
from cpm_tune.pretrain.store import CorpusSplit

VOCAB, PROMPT, WIDTH = 50, 3, 48
CONFIG = CPMAntConfig(
    vocab_size=VOCAB,
    dim_model=16,
    dim_ff=24,
    num_layers=2,
    num_heads=2,
    dim_head=8,
    position_bias_num_buckets=8,
    position_bias_max_distance=16,
    prompt_types=3,
    prompt_length=PROMPT,
    segment_types=3,
)
LAYOUT = RowFormat(VOCAB, PROMPT, bos=2, eos=3, pad=0, width=WIDTH)


@pytest.fixture(scope="module")
def model():
    backbone = random_backbone(CONFIG, 0, torch.float32)
    with torch.no_grad():  # larger biases, so that a wrong one shows
        backbone.position_bias.relative_attention_bias.normal_(
            generator=torch.Generator().manual_seed(1)
        )
    return backbone


def piece(length, seed=0):
    return np.random.default_rng(seed).integers(6, VOCAB, length)


def one_row(ids, mask):
    return build_rows([(0, [(ids, mask)])], LAYOUT)


def hidden_states(model, rows):
    return model(*rows.inputs)


# --- masks --------------------------------------------------------------------------------------


@given(st.integers(2, 40), st.integers(0, 10**6))
def test_the_first_token_is_never_masked_and_at_least_one_is(length, seed):
    mask = draw_mask(np.random.default_rng(seed), length)
    assert not mask.masked[0]
    assert 1 <= mask.masked.sum() <= length - 1
    if mask.objective == GENERATION:
        assert not np.diff(mask.masked.astype(int)).min() < 0  # one block at the end


def test_objectives_are_half_and_half_and_the_number_of_masks_is_uniform():
    generator, length, n = np.random.default_rng(0), 21, 8000
    masks = [draw_mask(generator, length) for _ in range(n)]
    infilling = [m for m in masks if m.objective == INFILLING]
    assert abs(len(infilling) / n - 0.5) < 0.02
    for group in (infilling, [m for m in masks if m.objective == GENERATION]):
        counts = np.bincount([m.masked.sum() for m in group], minlength=length)[1:]
        expected = len(group) / (length - 1)
        chi_square = ((counts - expected) ** 2 / expected).sum()
        assert chi_square < 43.8  # 0.1% point of 19 degrees of freedom
    share = np.mean([m.masked for m in infilling], axis=0)[1:]
    assert abs(share - 0.525).max() < 0.04  # every position alike: (1 + 20) / 2 / 20


def test_rows_carry_prompt_segment_and_frame_of_the_objective():
    ids = piece(5)
    for objective in (INFILLING, GENERATION):
        mask = draw_mask(np.random.default_rng(1), 7, objective)
        rows = one_row(ids, mask)
        token, segment, context, span = rows.inputs
        start = VOCAB + (objective + 1) * PROMPT
        assert token[0, : PROMPT + 7].tolist() == [*range(start, start + PROMPT), 2, *ids, 3]
        assert segment[0, : PROMPT + 7].tolist() == [0] * PROMPT + [objective + 1] * 7
        assert span[0].tolist() == [0] * (PROMPT + 7) + [-1] * (WIDTH - PROMPT - 7)
        assert context[0, PROMPT : PROMPT + 7].tolist() == (~mask.masked).tolist()
        masked = np.flatnonzero(mask.masked)
        assert rows.index.tolist() == (masked + PROMPT - 1).tolist()
        assert rows.token.tolist() == [[2, *ids, 3][i] for i in masked]


# --- what predictions see -----------------------------------------------------------------------


@settings(deadline=None, max_examples=40)
@given(st.integers(3, 24), st.integers(0, 10**6))
def test_a_prediction_depends_neither_on_its_token_nor_on_later_masked_ones(model, length, seed):
    generator = np.random.default_rng(seed)
    mask = draw_mask(generator, length + 2)
    ids = piece(length, seed)
    masked = np.flatnonzero(mask.masked)
    at = int(generator.integers(len(masked)))
    changed = ids.copy()
    for position in masked[at:]:
        if position <= length:  # not </s>, which is always the same
            changed[position - 1] = 6 + (changed[position - 1] - 5) % (VOCAB - 6)
    with torch.no_grad():
        a, b = (hidden_states(model, one_row(x, mask))[0] for x in (ids, changed))
    position = PROMPT + masked[at] - 1  # predicts the token after it
    assert torch.equal(a[position], b[position])


def test_a_prediction_does_depend_on_context_behind_it_and_on_masked_tokens_before_it(model):
    mask = PieceMask(INFILLING, np.array([0, 0, 1, 1, 0, 0, 0], dtype=bool))
    ids = piece(5)
    with torch.no_grad():
        before = hidden_states(model, one_row(ids, mask))[0, PROMPT + 2]
        for place in (4, 1):  # a context token behind; the masked token at 2
            changed = ids.copy()
            changed[place] = 6 + (changed[place] - 5) % (VOCAB - 6)
            after = hidden_states(model, one_row(changed, mask))[0, PROMPT + 2]
            assert not torch.allclose(before, after, atol=1e-4)


def test_packed_rows_lose_the_same_as_each_piece_alone(model):
    generator = np.random.default_rng(5)
    items = [(piece(n, n), draw_mask(generator, n + 2)) for n in (12, 4, 15)]
    losses = TargetLosses(model, target_nats, bf16=False, compiled=False)
    with torch.no_grad():
        packed = losses(build_rows([(0, items)], LAYOUT))
        alone = torch.cat([losses(one_row(*item)) for item in items])
    torch.testing.assert_close(packed, alone, rtol=1e-5, atol=1e-5)


def test_the_loss_falls_on_masked_tokens_only(model):
    mask = PieceMask(GENERATION, np.array([0, 0, 0, 1, 1], dtype=bool))
    ids = piece(3)
    rows = one_row(ids, mask)
    losses = TargetLosses(model, target_nats, bf16=False, compiled=False)(rows)
    with torch.no_grad():
        logits = model.logits(model(*rows.inputs))[0]
    by_hand = [
        -logits[PROMPT + 2].log_softmax(-1)[ids[2]],
        -logits[PROMPT + 3].log_softmax(-1)[3],
    ]
    torch.testing.assert_close(losses.detach(), torch.stack(by_hand), rtol=1e-5, atol=1e-5)


# --- pieces and order ---------------------------------------------------------------------------


def split_of(lengths):
    offsets = np.cumsum([0, *lengths])
    return CorpusSplit(np.arange(offsets[-1]), offsets.astype(np.int64))


@settings(deadline=None, max_examples=60)
@given(st.lists(st.integers(0, 300), min_size=1, max_size=40), st.integers(1, 20))
def test_pieces_cover_every_document_once_and_rows_hold_them(lengths, shortest):
    split = split_of(lengths)
    packed = cut_and_pack(split.tokens, split.offsets, WIDTH, PROMPT + 2, shortest, seed=0)
    rows = [packed.row(r) for r in range(packed.n_rows)]
    for row in rows:
        assert sum(len(p) + PROMPT + 2 for p in row) <= WIDTH
        assert all(len(p) >= shortest for p in row)
    tokens = sorted(t for row in rows for p in row for t in p.tolist())
    assert len(tokens) == len(set(tokens)) == sum(lengths) - packed.dropped
    for row in rows:  # no piece crosses documents
        for p in row:
            owners = np.searchsorted(split.offsets, p, side="right")
            assert len(set(owners.tolist())) == 1
            assert (np.diff(p) == 1).all()


def test_rows_are_well_filled():
    lengths = np.random.default_rng(0).integers(5, 60, 2000)
    split = split_of(lengths)
    packed = cut_and_pack(split.tokens, split.offsets, 256, 10, 5, seed=0)
    assert (lengths + 10).sum() / (packed.n_rows * 256) > 0.97


def test_the_order_follows_weights_visits_every_row_and_needs_no_replay():
    n_rows, weights = [7, 40, 13], [0.2, 0.5, 0.3]
    order = RowOrder(n_rows, weights, seed=3)
    seen = [order.at(g) for g in range(3000)]
    counts = np.bincount([s for s, _ in seen], minlength=3)
    assert abs(counts / 3000 - weights).max() < 0.01
    for source, n in enumerate(n_rows):
        rows = [row for s, row in seen if s == source]
        for epoch in range(len(rows) // n):
            assert sorted(rows[epoch * n : (epoch + 1) * n]) == list(range(n))
    assert RowOrder(n_rows, weights, seed=3).at(2500) == seen[2500]
    far = RowOrder(n_rows, weights, seed=3).at(70_000)  # in the second block
    assert far == order.at(70_000)
    assert RowOrder(n_rows, weights, seed=4).at(2500) != seen[2500]
