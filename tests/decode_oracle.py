"""Generation without a cache, for the tests: every step runs the whole sequence again, alone.

The search here is written from its description, with no early end: it always takes all its steps.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import replace
from typing import Any

import torch
from backbone_oracle import CONFIG
from torch import Tensor

from cpm_tune import decode
from cpm_tune.backbone.ant.config import CPMAntConfig
from cpm_tune.backbone.ant.layout import AntLayout
from cpm_tune.backbone.ant.model import CPMAnt
from cpm_tune.backbone.opening import random_backbone
from cpm_tune.decode import Hypothesis
from cpm_tune.delta.config import LoraConfig
from cpm_tune.delta.insert import insert
from cpm_tune.schema.spec import Decoding

SEGMENT, N_PROMPT = 2, CONFIG.prompt_length
STOP = (3, 17)
PROMPT_IDS = tuple(range(CONFIG.vocab_size + 8, CONFIG.vocab_size + 8 + N_PROMPT))


@torch.no_grad()
def lively(
    model: CPMAnt, attention: float = 2.5, ffn: float = 10, sharpness: float = 1.5
) -> CPMAnt:
    """Scale random weights so that a text depends on its prefix and does not just repeat itself."""
    for name, weight in model.named_parameters():
        if name.endswith("relative_attention_bias"):
            weight.mul_(0.5 / weight.std())
        elif name.endswith("attention_out.weight"):
            weight.mul_(attention)
        elif name.endswith("w_out.weight"):
            weight.mul_(ffn)
        elif name.endswith("output_layernorm.weight"):
            weight.mul_(sharpness)
    return model


def backbone(seed: int = 2, config: CPMAntConfig = CONFIG, **scales: float) -> CPMAnt:
    """A small lively model, ready to generate."""
    return lively(random_backbone(config, seed, torch.float32), **scales).eval()


def with_lora(model: CPMAnt) -> CPMAnt:
    """Put a LoRA in that changes much."""
    delta = insert(model, LoraConfig(), "0" * 64, seed=1)
    with torch.no_grad():
        for parameter in delta.parameters.values():
            parameter.add_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1)))
    return model


def make(kind: str) -> CPMAnt:
    """A backbone that is plain, has a LoRA at work, or lacks sub-blocks."""
    if kind == "plain":
        return backbone()
    if kind == "lora":
        return with_lora(backbone())
    masks = ((True, False), (False, True), (False, False))
    if kind == "all absent":
        masks = ((True, True),) * 3
    return backbone(config=replace(CONFIG, mask_modules=masks))


def random_prefixes(lengths: Sequence[int], seed: int = 0, vocab: int = CONFIG.vocab_size) -> Any:
    """Soft-prompt ids and, behind them, texts of these lengths."""
    generator = torch.Generator().manual_seed(seed)
    texts = [torch.randint(vocab, (n,), generator=generator).tolist() for n in lengths]
    return [(*PROMPT_IDS, *text) for text in texts]


def generate(model: CPMAnt, prefixes: Sequence[Sequence[int]], **settings: Any) -> Any:
    """`decode.generate` with this file's stop tokens, segment and prompt, unless given."""
    micro_tokens = settings.pop("micro_tokens", 8192)
    return decode.generate(model, prefixes, request(**settings), micro_tokens=micro_tokens)


def request(**settings: Any) -> decode.Request:
    """A request with this file's stop tokens, segment and prompt, unless given."""
    stop, banned = (frozenset(settings.pop(k, v)) for k, v in (("stop", STOP), ("banned", ())))
    segment, n_prompt = settings.pop("segment", SEGMENT), settings.pop("n_prompt", N_PROMPT)
    return decode.Request(Decoding(**settings), AntLayout((), n_prompt, segment, 0), stop, banned)


@torch.no_grad()
def logits_behind(
    model: CPMAnt, prefix: Sequence[int], texts: Sequence[Sequence[int]], n_prompt: int = N_PROMPT
) -> Tensor:
    """Logits (texts, length + 1, vocabulary) after the prefix and after each token of equally long
    texts: one forward pass, the prefix context, the text not."""
    ids = torch.tensor([[*prefix, *text] for text in texts])
    segment = torch.full_like(ids, SEGMENT)
    segment[:, :n_prompt] = 0
    context = (torch.arange(ids.shape[1]) < len(prefix)).expand_as(ids)
    return model.logits(model(ids, segment, context)[:, len(prefix) - 1 :]).float()


def log_prob(model: CPMAnt, prefix: Sequence[int], hypothesis: Hypothesis, stop: int) -> float:
    """What the model gives a hypothesis, ended by `stop` if it is finished."""
    tokens = [*hypothesis.ids, *([stop] if hypothesis.finished else [])]
    log_p = logits_behind(model, prefix, [tokens[:-1]])[0].log_softmax(-1)
    return float(log_p[torch.arange(len(tokens)), tokens].sum())


def naive_search(
    model: CPMAnt,
    prefix: Sequence[int],
    settings: Decoding,
    stop: Collection[int] = STOP,
    banned: Collection[int] = (),
    n_prompt: int = N_PROMPT,
) -> list[tuple[tuple[int, ...], bool, float]]:
    """(ids, finished, score) of the `n_best` hypotheses of a beam search that takes all steps."""

    def score(tokens: tuple[int, ...], total: float) -> float:
        return total / len(tokens) ** settings.length_penalty

    live: list[tuple[tuple[int, ...], float]] = [((), 0.0)]
    ended = []
    for step in range(settings.max_new_tokens):
        extended = []
        for ids, total in live:
            logits = logits_behind(model, prefix, [ids], n_prompt)[0, -1]
            for token in set(ids[-settings.repetition_window or None :]):
                worse = logits[token] < 0
                logits[token] *= settings.repetition_penalty ** (1 if worse else -1)
            log_p = logits.log_softmax(-1).tolist()
            never = {*banned, *(stop if step < settings.min_new_tokens else ())}
            extended += [
                ((*ids, t), total + value) for t, value in enumerate(log_p) if t not in never
            ]
        extended.sort(key=lambda pair: -pair[1])
        best = extended[: settings.beams]
        ended += [
            (i[:-1], True, s / len(i) ** settings.length_penalty) for i, s in best if i[-1] in stop
        ]
        if settings.beams == 1 and ended:
            break
        live = [pair for pair in extended if pair[0][-1] not in stop][: settings.beams]
    else:
        ended += [(ids, False, score(ids, total)) for ids, total in live]
    return sorted(ended, key=lambda found: -found[2])[: settings.n_best]


def assert_same(ours: list[Hypothesis], theirs: list[tuple[tuple[int, ...], bool, float]]) -> None:
    """Compare hypotheses with (ids, finished, score); fp32 rounds every token's log-probability."""
    assert [(h.ids, h.finished) for h in ours] == [found[:2] for found in theirs]
    for hypothesis, (_, _, score) in zip(ours, theirs, strict=True):
        rounding = 8e-6 * max(4, len(hypothesis.ids))
        assert math.isclose(hypothesis.score, score, rel_tol=0, abs_tol=rounding)
