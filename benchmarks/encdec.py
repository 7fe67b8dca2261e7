"""Training and scoring an encoder-decoder, next to transformers + PEFT with padded batches.

Run by hand, on a quiet machine: `python benchmarks/encdec.py [--kind long] [--vocabulary 250112]`.
mT5-small's network (d 512, 8 + 8 layers, ff 1024, 6 heads), LoRA r 8 on q and v of all attentions,
no dropout. `--kind lcqmc`: lengths like LCQMC's pairs, answers of two tokens; `long`: 50 to 1,000
tokens. A round of training is one optimiser step; the losses of the first are compared. A round of
scoring gives the losses of four options for each text; transformers gets each option with its
text, as a padded loop has it. fp32.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import torch
from peers import batches, draw, engine_of, our_steps, plain_steps, with_lora
from timing import Work, in_turns, report
from torch import Tensor
from torch.nn.functional import cross_entropy
from torch.nn.utils.rnn import pad_sequence

from cpm_tune.backbone.encdec.config import PRESETS, EncDecConfig
from cpm_tune.backbone.encdec.layout import EncDecLayout
from cpm_tune.backbone.encdec.loading import THEIRS
from cpm_tune.backbone.encdec.model import EncDec
from cpm_tune.backbone.example import Answer, Example
from cpm_tune.backbone.opening import random_backbone
from cpm_tune.delta.config import LoraConfig
from cpm_tune.delta.insert import Delta, insert
from cpm_tune.tuning.predict import scored_targets
from cpm_tune.tuning.scoring import option_scores

NAMES = ("SelfAttention.q", "SelfAttention.v", "EncDecAttention.q", "EncDecAttention.v")
OPTIONS = ((10, 11), (12, 13), (14, 15), (16, 17))


class Pads:
    """What a layout asks of a tokenizer to make batches."""

    pad, eos = 0, 1

    def __init__(self, rows: int) -> None:
        self.rows = rows

    def __len__(self) -> int:
        return self.rows


def layout_of(config: EncDecConfig) -> EncDecLayout:
    pads: Any = Pads(config.vocab_size)
    return EncDecLayout(pads, config.vocab_size, first=0, sentinel=2, end=(1,))


def tuned(vocabulary: int) -> tuple[EncDec, Delta]:
    """Our model with LoRA, neither of whose factors is zero."""
    config = replace(PRESETS["mt5-small"], vocab_size=vocabulary, dropout_rate=0.0)
    model = random_backbone(config, 1, torch.float32).train()
    delta = insert(model, LoraConfig(modified_modules=NAMES), "0" * 64, seed=1)
    draw(delta)
    return model, delta


def as_transformers(model: EncDec, delta: Delta) -> Any:
    """The same weights in transformers' model, LoRA by PEFT."""
    from transformers import MT5Config, MT5ForConditionalGeneration

    values = {k: v for k, v in model.config.values.items() if k != "model_type"}
    theirs = MT5ForConditionalGeneration(MT5Config(**values))
    theirs.lm_head.weight = torch.nn.Parameter(torch.empty_like(theirs.lm_head.weight))
    state = {THEIRS.get(k, k): v for k, v in model.state_dict().items() if "lora" not in k}
    same = ("encoder.embed_tokens.weight", "decoder.embed_tokens.weight")
    theirs.load_state_dict({**state, **dict.fromkeys(same, state["shared.weight"])})
    return with_lora(theirs, delta, ("q", "v"))


def examples(kind: str, batch: int, vocabulary: int, options: int) -> Iterator[list[Example]]:
    """The texts of each round, with the first of these options as the right answer."""
    answers = tuple(Answer(0, ids) for ids in OPTIONS[:options])
    for texts in batches(kind, batch):
        contexts = [tuple(index % (vocabulary - 3) + 3 for index in text) for text in texts]
        yield [Example("", (context,), answers, 0, False) for context in contexts]


def padded(rows: list[Example], options: int) -> tuple[Tensor, Tensor, Tensor]:
    """Encoder ids, what of them is seen, and labels; one row for each option of each text."""
    ids = [torch.tensor([*row.contexts[0], 1]) for row in rows for _ in range(options)]
    seen = [torch.ones(len(row), dtype=torch.int64) for row in ids]
    labels = torch.tensor([answer.ids for row in rows for answer in row.candidates[:options]])
    return pad_sequence(ids, True, 0), pad_sequence(seen, True, 0), labels


def ours_training(kind: str, batch: int, vocabulary: int, threads: int) -> Work:
    """One optimiser step of `cpm_tune.tuning.train` per round."""
    engine, (model, delta) = engine_of("fp32", threads), tuned(vocabulary)
    stream = examples(kind, batch, vocabulary, 1)
    return our_steps(engine, model, delta, layout_of(model.config), stream)


def transformers_training(kind: str, batch: int, vocabulary: int, threads: int) -> Work:
    """The same step by transformers and PEFT: one padded batch, its own loss."""
    torch.set_num_threads(threads)
    model = as_transformers(*tuned(vocabulary))
    stream = examples(kind, batch, vocabulary, 1)

    def loss() -> Tensor:
        ids, seen, labels = padded(next(stream), 1)
        return model(input_ids=ids, attention_mask=seen, labels=labels).loss

    return plain_steps([p for p in model.parameters() if p.requires_grad], loss)


def ours_scoring(kind: str, batch: int, vocabulary: int, threads: int) -> Work:
    """The options' scores of a batch, each text encoded once."""
    engine, (model, _) = engine_of("fp32", threads), tuned(vocabulary)
    engine.prepare(model.eval())
    layout, stream = layout_of(model.config), examples(kind, batch, vocabulary, len(OPTIONS))

    @torch.inference_mode()
    def work() -> list[float]:
        made = layout.collate(next(stream))
        scored = scored_targets(model, made, "verbaliser-sum")
        return [float(s) for s in option_scores(scored, made, "verbaliser-sum").flatten()]

    return work


def transformers_scoring(kind: str, batch: int, vocabulary: int, threads: int) -> Work:
    """The same by transformers and PEFT."""
    torch.set_num_threads(threads)
    model = as_transformers(*tuned(vocabulary)).eval()
    stream = examples(kind, batch, vocabulary, len(OPTIONS))

    @torch.inference_mode()
    def work() -> list[float]:
        ids, seen, labels = padded(next(stream), len(OPTIONS))
        logits = model(input_ids=ids, attention_mask=seen, labels=labels).logits
        losses = cross_entropy(logits.flatten(0, 1), labels.flatten(), reduction="none")
        return [float(-loss) for loss in losses.view(labels.shape).sum(1)]

    return work


def main() -> None:
    """Parse the command line, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--kind", choices=("lcqmc", "long"), default="lcqmc")
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--vocabulary", type=int, default=26240)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    settings = vars(parser.parse_args())
    rounds = settings.pop("rounds")
    pairs = {
        "training": (ours_training, transformers_training),
        "scoring": (ours_scoring, transformers_scoring),
    }
    for what, (ours, theirs) in pairs.items():
        ways = {f"{what}, ours": (ours, settings), "transformers + PEFT": (theirs, settings)}
        report(in_turns(ways, rounds), settings["batch"])


if __name__ == "__main__":
    main()
