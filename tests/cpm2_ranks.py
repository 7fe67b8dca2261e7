"""An independent CPM-2 of N model-parallel ranks for the tests, written from its definition.

Every rank has its own heads, its own part of the feed-forward layer and its own rows of the
vocabulary; what a layer divided by its inputs computes is summed over the ranks.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path

import torch
from cpm1_oracle import beside
from torch import Tensor

WIDTH, HEADS, D_KV, FF, ENCODER, DECODER, BUCKETS, DISTANCE = 20, 4, 6, 32, 3, 2, 32, 128
VOCAB = 48
Rank = dict[str, Tensor]


def random_ranks(
    n: int, dtype: torch.dtype = torch.float32, seed: int = 0, *, vocab: int = VOCAB
) -> list[Rank]:
    """The states of `n` ranks; what all of them have is equal."""
    noise = torch.Generator().manual_seed(seed)

    def draw(*size: int, scale: float = 0.2, around: float = 0.0) -> Tensor:
        return (torch.randn(size, generator=noise) * scale + around).to(dtype)

    ranks: list[Rank] = [OrderedDict() for _ in range(n)]

    def own(name: str, *size: int, scale: float = 0.2) -> None:
        for state in ranks:
            state[name] = draw(*size, scale=scale)

    def norm(name: str) -> None:
        value = draw(WIDTH, around=1.0)
        for state in ranks:
            state[name] = value.clone()

    inner = HEADS * D_KV // n
    own("word_embeds.weight", vocab // n, WIDTH, scale=1.0)
    own("lm_head.weight", vocab // n, WIDTH)
    for stack, layers in (("encoder", ENCODER), ("decoder", DECODER)):
        for state in ranks:  # the same parameter under another name
            state[f"{stack}.word_embeds.weight"] = state["word_embeds.weight"]
        norm(f"{stack}.final_layernorm.weight")
        for layer in range(layers):
            at = f"{stack}.blocks.{layer}"
            own(f"{at}.self_attn.self_attn.project.weight", 3 * inner, WIDTH)
            if layer == 0:
                name = f"{at}.self_attn.self_attn.relative_attention_bias.weight"
                own(name, BUCKETS, HEADS // n)
            own(f"{at}.self_attn.self_attn.dense.weight", WIDTH, inner)
            norm(f"{at}.self_attn.layer_norm.weight")
            if stack == "decoder":
                own(f"{at}.cross_attn.cross_attn.project_q.weight", inner, WIDTH)
                own(f"{at}.cross_attn.cross_attn.project_kv.weight", 2 * inner, WIDTH)
                own(f"{at}.cross_attn.cross_attn.dense.weight", WIDTH, inner)
                norm(f"{at}.cross_attn.layer_norm.weight")
            own(f"{at}.ff.dense_relu_dense.wi_0.weight", FF // n, WIDTH)
            own(f"{at}.ff.dense_relu_dense.wi_1.weight", FF // n, WIDTH)
            own(f"{at}.ff.dense_relu_dense.wo.weight", WIDTH, FF // n)
            norm(f"{at}.ff.layer_norm.weight")
    return ranks


def norm(x: Tensor, weight: Tensor) -> Tensor:
    return x / (x.pow(2).mean(-1, keepdim=True) + 1e-6).sqrt() * weight


def gelu(x: Tensor) -> Tensor:
    return 0.5 * x * (1 + torch.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))


def bucket(distance: int, both: bool) -> int:
    """T5's bucket of key position - query position."""
    buckets, result = BUCKETS, 0
    if both:
        buckets //= 2
        result = buckets if distance > 0 else 0
        distance = abs(distance)
    else:
        distance = max(-distance, 0)
    exact = buckets // 2
    if distance < exact:
        return result + distance
    far = exact + int(math.log(distance / exact) / math.log(DISTANCE / exact) * (buckets - exact))
    return result + min(far, buckets - 1)


def bias(table: Tensor, n_query: int, n_key: int, both: bool) -> Tensor:
    """A rank's (heads, queries, keys)."""
    rows = [[bucket(key - query, both) for key in range(n_key)] for query in range(n_query)]
    return table[torch.tensor(rows)].permute(2, 0, 1)


def attend(query: Tensor, key: Tensor, value: Tensor, bias: Tensor | None, seen: Tensor) -> Tensor:
    """A rank's heads over (length, heads * D_KV), without any scaling."""
    out = []
    for head in range(query.shape[1] // D_KV):
        part = slice(head * D_KV, (head + 1) * D_KV)
        scores = query[:, part] @ key[:, part].t()
        if bias is not None:
            scores = scores + bias[head]
        out.append(scores.masked_fill(~seen, -math.inf).softmax(-1) @ value[:, part])
    return torch.cat(out, 1)


def logits(
    ranks: list[Rank],
    encoder: list[int],
    decoder: list[int],
    prompt: Tensor | None = None,
    hidden: Tensor | None = None,
) -> Tensor:
    """(decoder's length, VOCAB) in fp64, each rank's columns after the last one's.

    prompt: (rows, WIDTH), a tuned prompt, of which the encoder's ids -1, -2, ... are the rows.
    hidden: (encoder's length, encoder's length) pairs of query and key that are not seen.
    """
    ranks = [{name: value.double() for name, value in state.items()} for state in ranks]
    first, n = ranks[0], len(ranks)
    rows = len(first["word_embeds.weight"])

    def embed(ids: list[int], prompt: Tensor | None = None) -> Tensor:
        return torch.stack(
            [
                ranks[i // rows]["word_embeds.weight"][i % rows] if i >= 0 else prompt[-i - 1]
                for i in ids
            ]
        )

    def summed(part: Callable[[Rank], Tensor]) -> Tensor:
        return torch.stack([part(state) for state in ranks]).sum(0)

    def stack(name: str, x: Tensor, layers: int, memory: Tensor | None) -> Tensor:
        both, length = memory is None, len(x)
        seen = torch.ones(length, length, dtype=torch.bool)
        seen = seen if both else seen.tril()
        if both and hidden is not None:
            seen = seen & ~hidden

        def self_attention(state: Rank, h: Tensor, at: str) -> Tensor:
            query, key, value = (h @ state[f"{at}.project.weight"].t()).chunk(3, 1)
            table = f"{name}.blocks.0.self_attn.self_attn.relative_attention_bias.weight"
            out = attend(query, key, value, bias(state[table], length, length, both), seen)
            return out @ state[f"{at}.dense.weight"].t()

        def cross(state: Rank, h: Tensor, memory: Tensor, at: str) -> Tensor:
            key, value = (memory @ state[f"{at}.project_kv.weight"].t()).chunk(2, 1)
            query = h @ state[f"{at}.project_q.weight"].t()
            every = torch.ones(length, len(memory), dtype=torch.bool)
            return attend(query, key, value, None, every) @ state[f"{at}.dense.weight"].t()

        def feed_forward(state: Rank, h: Tensor, at: str) -> Tensor:
            gate = gelu(h @ state[f"{at}.wi_0.weight"].t())
            return (gate * (h @ state[f"{at}.wi_1.weight"].t())) @ state[f"{at}.wo.weight"].t()

        for layer in range(layers):
            at = f"{name}.blocks.{layer}"
            h = norm(x, first[f"{at}.self_attn.layer_norm.weight"])
            x = x + summed(lambda s, h=h, at=at: self_attention(s, h, f"{at}.self_attn.self_attn"))
            if memory is not None:
                h = norm(x, first[f"{at}.cross_attn.layer_norm.weight"])
                there = f"{at}.cross_attn.cross_attn"
                x = x + summed(lambda s, h=h, there=there: cross(s, h, memory, there))
            h = norm(x, first[f"{at}.ff.layer_norm.weight"])
            x = x + summed(lambda s, h=h, at=at: feed_forward(s, h, f"{at}.ff.dense_relu_dense"))
        return norm(x, first[f"{name}.final_layernorm.weight"])

    assert n * rows > max(encoder + decoder)
    memory = stack("encoder", embed(encoder, prompt), ENCODER, None)
    out = stack("decoder", embed(decoder), DECODER, memory)
    return torch.cat([out @ state["lm_head.weight"].t() for state in ranks], 1)


def gradients(
    ranks: list[Rank], encoder: list[int], decoder: list[int], labels: list[int]
) -> list[Rank]:
    """Those of the summed cross-entropy, in the form of ranks: of what all have, the whole one."""
    leaves = [
        {name: value.double().requires_grad_() for name, value in state.items()} for state in ranks
    ]
    for state in leaves:  # one parameter
        for stack in ("encoder", "decoder"):
            state[f"{stack}.word_embeds.weight"] = state["word_embeds.weight"]
    found = logits(leaves, encoder, decoder)
    torch.nn.functional.cross_entropy(found, torch.tensor(labels), reduction="sum").backward()
    first = leaves[0]

    def grad(leaf: Tensor) -> Tensor:  # none for rows of a vocabulary that nothing looked up
        return torch.zeros_like(leaf) if leaf.grad is None else leaf.grad

    return [
        OrderedDict((name, grad((first if "norm" in name else state)[name])) for name in state)
        for state in leaves
    ]


def write_ranks(folder: Path, ranks: list[Rank], *, zipped: bool = True) -> Path:
    """Write a checkpoint in the form of the published one."""
    place = folder / "100000"
    place.mkdir(parents=True)
    (folder / "latest_checkpointed_iteration.txt").write_text("100000")
    for number, state in enumerate(ranks):
        file = place / f"mp_rank_{number:02d}_model_states.pt"
        torch.save(beside(state), file, _use_new_zipfile_serialization=zipped)
    return folder
