"""What decoding chooses: exhaustive search, a naive beam search, hand-made and exact cases."""

from __future__ import annotations

import itertools
import math
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from typing import Any

import pytest
import torch
from backbone_oracle import CONFIG
from decode_oracle import (
    STOP,
    assert_same,
    backbone,
    generate,
    logits_behind,
    naive_search,
    random_prefixes,
)
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from pydantic import ValidationError
from scipy.stats import chisquare

from cpm_tune.backbone.ant.model import CPMAnt
from cpm_tune.schema.spec import Decoding

TINY = replace(CONFIG, vocab_size=7)
ENDS = (1, 4)  # stop tokens of the tiny vocabulary


pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def model() -> CPMAnt:
    return backbone()


@pytest.fixture(scope="module")
def tiny() -> CPMAnt:
    return backbone(4, TINY)


def tiny_prefix(*text: int) -> tuple[int, ...]:
    return (*range(TINY.vocab_size + 8, TINY.vocab_size + 12), *text)


# --- beam search ---


@pytest.mark.parametrize("length_penalty", [0.0, 0.6, 1.0, 3.0])
@pytest.mark.parametrize("text", [(2, 5, 6), (0,)])
def test_enough_beams_find_what_exhaustive_search_finds(
    tiny: CPMAnt, length_penalty: float, text: tuple[int, ...]
) -> None:
    longest, vocab = 3, TINY.vocab_size
    beams, prefix = vocab**longest, tiny_prefix(*text)
    everything = list(itertools.product(range(vocab), repeat=longest))
    log_p = logits_behind(tiny, prefix, [tokens[:-1] for tokens in everything]).log_softmax(-1)
    scores = {}  # by ids and stop token: by which of them a text ends makes two hypotheses
    for tokens, row in zip(everything, log_p.double(), strict=True):
        end = next((i for i, token in enumerate(tokens) if token in ENDS), None)
        length = longest if end is None else end + 1
        total = sum(float(row[i, tokens[i]]) for i in range(length))
        scores[tokens[:end], None if end is None else tokens[end]] = total / length**length_penalty
    best = sorted(scores.items(), key=lambda item: -item[1])
    (ours,) = generate(
        tiny,
        [prefix],
        stop=ENDS,
        max_new_tokens=longest,
        beams=beams,
        n_best=40,
        length_penalty=length_penalty,
    )
    assert len(best) == 2 * (1 + 5 + 25) + 125
    assert_same(ours, [(ids, end is not None, score) for (ids, end), score in best[:40]])


@hypothesis_settings(deadline=None, max_examples=60)
@given(
    text=st.lists(st.integers(0, CONFIG.vocab_size - 1), max_size=12),
    beams=st.integers(1, 5),
    returned=st.sampled_from(("one", "all")),
    stop=st.sets(st.sampled_from((3, 17, 9, 24, 28, 35)), max_size=4),
    banned=st.sets(st.sampled_from((0, 1, 2, 16, 28)), max_size=3),
    length_penalty=st.sampled_from((0.0, 0.5, 1.0, 2.0)),
    penalty=st.sampled_from((1.0, 1.3, 3.0)),
    window=st.integers(0, 3),
    least=st.integers(0, 3),
    most=st.integers(3, 7),
)
def test_any_search_equals_the_naive_one(
    model: CPMAnt,
    text: list[int],
    beams: int,
    returned: str,
    stop: set[int],
    banned: set[int],
    length_penalty: float,
    penalty: float,
    window: int,
    least: int,
    most: int,
) -> None:
    """Also that ending a search early changes nothing: the naive one takes all steps."""
    settings: dict[str, Any] = {
        "beams": beams,
        "n_best": beams if returned == "all" else 1,
        "length_penalty": length_penalty,
        "repetition_penalty": penalty,
        "repetition_window": window if penalty > 1 else 0,
        "min_new_tokens": least,
        "max_new_tokens": most,
    }
    prefixes = [*random_prefixes((4,)), (*random_prefixes((0,))[0], *text)]
    made = generate(model, prefixes, stop=stop, banned=banned, **settings)
    for prefix, ours in zip(prefixes, made, strict=True):
        assert_same(ours, naive_search(model, prefix, Decoding(**settings), stop, banned))


def constant(logits: list[float]) -> CPMAnt:
    """A model whose logits are the same everywhere: the text has no say in them."""
    masks = ((True, True),) * 3
    model = backbone(config=replace(CONFIG, vocab_size=len(logits), mask_modules=masks))
    with torch.no_grad():
        model.input_embedding.weight.zero_()
        model.input_embedding.weight[:, 0] = torch.tensor(logits) * 1e-3
        model.prompt_embedding.weight.zero_()
        model.segment_embedding.weight.zero_()
        model.segment_embedding.weight[:, 0] = 1e6  # so that the norm sees nothing else
        model.encoder.output_layernorm.weight.fill_(1e3 / math.sqrt(CONFIG.dim_model))
    return model


def test_equal_scores_go_to_earlier_beams_and_lower_ids() -> None:
    flat = constant([1.0] * 6)
    (made,) = generate(flat, [(2,)], n_prompt=0, stop=(0,), max_new_tokens=3, beams=4, n_best=4)
    # 0 ends the empty text; 1, 2, 3, 4 live; then 0 ends "1" and 1 extends it, and so on.
    assert [(h.ids, h.finished) for h in made] == [
        ((), True),
        ((1,), True),
        ((1, 1), True),
        ((1, 1, 1), False),
    ]
    some = constant([0.0, 2.0, 1.0, 2.0, 1.0, 2.0, 1.0, 2.0])
    (made,) = generate(some, [(0,)], n_prompt=0, stop=(), max_new_tokens=1, beams=6, n_best=6)
    assert [h.ids for h in made] == [(1,), (3,), (5,), (7,), (2,), (4,)]


# --- repetition penalty, by hand ---


def pairs_model() -> CPMAnt:
    """Three tokens; the logits after a token are cosines, whatever stood before it.

    after 0: 1, 0.6, -0.6;  after 1: 0.6, 1, 0.28;  after 2: -0.6, 0.28, 1
    """
    model = backbone(
        config=replace(CONFIG, vocab_size=3, eps=1e-12, mask_modules=((True, True),) * 3)
    )
    with torch.no_grad():
        model.segment_embedding.weight.zero_()
        model.input_embedding.weight.zero_()
        model.input_embedding.weight[:, :2] = torch.tensor([[1, 0], [0.6, 0.8], [-0.6, 0.8]])
        model.encoder.output_layernorm.weight.fill_(1 / math.sqrt(CONFIG.dim_model))
    return model


@pytest.mark.parametrize(
    ("window", "ids", "ranking"),
    [
        # whole text: 0 is taken; 0 is 0.1; 0 and 1 are 0.06 and 0.1; 0 becomes -6, 1 0.028, 2 0.1
        (0, (0, 1, 2, 2), [(1, 0.6, -0.6), (0.1, 0.6, -0.6), (0.06, 0.1, 0.28), (-6, 0.028, 0.1)]),
        # only the last token: after 1, 0 is free again
        (1, (0, 1, 0, 1), [(1, 0.6, -0.6), (0.1, 0.6, -0.6), (0.6, 0.1, 0.28), (0.1, 0.6, -0.6)]),
    ],
)
def test_the_repetition_penalty_by_hand(
    window: int, ids: tuple[int, ...], ranking: list[tuple[float, float, float]]
) -> None:
    ((made,),) = generate(
        pairs_model(),
        [(0,)],
        n_prompt=0,
        stop=(),
        max_new_tokens=4,
        repetition_penalty=10.0,
        repetition_window=window,
    )
    after = {0: (1, 0.6, -0.6), 1: (0.6, 1, 0.28), 2: (-0.6, 0.28, 1)}
    plain = [after[last] for last in (0, *ids[:-1])]

    def total(rows: list[tuple[float, ...]]) -> float:
        each = zip(rows, ids, strict=True)
        return sum(r[t] - math.log(sum(math.exp(x) for x in r)) for r, t in each)

    assert made.ids == ids
    assert made.score == pytest.approx(total(ranking), abs=1e-5)  # type: ignore[arg-type]
    assert made.log_prob == pytest.approx(total(plain), abs=1e-5)  # type: ignore[arg-type]


# --- sampling ---


def drawn(model: CPMAnt, n: int, length: int, **settings: Any) -> Counter[tuple[int, ...]]:
    prefixes = [tiny_prefix(2, 5)] * n
    settings = {"sample": True, "max_new_tokens": length, "stop": (), "seed": 11, **settings}
    return Counter(h.ids for (h,) in generate(model, prefixes, **settings))


def exact(model: CPMAnt, temperature: float, keep: Any = None) -> dict[tuple[int, ...], float]:
    """Probability of every pair of tokens; `keep` maps a sorted distribution to how many stay."""
    prefix, found = tiny_prefix(2, 5), {}

    def distribution(text: tuple[int, ...]) -> list[float]:
        weights = (logits_behind(model, prefix, [text])[0, -1].double() / temperature).exp()
        weights /= weights.sum()
        if keep:
            order = weights.argsort(descending=True)
            weights[order[keep(weights[order].tolist()) :]] = 0
        return (weights / weights.sum()).tolist()

    for first, p in enumerate(distribution(())):
        for second, q in enumerate(distribution((first,))):
            if p * q:
                found[first, second] = p * q
    return found


def three(p: list[float]) -> int:
    return 3


def nucleus(p: list[float]) -> int:
    return next(i + 1 for i in range(len(p)) if sum(p[: i + 1]) >= 0.8 * sum(p))


def nucleus_of_four(p: list[float]) -> int:
    return nucleus(p[:4])


@pytest.mark.parametrize(
    ("settings", "keep"),
    [
        ({}, None),
        ({"temperature": 1.7}, None),
        ({"temperature": 0.5, "top_k": 3}, three),
        ({"temperature": 1.3, "top_p": 0.8}, nucleus),
        (
            {"temperature": 2.0, "top_k": 4, "top_p": 0.8},
            nucleus_of_four,
        ),
    ],
)
def test_samples_follow_the_exact_distribution(
    tiny: CPMAnt, settings: dict[str, Any], keep: Any
) -> None:
    n = 1500
    counts = drawn(tiny, n, 2, **settings)
    expected = exact(tiny, settings.get("temperature", 1.0), keep)
    assert set(counts) <= set(expected)
    # Rare pairs are counted together: the test wants about five expected of each.
    common = {pair for pair, p in expected.items() if n * p >= 5}
    seen = [counts[pair] for pair in common]
    wanted = [n * expected[pair] for pair in common]
    rest = n - sum(wanted)
    if rest > 1e-6:
        seen, wanted = [*seen, n - sum(seen)], [*wanted, rest]
    assert len(seen) > 5
    assert chisquare(seen, wanted).pvalue > 1e-3


def test_a_sample_depends_on_seed_and_prefix_not_on_its_place(model: CPMAnt) -> None:
    prefixes = random_prefixes((3, 9, 3, 14, 6))
    settings = {"sample": True, "max_new_tokens": 12, "temperature": 2.0}
    made = generate(model, prefixes, seed=1, **settings)
    assert generate(model, prefixes, seed=1, **settings) == made
    other = generate(model, prefixes, seed=2, **settings)
    assert all(a[0].ids != b[0].ids for a, b in zip(made, other, strict=True))
    order = [3, 0, 4, 2, 1]
    shuffled = generate(model, [prefixes[i] for i in order], seed=1, **settings)
    assert [h.ids for (h,) in shuffled] == [made[i][0].ids for i in order]
    twice = generate(model, [prefixes[0], prefixes[1], prefixes[0]], seed=1, **settings)
    assert [h.ids for (h,) in twice[:2]] == [h.ids for (h,) in made[:2]]
    assert twice[2][0].ids != twice[0][0].ids
    even = constant([0.0] * 8)
    (first,), (second,) = generate(even, [(1,), (2,)], n_prompt=0, stop=(), **settings)
    assert first.ids != second.ids


def test_one_token_or_nearly_no_temperature_is_greedy(model: CPMAnt) -> None:
    prefixes = random_prefixes((3, 9, 14, 1))
    greedy = generate(model, prefixes, max_new_tokens=8)
    for settings in ({"top_k": 1}, {"top_p": 1e-6}, {"temperature": 1e-3}):
        made = generate(model, prefixes, max_new_tokens=8, sample=True, **settings)
        assert [h.ids for (h,) in made] == [h.ids for (h,) in greedy]


@pytest.mark.parametrize("settings", [{}, {"beams": 4, "n_best": 4}, {"sample": True}])
def test_banned_tokens_never_come_and_stop_tokens_not_too_early(
    model: CPMAnt, settings: dict[str, Any]
) -> None:
    allowed = {*STOP, 5, 6, 7}
    banned = set(range(CONFIG.vocab_size)) - allowed
    made = generate(
        model, random_prefixes((3, 9, 14, 1, 20, 6)), banned=banned, min_new_tokens=2,
        max_new_tokens=20, **settings,
    )  # fmt: skip
    for hypothesis in itertools.chain(*made):
        assert set(hypothesis.ids) <= {5, 6, 7}
        assert len(hypothesis.ids) >= 2
        assert hypothesis.finished or len(hypothesis.ids) == 20


# --- settings ---


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"n_best": 3, "beams": 2}, "n_best is 3, but only 2 beams"),
        ({"sample": True, "beams": 2}, "sampling has one beam, but beams is 2"),
        ({"top_p": 0.9}, "top_p has no effect without sample"),
        ({"seed": 1}, "seed has no effect without sample"),
        ({"repetition_window": 4}, "has no effect without repetition_penalty"),
        ({"min_new_tokens": 60}, r"min_new_tokens is 60, more than max_new_tokens \(50\)"),
        ({"beams": 0}, "beams"),
        ({"temperature": 0.0, "sample": True}, "temperature"),
        ({"top_p": 1.5, "sample": True}, "top_p"),
        ({"length_penalty": -1.0}, "length_penalty"),
        ({"beam": 3}, "beam"),
    ],
)
def test_settings_that_do_not_agree_are_refused(settings: dict[str, Any], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        Decoding(**settings)


def test_the_settings_import_no_torch() -> None:
    code = "import sys, cpm_tune.schema.spec; print({'torch', 'numpy'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"
