"""Removes the sub-blocks of a backbone that cost least to lose, measured on a sample of text.

The importance of an attention or feed-forward sub-block is how much the loss grows when it alone is
skipped, x + f(x) becoming x. That is the criterion of Shortened LLaMA (Kim et al. 2024,
arXiv:2402.02834) at the grain of sub-blocks (as in He et al. 2024, arXiv:2406.15786). The loss is
the pre-training objective's, infilling and generation half and half, masks drawn from a seed.
Importance is measured on one half of the sample, losses are reported on the other.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import chain, islice
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from cpm_tune.backbone.ant.config import CPMAntConfig
from cpm_tune.backbone.ant.model import CPMAnt
from cpm_tune.backbone.ant.objective import RowFormat, build_rows, draw_mask, target_nats
from cpm_tune.backbone.ant.tokenizer import Tokenizer
from cpm_tune.backbone.pretraining import TrainingBatch
from cpm_tune.errors import UserError
from cpm_tune.pretrain.losses import TargetLosses
from cpm_tune.pretrain.sources import TextSource, check_files, documents

KINDS = ("self_att", "ffn")  # in the order of mask_modules
LONGEST, SHORTEST, BATCH = 128, 8, 16  # tokens of a piece, pieces of a batch
MOST = 100_000  # documents that are read
SubBlock = tuple[int, str]  # layer, kind


@dataclass(frozen=True)
class Sample:
    """Batches of text with their masks: to measure importance on, and to report losses on."""

    measure: list[TrainingBatch]
    report: list[TrainingBatch]


def read_sample(
    path: Path, tokenizer: Tokenizer, config: CPMAntConfig, n: int, seed: int
) -> Sample:
    """Draw `n` pieces from a text file's documents (as `pretrain prepare` reads them; of the first
    MOST). The two halves have no document in common.

    Raises UserError for a file that cannot be read or has fewer than two usable documents.
    """
    source = TextSource(path.stem, (path,))
    check_files([source])
    row_format, generator = RowFormat.of(config, tokenizer, 0), np.random.default_rng(seed)
    texts = [document.text for document in islice(documents(source), MOST)]
    halves: list[list[NDArray[np.int64]]] = [[], []]
    for number in generator.permutation(len(texts)):
        half = min(halves, key=len)
        if len(half) >= max(1, n // 2):
            break
        known = [i for i in tokenizer.encode(texts[number]) if i != tokenizer.unk]
        cut = [known[start : start + LONGEST] for start in range(0, len(known), LONGEST)]
        half += [np.array(piece, np.int64) for piece in cut if len(piece) >= SHORTEST]
    if not all(halves):
        raise UserError(
            f"{path}: expected at least two documents of {SHORTEST} or more known tokens, with "
            "blank lines between them (or .jsonl with text)."
        )
    return Sample(
        *(list(_batches(half[: max(1, n // 2)], row_format, generator)) for half in halves)
    )


def _batches(
    pieces: Sequence[NDArray[np.int64]], row_format: RowFormat, generator: np.random.Generator
) -> Iterator[TrainingBatch]:
    """Pieces of similar length together, one row per piece; both objectives in turn."""
    masked = [(p, draw_mask(generator, len(p) + 2, n % 2)) for n, p in enumerate(pieces)]
    masked.sort(key=lambda pair: len(pair[0]))
    for start in range(0, len(masked), BATCH):
        batch = masked[start : start + BATCH]
        width = row_format.prompt_length + 2 + len(batch[-1][0])
        yield build_rows([(0, [pair]) for pair in batch], replace(row_format, width=width))


@torch.inference_mode()
def mean_loss(model: CPMAnt, batches: Sequence[TrainingBatch]) -> float:
    """Nats per masked token."""
    losses = TargetLosses(model, target_nats, bf16=False, compiled=False)
    device = model.input_embedding.weight.device
    total = n = 0.0
    for rows in batches:
        total += float(losses(_to(rows, device)).double().sum())
        n += len(rows.index)
    return total / n


def _to(rows: TrainingBatch, device: torch.device) -> TrainingBatch:
    inputs = tuple(tensor.to(device) for tensor in rows.inputs)
    return replace(rows, inputs=inputs, index=rows.index.to(device), token=rows.token.to(device))


@contextmanager
def skipped(model: CPMAnt, blocks: Sequence[SubBlock]) -> Iterator[None]:
    """Run without these sub-blocks, then restore them."""
    layers = model.encoder.layers
    kept = {(layer, kind): getattr(layers[layer], kind) for layer, kind in blocks}
    try:
        for layer, kind in blocks:
            setattr(layers[layer], kind, None)
        yield
    finally:
        for (layer, kind), module in kept.items():
            setattr(layers[layer], kind, module)


def present(config: CPMAntConfig) -> dict[str, list[SubBlock]]:
    """The sub-blocks that a backbone has, by kind."""
    return {
        kind: [(n, kind) for n, masked in enumerate(config.mask_modules) if not masked[k]]
        for k, kind in enumerate(KINDS)
    }


def importance(model: CPMAnt, batches: Sequence[TrainingBatch]) -> dict[SubBlock, float]:
    """How much the mean loss grows when each sub-block alone is skipped."""
    whole, growth = mean_loss(model, batches), {}
    for block in chain.from_iterable(present(model.config).values()):
        with skipped(model, [block]):
            growth[block] = mean_loss(model, batches) - whole
    return growth


def least(scores: Mapping[SubBlock, float], keep: Mapping[str, int]) -> list[SubBlock]:
    """The sub-blocks to remove so that `keep` of each kind remain; of equal ones the later."""
    out: list[SubBlock] = []
    for kind, n in keep.items():
        of_kind = sorted((b for b in scores if b[1] == kind), key=lambda b: (scores[b], -b[0]))
        out += of_kind[: len(of_kind) - n]
    return sorted(out)


def at_random(config: CPMAntConfig, keep: Mapping[str, int], seed: int) -> list[SubBlock]:
    """As many sub-blocks as `least` gives, drawn at random: the control."""
    generator = np.random.default_rng(seed)
    blocks = chain.from_iterable(present(config).values())
    return least({block: generator.random() for block in blocks}, keep)


def without(config: CPMAntConfig, blocks: Sequence[SubBlock]) -> CPMAntConfig:
    """The config of the backbone that lacks these sub-blocks as well."""
    masks = [list(pair) for pair in config.mask_modules]
    for layer, kind in blocks:
        masks[layer][KINDS.index(kind)] = True
    return replace(config, mask_modules=tuple((a, f) for a, f in masks))


def check_keep(config: CPMAntConfig, keep: Mapping[str, int]) -> None:
    """Raise UserError unless the backbone has as many sub-blocks of each kind, and loses some."""
    options = dict(zip(KINDS, ("--attention-layers", "--ffn-layers"), strict=True))
    existing = {kind: len(blocks) for kind, blocks in present(config).items()}
    for kind, n in keep.items():
        if not 0 <= n <= existing[kind]:
            raise UserError(
                f"{options[kind]} is {n}, but the backbone has {existing[kind]}: expected how many "
                f"are to remain, from 0 to {existing[kind]}."
            )
    if not any(keep.values()):
        raise UserError(
            "without any sub-block only the embeddings would remain, which see no context. Keep at "
            "least one (--attention-layers, --ffn-layers)."
        )
    if dict(keep) == existing:
        raise UserError(
            "the backbone has no other sub-blocks than these: there is nothing to remove."
        )
