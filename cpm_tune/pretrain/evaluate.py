"""Held-out loss, perplexity of texts, and samples: a backbone under its pre-training objective."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from cpm_tune import decode
from cpm_tune.backbone.ant.checkpoint import load_weights
from cpm_tune.backbone.ant.layout import make_layout
from cpm_tune.backbone.ant.model import CPMAnt
from cpm_tune.backbone.ant.tokenizer import SPECIALS, Tokenizer
from cpm_tune.backbone.families import open_ant
from cpm_tune.pretrain.objective import (
    GENERATION,
    OBJECTIVES,
    PieceMask,
    RowFormat,
    TargetLosses,
    build_rows,
    draw_mask,
)
from cpm_tune.pretrain.order import Pieces, cut_and_pack
from cpm_tune.pretrain.store import Corpus
from cpm_tune.schema.spec import Decoding, Encoding

EVAL_SEED = 20220501


def character_lengths(tokenizer: Tokenizer) -> NDArray[np.int64]:
    """Characters that each entry stands for; a special entry counts as one: (vocab_size,)."""
    return np.array(
        [
            1 if tokenizer.entries[i] in SPECIALS else len(tokenizer.entries[i])
            for i in range(len(tokenizer))
        ]
    )


def unigram_nats(corpus: Corpus, source: str, eos: int) -> NDArray[np.float64]:
    """-log p of every token by its add-half frequency in the source's training split."""
    counts = corpus.unigram(source) + 0.5
    counts[eos] += corpus.about["sources"][source]["train"]["documents"]
    return np.asarray(-np.log(counts / counts.sum()))


class HeldOut:
    """The held-out split, with masks that never change: losses compare across steps and models."""

    def __init__(
        self,
        corpus: Corpus,
        names: Sequence[str],
        tokenizer: Tokenizer,
        row_format: RowFormat,
        shortest: int,
    ) -> None:
        self.row_format = row_format
        self.characters = character_lengths(tokenizer)
        self.unigram = {name: unigram_nats(corpus, name, tokenizer.eos) for name in names}
        self.pieces: dict[str, Pieces] = {
            name: cut_and_pack(
                corpus.split(name, "heldout"),
                row_format.width,
                row_format.prompt_length,
                shortest,
                0,
            )
            for name in names
        }

    def _masked(
        self, source: int, pieces: Pieces, row: int, objective: int
    ) -> list[tuple[NDArray[np.int64], PieceMask]]:
        generator = np.random.default_rng([EVAL_SEED, source, row, objective])
        return [(p, draw_mask(generator, len(p) + 2, objective)) for p in pieces.row(row)]

    @torch.no_grad()
    def losses(
        self, model: CPMAnt, *, batch: int, bf16: bool, rows: int | None = None
    ) -> dict[str, dict[str, dict[str, Any]]]:
        """Source -> objective -> mean nats of the model and of the unigram baseline, and tokens.

        Sources without held-out rows are out.
        Takes the first `rows` rows of each source (None: all), `batch` at a time.
        """
        losses = TargetLosses(model, bf16=bf16, compiled=False)
        result: dict[str, dict[str, dict[str, Any]]] = {}
        for source, (name, pieces) in enumerate(self.pieces.items()):
            total = min(pieces.n_rows, rows or pieces.n_rows)
            if not total:
                continue
            result[name] = {}
            for objective, label in enumerate(OBJECTIVES):
                sums = np.zeros(4)
                for start in range(0, total, batch):
                    chosen = range(start, min(start + batch, total))
                    built = build_rows(
                        [(source, self._masked(source, pieces, n, objective)) for n in chosen],
                        self.row_format,
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
    """One number: nats per character, both objectives alike, sources by weight."""
    total = sum(weights[name] for name in losses)
    return sum(
        weights[name] * np.mean([part["nats_per_character"] for part in parts.values()])
        for name, parts in losses.items()
    ) / max(total, 1e-9)


def perplexity_under(path: Path) -> Callable[[Sequence[str]], list[float]]:
    """Return a function: texts -> perplexity per character under the backbone in `path`.

    Generation with only the first token given; a text counts by its first piece.
    """
    folder = open_ant(path, "pre-training")
    tokenizer, model = folder.tokenizer(), load_weights(folder, torch.float32).eval()
    width = 256 + model.config.prompt_length
    row_format = RowFormat.of(model.config, tokenizer, width)
    characters = character_lengths(tokenizer)
    losses = TargetLosses(model, bf16=False, compiled=False)

    @torch.no_grad()
    def perplexities(texts: Sequence[str]) -> list[float]:
        rows = []
        for number, text in enumerate(texts):
            ids = np.array(tokenizer.encode(text)[: width - model.config.prompt_length - 2])
            masked = np.ones(len(ids) + 2, dtype=bool)
            masked[:1] = False
            rows.append((number, [(ids.astype(np.int64), PieceMask(GENERATION, masked))]))
        built = build_rows(rows, row_format)
        nats = np.bincount(built.source, losses(built).numpy(), len(texts))
        lengths = np.bincount(built.source, characters[built.token.numpy()], len(texts))
        return [float(value) for value in np.exp(nats / lengths)]

    return perplexities


def generate(
    model: CPMAnt,
    tokenizer: Tokenizer,
    prefix: str,
    *,
    n: int = 1,
    length: int = 48,
    temperature: float = 0.8,
    top_k: int = 30,
    seed: int = 0,
) -> list[str]:
    """Sample `n` continuations of `prefix` by the generation objective; without the prefix."""
    number = GENERATION + 1
    layout = make_layout(Encoding(prompt_type=number, segment=number), model.config, tokenizer)
    request = decode.Request(
        Decoding(
            max_new_tokens=length, sample=True, temperature=temperature, top_k=top_k, seed=seed
        ),
        layout,
        stop=frozenset({tokenizer.eos}),
        banned=frozenset({tokenizer.unk, tokenizer.pad, tokenizer.bos}),
    )
    prefixes = [(*layout.start, *tokenizer.encode(prefix))] * n
    made = decode.generate(model, prefixes, request)
    return [tokenizer.decode(text.ids) for (text,) in made]
