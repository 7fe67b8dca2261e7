"""Filling holes: against the pre-training objective, a naive search, and every way to fill them."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from backbone_oracle import CONFIG
from decode_oracle import assert_same, backbone, make
from scipy.stats import chisquare

from cpm_tune import decode
from cpm_tune.backbone.ant.layout import AntLayout
from cpm_tune.backbone.ant.model import CPMAnt
from cpm_tune.backbone.ant.objective import (
    INFILLING,
    PieceMask,
    RowFormat,
    build_rows,
    target_nats,
)
from cpm_tune.decode.blanks import parse_blanks
from cpm_tune.errors import UserError
from cpm_tune.pretrain.losses import TargetLosses
from cpm_tune.schema.spec import Decoding

BOS, EOS, N_PROMPT, SEGMENT = 2, 3, CONFIG.prompt_length, 1
TINY = replace(CONFIG, vocab_size=7)
Text = tuple[tuple[int, ...], tuple[int, ...]]

pytestmark = pytest.mark.usefixtures("one_thread")


def layout(vocab: int, width: int) -> RowFormat:
    return RowFormat(vocab, N_PROMPT, BOS, EOS, 0, width)


def text(pieces: Sequence[Sequence[int]], lengths: Sequence[int], vocab: int) -> Text:
    """Ids behind infilling's prompt (type 1), and the holes, as a caller of `infill` gives them."""
    ids = [*range(vocab + N_PROMPT, vocab + 2 * N_PROMPT), BOS, *pieces[0]]
    holes: list[int] = []
    for length, piece in zip(lengths, pieces[1:], strict=True):
        holes += range(len(ids), len(ids) + length)
        ids += [0] * length + list(piece)
    return (*ids, EOS), tuple(holes)


TEXTS = [
    text(pieces, lengths, CONFIG.vocab_size)
    for pieces, lengths in [
        (([5, 9], [11]), [3]),
        (([], [8, 4, 6, 6, 9]), [2]),  # the first token; `<s>` predicts it
        (([7], [20], [5, 5], []), [2, 1, 3]),  # the last but `</s>`; several holes
        (([30, 12, 7, 8, 9, 10, 11, 12, 13, 14, 15], [16], [17]), [1, 1]),
        (([5], [], [9]), [1, 2]),  # two blanks side by side
    ]
]


def fill(model: CPMAnt, texts: Sequence[Text], **settings: Any) -> Any:
    micro_tokens = settings.pop("micro_tokens", 8192)
    request = decode.Request(
        Decoding(**{k: v for k, v in settings.items() if k != "banned"}),
        AntLayout((), N_PROMPT, SEGMENT, 0),
        banned=frozenset(settings.get("banned", ())),
    )
    return decode.infill(model, texts, request, micro_tokens=micro_tokens)


def losses(model: CPMAnt, filled: Sequence[Sequence[int]], holes: Sequence[int]) -> Any:
    """What pre-training's loss is on these holes of whole texts: (texts, holes) in nats."""
    rows = []
    for ids in filled:
        framed = np.asarray(ids[N_PROMPT:])
        masked = np.zeros(len(framed), dtype=bool)
        masked[np.asarray(holes) - N_PROMPT] = True
        rows.append((0, [(framed[1:-1], PieceMask(INFILLING, masked))]))
    with torch.no_grad():
        batch = build_rows(rows, layout(model.config.vocab_size, len(filled[0])))
        return TargetLosses(model, target_nats, bf16=False, compiled=False)(batch).view(
            len(rows), -1
        )


def put(given: Text, tokens: Sequence[int]) -> list[int]:
    ids = list(given[0])
    for hole, token in zip(given[1], tokens, strict=True):
        ids[hole] = token
    return ids


def naive(
    model: CPMAnt, given: Text, settings: Decoding
) -> list[tuple[tuple[int, ...], bool, float]]:
    """A beam search that runs the whole text at every step, with training's own mask."""
    holes = given[1]
    live: list[tuple[tuple[int, ...], float]] = [((), 0.0)]
    for step, hole in enumerate(holes):
        extended = []
        for tokens, total in live:
            row = torch.tensor([put(given, (*tokens, *[0] * (len(holes) - step)))])
            context = torch.ones_like(row, dtype=torch.bool)
            context[0, list(holes)] = False
            segment = torch.full_like(row, SEGMENT)
            segment[:, :N_PROMPT] = 0
            with torch.no_grad():
                logits = model.logits(model(row, segment, context))[0, hole - 1]
            for token in set(tokens):
                better = logits[token] >= 0
                logits[token] *= settings.repetition_penalty ** (-1 if better else 1)
            log_p = logits.log_softmax(-1).tolist()
            extended += [((*tokens, t), total + value) for t, value in enumerate(log_p)]
        live = sorted(extended, key=lambda pair: -pair[1])[: settings.beams]
    n = len(holes) ** settings.length_penalty
    return [(tokens, False, total / n) for tokens, total in live][: settings.n_best]


@pytest.mark.parametrize("kind", ["plain", "lora", "absent sub-blocks"])
@pytest.mark.parametrize(
    "settings", [{}, {"beams": 3, "n_best": 3, "length_penalty": 1.0, "repetition_penalty": 1.5}]
)
def test_filling_equals_running_the_whole_text_at_every_step(
    kind: str, settings: dict[str, Any]
) -> None:
    model = make(kind)
    made = fill(model, TEXTS, **settings)
    for given, ours in zip(TEXTS, made, strict=True):
        assert_same(ours, naive(model, given, Decoding(**settings)))
    assert len({h.ids for (h, *_) in made}) > 3


def test_log_probs_are_the_losses_of_pre_training() -> None:
    model = backbone()
    for given, found in zip(TEXTS, fill(model, TEXTS, beams=2, n_best=2), strict=True):
        loss = losses(model, [put(given, h.ids) for h in found], given[1])
        assert [h.log_prob for h in found] == pytest.approx((-loss.sum(1)).tolist(), abs=1e-5)


@pytest.mark.parametrize(("pieces", "lengths"), [(([5], [6, 4]), [3]), (([5], [6], []), [1, 2])])
def test_enough_beams_find_what_trying_everything_finds(
    pieces: Sequence[Sequence[int]], lengths: Sequence[int]
) -> None:
    model = backbone(4, TINY)
    given = text(pieces, lengths, 7)
    everything = list(itertools.product(range(7), repeat=3))
    total = -losses(model, [put(given, tokens) for tokens in everything], given[1]).double().sum(1)
    best = sorted(zip(total.tolist(), everything, strict=True), key=lambda pair: -pair[0])[:20]
    (ours,) = fill(model, [given], beams=49, n_best=20)
    assert_same(ours, [(tokens, False, value) for value, tokens in best])


@pytest.mark.parametrize(
    "settings", [{"beams": 3, "n_best": 2}, {"sample": True, "temperature": 1.5, "seed": 3}]
)
def test_what_else_is_in_the_batch_changes_nothing(settings: dict[str, Any]) -> None:
    model = backbone()
    alone = [fill(model, [given], **settings)[0] for given in TEXTS]
    for micro_tokens in (10**6, 40):
        together = fill(model, TEXTS[::-1], micro_tokens=micro_tokens, **settings)[::-1]
        assert [[h.ids for h in each] for each in together] == [[h.ids for h in e] for e in alone]
    twice = fill(model, [TEXTS[0]] * 20, **settings)
    assert (len({h.ids for (h, *_) in twice}) > 5) == ("sample" in settings)


def test_samples_of_holes_follow_the_exact_distribution() -> None:
    model, n = backbone(4, TINY), 1500
    given = text([[5], [6], []], [1, 1], 7)
    pairs = list(itertools.product(range(7), repeat=2))
    p = (-losses(model, [put(given, pair) for pair in pairs], given[1]).double().sum(1)).exp()
    assert float(p.sum()) == pytest.approx(1, abs=1e-4)
    drawn = fill(model, [given] * n, sample=True, seed=11)
    counts = Counter(h.ids for (h,) in drawn)
    common = [i for i, value in enumerate(p.tolist()) if n * value >= 5]
    seen = [counts[pairs[i]] for i in common]
    wanted = [n * float(p[i]) for i in common]
    assert len(seen) > 5
    seen, wanted = [*seen, n - sum(seen)], [*wanted, n - sum(wanted)]
    assert chisquare(seen, wanted).pvalue > 1e-3


def test_banned_tokens_fill_nothing() -> None:
    model = backbone()
    banned = set(range(CONFIG.vocab_size)) - {5, 6}
    for found in fill(model, TEXTS, banned=banned, beams=2, n_best=2):
        assert all(set(h.ids) <= {5, 6} for h in found)


def test_holes_that_cannot_be_are_refused() -> None:
    model, ids = backbone(), TEXTS[0][0]
    for holes, said in (((), "expected some"), ((7, 6), "rising"), ((4,), "outside"), ((40,), "o")):
        with pytest.raises(ValueError, match=said):
            fill(model, [(ids, holes)])


# --- texts with blanks ---


def test_blanks_and_their_lengths_are_read() -> None:
    found = parse_blanks("__甲____{2}a_b＿＿{1 - 3}", "here", range(1, 5))
    assert found.pieces == ("", "甲", "a_b", "")
    assert found.lengths == (range(1, 5), range(2, 3), range(1, 4))
    assert len(list(found.choices())) == 12
    assert found.filled(("x", "y", "z")) == "x甲ya_bz"


@pytest.mark.parametrize(
    ("written", "said"),
    [
        ("没有空", "there is no blank"),
        ("一____{0}", "length of a blank is '0'"),
        ("一____{3-2}", "length of a blank is '3-2'"),
        ("一____{多}", "length of a blank is '多'"),
        ("____" + "中____" * 5, "4,096 choices"),
    ],
)
def test_blanks_that_cannot_be_filled_are_one_sentence(written: str, said: str) -> None:
    with pytest.raises(UserError, match=said):
        parse_blanks(written, "here", range(1, 5))
