"""CPM-Ant's batches: every sequence once, where the batch says it is; padding after the last."""

from __future__ import annotations

from collections import Counter
from itertools import accumulate, pairwise

import pytest
import torch
from conftest import encoder_of, small_config, vocabulary
from hypothesis import given, settings
from hypothesis import strategies as st

from cpm_tune.backbone.ant.collate import AntBatch
from cpm_tune.backbone.ant.spans import PADDING_SPAN
from cpm_tune.backbone.ant.tokenizer import Tokenizer
from cpm_tune.backbone.base import MOST_LOGITS, micro_batches, row_length
from cpm_tune.backbone.example import Answer, Example, Ids
from cpm_tune.data.encode import Encoder
from cpm_tune.schema.spec import Encoding
from cpm_tune.task.registry import load_task

PROMPT, SEGMENT = 4, 3


# --- batches ---


@pytest.fixture(scope="module")
def encoder() -> Encoder:
    task = load_task("lcqmc")
    tokenizer = Tokenizer(vocabulary())
    return encoder_of(task, task.templates[0], Encoding(segment=SEGMENT), small_config(), tokenizer)


@st.composite
def examples(draw: st.DrawFn) -> list[Example]:
    """Up to six examples of any shape: one to three contexts, one to four answers to them."""
    token = st.integers(10, 10**6)
    ids = st.one_of(st.tuples(token), st.lists(token, min_size=1, max_size=3).map(tuple))
    made = []
    for number in range(draw(st.integers(1, 6))):
        contexts = []
        for _ in range(draw(st.integers(1, 3))):
            length = draw(st.one_of(st.integers(PROMPT + 1, 40), st.sampled_from([255, 256, 300])))
            first = draw(token)  # the ids tell apart contexts and positions
            contexts.append(tuple(range(first, first + length)))
        which = st.integers(0, len(contexts) - 1)
        candidates = draw(st.lists(st.builds(Answer, which, ids), min_size=1, max_size=4))
        gold = draw(st.integers(0, len(candidates) - 1))
        made.append(Example(str(number), tuple(contexts), tuple(candidates), gold, False))
    return made


def sequence_of(example: Example, answer: Answer) -> Ids:
    """The sequence that an answer is scored in: its context and what is fed of the answer."""
    return example.contexts[answer.context] + answer.ids[:-1]


def sequences(example: Example) -> list[tuple[Ids, int]]:
    """Every sequence of an example, and how much of it is context: one for each answer, but one
    alone for a context without answers or with answers of one token each."""
    made = []
    for number, context in enumerate(example.contexts):
        fed = [a.ids[:-1] for a in example.candidates if a.context == number]
        made += [(context + ids, len(context)) for ids in (fed if any(fed) else [()])]
    return made


def stretches(batch: AntBatch) -> list[tuple[int, int]]:
    """(start, end) of every sequence of a batch, which is what its spans say, too."""
    ends = list(accumulate(batch.lengths))
    numbers, lengths = batch.span[0, : ends[-1]].unique_consecutive(return_counts=True)
    assert batch.span[0, ends[-1] :].eq(PADDING_SPAN).all()
    assert numbers.tolist() == list(range(len(ends)))
    assert tuple(lengths.tolist()) == batch.lengths
    return list(pairwise([0, *ends]))


@settings(deadline=None, max_examples=60)
@given(made=examples())
def test_a_batch_holds_every_sequence_once_with_its_segments_and_context(
    encoder: Encoder, made: list[Example]
) -> None:
    batch = encoder.layout.collate(made)
    expected = Counter(
        (
            ids,
            (0,) * PROMPT + (SEGMENT,) * (len(ids) - PROMPT),
            (True,) * n_context + (False,) * (len(ids) - n_context),
        )
        for example in made
        for ids, n_context in sequences(example)
    )
    held = Counter(
        tuple(
            tuple(part[0, start:end].tolist()) for part in (batch.ids, batch.segment, batch.context)
        )
        for start, end in stretches(batch)
    )
    assert held == expected


@settings(deadline=None, max_examples=60)
@given(made=examples())
def test_sequences_lie_end_to_end_the_longest_first(encoder: Encoder, made: list[Example]) -> None:
    batch = encoder.layout.collate(made)
    tokens = sum(len(ids) for example in made for ids, _ in sequences(example))
    assert sum(batch.lengths) == tokens
    assert batch.ids.shape == (1, row_length(tokens + 1))
    assert list(batch.lengths) == sorted(batch.lengths, reverse=True)


@given(tokens=st.integers(1, 2**20))
def test_rows_have_few_lengths_and_little_padding(tokens: int) -> None:
    length = row_length(tokens)
    assert tokens <= length <= tokens * 17 / 16
    assert row_length(length) == length
    octave = range(2 ** (tokens.bit_length() - 1), 2 ** tokens.bit_length(), max(1, tokens // 64))
    assert len({row_length(n) for n in octave}) <= 17


@settings(deadline=None, max_examples=60)
@given(made=examples())
def test_every_token_of_an_answer_is_scored_where_the_one_before_it_stands(
    encoder: Encoder, made: list[Example]
) -> None:
    batch = encoder.layout.collate(made)
    whole = {}
    for start, end in stretches(batch):
        for index in range(start, end):
            whole[index] = (tuple(batch.ids[0, start:end].tolist()), index - start)
    columns = zip(
        batch.target_candidate.tolist(),
        batch.target_index.tolist(),
        batch.target_token.tolist(),
        strict=True,
    )
    got = [(candidate, *whole[index], token) for candidate, index, token in columns]
    assert got == [
        (int(batch.candidates[e, k]), sequence_of(example, answer), position, token)
        for e, example in enumerate(made)
        for k, answer in enumerate(example.candidates)
        for position, token in enumerate(answer.ids, len(example.contexts[answer.context]) - 1)
    ]


@settings(deadline=None, max_examples=60)
@given(made=examples())
def test_the_table_numbers_all_candidates_and_marks_missing_options(
    encoder: Encoder, made: list[Example]
) -> None:
    batch = encoder.layout.collate(made)
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
    batch = encoder.layout.collate([encoder.encode(row)]).to(torch.device("cpu"))
    tensors = {
        name: value for name, value in vars(batch).items() if isinstance(value, torch.Tensor)
    }
    assert {name for name, value in tensors.items() if value.dtype == torch.bool} == {
        "context",
        "in_score",
    }
    assert {value.dtype for value in tensors.values()} == {torch.int64, torch.bool}


# --- micro-batches ---


@settings(deadline=None, max_examples=60)
@given(made=examples(), bound=st.integers(1, 900))
def test_micro_batches_keep_order_and_examples_whole_and_respect_the_bound(
    encoder: Encoder, made: list[Example], bound: int
) -> None:
    groups = list(micro_batches(iter(made), encoder.layout, bound, 1))
    assert [example for group in groups for example in group] == made
    for group in groups:
        assert len(group) == 1 or sum(map(encoder.layout.n_tokens, group)) <= bound
    for group, following in pairwise(groups):  # and no group ends before it has to
        assert sum(map(encoder.layout.n_tokens, [*group, following[0]])) > bound


def test_a_micro_batch_may_be_exactly_full(encoder: Encoder) -> None:
    def example(length: int) -> Example:
        return Example("", (tuple(range(length)),), (), 0, False)

    made = [example(length) for length in (30, 70, 1, 99, 1, 150, 50, 50)]
    sizes = [
        list(map(encoder.layout.n_tokens, group))
        for group in micro_batches(made, encoder.layout, 100, 1)
    ]
    assert sizes == [[30, 70], [1, 99], [1], [150], [50, 50]]


@settings(deadline=None, max_examples=60)
@given(made=examples())
def test_the_tokens_of_an_example_are_those_of_its_sequences(
    encoder: Encoder, made: list[Example]
) -> None:
    for example in made:
        assert encoder.layout.n_tokens(example) == sum(len(ids) for ids, _ in sequences(example))


def test_no_examples_give_no_micro_batch(encoder: Encoder) -> None:
    assert list(micro_batches([], encoder.layout, 100, 1)) == []


def test_micro_batches_bound_the_logits_over_the_vocabulary(encoder: Encoder) -> None:
    made = [Example("", ((1, 2),), (Answer(0, (1,) * n),), 0, False) for n in (3, 4, 1, 9)]
    groups = micro_batches(made, encoder.layout, 10_000, MOST_LOGITS // 8)
    assert [[len(e.candidates[0].ids) for e in group] for group in groups] == [[3, 4, 1], [9]]
