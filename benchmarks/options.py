"""Scoring options by the logit of one word after each (C3's protocol): ours, plain, transformers.

Run by hand, on a quiet machine: `python benchmarks/options.py`. Questions have a text of 40 to 500
tokens and four options, each scored in a separate sequence, as the protocol requires: the text sees
the option, so nothing can be shared. "Plain" pads a question's options and computes all logits.
"""

from __future__ import annotations

import argparse
import math

import numpy as np
import torch
from peers import (
    CONFIG,
    DTYPES,
    LAYOUT,
    SEGMENT,
    Ids,
    as_transformers,
    engine_of,
    padded,
    plain_logits,
    prompt_ids,
    tuned,
)
from timing import Work, in_turns, report

from cpm_tune.backbone.example import Answer, Example

YES = 7  # the word whose logit is an option's score
AT_ONCE = 8  # questions in a padded batch


def questions(n: int) -> list[list[Ids]]:
    """The texts of the four options of every question, each after the question."""
    random = np.random.default_rng(0)
    made = []
    for length in random.lognormal(math.log(120), 0.6, n).clip(40, 500):
        text = random.integers(1, CONFIG.vocab_size, int(length)).tolist()
        ends = [random.integers(1, CONFIG.vocab_size, random.integers(2, 9)) for _ in range(4)]
        made.append([text + end.tolist() + [5, 6] for end in ends])
    return made


def ours(n: int, dtype: str, threads: int) -> Work:
    """`cpm_tune.tuning.predict`'s scores."""
    from cpm_tune.backbone.base import micro_batches
    from cpm_tune.tuning.predict import scored_targets
    from cpm_tune.tuning.scoring import candidate_scores

    engine = engine_of(dtype, threads)
    model = engine.prepare(tuned(dtype)[0]).eval()
    asked = []
    for number, options in enumerate(questions(n)):
        contexts = tuple((*LAYOUT.start, *option) for option in options)
        answers = tuple(Answer(k, (YES,)) for k in range(len(contexts)))
        asked.append(Example(str(number), contexts, answers, 0, False))

    def work() -> list[float]:
        scores: list[float] = []
        for group in micro_batches(asked, LAYOUT, 8192, CONFIG.vocab_size):
            batch = LAYOUT.collate(group)
            with torch.inference_mode(), engine.autocast():
                scored = scored_targets(model, batch, "yes-logit")
                scores += candidate_scores(scored, batch, "yes-logit").tolist()
        return scores

    return work


def plain(n: int, dtype: str, threads: int) -> Work:
    """Right-padded batches, all logits."""
    torch.set_num_threads(threads)
    model, delta = tuned(dtype)
    weights = {**dict(model.named_parameters()), **delta.parameters}
    asked = questions(n)

    @torch.inference_mode()
    def work() -> list[float]:
        scores: list[float] = []
        for start in range(0, n, AT_ONCE):
            rows = [[*prompt_ids(), *o] for q in asked[start : start + AT_ONCE] for o in q]
            ids, last = padded(rows, left=False), torch.tensor([len(row) - 1 for row in rows])
            real = torch.arange(ids.shape[1]) <= last[:, None]
            segment = torch.full_like(ids, SEGMENT)
            segment[:, : CONFIG.prompt_length] = 0
            logits = plain_logits(weights, ids, segment, real, real)
            scores += logits[torch.arange(len(rows)), last, YES].float().tolist()
        return scores

    return work


def transformers(n: int, dtype: str, threads: int) -> Work:
    """Left-padded batches through transformers' model, logits at the last position alone."""
    torch.set_num_threads(threads)
    model = as_transformers(*tuned("fp32"), dtype).eval()
    asked = questions(n)

    @torch.inference_mode()
    def work() -> list[float]:
        scores: list[float] = []
        for start in range(0, n, AT_ONCE):
            ids = padded([o for q in asked[start : start + AT_ONCE] for o in q], left=True)
            logits = model(input_ids=ids, use_cache=False, logits_to_keep=1).logits
            scores += logits[:, -1, YES].float().tolist()
        return scores

    return work


def main() -> None:
    """Parse the command line, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--questions", type=int, default=24)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    asked = parser.parse_args()
    settings = {"n": asked.questions, "threads": asked.threads}
    ways = {
        f"{name}, {dtype}": (prepare, {**settings, "dtype": dtype})
        for name, prepare in (("ours", ours), ("plain", plain), ("transformers", transformers))
        for dtype in DTYPES
    }
    results = in_turns(ways, asked.rounds)
    for dtype in DTYPES:
        first = f"ours, {dtype}"
        others = {name: result for name, result in results.items() if not name.startswith("ours")}
        report({first: results[first], **others}, asked.questions, "questions")


if __name__ == "__main__":
    main()
