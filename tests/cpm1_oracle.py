"""An independent CPM-1 of N model-parallel ranks for the tests, written from its definition.

Every rank has its own heads, its own part of the feed-forward layer and its own rows of the
vocabulary; what a row-parallel layer computes is summed over the ranks before its bias is added.
"""

from __future__ import annotations

import math
import random
from collections import OrderedDict
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from torch import Tensor

VOCAB, POSITIONS, WIDTH, HEADS, LAYERS = 48, 16, 24, 4, 3
Rank = dict[str, Tensor]


def random_ranks(n: int, dtype: torch.dtype = torch.float32, seed: int = 0) -> list[Rank]:
    """The states of `n` ranks; what all of them have is the same tensor."""
    noise = torch.Generator().manual_seed(seed)

    def draw(*size: int, scale: float = 0.2, around: float = 0.0) -> Tensor:
        return (torch.randn(size, generator=noise) * scale + around).to(dtype)

    ranks: list[Rank] = [OrderedDict() for _ in range(n)]

    def own(name: str, *size: int) -> None:
        for state in ranks:
            state[name] = draw(*size)

    def shared(name: str, *size: int, around: float = 0.0) -> None:
        value = draw(*size, around=around)
        for state in ranks:
            state[name] = value.clone()

    own("word_embeddings.weight", VOCAB // n, WIDTH)
    shared("position_embeddings.weight", POSITIONS, WIDTH)
    for layer in range(LAYERS):
        at = f"transformer.layers.{layer}"
        shared(f"{at}.input_layernorm.weight", WIDTH, around=1.0)
        shared(f"{at}.input_layernorm.bias", WIDTH)
        own(f"{at}.attention.query_key_value.weight", 3 * WIDTH // n, WIDTH)
        own(f"{at}.attention.query_key_value.bias", 3 * WIDTH // n)
        own(f"{at}.attention.dense.weight", WIDTH, WIDTH // n)
        shared(f"{at}.attention.dense.bias", WIDTH)
        shared(f"{at}.post_attention_layernorm.weight", WIDTH, around=1.0)
        shared(f"{at}.post_attention_layernorm.bias", WIDTH)
        own(f"{at}.mlp.dense_h_to_4h.weight", 4 * WIDTH // n, WIDTH)
        own(f"{at}.mlp.dense_h_to_4h.bias", 4 * WIDTH // n)
        own(f"{at}.mlp.dense_4h_to_h.weight", WIDTH, 4 * WIDTH // n)
        shared(f"{at}.mlp.dense_4h_to_h.bias", WIDTH)
    shared("transformer.final_layernorm.weight", WIDTH, around=1.0)
    shared("transformer.final_layernorm.bias", WIDTH)
    return ranks


def norm(x: Tensor, state: Rank, name: str) -> Tensor:
    mean = x.mean(-1, keepdim=True)
    variance = ((x - mean) ** 2).mean(-1, keepdim=True)
    return (x - mean) / (variance + 1e-5).sqrt() * state[f"{name}.weight"] + state[f"{name}.bias"]


def gelu(x: Tensor) -> Tensor:
    return 0.5 * x * (1 + torch.tanh(0.7978845608028654 * x * (1 + 0.044715 * x * x)))


def attention(x: Tensor, state: Rank, at: str, heads: int) -> Tensor:
    """One rank's part of an attention layer's output, without bias: (length, WIDTH)."""
    length, each = len(x), WIDTH // HEADS
    rows = x @ state[f"{at}.query_key_value.weight"].t() + state[f"{at}.query_key_value.bias"]
    query, key, value = rows.split(rows.shape[1] // 3, dim=1)
    out = []
    for head in range(heads):
        part = slice(head * each, (head + 1) * each)
        scores = query[:, part] @ key[:, part].t() / math.sqrt(each)
        seen = torch.ones(length, length).tril()
        out.append((scores * seen - 10_000.0 * (1 - seen)).softmax(-1) @ value[:, part])
    return torch.cat(out, 1) @ state[f"{at}.dense.weight"].t()


def logits(ranks: list[Rank], ids: list[int]) -> Tensor:
    """(length, VOCAB) in fp64, each rank's columns after the last one's."""
    ranks = [{name: value.double() for name, value in state.items()} for state in ranks]
    first, rows = ranks[0], VOCAB // len(ranks)
    x = torch.stack([ranks[i // rows]["word_embeddings.weight"][i % rows] for i in ids])
    x = x + first["position_embeddings.weight"][: len(ids)]
    for layer in range(LAYERS):
        at = f"transformer.layers.{layer}"
        h = norm(x, first, f"{at}.input_layernorm")
        parts = [attention(h, state, f"{at}.attention", HEADS // len(ranks)) for state in ranks]
        x = x + torch.stack(parts).sum(0) + first[f"{at}.attention.dense.bias"]
        h = norm(x, first, f"{at}.post_attention_layernorm")
        parts = [
            gelu(h @ s[f"{at}.mlp.dense_h_to_4h.weight"].t() + s[f"{at}.mlp.dense_h_to_4h.bias"])
            @ s[f"{at}.mlp.dense_4h_to_h.weight"].t()
            for s in ranks
        ]
        x = x + torch.stack(parts).sum(0) + first[f"{at}.mlp.dense_4h_to_h.bias"]
    x = norm(x, first, "transformer.final_layernorm")
    return torch.cat([x @ state["word_embeddings.weight"].t() for state in ranks], 1)


class LossScaler:
    """A class of the training code, which only that code has."""


def beside(state: Any) -> dict[str, Any]:
    """What DeepSpeed's checkpoint has next to the weights."""
    return {
        "module": state,
        "optimizer": {"loss_scaler": LossScaler(), "groups": [torch.ones(3)]},
        "lr_scheduler": {"num_iters": 80000, "warmup_iter": 100.0, "start_lr": 1.5e-4},
        "csr_tensor_module_names": set(),
        "skipped_steps": 3,
        "global_steps": 80000,
        "iteration": 80000,
        "random_rng_state": random.Random(0).getstate(),
        "np_rng_state": np.random.RandomState(0).get_state(),
        "torch_rng_state": torch.get_rng_state(),
        "rng_tracker_states": {"model-parallel-rng": torch.get_rng_state()},
        "args": SimpleNamespace(lr=1e-4),
    }


def write_ranks(folder: Path, ranks: list[Rank], *, zipped: bool = False) -> Path:
    """Write a checkpoint as it was published: torch of 2020 did not write zip files by default."""
    place = folder / "80000"
    place.mkdir(parents=True)
    (folder / "latest_checkpointed_iteration.txt").write_text("80000")
    for number, state in enumerate(ranks):
        file = place / f"mp_rank_{number:02d}_model_states.pt"
        torch.save(beside(state), file, _use_new_zipfile_serialization=zipped)
    return folder
