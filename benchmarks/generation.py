"""Beam search and greedy decoding: ours, transformers' `generate`, and one text at a time.

Run by hand, on a quiet machine: `python benchmarks/generation.py`. All do the same work on the same
random weights, prefixes and number of new tokens (no text ends early); the best beams' scores are
compared. "One at a time" does what the original inference script does: every text alone, its
beams as separate rows, keys and values copied if beams change parents.
"""

from __future__ import annotations

import argparse
from typing import Any

import torch
from peers import (
    CONFIG,
    DTYPES,
    LAYOUT,
    PROMPT_TYPE,
    SEGMENT,
    as_transformers,
    engine_of,
    plain_logits,
    prompt_ids,
)
from timing import Work, in_turns, report
from torch import Tensor

from cpm_tune.backbone.opening import random_backbone
from cpm_tune.decode import Request, generate
from cpm_tune.schema.spec import Decoding

NEVER = 0  # to transformers, padding: banned, and the only stop token
LAST = "one at a time, fp32"
ALONE = 2  # texts of a round that are done one at a time
assert PROMPT_TYPE == SEGMENT


def inputs(batch: int, length: int) -> Tensor:
    """Texts (batch, length)."""
    generator = torch.Generator().manual_seed(1)
    return torch.randint(1, CONFIG.vocab_size, (batch, length), generator=generator)


def ours(batch: int, length: int, new: int, beams: int, dtype: str, threads: int) -> Work:
    """By `cpm_tune.decode`."""
    engine = engine_of(dtype, threads)
    model = engine.prepare(random_backbone(CONFIG, 1, DTYPES[dtype]).eval())
    prefixes = [prompt_ids() + text for text in inputs(batch, length).tolist()]
    request = Request(
        Decoding(max_new_tokens=new, beams=beams),
        LAYOUT,
        banned=frozenset({NEVER}),
    )

    def work() -> list[float]:
        with engine.autocast():
            made = generate(model, prefixes, request)
        return [best.score for (best,) in made]

    return work


def one_at_a_time(batch: int, length: int, new: int, beams: int, dtype: str, threads: int) -> Work:
    """By the plain model, the first `ALONE` texts."""
    torch.set_num_threads(threads)
    weights = dict(random_backbone(CONFIG, 1, DTYPES[dtype]).named_parameters())

    def best(text: Tensor) -> float:
        ids = torch.cat((torch.tensor(prompt_ids()), text)).repeat(beams, 1)
        n_context = ids.shape[1]
        past: list[tuple[Tensor, Tensor]] = []
        scores = torch.full((beams,), float("-inf"))
        scores[0] = 0
        for _ in range(new):
            segment = torch.full_like(ids, SEGMENT)
            segment[:, : CONFIG.prompt_length] = 0
            context = (torch.arange(ids.shape[1]) < n_context).expand_as(ids)
            real = torch.ones_like(context)
            logits = plain_logits(weights, ids, segment, real, context, past)
            log_p = logits[:, -1].float().log_softmax(-1)
            log_p[:, NEVER] = float("-inf")
            scores, chosen = (scores[:, None] + log_p).flatten().topk(beams)
            parent = chosen // CONFIG.vocab_size
            ids = torch.cat((ids[parent], (chosen % CONFIG.vocab_size)[:, None]), dim=1)
            past = [(k[parent], v[parent]) for k, v in past]
        return float(scores[0])

    @torch.inference_mode()
    def work() -> list[float]:
        return [best(text) for text in inputs(batch, length)[:ALONE]]

    return work


def transformers(batch: int, length: int, new: int, beams: int, dtype: str, threads: int) -> Work:
    """By transformers' `generate` with its cache."""
    torch.set_num_threads(threads)
    model: Any = as_transformers(random_backbone(CONFIG, 1, DTYPES[dtype]), None, dtype)
    text = inputs(batch, length)

    def work() -> list[float]:
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

    return work


def main() -> None:
    """Parse the command line, measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--length", type=int, default=73, help="tokens of an input")
    parser.add_argument("--new", type=int, default=31, help="new tokens")
    parser.add_argument("--beams", type=int, nargs="+", default=[3, 1])
    parser.add_argument("--dtypes", nargs="+", choices=tuple(DTYPES), default=["fp32"])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    asked = vars(parser.parse_args())
    beams, dtypes, rounds = asked.pop("beams"), asked.pop("dtypes"), asked.pop("rounds")
    for n in beams:
        ways = {
            f"{name}, {dtype}": (prepare, {**asked, "beams": n, "dtype": dtype})
            for name, prepare in (
                ("ours", ours),
                ("transformers", transformers),
            )
            for dtype in dtypes
        }
        ways[LAST] = (one_at_a_time, {**asked, "beams": n, "dtype": "fp32"})
        print(f"beams {n}: {asked['batch']} texts of {asked['length']}, {asked['new']} new tokens")
        results = in_turns(ways, rounds)
        for dtype in dtypes:
            first = f"ours, {dtype}"
            others = {
                name: result for name, result in results.items() if not name.startswith("ours")
            }
            report({first: results[first], **others}, asked["batch"], "texts", {LAST: ALONE})


if __name__ == "__main__":
    main()
