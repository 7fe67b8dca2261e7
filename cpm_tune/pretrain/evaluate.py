"""Held-out loss, perplexity of texts, and samples: a backbone under its pre-training objective."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from cpm_tune import decode
from cpm_tune.backbone.base import Backbone
from cpm_tune.backbone.families import open_folder, pretrainings
from cpm_tune.backbone.pretraining import Objective, Pretraining, Rows
from cpm_tune.backbone.protocol import BackboneFolder
from cpm_tune.backbone.tokens import Tokenizer
from cpm_tune.errors import UserError
from cpm_tune.pretrain.losses import TargetLosses
from cpm_tune.pretrain.store import Corpus
from cpm_tune.schema.spec import Decoding

EVAL_SEED = 20220501


def character_lengths(tokenizer: Tokenizer) -> NDArray[np.int64]:
    """Characters that each entry stands for; a special entry counts as one, a sentinel as none:
    (vocab_size,)."""
    special = {*tokenizer.never_written, tokenizer.eos}
    lengths = [1 if i in special else len(tokenizer.entries[i]) for i in range(len(tokenizer))]
    for index in _sentinels(tokenizer):
        lengths[index] = 0
    return np.array(lengths)


def _sentinels(tokenizer: Tokenizer) -> tuple[int, ...]:
    """The ids that stand for spans of text, if a vocabulary has any."""
    return tuple(getattr(tokenizer, "sentinels", ()))


def unigram_nats(
    corpus: Corpus, source: str, end: int, free: Sequence[int] = ()
) -> NDArray[np.float64]:
    """-log p of every token by its add-half frequency in the source's training split; those in
    `free` cost nothing."""
    counts = corpus.unigram(source) + 0.5
    counts[end] += corpus.about["sources"][source]["train"]["documents"]
    nats = -np.log(counts / counts.sum())
    nats[list(free)] = 0.0
    return np.asarray(nats)


class HeldOut:
    """The held-out split, with masks that never change: losses compare across steps and models."""

    def __init__(
        self,
        corpus: Corpus,
        names: Sequence[str],
        tokenizer: Tokenizer,
        objective: Objective,
    ) -> None:
        self.objective = objective
        self.characters = character_lengths(tokenizer)
        free = _sentinels(tokenizer)
        self.unigram = {name: unigram_nats(corpus, name, objective.end, free) for name in names}
        self.rows: dict[str, Rows] = {}
        for name in names:
            split = corpus.split(name, "heldout")
            self.rows[name] = objective.rows(split.tokens, split.offsets, 0)

    def _item(self, source: int, rows: Rows, row: int, label: int) -> Any:
        generator = np.random.default_rng([EVAL_SEED, source, row, label])
        return self.objective.drawn(generator, rows.row(row), label)

    @torch.no_grad()
    def losses(
        self, model: Backbone, *, batch: int, bf16: bool, rows: int | None = None
    ) -> dict[str, dict[str, dict[str, Any]]]:
        """Source -> objective -> mean nats of the model and of the unigram baseline, and tokens.

        Sources without held-out rows are out.
        Takes the first `rows` rows of each source (None: all), `batch` at a time.
        """
        losses = TargetLosses(model, self.objective.losses, bf16=bf16, compiled=False)
        result: dict[str, dict[str, dict[str, Any]]] = {}
        for source, (name, known) in enumerate(self.rows.items()):
            total = min(known.n_rows, rows or known.n_rows)
            if not total:
                continue
            result[name] = {}
            for number, label in enumerate(self.objective.labels):
                sums = np.zeros(4)
                for start in range(0, total, batch):
                    chosen = range(start, min(start + batch, total))
                    built = self.objective.batch(
                        [(source, self._item(source, known, n, number)) for n in chosen]
                    )
                    token = built.token.numpy()
                    sums += (
                        float(losses(built).double().sum()),
                        self.unigram[name][token].sum(),
                        self.characters[token].sum(),
                        len(token),
                    )
                nats, unigram, characters, tokens = sums.tolist()
                result[name][label] = {
                    "nats_per_token": nats / tokens,
                    "nats_per_character": nats / characters,
                    "unigram_nats_per_character": unigram / characters,
                    "tokens": int(tokens),
                }
        return result


def weighted_mean(losses: Mapping[str, Any], weights: Mapping[str, float]) -> float:
    """One number: nats per character, all objectives alike, sources by weight."""
    total = sum(weights[name] for name in losses)
    return sum(
        weights[name] * np.mean([part["nats_per_character"] for part in parts.values()])
        for name, parts in losses.items()
    ) / max(total, 1e-9)


def perplexity_under(path: Path) -> Callable[[Sequence[str]], list[float]]:
    """Return a function: texts -> perplexity per character under the backbone in `path`.

    Generation with only the first token given; a text counts by its first piece.
    """
    folder = open_folder(path)
    kind = kind_of(folder)
    tokenizer, model = folder.tokenizer(), folder.open(torch.float32).eval()
    width = kind.text_width(model.config)
    objective = kind.objective(model.config, tokenizer, width=width, shortest=1)
    characters = character_lengths(tokenizer)
    losses = TargetLosses(model, objective.losses, bf16=False, compiled=False)

    @torch.no_grad()
    def perplexities(texts: Sequence[str]) -> list[float]:
        items = [objective.predicting((), tokenizer.encode(text)) for text in texts]
        built = objective.batch(list(enumerate(items)))
        nats = np.bincount(built.source, losses(built).numpy(), len(texts))
        lengths = np.bincount(built.source, characters[built.token.numpy()], len(texts))
        return [float(value) for value in np.exp(nats / lengths)]

    return perplexities


def kind_of(folder: BackboneFolder) -> Pretraining:
    """How a backbone was pre-trained; raise UserError for one that cannot be."""
    kinds = pretrainings().values()
    kind = next((kind for kind in kinds if kind.vocabulary_of(folder) is not None), None)
    if kind is None:
        forms = " and ".join(kind.title for kind in kinds)
        raise UserError(
            f"{folder.path}: pre-training works with the forms of {forms}, and this backbone (of "
            f"the family '{folder.config.family}') has none of their vocabularies."
        )
    return kind


def generate(
    model: Backbone,
    tokenizer: Tokenizer,
    objective: Objective,
    prefix: str,
    *,
    n: int = 1,
    length: int = 48,
    temperature: float = 0.8,
    top_k: int = 30,
    seed: int = 0,
) -> list[str]:
    """Sample `n` continuations of `prefix` as pre-training has it; without the prefix.

    Of a prefix that leaves a model no room for them, only the end counts.
    """
    ids, limit = tokenizer.encode(prefix), model.config.shape.limit
    if limit is not None and len(objective.context(ids)) + length > limit:
        ids = ids[-max(1, limit // 4) :]
        length = min(length, limit - len(objective.context(ids)))
    request = decode.Request(
        Decoding(
            max_new_tokens=length, sample=True, temperature=temperature, top_k=top_k, seed=seed
        ),
        objective.layout,
        stop=frozenset({tokenizer.eos}),
        banned=objective.banned,
    )
    prefixes = [objective.context(ids)] * n
    made = decode.generate(model, prefixes, request)
    return [tokenizer.decode(text.ids) for (text,) in made]
