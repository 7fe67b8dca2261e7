"""Causal language models: training next to transformers + PEFT, generation next to `generate`.

Run by hand, on a quiet machine: `python benchmarks/causal.py [--kind llama] [--threads 1]`. Both
have the same random weights (d 512, 6 layers, ff 1280, vocabulary 30,720), token ids and LoRA (r 8,
on q and v; of GPT-2 on q, k and v). Only ratios from one run are meaningful. Training: a step on
texts of lengths like LCQMC's pairs, theirs padded on the left. Generation: the same prefixes and
number of new tokens.
"""

from __future__ import annotations

import argparse
from typing import Any

import torch
from peers import Ids, answer_of, batches, engine_of, padded
from timing import Work, in_turns, report

from cpm_tune.backbone.base import micro_batches
from cpm_tune.backbone.causal import attention
from cpm_tune.backbone.causal.config import CausalConfig
from cpm_tune.backbone.causal.layout import CausalLayout
from cpm_tune.backbone.causal.model import CausalLM
from cpm_tune.backbone.example import Answer, Example
from cpm_tune.backbone.tokens import TokenizerDefaults
from cpm_tune.decode import Request, generate
from cpm_tune.delta.config import LoraConfig
from cpm_tune.delta.insert import insert
from cpm_tune.schema.spec import Decoding
from cpm_tune.tuning.predict import batch_loss
from cpm_tune.tuning.scoring import loss_count

VOCABULARY = 30720
NEVER = 0  # padding: banned, and the only stop token
SHAPES: dict[str, dict[str, Any]] = {
    "gpt2": {
        **{"n_embd": 512, "n_layer": 6, "n_head": 8, "n_inner": 1280, "n_positions": 2048},
        **{"attn_pdrop": 0.0, "resid_pdrop": 0.0, "embd_pdrop": 0.0},
    },
    "llama": {
        **{"hidden_size": 512, "intermediate_size": 1280, "num_hidden_layers": 6},
        **{"num_attention_heads": 8, "num_key_value_heads": 8, "max_position_embeddings": 2048},
    },
}
TARGETS = {"gpt2": ["c_attn"], "llama": ["q_proj", "v_proj"]}
LORA = {
    "gpt2": ("attn.c_attn.q", "attn.c_attn.k", "attn.c_attn.v"),
    "llama": ("q_proj", "v_proj"),
}


class Numbers(TokenizerDefaults):
    """Ids alone."""

    entries = dict.fromkeys(range(VOCABULARY), "")
    pad = eos = unk = NEVER


LAYOUT = CausalLayout(Numbers(), (), VOCABULARY)  # type: ignore[arg-type]


def theirs(kind: str) -> Any:
    """Transformers' model."""
    from transformers import AutoConfig, AutoModelForCausalLM

    torch.manual_seed(1)
    config = AutoConfig.for_model(kind, vocab_size=VOCABULARY, **SHAPES[kind])
    return AutoModelForCausalLM.from_config(config, attn_implementation="sdpa").eval()


def ours(kind: str) -> CausalLM:
    """The same weights as a backbone."""
    model = theirs(kind)
    values = CausalConfig.of(model.config.to_dict())
    attention.use(model)
    return CausalLM(values, model)


def example(text: Ids) -> Example:
    """A row whose answer is one token after its text."""
    return Example("", (tuple(text),), (Answer(0, (answer_of(text),)),), 0, False)


def our_training(kind: str, batch: int, threads: int) -> Work:
    """One optimiser step per round."""
    engine, model = engine_of("fp32", threads), ours(kind)
    config = LoraConfig(lora_r=8, lora_alpha=16, modified_modules=LORA[kind])
    model.requires_grad_(False).train()
    parameters = list(insert(model, config, "0" * 64, seed=1).parameters.values())
    engine.prepare(model)
    optimizer = engine.optimizer(parameters, (0.9, 0.999), 0.01)
    optimizer.param_groups[0]["lr"] = 1e-3
    stream = batches("lcqmc", batch)

    def work() -> list[float]:
        examples = sorted(map(example, next(stream)), key=LAYOUT.n_tokens, reverse=True)
        groups = micro_batches(examples, LAYOUT, 8192, VOCABULARY)
        packed = [LAYOUT.collate(group) for group in groups]
        count, loss = sum(loss_count(b, "generation") for b in packed), 0.0
        for micro in packed:
            part = batch_loss(model, micro, "generation") / count
            loss += float(part.detach())
            engine.backward(part)
        engine.clip(optimizer, parameters, 10.0)
        engine.step(optimizer)
        return [loss]

    return work


def their_training(kind: str, batch: int, threads: int) -> Work:
    """The same step by transformers and PEFT; B of LoRA is 0 in both, so first losses agree."""
    from peft import LoraConfig as PeftLora
    from peft import get_peft_model

    torch.set_num_threads(threads)
    lora = PeftLora(r=8, lora_alpha=16, target_modules=TARGETS[kind], fan_in_fan_out=kind == "gpt2")
    model = get_peft_model(theirs(kind), lora).train()
    parameters = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=1e-3, weight_decay=0.01)
    stream = batches("lcqmc", batch)

    def work() -> list[float]:
        rows = next(stream)
        ids = padded(rows, left=True)
        mask = (ids != NEVER).long()
        labels = torch.full_like(ids, -100)
        labels[:, -1] = torch.tensor([answer_of(text) for text in rows])
        # The loss is of the last label, which the token before it predicts.
        ids = torch.cat((ids, labels[:, -1:]), 1)
        mask = torch.cat((mask, torch.ones_like(mask[:, :1])), 1)
        labels = torch.cat((torch.full_like(labels, -100), labels[:, -1:]), 1)
        places = (mask.cumsum(1) - 1).clamp(min=0)
        given = {"attention_mask": mask, "position_ids": places, "use_cache": False}
        loss = model(input_ids=ids, labels=labels, **given).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 10.0)
        optimizer.step()
        optimizer.zero_grad()
        return [float(loss.detach())]

    return work


def prefixes(batch: int, length: int) -> list[Ids]:
    """Texts of one length."""
    generator = torch.Generator().manual_seed(1)
    return torch.randint(1, VOCABULARY, (batch, length), generator=generator).tolist()


def our_generation(kind: str, batch: int, threads: int, length: int, new: int, beams: int) -> Work:
    """By `cpm_tune.decode`."""
    engine = engine_of("fp32", threads)
    model, texts = engine.prepare(ours(kind)), prefixes(batch, length)
    request = Request(Decoding(max_new_tokens=new, beams=beams), LAYOUT, banned=frozenset({NEVER}))

    def work() -> list[float]:
        return [best.score for (best,) in generate(model, texts, request, micro_tokens=2**20)]

    return work


def their_generation(
    kind: str, batch: int, threads: int, length: int, new: int, beams: int
) -> Work:
    """By transformers' `generate` with its cache."""
    torch.set_num_threads(threads)
    model, text = theirs(kind), torch.tensor(prefixes(batch, length))
    how: dict[str, Any] = {"max_new_tokens": new, "num_beams": beams, "do_sample": False}
    how |= {"suppress_tokens": [NEVER], "eos_token_id": NEVER, "pad_token_id": NEVER}
    if beams > 1:
        how |= {"length_penalty": 0.0, "early_stopping": "never", "output_scores": True}
        how |= {"return_dict_in_generate": True}

    @torch.inference_mode()
    def work() -> list[float]:
        made = model.generate(text, attention_mask=torch.ones_like(text), **how)
        return made.sequences_scores.tolist() if beams > 1 else []

    return work


def main() -> None:
    """Parse the command line, measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--kind", choices=tuple(SHAPES), default="llama")
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--texts", type=int, default=16, help="to generate at once")
    parser.add_argument("--length", type=int, default=73, help="tokens of a prefix")
    parser.add_argument("--new", type=int, default=31, help="new tokens")
    parser.add_argument("--beams", type=int, nargs="+", default=[3, 1])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--only", choices=("training", "generation"))
    asked = parser.parse_args()
    same = {"kind": asked.kind, "threads": asked.threads}
    if asked.only != "generation":
        print(f"training, {asked.kind}: a step of {asked.batch} texts of LCQMC's lengths, fp32")
        each = {**same, "batch": asked.batch}
        ways = {"ours": (our_training, each), "transformers + PEFT": (their_training, each)}
        report(in_turns(ways, asked.rounds), asked.batch)
    for beams in asked.beams if asked.only != "training" else ():
        print(
            f"generation, {asked.kind}, beams {beams}: {asked.texts} texts of {asked.length}, "
            f"{asked.new} new tokens"
        )
        each = {**same, "batch": asked.texts, "length": asked.length}
        each |= {"new": asked.new, "beams": beams}
        both = {"ours": (our_generation, each), "transformers": (their_generation, each)}
        report(in_turns(both, asked.rounds), asked.texts, "texts")


if __name__ == "__main__":
    main()
