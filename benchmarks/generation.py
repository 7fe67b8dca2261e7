"""Seconds a text for beam search and greedy: ours, ours without a cache, and transformers'.

Run by hand, on a quiet machine: `python benchmarks/generation.py`. All do the same work on the same
random weights, prefixes and number of new tokens (no text ends early), in turns in one process;
medians of the rounds are printed, wall-clock and this process' CPU time (less noisy where others
compute too; one thread, to compare). Scores of the best beams are compared first.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor

from cpm_tune.backbone.checkpoint import random_backbone
from cpm_tune.backbone.config import CPMAntConfig
from cpm_tune.backbone.model import CPMAnt
from cpm_tune.decode import generate
from cpm_tune.spec import Decoding

CONFIG = CPMAntConfig(
    dim_model=512, num_layers=6, dim_ff=1280, num_heads=8, dim_head=64, position_bias_num_buckets=32
)
PROMPT_TYPE = SEGMENT = 2
NEVER = 0  # to transformers, padding: banned, and the only stop token


def prefixes_of(text: Tensor) -> Tensor:
    """Texts (batch, length) behind the soft prompt."""
    start = CONFIG.vocab_size + PROMPT_TYPE * CONFIG.prompt_length
    prompt = torch.arange(start, start + CONFIG.prompt_length)
    return torch.cat((prompt.repeat(len(text), 1), text), dim=1)


def ours(model: CPMAnt, text: Tensor, beams: int, new: int) -> list[float]:
    """Best scores by `cpm_tune.decode`."""
    made = generate(
        model,
        prefixes_of(text).tolist(),
        Decoding(max_new_tokens=new, beams=beams),
        stop=(),
        banned=(NEVER,),
        segment=SEGMENT,
        n_prompt=CONFIG.prompt_length,
    )
    return [best.score for (best,) in made]


@torch.inference_mode()
def without_cache(model: CPMAnt, text: Tensor, beams: int, new: int) -> list[float]:
    """Best scores of the same search, every step running every beam's whole sequence again."""
    ids = prefixes_of(text).repeat_interleave(beams, 0)
    n_context, batch = ids.shape[1], len(text)
    scores = torch.full((batch, beams), float("-inf"))
    scores[:, 0] = 0
    for _ in range(new):
        segment = torch.full_like(ids, SEGMENT)
        segment[:, : CONFIG.prompt_length] = 0
        context = (torch.arange(ids.shape[1]) < n_context).expand_as(ids)
        log_p = model.logits(model(ids, segment, context)[:, -1]).log_softmax(-1)
        log_p[:, NEVER] = float("-inf")
        total = (scores.flatten()[:, None] + log_p).view(batch, -1)
        scores, best = total.topk(beams)
        parent = best // CONFIG.vocab_size + torch.arange(batch)[:, None] * beams
        ids = torch.cat((ids[parent.flatten()], (best % CONFIG.vocab_size).view(-1, 1)), dim=1)
    return scores[:, 0].tolist()


def as_transformers(model: CPMAnt) -> Any:
    """The same weights in transformers' model."""
    from transformers import CpmAntConfig, CpmAntForCausalLM

    config = CpmAntConfig(
        vocab_size=CONFIG.vocab_size,
        hidden_size=CONFIG.dim_model,
        num_attention_heads=CONFIG.num_heads,
        dim_head=CONFIG.dim_head,
        dim_ff=CONFIG.dim_ff,
        num_hidden_layers=CONFIG.num_layers,
        position_bias_num_buckets=CONFIG.position_bias_num_buckets,
        position_bias_max_distance=CONFIG.position_bias_max_distance,
        prompt_types=CONFIG.prompt_types,
        prompt_length=CONFIG.prompt_length,
        segment_types=CONFIG.segment_types,
    )
    theirs = CpmAntForCausalLM(config).eval()
    state = model.state_dict()
    token, prompt = state["input_embedding.weight"], state.pop("prompt_embedding.weight")
    theirs.cpmant.load_state_dict({**state, "input_embedding.weight": torch.cat((token, prompt))})
    theirs.lm_head.load_state_dict({"weight": token})
    return theirs


def transformers(model: Any, text: Tensor, beams: int, new: int) -> list[float]:
    """Best scores by transformers' `generate` with its cache (none where it is greedy)."""
    output = model.generate(
        text,
        attention_mask=torch.ones_like(text),  # it has no effect; without it there is a warning
        max_new_tokens=new,
        num_beams=beams,
        do_sample=False,
        suppress_tokens=[NEVER],
        eos_token_id=NEVER,
        pad_token_id=NEVER,
        use_cache=True,
        return_dict_in_generate=True,
        output_scores=beams > 1,
        **({"length_penalty": 0.0, "early_stopping": "never"} if beams > 1 else {}),
    )
    return output.sequences_scores.tolist() if beams > 1 else []


def measure(
    ways: dict[str, Callable[[], list[float]]], rounds: int
) -> dict[str, tuple[float, float]]:
    """Median (wall-clock, CPU) seconds of each, measured in turns."""
    seconds: dict[str, list[tuple[float, float]]] = {name: [] for name in ways}
    for _ in range(rounds):
        for name, way in ways.items():
            wall, cpu = time.perf_counter(), time.process_time()
            way()
            seconds[name].append((time.perf_counter() - wall, time.process_time() - cpu))
    return {
        name: (statistics.median(w for w, _ in both), statistics.median(c for _, c in both))
        for name, both in seconds.items()
    }


def main() -> None:
    """Parse the command line, check that scores agree, measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--length", type=int, default=73, help="tokens of an input")
    parser.add_argument("--new", type=int, default=31, help="new tokens")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    asked = parser.parse_args()
    torch.set_num_threads(asked.threads)
    model = random_backbone(CONFIG, 1, torch.float32).eval()
    theirs = as_transformers(model)
    generator = torch.Generator().manual_seed(1)
    text = torch.randint(1, CONFIG.vocab_size, (asked.batch, asked.length), generator=generator)

    for beams in (3, 1):
        ways: dict[str, Callable[[], list[float]]] = {
            "ours": partial(ours, model, text, beams, asked.new),
            "transformers": partial(transformers, theirs, text, beams, asked.new),
            "ours without a cache": partial(without_cache, model, text, beams, asked.new),
        }
        best = ways["ours"]()
        for name in list(ways)[1:]:
            if scores := ways[name]():
                apart = max(abs(a - b) for a, b in zip(best, scores, strict=True))
                print(f"beams {beams}: best scores of {name} within {apart:.1e} of ours")
        medians = measure(ways, asked.rounds)
        for name, values in medians.items():
            wall, cpu = (value / asked.batch for value in values)
            ratios = [a / b for a, b in zip(values, medians["ours"], strict=True)]
            print(
                f"beams {beams}: {name:20} {wall:.4f} s/text (x{ratios[0]:.2f}), "
                f"CPU {cpu:.4f} s/text (x{ratios[1]:.2f})"
            )


if __name__ == "__main__":
    main()
