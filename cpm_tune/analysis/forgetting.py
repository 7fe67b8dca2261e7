"""What a backbone unlearns of plain text by its delta: held-out loss with and without it.

A text is cut into passages of at most PASSAGE characters. The first quarter of each is the context,
the rest is the answer: laid out as a row of a task is, by the backbone's own layout, so that every
family has the likelihood by which it generates. A loss is in nats per character of the answers.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from cpm_tune.backbone.base import Backbone, checked_scores, collated, micro_batches
from cpm_tune.backbone.example import Answer, Example, Ids
from cpm_tune.backbone.protocol import Layout
from cpm_tune.backbone.tokens import Tokenizer
from cpm_tune.common.progress import working
from cpm_tune.engine.engine import Engine
from cpm_tune.errors import UserError
from cpm_tune.metrics.intervals import bootstrap
from cpm_tune.metrics.parts import Sums, share
from cpm_tune.schema.record import ForgettingRecord

SAMPLE = Path(__file__).with_name("sample_texts")
PASSAGE = 200  # characters
SHORTEST = 8
LONGEST = 256  # tokens of a passage
MOST = 50 * PASSAGE  # characters of a text that commands read

Texts = Mapping[str, Sequence[str]]  # by source


@dataclass(frozen=True)
class Passages:
    """The passages of all sources as examples. texts: for each, its source and the number of its
    text there. characters: of each answer, int64 (passages,)."""

    texts: tuple[tuple[str, int], ...]
    examples: tuple[Example, ...]
    characters: NDArray[np.int64]


def passages(
    texts: Texts, tokenizer: Tokenizer, layout: Layout, limit: int | None, soft: int = 0
) -> Passages:
    """Cut texts such that a passage fits `limit` tokens, after `soft` ones of a soft prompt.

    Raises UserError for a source without a text of SHORTEST characters.
    """
    most = min(LONGEST, (limit or LONGEST) - layout.around - len(layout.lead) - soft)
    made: list[tuple[tuple[str, int], Example, int]] = []
    for source, each in texts.items():
        before = len(made)
        for number, text in enumerate(each):
            for given, rest in _cut(text):
                _add(made, (source, number), given, rest, tokenizer, layout, most)
        if len(made) == before:
            raise UserError(
                f"texts '{source}': no text of {SHORTEST} characters or more; give longer ones."
            )
    places, examples, characters = zip(*made, strict=True)
    return Passages(places, examples, np.array(characters))


def _cut(text: str) -> list[tuple[str, str]]:
    """Passages as (context, answer); ends of a text that are shorter than SHORTEST are left out."""
    pieces = [text[at : at + PASSAGE] for at in range(0, len(text), PASSAGE)]
    return [_divided(piece) for piece in pieces if len(piece.strip()) >= SHORTEST]


def _divided(piece: str) -> tuple[str, str]:
    return piece[: len(piece) // 4], piece[len(piece) // 4 :]


def _add(
    made: list[tuple[tuple[str, int], Example, int]],
    place: tuple[str, int],
    given: str,
    rest: str,
    tokenizer: Tokenizer,
    layout: Layout,
    most: int,
) -> None:
    """Append a passage, or its halves if it has more than `most` tokens."""
    context = (*layout.start, *tokenizer.opening(given))
    answer = tuple(tokenizer.encode(rest))
    if len(context) + len(answer) > most:
        whole = given + rest
        middle = len(whole) // 2
        if middle >= SHORTEST:
            for half in (whole[:middle], whole[middle:]):
                _add(made, place, *_divided(half), tokenizer, layout, most)
        return
    if len(context) >= max(1, layout.shortest) and answer:
        ids = (*layout.lead, *answer)
        example = Example(
            f"{place[0]}:{place[1]}", (context,), (Answer(0, ids, len(layout.lead)),), 0, False
        )
        made.append((place, example, len(rest)))


def fingerprint(texts: Sequence[str]) -> str:
    """The SHA-256 of a source's texts."""
    return hashlib.sha256(json.dumps(list(texts)).encode()).hexdigest()


def after(passages: Passages, layout: Layout, front: Ids) -> Passages:
    """The same passages after the tokens of a soft prompt."""
    n = len(layout.start)
    examples = tuple(
        Example(e.id, ((*c[:n], *front, *c[n:]),), e.candidates, e.gold, e.truncated)
        for e in passages.examples
        for c in e.contexts
    )
    return Passages(passages.texts, examples, passages.characters)


@torch.inference_mode()
def losses(
    model: Backbone, layout: Layout, passages: Passages, engine: Engine, micro_tokens: int
) -> NDArray[np.float64]:
    """Nats of every passage's answer, without what the layout puts before it: (passages,)."""
    nats: list[float] = []
    vocabulary = model.config.shape.vocabulary
    was_training = model.training
    model.eval()
    try:
        with working("reading plain texts", len(passages.examples), "passage") as work:
            for group in micro_batches(passages.examples, layout, micro_tokens, vocabulary):
                batch: Any = collated(layout, group).to(engine.device)
                parts, start = [], 0
                with engine.autocast():
                    for logits in checked_scores(model, batch):
                        token = batch.target_token[start : start + len(logits), None]
                        start += len(logits)
                        parts.append(-logits.log_softmax(-1).gather(1, token)[:, 0])
                each = torch.cat(parts).double().masked_fill(~batch.in_score, 0)
                sums = each.new_zeros(batch.n_candidates).index_add(0, batch.target_candidate, each)
                nats += sums.tolist()
                work.advance(len(group))
    finally:
        model.train(was_training)
    if not np.isfinite(nats).all():
        raise UserError(
            "the loss on plain texts is not finite: the backbone's weights are broken, or overflow "
            "in this precision."
        )
    return np.array(nats)


def compared(
    texts: Texts, passages: Passages, bare: NDArray[np.float64], tuned: NDArray[np.float64]
) -> dict[str, ForgettingRecord]:
    """By source, the losses without and with the delta, and their difference with a 95% interval:
    a paired percentile bootstrap over texts; none for one text."""
    result = {}
    for source, each in texts.items():
        chosen = [i for i, (name, _) in enumerate(passages.texts) if name == source]
        numbers = np.array([passages.texts[i][1] for i in chosen])
        sums = np.zeros((len(each), 3))
        for column, values in enumerate((bare, tuned, passages.characters)):
            np.add.at(sums[:, column], numbers, values[chosen])
        sums = sums[sums[:, 2] > 0]  # texts that have a passage
        difference = bootstrap(Sums(np.stack((sums[:, 1] - sums[:, 0], sums[:, 2]), 1), share))
        characters = float(sums[:, 2].sum())
        result[source] = ForgettingRecord(
            texts=len(sums),
            characters=int(characters),
            tokens=sum(_n_tokens(passages.examples[i]) for i in chosen),
            sha256=fingerprint(each),
            bare=sums[:, 0].sum() / characters,
            tuned=sums[:, 1].sum() / characters,
            difference=difference.value,
            low=difference.low if len(sums) > 1 else None,
            high=difference.high if len(sums) > 1 else None,
        )
    return result


def _n_tokens(example: Example) -> int:
    return sum(len(answer.ids) - answer.lead for answer in example.candidates)
