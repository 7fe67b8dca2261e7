"""All deltas in small, and inputs that reach every part of them: shared by the tests of deltas."""

from __future__ import annotations

import torch
from conftest import small_config
from torch import Tensor

from cpm_tune.backbone.ant.model import CPMAnt
from cpm_tune.backbone.opening import random_backbone
from cpm_tune.delta.config import (
    AdapterConfig,
    BitFitConfig,
    CompacterConfig,
    DeltaConfig,
    FullConfig,
    LoraConfig,
    LowRankAdapterConfig,
    ParallelAdapterConfig,
    PrefixConfig,
    SoftPromptConfig,
)
from cpm_tune.delta.insert import Delta

SHA = "0" * 64
SPLIT_PAIRS = ("self_attention", "self_attention", "w_in", "w_out")
DELTAS: dict[str, DeltaConfig] = {
    "full": FullConfig(),
    "lora": LoraConfig(),
    "adapter": AdapterConfig(bottleneck_dim=4),
    "low_rank_adapter": LowRankAdapterConfig(reduction_factor=2, low_rank_rank=2),
    "parallel_adapter": ParallelAdapterConfig(bottleneck_dim=4),
    "parallel_adapter, split": ParallelAdapterConfig(modified_modules=SPLIT_PAIRS, scaled=4),
    "compacter": CompacterConfig(reduction_factor=2),
    "bitfit": BitFitConfig(),
    "prefix": PrefixConfig(),
    "prefix, reparameterized": PrefixConfig(reparameterize=True, embed_dim=8, mid_dim=8),
    "soft_prompt": SoftPromptConfig(soft_token_num=6),
    "soft_prompt, hidden": SoftPromptConfig(soft_token_num=6, text_sees_prompt=False),
}
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}


def backbone(dtype: torch.dtype = torch.float32, **changes: object) -> CPMAnt:
    return random_backbone(small_config(**changes), 3, dtype).eval()


def sequence(model: CPMAnt, config: DeltaConfig, start: int, n: int) -> dict[str, Tensor]:
    """One row: the backbone's prompt 1, soft tokens where the delta has some, n tokens of text of
    which the last three are not context."""
    shape = model.config
    first = shape.vocab_size + shape.prompt_types * shape.prompt_length
    soft = isinstance(config, SoftPromptConfig)
    head = [shape.vocab_size + shape.prompt_length + k for k in range(shape.prompt_length)]
    text = [(start + k) % shape.vocab_size for k in range(n)]
    if soft:
        text[1:1] = range(first, first + config.soft_token_num)  # type: ignore[union-attr]
    ids = torch.tensor([head + text])
    segment = torch.tensor([[0] * len(head) + [2] * len(text)])
    context = torch.arange(ids.shape[1])[None] < ids.shape[1] - 3
    return {"ids": ids, "segment": segment, "context": context}


def forward(model: CPMAnt, config: DeltaConfig, dtype: torch.dtype = torch.float32) -> Tensor:
    """Hidden states of a sequence, as the engine runs it: under autocast if not in fp32."""
    with torch.autocast("cpu", torch.bfloat16, enabled=dtype == torch.bfloat16):
        return model(**sequence(model, config, 20, 12))


@torch.no_grad()
def perturb(delta: Delta, scale: float = 0.05) -> None:
    generator = torch.Generator().manual_seed(1)
    for parameter in delta.parameters.values():
        parameter.add_(torch.randn(parameter.shape, generator=generator) * scale)
