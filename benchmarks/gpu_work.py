"""One part of benchmarks/gpu.py, in its own process: writes a JSON of what it measured.

python benchmarks/gpu_work.py train 300M ours --device cuda --out train.json
"""

from __future__ import annotations

import os

from cpm_tune.common.allocator import set_allocator

set_allocator(os.environ)  # before torch is imported

import argparse  # noqa: E402
import json  # noqa: E402
import platform  # noqa: E402
import statistics  # noqa: E402
import time  # noqa: E402
from collections.abc import Callable  # noqa: E402
from pathlib import Path  # noqa: E402
from typing import Any  # noqa: E402

import torch  # noqa: E402
from peers import LAYOUT, answer_of, example, padded, prompt_ids, texts  # noqa: E402
from torch import nn  # noqa: E402
from training import step_flops  # noqa: E402

from cpm_tune.backbone.ant.config import CPMAntConfig  # noqa: E402
from cpm_tune.backbone.ant.model import CPMAnt  # noqa: E402
from cpm_tune.backbone.base import collated, micro_batches  # noqa: E402
from cpm_tune.common.environment import (  # noqa: E402
    gpu,
    package_versions,
    peak_memory_bytes,
    reset_peak_memory,
)
from cpm_tune.decode import Request, generate  # noqa: E402
from cpm_tune.delta.config import LoraConfig  # noqa: E402
from cpm_tune.delta.insert import insert  # noqa: E402
from cpm_tune.engine.engine import make_engine  # noqa: E402
from cpm_tune.schema.spec import Decoding, Execution  # noqa: E402
from cpm_tune.tuning.predict import batch_loss  # noqa: E402
from cpm_tune.tuning.scoring import loss_count  # noqa: E402

# CPM-Ant's compressed models lack sub-layers, which transformers' class cannot leave out: here all
# are whole, as many as give that number of parameters. 10B is CPM-Ant 10B.
SHAPES = {  # width, layers, feed-forward, heads, values of a head
    "300M": (1024, 23, 2560, 16, 64),
    "1B": (2048, 20, 5120, 32, 64),
    "10B": (4096, 48, 10240, 32, 128),
}
TINY = (64, 2, 128, 2, 32)
SECONDS = 10.0  # that a contestant is measured, after its first rounds
FIRST = 3  # rounds that are not counted
BATCH, TEXTS, NEW, LENGTH = 32, 16, 32, 73
NEVER = 0  # to transformers, padding: banned, and the only stop token


def shape_of(name: str, tiny: bool) -> CPMAntConfig:
    """The configuration of a shape."""
    d, layers, ff, heads, head = TINY if tiny else SHAPES[name]
    return CPMAntConfig(dim_model=d, num_layers=layers, dim_ff=ff, num_heads=heads, dim_head=head)


class Clock:
    """Seconds of rounds, each until the device has finished."""

    def __init__(self, device: torch.device, tiny: bool) -> None:
        self.cuda, self.rounds = device.type == "cuda", list[float]()
        self._seconds = 0.2 if tiny else SECONDS

    def measure(self, work: Callable[[], Any]) -> None:
        """Run `work` again and again."""
        for number in range(200):
            started = time.perf_counter()
            work()
            if self.cuda:
                torch.cuda.synchronize()
            if number >= FIRST:
                self.rounds.append(time.perf_counter() - started)
            if sum(self.rounds) > self._seconds:
                return

    @property
    def result(self) -> dict[str, float]:
        """Median and spread of a round."""
        rounds = sorted(self.rounds)
        return {
            "rounds": len(rounds),
            "round_seconds": statistics.median(rounds),
            "fastest": rounds[0],
            "slowest": rounds[-1],
        }


@torch.no_grad()
def draw(model: nn.Module) -> None:
    """Random weights, drawn on their device."""
    generator = torch.Generator(next(model.parameters()).device).manual_seed(1)
    for parameter in model.parameters():
        if parameter.dim() == 1:
            parameter.fill_(1.0)
        else:
            parameter.normal_(0, parameter.shape[-1] ** -0.5, generator=generator)


def our_model(config: CPMAntConfig, device: torch.device) -> CPMAnt:
    """Our model on the device, without the time and memory of a host's copy."""
    model = config.skeleton().to(torch.bfloat16).to_empty(device=device)
    draw(model)
    return model


def their_model(config: CPMAntConfig, device: torch.device) -> Any:
    """Transformers' model of that shape."""
    from transformers import CpmAntConfig, CpmAntForCausalLM

    made = CpmAntConfig(
        vocab_size=config.vocab_size,
        hidden_size=config.dim_model,
        num_attention_heads=config.num_heads,
        dim_head=config.dim_head,
        dim_ff=config.dim_ff,
        num_hidden_layers=config.num_layers,
        position_bias_num_buckets=config.position_bias_num_buckets,
        position_bias_max_distance=config.position_bias_max_distance,
        prompt_types=config.prompt_types,
        prompt_length=config.prompt_length,
        segment_types=config.segment_types,
    )
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.bfloat16)
    try:
        with torch.device(device):
            model = CpmAntForCausalLM(made)
    finally:
        torch.set_default_dtype(before)
    draw(model)
    return model


def train_ours(config: CPMAntConfig, device: torch.device) -> Callable[[], float]:
    """An optimiser step as `cpm_tune.tuning.train` has it."""
    engine = make_engine(Execution(device=str(device)), "bf16")
    model = our_model(config, device).train()
    delta = insert(model, LoraConfig(lora_r=8, lora_alpha=16), "0" * 64, seed=1)
    parameters = list(delta.parameters.values())
    engine.prepare(model)
    optimizer = engine.optimizer(parameters, (0.9, 0.999), 0.01)
    optimizer.param_groups[0]["lr"] = 1e-3

    def work() -> float:
        rows = sorted(texts("lcqmc", BATCH, next(numbers)), key=len, reverse=True)
        groups = micro_batches(map(example, rows), LAYOUT, 8192, config.vocab_size)
        packed = [collated(LAYOUT, group) for group in groups]
        count, parts = sum(loss_count(b, "generation") for b in packed), []
        for micro in packed:
            with engine.autocast():
                part = batch_loss(model, micro.to(engine.device), "generation") / count
            engine.backward(part)
            parts.append(part.detach())
        loss = sum(torch.stack(parts).tolist())
        engine.clip(optimizer, parameters, 10.0)
        engine.step(optimizer)
        return loss

    numbers = iter(range(10**6))
    return work


def train_transformers(config: CPMAntConfig, device: torch.device) -> Callable[[], float]:
    """The same by transformers and PEFT: left-padded, its own loss."""
    from peft import LoraConfig as PeftLora
    from peft import get_peft_model

    lora = PeftLora(r=8, lora_alpha=16, target_modules=["project_q", "project_v"])
    model = get_peft_model(their_model(config, device), lora).train()
    parameters = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=1e-3, weight_decay=0.01)
    numbers = iter(range(10**6))

    def work() -> float:
        rows = texts("lcqmc", BATCH, next(numbers))
        ids = padded(rows, left=True)
        labels = torch.full_like(ids, -100)
        labels[:, -1] = torch.tensor([answer_of(text) for text in rows])
        loss = model(input_ids=ids.to(device), labels=labels.to(device), use_cache=False).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 10.0)
        optimizer.step()
        optimizer.zero_grad()
        return float(loss.detach())

    return work


def generate_ours(config: CPMAntConfig, device: torch.device, new: int) -> Callable[[], Any]:
    """Greedy texts by `cpm_tune.decode`."""
    engine = make_engine(Execution(device=str(device)), "bf16")
    model = engine.prepare(our_model(config, device).eval())
    prefixes = [prompt_ids() + text for text in inputs(config).tolist()]
    request = Request(Decoding(max_new_tokens=new, beams=1), LAYOUT, banned=frozenset({NEVER}))

    def work() -> Any:
        with engine.autocast(), torch.inference_mode():
            return generate(model, prefixes, request)

    return work


def generate_transformers(
    config: CPMAntConfig, device: torch.device, new: int
) -> Callable[[], Any]:
    """The same by transformers' `generate`."""
    model = their_model(config, device).eval()
    ids = inputs(config).to(device)

    def work() -> Any:
        return model.generate(
            ids,
            attention_mask=torch.ones_like(ids),
            max_new_tokens=new,
            do_sample=False,
            suppress_tokens=[NEVER],
            eos_token_id=NEVER,
            pad_token_id=NEVER,
            use_cache=True,
        )

    return work


def inputs(config: CPMAntConfig) -> torch.Tensor:
    """Texts (TEXTS, LENGTH)."""
    generator = torch.Generator().manual_seed(1)
    return torch.randint(1, config.vocab_size, (TEXTS, LENGTH), generator=generator)


def products(device: torch.device, tiny: bool) -> dict[str, float]:
    """FLOP a second of a large product in bf16, the best of several: what utilisation refers to."""
    n = 256 if tiny else 8192
    a, b = (torch.randn(n, n, device=device, dtype=torch.bfloat16) for _ in range(2))
    clock = Clock(device, tiny)
    clock.measure(lambda: a @ b)
    return {"flops_per_second": 2 * n**3 / clock.result["fastest"]}


def about(device: torch.device) -> dict[str, Any]:
    """The machine."""
    if device.type == "cuda":
        torch.cuda.init()  # type: ignore[no-untyped-call]
    return {"gpu": gpu(device), "python": platform.python_version(), "packages": package_versions()}


def measured(what: str, shape: str, who: str, device: torch.device, tiny: bool) -> dict[str, Any]:
    """One contestant: a round is one step of BATCH samples, or TEXTS texts."""
    config = shape_of(shape, tiny)
    new = 4 if tiny else NEW
    reset_peak_memory(device)
    if what == "train":
        work = {"ours": train_ours, "transformers": train_transformers}[who](config, device)
    else:
        by = {"ours": generate_ours, "transformers": generate_transformers}[who]
        work = by(config, device, new)
    clock = Clock(device, tiny)
    clock.measure(work)
    found: dict[str, Any] = {**clock.result, "peak_bytes": peak_memory_bytes(device)}
    if what == "train":
        found["per_second"], found["unit"] = BATCH / found["round_seconds"], "samples"
        flops = statistics.mean(
            step_flops(texts("lcqmc", BATCH, k), config)
            for k in range(FIRST, FIRST + len(clock.rounds))
        )
        rate = products(device, tiny)["flops_per_second"]
        found["flops"], found["utilisation"] = flops, flops / found["round_seconds"] / rate
    else:
        found["per_second"], found["unit"] = TEXTS * new / found["round_seconds"], "tokens"
    return found


def main() -> None:
    """Parse the command line, measure, write."""
    parser = argparse.ArgumentParser(description=str(__doc__).split("\n")[0])
    parser.add_argument("what", choices=("about", "products", "train", "generate"))
    parser.add_argument("shape", nargs="?", choices=tuple(SHAPES), default="300M")
    parser.add_argument("who", nargs="?", choices=("ours", "transformers"), default="ours")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--tiny", action="store_true")
    asked = parser.parse_args()
    device = torch.device(asked.device)
    if device.type == "cuda":
        device = torch.device("cuda", device.index or 0)
        torch.cuda.set_device(device)
        torch.cuda.init()  # type: ignore[no-untyped-call]
    if asked.what == "about":
        found = about(device)
    elif asked.what == "products":
        found = dict(products(device, asked.tiny))
    else:
        found = measured(asked.what, asked.shape, asked.who, device, asked.tiny)
    asked.out.write_text(json.dumps(found), encoding="utf-8")


if __name__ == "__main__":
    main()
