"""Packing: every sequence once, where the batch says it is; few rows; examples stay whole."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence as Items
from itertools import pairwise

import pytest
import torch
from conftest import small_config, vocabulary
from hypothesis import given, settings
from hypothesis import strategies as st

from cpm_tune.backbone.tokenizer import Tokenizer
from cpm_tune.data.encode import Encoder, Example, Sequence, Target
from cpm_tune.data.pack import ROW_WIDTH, Batch, micro_batches, pack, pack_rows
from cpm_tune.registry import load_task
from cpm_tune.spec import Encoding

PROMPT, SEGMENT = 4, 3

LENGTHS = st.lists(st.integers(1, 40), max_size=40)


# --- rows ---


@settings(deadline=None)
@given(LENGTHS, st.integers(1, 30))
def test_every_item_is_in_one_row_and_only_a_wide_item_exceeds_the_width(
    lengths: list[int], width: int
) -> None:
    rows = pack_rows(lengths, width)
    assert sorted(item for row in rows for item in row) == list(range(len(lengths)))
    for row in rows:
        assert sum(lengths[item] for item in row) <= width or len(row) == 1


@settings(deadline=None)
@given(LENGTHS, st.integers(1, 30), st.randoms(use_true_random=False))
def test_rows_depend_on_the_lengths_alone_not_on_their_order(
    lengths: list[int], width: int, random: object
) -> None:
    def shape(lengths: list[int]) -> list[list[int]]:
        return [[lengths[item] for item in row] for row in pack_rows(lengths, width)]

    shuffled = list(lengths)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    assert shape(shuffled) == shape(lengths)


def test_items_of_one_length_keep_their_order() -> None:
    assert pack_rows([4, 5, 4, 5, 4], 9) == [[1, 0], [3, 2], [4]]


def fewest_rows(lengths: Items[int], width: int) -> int:
    """The least number of rows, by trying every way to share the items out."""

    def place(item: int, rows: tuple[int, ...], best: int) -> int:
        if len(rows) >= best:
            return best
        if item == len(lengths):
            return len(rows)
        for row in range(len(rows) + 1):
            filled = (rows[row] if row < len(rows) else 0) + lengths[item]
            if filled <= width:
                best = min(best, place(item + 1, (*rows[:row], filled, *rows[row + 1 :]), best))
        return best

    return place(0, (), len(lengths) + 1)


@settings(deadline=None)
@given(st.lists(st.integers(1, 20), min_size=1, max_size=8), st.integers(20, 40))
def test_rows_are_nearly_as_few_as_possible(lengths: list[int], width: int) -> None:
    best = fewest_rows(lengths, width)
    assert best <= len(pack_rows(lengths, width)) <= math.floor(11 / 9 * best + 6 / 9)


# --- batches ---


@pytest.fixture(scope="module")
def encoder() -> Encoder:
    task = load_task("lcqmc")
    tokenizer = Tokenizer(vocabulary())
    return Encoder(task, task.templates[0], Encoding(segment=SEGMENT), small_config(), tokenizer)


@st.composite
def examples(draw: st.DrawFn) -> list[Example]:
    """Up to six examples of any shape: one to four options, shared or several sequences."""
    token = st.integers(10, 10**6)
    made = []
    for number in range(draw(st.integers(1, 6))):
        sequences = []
        for _ in range(draw(st.integers(1, 3))):
            length = draw(st.one_of(st.integers(PROMPT + 1, 40), st.sampled_from([255, 256, 300])))
            first = draw(token)  # the ids tell apart sequences and positions
            sequences.append(
                Sequence(tuple(range(first, first + length)), draw(st.integers(0, length)))
            )
        candidates = []
        for _ in range(draw(st.integers(1, 4))):
            targets = []
            for _ in range(draw(st.integers(1, 3))):
                which = draw(st.integers(0, len(sequences) - 1))
                position = draw(st.integers(0, len(sequences[which].ids) - 1))
                targets.append(Target(which, position, draw(token)))
            candidates.append(tuple(targets))
        gold = draw(st.integers(0, len(candidates) - 1))
        made.append(Example(str(number), tuple(sequences), tuple(candidates), gold, False))
    return made


def stretches(batch: Batch) -> list[tuple[int, int, int]]:
    """(row, start, end) of every span of a batch that is not padding."""
    found = []
    for row, spans in enumerate(batch.span.tolist()):
        edges = [0, *(i for i in range(1, len(spans)) if spans[i] != spans[i - 1]), len(spans)]
        numbers = [spans[start] for start in edges[:-1] if spans[start] >= 0]
        assert len(set(numbers)) == len(numbers), "a span is in two pieces"
        found += [(row, a, b) for a, b in pairwise(edges) if spans[a] >= 0]
    return found


@settings(deadline=None, max_examples=60)
@given(made=examples())
def test_a_batch_holds_every_sequence_once_with_its_segments_and_context(
    encoder: Encoder, made: list[Example]
) -> None:
    batch = pack(made, encoder)
    expected = Counter(
        (
            s.ids,
            (0,) * PROMPT + (SEGMENT,) * (len(s.ids) - PROMPT),
            (True,) * s.n_context + (False,) * (len(s.ids) - s.n_context),
        )
        for example in made
        for s in example.sequences
    )
    held = Counter(
        tuple(
            tuple(part[row, start:end].tolist())
            for part in (batch.ids, batch.segment, batch.context)
        )
        for row, start, end in stretches(batch)
    )
    assert held == expected
    longest = max(len(s.ids) for example in made for s in example.sequences)
    assert batch.ids.shape[1] <= max(ROW_WIDTH, longest)


@settings(deadline=None, max_examples=60)
@given(made=examples())
def test_padding_is_the_padding_token_and_no_context(encoder: Encoder, made: list[Example]) -> None:
    batch = pack(made, encoder)
    padding = batch.span < 0
    assert (batch.ids[padding] == encoder.tokenizer.ids["<pad>"]).all()
    assert not batch.context[padding].any()
    assert padding.sum() == padding.numel() - sum(example.n_tokens for example in made)
    assert (~padding).any(dim=0).all()  # no column is padding alone


@settings(deadline=None, max_examples=60)
@given(made=examples())
def test_every_target_points_at_its_position_in_its_sequence(
    encoder: Encoder, made: list[Example]
) -> None:
    batch = pack(made, encoder)
    width = batch.ids.shape[1]
    whole = {}
    for row, start, end in stretches(batch):
        for index in range(row * width + start, row * width + end):
            whole[index] = (tuple(batch.ids[row, start:end].tolist()), index - row * width - start)
    columns = zip(
        batch.target_candidate.tolist(),
        batch.target_index.tolist(),
        batch.target_token.tolist(),
        strict=True,
    )
    got = [(candidate, *whole[index], token) for candidate, index, token in columns]
    assert got == [
        (int(batch.candidates[e, k]), example.sequences[t.sequence].ids, t.position, t.token)
        for e, example in enumerate(made)
        for k, targets in enumerate(example.candidates)
        for t in targets
    ]


@settings(deadline=None, max_examples=60)
@given(made=examples())
def test_the_table_numbers_all_candidates_and_marks_missing_options(
    encoder: Encoder, made: list[Example]
) -> None:
    batch = pack(made, encoder)
    table = batch.candidates.tolist()
    options = [len(example.candidates) for example in made]
    assert [len(row) for row in table] == [max(options)] * len(made)
    assert [sum(number >= 0 for number in row) for row in table] == options
    assert all(row[n:] == [-1] * (len(row) - n) for row, n in zip(table, options, strict=True))
    numbers = sorted(number for row in table for number in row if number >= 0)
    assert numbers == list(range(sum(options)))
    assert batch.n_candidates == sum(options)
    assert batch.gold.tolist() == [example.gold for example in made]


def test_a_batch_is_in_the_types_that_the_model_takes(encoder: Encoder) -> None:
    row = {"id": 1, "sentence1": "猫", "sentence2": "狗", "target": 0}
    batch = pack([encoder.encode(row)], encoder).to(torch.device("cpu"))
    tensors = {
        name: value for name, value in vars(batch).items() if isinstance(value, torch.Tensor)
    }
    assert {name for name, value in tensors.items() if value.dtype == torch.bool} == {"context"}
    assert {value.dtype for value in tensors.values()} == {torch.int64, torch.bool}


# --- micro-batches ---


@settings(deadline=None, max_examples=60)
@given(made=examples(), bound=st.integers(1, 900))
def test_micro_batches_keep_order_and_examples_whole_and_respect_the_bound(
    made: list[Example], bound: int
) -> None:
    groups = list(micro_batches(iter(made), bound))
    assert [example for group in groups for example in group] == made
    for group in groups:
        assert len(group) == 1 or sum(example.n_tokens for example in group) <= bound
    for group, following in pairwise(groups):  # and no group ends before it has to
        assert sum(example.n_tokens for example in group) + following[0].n_tokens > bound


def test_a_micro_batch_may_be_exactly_full() -> None:
    def example(length: int) -> Example:
        return Example("", (Sequence(tuple(range(length)), length),), (), 0, False)

    made = [example(length) for length in (30, 70, 1, 99, 1, 150, 50, 50)]
    sizes = [[e.n_tokens for e in group] for group in micro_batches(made, 100)]
    assert sizes == [[30, 70], [1, 99], [1], [150], [50, 50]]


def test_no_examples_give_no_micro_batch() -> None:
    assert list(micro_batches([], 100)) == []
