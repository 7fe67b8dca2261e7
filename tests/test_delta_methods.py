"""What each delta computes, against its formula written out; soft prompts, their slots and ids."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from conftest import small_config, vocabulary
from delta_table import SHA, SPLIT_PAIRS, backbone, forward, perturb, sequence
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from cpm_tune.backbone.model import CPMAnt
from cpm_tune.backbone.tokenizer import Tokenizer
from cpm_tune.data.encode import _placed
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
from cpm_tune.delta.slots import SoftSlots, apportion, slot_places
from cpm_tune.errors import UserError
from cpm_tune.registry import load_task
from cpm_tune.template import Template

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


# CPM-2's configs/prompt/*: name -> ratio_list of 100 tokens, and where each slot ends.
CPM_2 = {
    "lcqmc_10_0_0": ([1.0, 0.0, 0.0], [100, 100, 100]),
    "lcqmc_0_0_10": ([0.0, 0.0, 1.0], [0, 0, 100]),
    "lcqmc_5_0_5": ([0.5, 0.0, 0.5], [50, 50, 100]),
    "lcqmc_0_10_0": ([0.0, 1.0, 0.0], [0, 100, 100]),
    "lcqmc_5_5_0": ([0.5, 0.5, 0.0], [50, 100, 100]),
    "lcqmc_0_5_5": ([0.0, 0.5, 0.5], [0, 50, 100]),
    "lcqmc_33_34_33": ([0.33, 0.34, 0.33], [33, 67, 100]),
    "lcqmc_99_1_0": ([0.99, 0.01, 0.0], [99, 100, 100]),
    "c3_33_34_33_0": ([0.33, 0.34, 0.33, 0.0], [33, 67, 100, 100]),
    "29/100, which is less in floating point": ([0.29, 0.71], [29, 100]),
}


@pytest.mark.parametrize(("ratios", "ends"), CPM_2.values(), ids=CPM_2)
def test_tokens_are_divided_as_in_cpm_2(ratios: list[float], ends: list[int]) -> None:
    slots = [f"slot{k}" for k in range(len(ratios))]
    divided = apportion(100, slots, ratios)
    assert [divided[slot].stop for slot in slots] == ends
    assert apportion(100, slots, [round(100 * r) for r in ratios]) == divided


@given(st.integers(1, 300), st.lists(st.integers(0, 50), min_size=1, max_size=5))
def test_every_token_is_in_one_slot_and_every_slot_within_one_of_its_share(
    n: int, ratios: list[int]
) -> None:
    slots = [f"slot{k}" for k in range(len(ratios))]
    try:
        divided = apportion(n, slots, ratios)
    except ValueError:
        assert not sum(ratios) or any(r > 0 and n * r < 2 * sum(ratios) for r in ratios)
        return
    assert [k for slot in slots for k in divided[slot]] == list(range(n))
    for slot, ratio in zip(slots, ratios, strict=True):
        assert abs(len(divided[slot]) - n * ratio / sum(ratios)) < 1


def test_slot_ids_follow_the_backbones_own_prompts_and_options_take_from_the_front() -> None:
    config = SoftPromptConfig(soft_token_num=10, ratio_list=(5, 0, 5))
    slots = SoftSlots(config, SHAPE)
    assert slots.names == ("front", "back")
    assert slots.slot_ids("front") == tuple(range(FIRST, FIRST + 5))
    assert slots.slot_ids("middle") == ()
    assert slots.slot_ids("back") == tuple(range(FIRST + 5, FIRST + 10))
    with pytest.raises(UserError, match="Did you mean 'middle'"):
        slots.slot_ids("midle")

    # CPM-2: three tokens before each of four options, 12 fewer in front
    config = SoftPromptConfig(option_token_num=3)
    slots = SoftSlots(config, SHAPE, n_options=4)
    assert slots.options[0] == (FIRST, FIRST + 1, FIRST + 2)
    assert slots.options[3] == (FIRST + 9, FIRST + 10, FIRST + 11)
    assert slots.slot_ids("front") == tuple(range(FIRST + 12, FIRST + 33))
    with pytest.raises(UserError, match="12 options need 36 tokens, but slot 'front' has 33"):
        SoftSlots(config, SHAPE, n_options=12)


def test_slots_stand_in_front_before_the_last_field_and_where_the_answer_begins() -> None:
    found = {}
    for template in load_task("lcqmc").templates:
        pieces = [piece.value or piece.kind for piece in template.pieces]
        for slot, place in slot_places([piece.kind for piece in template.pieces]).items():
            pieces[place:place] = []
            found[template.name, slot] = pieces[place] if place < len(pieces) else "the end"
    assert found["cpm-2", "front"] == "“"
    assert found["cpm-2", "middle"] == "sentence2"
    assert found["cpm-2", "back"] == "answer"
    assert found["cpm-ant", "front"] == "sentence1"
    assert found["cpm-ant", "middle"] == "sentence2"
    assert found["cpm-ant", "back"] == "the end"
    one_field = ["text", "field", "text", "option", "text"]
    assert slot_places(one_field)["middle"] == 3
    assert slot_places(["text", "field", "answer"])["middle"] == 1


def test_slots_at_the_same_place_keep_their_order() -> None:
    places = slot_places(["field", "answer"])
    assert places == {"front": 0, "middle": 0, "back": 1}
    task, soft = load_task("wantwords"), SoftSlots(SoftPromptConfig(soft_token_num=9), SHAPE)
    template = Template("t", "{definition}{answer}")
    placed, _ = _placed(template, soft)
    assert placed == {0: tuple(range(FIRST, FIRST + 6)), 1: tuple(range(FIRST + 6, FIRST + 9))}
    assert task.answer_kind == "generate"
