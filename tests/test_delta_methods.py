"""What each delta computes, against its formula written out; soft prompts, their slots and ids."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from conftest import small_config, vocabulary
from delta_table import SHA, SPLIT_PAIRS, backbone, forward, perturb, sequence
from torch import Tensor, nn

from cpm_tune.backbone.ant.model import CPMAnt
from cpm_tune.backbone.ant.tokenizer import Tokenizer
from cpm_tune.backbone.fused import dropout
from cpm_tune.delta.config import (
    AdapterConfig,
    BitFitConfig,
    CompacterConfig,
    LoraConfig,
    LowRankAdapterConfig,
    ParallelAdapterConfig,
    PrefixConfig,
    SoftPromptConfig,
)
from cpm_tune.delta.insert import insert
from cpm_tune.delta.layers import BiasPadding
from cpm_tune.errors import UserError

X = torch.randn(2, 5, 64, generator=torch.Generator().manual_seed(2))
Z = torch.randn(2, 5, 128, generator=torch.Generator().manual_seed(3))


def layer(model: CPMAnt) -> nn.Module:
    return model.encoder.layers[1]


def gelu_new(x: Tensor) -> Tensor:
    return F.gelu(x, approximate="tanh")


def close(a: Tensor, b: Tensor) -> bool:
    return torch.allclose(a, b, atol=1e-5)


def test_lora_adds_scaled_b_a_x() -> None:
    model = backbone()
    perturb(insert(model, LoraConfig(lora_r=4, lora_alpha=12), SHA, seed=1), 1.0)
    module = layer(model).self_att.self_attention.project_q
    a, b = module.lora.lora_A, module.lora.lora_B
    assert close(module(X), X @ module.weight.T + 12 / 4 * (X @ a.T) @ b.T)


def test_lora_drops_inputs_of_its_own_branch_in_training_alone() -> None:
    model = backbone()
    config = LoraConfig(lora_r=4, lora_alpha=12, lora_dropout=0.3)
    perturb(insert(model, config, SHA, seed=1), 1.0)
    module = layer(model).self_att.self_attention.project_q
    a, b = module.lora.lora_A, module.lora.lora_B
    x = X.clone().requires_grad_()
    assert close(module(x), x @ module.weight.T + 3 * (x @ a.T) @ b.T)
    model.train()
    torch.manual_seed(0)
    kept = dropout(torch.ones_like(X), 0.3)
    torch.manual_seed(0)
    said, expected = module(x), x @ module.weight.T + 3 * ((x * kept) @ a.T) @ b.T
    assert close(said, expected)
    into = (x, a, b)
    ours = torch.autograd.grad(said.square().sum(), into)
    theirs = torch.autograd.grad(expected.square().sum(), into)
    for one, other in zip(ours, theirs, strict=True):
        assert torch.allclose(one, other, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("p", [0.1, 0.5, 0.9])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_dropout_keeps_the_mean_and_drops_each_place_alike(p: float, dtype: torch.dtype) -> None:
    torch.manual_seed(1)
    n = 400_002  # not a multiple of four
    dropped = dropout(torch.ones(n, dtype=dtype), p)
    assert set(dropped.unique().tolist()) == {0.0, float(torch.tensor(1 / (1 - p), dtype=dtype))}
    share = (dropped == 0).float()
    error = 5 * math.sqrt(p * (1 - p) / (n // 4))
    for places in (share[0::4], share[1::4], share[2::4], share[3::4]):
        assert abs(float(places.mean()) - p) < error
    for lag in (1, 2, 3, 4):  # neighbours are independent
        both = float((share[:-lag] * share[lag:]).mean())
        assert abs(both - p * p) < error


def test_an_adapter_adds_its_bottleneck_to_the_branch_before_the_residual_sum() -> None:
    plain, model = backbone(), backbone()
    perturb(insert(model, AdapterConfig(bottleneck_dim=4), SHA, seed=1))
    block = layer(model).ffn
    h = layer(plain).ffn.ffn(block.layernorm_before_ffn(X))
    down, up = block.ffn.adapter.modulelist.down_proj, block.ffn.adapter.modulelist.up_proj
    assert down.weight.shape == (4, 64)
    assert close(block(X), X + h + up(gelu_new(down(h))))


def test_a_low_rank_adapter_multiplies_the_factors() -> None:
    plain, model = backbone(), backbone()
    config = LowRankAdapterConfig(reduction_factor=4, low_rank_rank=3, non_linearity="relu")
    perturb(insert(model, config, SHA, seed=1))
    module = layer(model).ffn.ffn
    own, h = module.low_rank_adapter, layer(plain).ffn.ffn(X)
    down, up = (s.W_left @ s.W_right for s in (own.down_sampler, own.up_sampler))
    assert down.shape == (64, 16)
    middle = torch.relu(h @ down + own.down_sampler.b)
    assert close(module(X), h + middle @ up + own.up_sampler.b)


def test_at_rank_one_our_low_rank_product_is_opendeltas() -> None:
    model = backbone()
    insert(model, LowRankAdapterConfig(), SHA, seed=1)
    ours = layer(model).ffn.ffn.low_rank_adapter.down_sampler
    theirs = super(type(ours), ours).forward
    assert close(ours(X), theirs(X))


@pytest.mark.parametrize("rule", [False, True])
def test_a_compacter_weight_is_a_sum_of_kronecker_products(rule: bool) -> None:
    plain, model = backbone(), backbone()
    config = CompacterConfig(reduction_factor=4, phm_rank=2, factorized_phm_rule=rule)
    perturb(insert(model, config, SHA, seed=1))
    module = layer(model).self_att.self_attention
    bias = torch.zeros(2, 2, 5, 5)
    h, own = layer(plain).self_att.self_attention(X, bias), module.compactor

    def weight(part: nn.Module) -> Tensor:
        a = part.phm_rule_left @ part.phm_rule_right if rule else part.phm_rule
        return sum(torch.kron(a[i], part.W_left[i] @ part.W_right[i]) for i in range(4))

    middle = gelu_new(h @ weight(own.down_sampler) + own.down_sampler.b)
    expected = h + middle @ weight(own.up_sampler) + own.up_sampler.b
    assert middle.shape[-1] == 16
    assert close(module(X, bias), expected)


@pytest.mark.parametrize("pair", [("ffn.ffn", "ffn.ffn"), SPLIT_PAIRS[2:], ("ffn.ffn", "w_out")])
def test_a_parallel_adapter_goes_from_one_modules_input_to_another_ones_output(
    pair: tuple[str, ...],
) -> None:
    plain, model = backbone(), backbone()
    config = ParallelAdapterConfig(modified_modules=pair, bottleneck_dim=4, scaled=3)
    delta = insert(model, config, SHA, seed=1)
    perturb(delta)
    names = [n.split("layers.1.ffn.", 1)[1] for n in delta.parameters if "layers.1." in n]
    assert len(names) == 4  # two weights, two biases, each once
    own = layer(model).ffn.get_submodule(names[0].rsplit(".", 3)[0]).modulelist
    down, up = own.down_proj, own.up_proj
    expected = layer(plain).ffn.ffn(X) + 3 * up(gelu_new(down(X)))
    assert close(layer(model).ffn.ffn(X), expected)


def test_every_parallel_adapter_stays_within_its_own_layer() -> None:
    """OpenDelta goes by the order in which it meets modules; ours must hold for any names."""
    config = ParallelAdapterConfig(modified_modules=(*SPLIT_PAIRS, "project_q", "attention_out"))
    bias = torch.zeros(2, 2, 5, 5)
    for number in (0, 1):
        plain, model = backbone(), backbone()
        delta = insert(model, config, SHA, seed=1)
        assert len(delta.parameters) == 2 * 3 * 4
        with torch.no_grad():
            for name, parameter in delta.parameters.items():
                if f"layers.{number}." in name:
                    parameter.add_(0.1)
        for other in (0, 1):
            mine, theirs = model.encoder.layers[other], plain.encoder.layers[other]
            for part, x in (("self_att", (X, bias)), ("ffn", (X,))):
                same = close(mine.get_submodule(part)(*x), theirs.get_submodule(part)(*x))
                assert same == (other != number)


def test_bitfit_adds_vectors_to_projections_and_norms() -> None:
    model = backbone()
    delta = insert(model, BitFitConfig(), SHA, seed=1)
    assert delta.n_trainable == 2 * (4 * 64 + 64 + 2 * 128 + 64) + 64
    perturb(delta)
    block = layer(model).ffn
    b = {n.removesuffix(".bitfit.bias"): p for n, p in block.named_parameters() if "bitfit" in n}
    normed = F.rms_norm(X, (64,), eps=1e-6) + b["layernorm_before_ffn"]
    w = block.ffn.w_in
    inner = F.gelu(F.linear(normed, w.w_0.weight, b["ffn.w_in.w_0"])) * F.linear(
        normed, w.w_1.weight, b["ffn.w_in.w_1"]
    )
    assert close(block(X), X + F.linear(inner, block.ffn.w_out.weight, b["ffn.w_out"]))


def test_a_bias_on_keys_would_change_nothing_which_is_why_bitfit_leaves_it_out() -> None:
    model, config = backbone(), BitFitConfig(modified_modules=("project_k",))
    plain = forward(model, config)
    perturb(insert(model, config, SHA, seed=1), 1.0)
    assert close(forward(model, config), plain)


def attention_by_hand(module: nn.Module, bias: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Softmax attention over prefix and sequence, one head and one query after the other."""
    q, k, v = (p(X) for p in (module.project_q, module.project_k, module.project_v))
    out = torch.empty_like(q)
    for row in range(2):
        for head in range(2):
            part = slice(32 * head, 32 * head + 32)
            keys, values = (
                torch.cat([mine[:, part], own[row, :, part]])
                for mine, own in ((key, k), (value, v))
            )
            for i in range(5):
                scores = keys @ q[row, i, part] / math.sqrt(32)
                scores[len(key) :] += bias[row, head, i]
                out[row, i, part] = scores.softmax(0) @ values
    return module.attention_out(out)


@pytest.mark.parametrize("reparameterize", [False, True])
@torch.no_grad()
def test_a_prefix_is_seen_by_every_query_without_position_bias(reparameterize: bool) -> None:
    model = backbone()
    config = PrefixConfig(prefix_token_num=3, reparameterize=reparameterize)
    perturb(insert(model, config, SHA, seed=1))
    module = layer(model).self_att.self_attention
    if reparameterize:
        hidden = torch.tanh(model.reparams.control_trans(model.reparams.wte.weight))
        key, value = module.prefix.output(hidden).split(64, dim=1)
    else:
        key, value = module.prefix.past_key, module.prefix.past_value
    assert key.shape == (3, 64)
    bias = torch.randn(2, 2, 5, 5, generator=torch.Generator().manual_seed(4)) * 3
    bias[:, :, :4, 4] = float("-inf")  # a masked key, as between spans
    assert close(module(X, bias), attention_by_hand(module, bias, key, value))


def test_all_layers_share_one_padded_bias_and_a_new_bias_is_padded_anew() -> None:
    pad, first, second = BiasPadding(), torch.randn(1, 2, 3, 3), torch.randn(1, 2, 1, 4)
    assert pad(first, 2) is pad(first, 2)
    assert torch.equal(pad(first, 2), torch.cat([torch.zeros(1, 2, 3, 2), first], 3))
    assert torch.equal(pad(second, 2)[..., 2:], second)


SHAPE = small_config()
FIRST = SHAPE.vocab_size + SHAPE.prompt_types * SHAPE.prompt_length
SOFT = SoftPromptConfig(soft_token_num=6)


@torch.no_grad()
def test_soft_tokens_are_rows_of_the_delta_and_all_other_ids_stay_what_they_are() -> None:
    plain, model = backbone(), backbone()
    delta = insert(model, SOFT, SHA, seed=1)
    perturb(delta)
    (table,) = delta.parameters.values()
    ids = torch.tensor([[5, FIRST, FIRST - 1, FIRST + 5, SHAPE.vocab_size]])
    segment = torch.tensor([[2, 2, 0, 2, 0]])
    embedded, soft = model.embed(ids, segment), [1, 3]
    rest = [0, 2, 4]
    assert torch.equal(embedded[:, rest], plain.embed(ids[:, rest], segment[:, rest]))
    expected = table[[0, 5]] / 8 + model.segment_embedding.weight[2]  # sqrt(64)
    assert close(embedded[0, soft], expected)
    with pytest.raises(IndexError):
        model.embed(torch.tensor([[FIRST + 6]]), segment[:, :1])


def test_a_soft_prompt_that_is_in_no_sequence_cannot_be_trained_silently() -> None:
    model = backbone()
    insert(model, SOFT, SHA, seed=1)
    without = sequence(model, LoraConfig(), 20, 5)
    model(**without)  # decoding step by step, most steps hold no soft token
    with pytest.raises(UserError, match="the soft prompt is in no sequence"):
        model.train()(**without)


@torch.no_grad()
def test_the_four_initialisations_of_a_soft_prompt() -> None:
    tokenizer = Tokenizer(vocabulary())

    def rows(**changes: object) -> tuple[Tensor, CPMAnt]:
        model = backbone()
        config = SoftPromptConfig(soft_token_num=6, **changes)  # type: ignore[arg-type]
        (table,) = insert(model, config, SHA, 1, tokenizer).parameters.values()
        return table / 8, model

    found, model = rows(token_init="text", init_text="猫和狗")
    ids = tokenizer.encode("猫和狗")
    assert len(ids) == 3
    assert torch.equal(found, model.input_embedding.weight[ids * 2])
    found, model = rows(token_init="prompt", init_prompt_type=1)  # of length 4
    assert torch.equal(found, model.prompt_embedding.weight[[4, 5, 6, 7, 4, 5]])
    found, model = rows(token_init="vocabulary")
    token = (found[:, None] == model.input_embedding.weight).all(2).nonzero()
    assert len(token) == len(set(token[:, 1].tolist())) == 6
    found, model = rows(token_init="random", init_range=0.25)
    assert 0.1 / 8 < found.abs().max() <= 0.25 / 8


def test_a_text_outside_the_vocabulary_cannot_begin_a_soft_prompt() -> None:
    config = SoftPromptConfig(token_init="text", init_text="🙂")
    with pytest.raises(UserError, match="cannot be written in this vocabulary"):
        insert(backbone(), config, SHA, 1, Tokenizer(vocabulary()))


def test_a_soft_prompt_from_a_text_loads_without_a_tokenizer(tmp_path: Path) -> None:
    from cpm_tune.delta.insert import load_delta

    config = SoftPromptConfig(token_init="text", init_text="猫")
    saved = insert(backbone(), config, SHA, 1, Tokenizer(vocabulary()))
    saved.save(tmp_path)
    loaded = load_delta(tmp_path, backbone(), SHA)
    assert torch.equal(*(next(iter(d.state().values())) for d in (saved, loaded)))
