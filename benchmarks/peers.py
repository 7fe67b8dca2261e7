"""The contestants of the benchmarks: this project, transformers + PEFT, and a plain padded loop.

All have the same random weights, LoRA values and token ids. "Plain" does what the original loop
does: padded rows, the position bias gathered per pair, attention written out, logits everywhere.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import count
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from timing import Work
from torch import Tensor

from cpm_tune.backbone.ant.config import CPMAntConfig
from cpm_tune.backbone.ant.layout import AntLayout
from cpm_tune.backbone.ant.model import CPMAnt
from cpm_tune.backbone.base import Backbone
from cpm_tune.backbone.example import Answer, Example
from cpm_tune.backbone.opening import random_backbone
from cpm_tune.backbone.protocol import Layout
from cpm_tune.delta.config import LoraConfig
from cpm_tune.delta.insert import Delta, insert
from cpm_tune.engine.engine import Engine, make_engine
from cpm_tune.schema.spec import Execution

CONFIG = CPMAntConfig(
    dim_model=512, num_layers=6, dim_ff=1280, num_heads=8, dim_head=64, position_bias_num_buckets=32
)
PROMPT_TYPE = SEGMENT = 2  # what transformers' model always uses
PAD = 0  # to transformers, padding is id 0
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}
Ids = list[int]


def prompt_ids() -> Ids:
    """The soft prompt's ids."""
    start = CONFIG.vocab_size + PROMPT_TYPE * CONFIG.prompt_length
    return list(range(start, start + CONFIG.prompt_length))


LAYOUT = AntLayout(
    start=tuple(prompt_ids()),
    n_prompt=CONFIG.prompt_length,
    segment=SEGMENT,
    first_free=CONFIG.vocab_size + CONFIG.prompt_types * CONFIG.prompt_length,
)


def texts(kind: str, n: int, seed: int = 0) -> list[Ids]:
    """Random ids of lengths like LCQMC's pairs (mean 26), or from 50 to 1,000 with a long tail."""
    random = np.random.default_rng(seed)
    if kind == "lcqmc":
        lengths = random.lognormal(math.log(25), 0.28, n).clip(12, 90)
    else:
        lengths = random.lognormal(math.log(160), 0.75, n).clip(50, 1000)
    return [random.integers(1, CONFIG.vocab_size, int(length)).tolist() for length in lengths]


def batches(kind: str, batch: int) -> Iterator[list[Ids]]:
    """The texts of each round: others every time, as in training."""
    return (texts(kind, batch, seed) for seed in count())


def tuned(dtype: str) -> tuple[CPMAnt, Delta]:
    """Our model with LoRA (r 8, on q and v), neither of whose factors is zero."""
    model = random_backbone(CONFIG, 1, DTYPES[dtype]).train()
    delta = insert(model, LoraConfig(lora_r=8, lora_alpha=16), "0" * 64, seed=1)
    draw(delta)
    return model, delta


def draw(delta: Delta) -> None:
    """Draw the factor of a new LoRA that is zero."""
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for name, value in delta.parameters.items():
            if name.endswith("lora_B"):
                value.copy_(torch.randn(value.shape, generator=generator) * 0.02)


def with_lora(theirs: Any, delta: Delta, targets: Sequence[str], prefix: str = "") -> Any:
    """A model of transformers with the LoRA of ours, by PEFT; its names begin with `prefix`."""
    from peft import LoraConfig as PeftLora
    from peft import get_peft_model

    lora = PeftLora(r=8, lora_alpha=16, target_modules=list(targets))
    wrapped, own = get_peft_model(theirs, lora), delta.state()
    with torch.no_grad():
        for name, value in wrapped.named_parameters():
            if value.requires_grad:
                key = name.removeprefix(f"base_model.model.{prefix}").replace("lora_", "lora.lora_")
                value.copy_(own[key.replace(".default.weight", "")])
    return wrapped.train()


def plain_steps(parameters: Sequence[Tensor], loss_of: Callable[[], Tensor]) -> Work:
    """One optimiser step per round, of the next loss."""
    optimizer = torch.optim.AdamW(parameters, lr=1e-3, weight_decay=0.01)

    def work() -> list[float]:
        loss = loss_of()
        torch.autograd.backward(loss)
        torch.nn.utils.clip_grad_norm_(parameters, 10.0)
        optimizer.step()
        optimizer.zero_grad()
        return [float(loss.detach())]

    return work


def as_transformers(model: CPMAnt, delta: Delta | None, dtype: str = "fp32") -> Any:
    """The same weights in transformers' model, LoRA by PEFT."""
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
    theirs = CpmAntForCausalLM(config)
    state = {k: v.float() for k, v in model.state_dict().items() if "lora" not in k}
    token, prompt = state["input_embedding.weight"], state.pop("prompt_embedding.weight")
    theirs.cpmant.load_state_dict({**state, "input_embedding.weight": torch.cat((token, prompt))})
    theirs.lm_head.load_state_dict({"weight": token})
    theirs = theirs.to(DTYPES[dtype])
    if delta is None:
        return theirs.eval()
    return with_lora(theirs, delta, ("project_q", "project_v"), "cpmant.")


def plain_logits(
    weights: Mapping[str, Tensor],
    ids: Tensor,
    segment: Tensor,
    real: Tensor,
    context: Tensor,
    past: list[tuple[Tensor, Tensor]] | None = None,
) -> Tensor:
    """Logits at every position of padded rows (batch, length), as the original loop has them.

    real, context: bool (batch, length). LoRA where `weights` has it. `past`: keys and values of
    every layer, added to; if it contains some, logits are of the positions after them alone.
    """
    heads, length = CONFIG.num_heads, ids.shape[1]
    done = past[0][0].shape[2] if past else 0

    def linear(name: str, x: Tensor) -> Tensor:
        y = F.linear(x, weights[f"{name}.weight"])
        if f"{name}.lora.lora_A" in weights:
            a, b = weights[f"{name}.lora.lora_A"], weights[f"{name}.lora.lora_B"]
            y = y + (x @ a.T.to(x.dtype) @ b.T.to(x.dtype)) * 2.0
        return y

    def norm(name: str, x: Tensor) -> Tensor:
        scale = torch.rsqrt(x.float().pow(2).mean(-1, keepdim=True) + CONFIG.eps)
        return (x * scale).to(x.dtype) * weights[f"{name}.weight"]

    table = torch.cat((weights["input_embedding.weight"], weights["prompt_embedding.weight"]))
    x = F.embedding(ids, table) + F.embedding(segment, weights["segment_embedding.weight"])
    index = torch.arange(length)
    relative = (index[None, :] - index[:, None]).expand(len(ids), -1, -1)
    half, exact = CONFIG.position_bias_num_buckets // 2, CONFIG.position_bias_num_buckets // 4
    far = torch.log(relative.abs().float().clamp(min=1) / exact)
    far = far / math.log(CONFIG.position_bias_max_distance / exact) * (half - exact)
    far = (exact + far.long()).clamp(max=half - 1)
    bucket = torch.where(relative.abs() < exact, relative.abs(), far) + (relative > 0) * half
    between = segment[:, :, None] * CONFIG.segment_types + segment[:, None, :]
    same = segment[:, :, None] == segment[:, None, :]
    bucket = torch.where(same, bucket, between + CONFIG.position_bias_num_buckets)
    table = weights["position_bias.relative_attention_bias"]
    bias = F.embedding(bucket, table).permute(0, 3, 1, 2)
    seen = context[:, None, :] | (~context[:, :, None] & (index[None, :] <= index[:, None]))
    hidden = ~(seen & real[:, None, :] & real[:, :, None])[:, None]
    x, bias, hidden = x[:, done:], bias[:, :, done:], hidden[:, :, done:]
    for number in range(CONFIG.num_layers):
        layer = f"encoder.layers.{number}"
        normed = norm(f"{layer}.self_att.layernorm_before_attention", x)
        q, k, v = (
            linear(f"{layer}.self_att.self_attention.project_{name}", normed)
            .view(len(ids), length - done, heads, -1)
            .transpose(1, 2)
            for name in "qkv"
        )
        if past is not None:
            if done:
                k, v = (torch.cat(both, 2) for both in zip(past[number], (k, v), strict=True))
                past[number] = k, v
            else:
                past.append((k, v))
        score = q @ k.transpose(2, 3) / math.sqrt(CONFIG.dim_head) + bias
        score = score.masked_fill(hidden, float("-inf")).softmax(-1).masked_fill(hidden, 0)
        mixed = (score @ v).transpose(1, 2).flatten(2)
        x = x + linear(f"{layer}.self_att.self_attention.attention_out", mixed)
        normed = norm(f"{layer}.ffn.layernorm_before_ffn", x)
        gate = F.gelu(linear(f"{layer}.ffn.ffn.w_in.w_0", normed))
        x = x + linear(f"{layer}.ffn.ffn.w_out", gate * linear(f"{layer}.ffn.ffn.w_in.w_1", normed))
    return F.linear(norm("encoder.output_layernorm", x), weights["input_embedding.weight"])


def padded(rows: Sequence[Ids], *, left: bool) -> Tensor:
    """Rows of one length."""
    width = max(map(len, rows))
    filled = [[PAD] * (width - len(r)) + r if left else r + [PAD] * (width - len(r)) for r in rows]
    return torch.tensor(filled)


def example(text: Ids) -> Example:
    """The encoding of a row whose answer is one token after its text."""
    answer = Answer(0, (answer_of(text),))
    return Example("", ((*LAYOUT.start, *text),), (answer,), 0, False)


def answer_of(text: Ids) -> int:
    """The token to predict after a text."""
    return 1 + sum(text) % (CONFIG.vocab_size - 1)


def engine_of(dtype: str, threads: int) -> Engine:
    """The engine of a run, set as a run sets torch."""
    torch.use_deterministic_algorithms(True)
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    return make_engine(Execution(device="cpu", threads=threads), dtype)


def ours_training(kind: str, batch: int, dtype: str, threads: int, share: int = 1) -> Work:
    """One optimiser step of `cpm_tune.tuning.train` per round, of `batch` / `share` samples."""
    engine = engine_of(dtype, threads)
    stream = ([example(text) for text in rows[::share]] for rows in batches(kind, batch))
    return our_steps(engine, *tuned(dtype), LAYOUT, stream)


def our_steps(
    engine: Engine, model: Backbone, delta: Delta, layout: Layout, stream: Iterator[list[Example]]
) -> Work:
    """One optimiser step per round, of the stream's next examples."""
    from cpm_tune.backbone.base import micro_batches
    from cpm_tune.tuning.predict import batch_loss
    from cpm_tune.tuning.scoring import loss_count

    parameters, vocabulary = list(delta.parameters.values()), model.config.shape.vocabulary
    engine.prepare(model)
    optimizer = engine.optimizer(parameters, (0.9, 0.999), 0.01)
    optimizer.param_groups[0]["lr"] = 1e-3

    def work() -> list[float]:
        groups = micro_batches(next(stream), layout, 8192, vocabulary)
        packed = [layout.collate(group) for group in groups]
        count, loss = sum(loss_count(b, "generation") for b in packed), 0.0
        for micro in packed:
            with engine.autocast():
                part = batch_loss(model, micro.to(engine.device), "generation") / count
            loss += float(part.detach())
            engine.backward(part)
        engine.clip(optimizer, parameters, 10.0)
        engine.step(optimizer)
        return [loss]

    return work


def transformers_training(kind: str, batch: int, dtype: str, threads: int) -> Work:
    """The same step by transformers and PEFT: left-padded, its own loss."""
    torch.set_num_threads(threads)
    model = as_transformers(*tuned("fp32"), dtype)
    stream = batches(kind, batch)

    def loss() -> Tensor:
        rows = next(stream)
        ids = padded(rows, left=True)
        labels = torch.full_like(ids, -100)
        labels[:, -1] = torch.tensor([answer_of(text) for text in rows])
        return model(input_ids=ids, labels=labels, use_cache=False).loss

    return plain_steps([p for p in model.parameters() if p.requires_grad], loss)


def plain_training(kind: str, batch: int, dtype: str, threads: int) -> Work:
    """The same step by the plain padded loop."""
    torch.set_num_threads(threads)
    model, delta = tuned(dtype)
    weights = {**dict(model.named_parameters()), **delta.parameters}
    stream = batches(kind, batch)

    def loss() -> Tensor:
        rows = next(stream)
        ids = padded([[*prompt_ids(), *text] for text in rows], left=False)
        real = torch.arange(ids.shape[1]) < torch.tensor([len(r) for r in rows])[:, None] + 32
        segment = torch.full_like(ids, SEGMENT)
        segment[:, : CONFIG.prompt_length] = 0
        labels = torch.full_like(ids, -100)
        for number, text in enumerate(rows):
            labels[number, 31 + len(text)] = answer_of(text)
        logits = plain_logits(weights, ids, segment, real, real)
        return F.cross_entropy(logits.flatten(0, 1).float(), labels.flatten())

    return plain_steps(list(delta.parameters.values()), loss)
