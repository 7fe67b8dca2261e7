"""The backbone's random weights, published sizes and configuration."""

from __future__ import annotations

import math

import pytest
import torch
from backbone_oracle import CONFIG, DIM, REFERENCE_SHAPE, random_hugging_face

from cpm_tune.backbone.ant.config import PRESETS, CPMAntConfig
from cpm_tune.backbone.ant.model import CPMAnt
from cpm_tune.backbone.opening import random_backbone


def test_the_same_seed_draws_the_same_weights_and_another_seed_others():
    first, same, other = (
        random_backbone(CONFIG, seed, torch.float32).state_dict() for seed in (1, 1, 2)
    )
    for name, weight in first.items():
        assert torch.equal(weight, same[name]), name
        assert torch.equal(weight, other[name]) == (weight.dim() == 1), name  # norms start at one


def test_the_drawing_of_weights_leaves_the_global_generator_alone():
    before = torch.random.get_rng_state()
    random_backbone(CONFIG, 3, torch.float32)
    assert torch.equal(before, torch.random.get_rng_state())


def test_random_weights_have_the_documented_spread():
    config = CPMAntConfig(
        vocab_size=500, dim_model=64, dim_ff=160, num_layers=2, num_heads=4, dim_head=32,
        position_bias_num_buckets=512, prompt_types=16, prompt_length=16, segment_types=32,
    )  # fmt: skip
    into_residual = ("attention_out.weight", "w_out.weight")
    for name, weight in random_backbone(config, 4, torch.float32).named_parameters():
        if weight.dim() == 1:
            assert torch.equal(weight, torch.ones_like(weight)), name
            continue
        expected = 0.02 if name.startswith("position_bias") else weight.shape[1] ** -0.5
        expected /= math.sqrt(2 * 2) if name.endswith(into_residual) else 1
        assert weight.std().item() == pytest.approx(expected, rel=0.06), name
        assert weight.mean().abs().item() < 5 * expected / math.sqrt(weight.numel()), name


def parameters(config):
    with torch.device("meta"):
        model = CPMAnt(config)
    return sum(weight.numel() for weight in model.parameters())


@pytest.mark.parametrize("name", sorted(PRESETS))
def test_a_preset_has_the_size_of_its_name(name):
    figure, unit = name.rpartition("-")[2][:-1], name[-1]
    said = int(figure) * {"b": 10**9, "m": 10**6}[unit]
    assert parameters(PRESETS[name]) == pytest.approx(said, rel=0.15)


def test_the_ten_billion_preset_has_exactly_the_published_shape():
    attention, ffn, norms = 4 * 4096 * 4096, 3 * 4096 * 10240, 2 * 4096
    embeddings = (30720 + 32 * 32 + 32) * 4096
    bias = (512 + 32 * 32) * 32
    total = 48 * (attention + ffn + norms) + embeddings + bias + 4096
    assert parameters(PRESETS["cpm-ant-10b"]) == total == 9_391_624_192


@pytest.mark.parametrize(
    ("name", "dim", "attention", "ffn"),
    [
        ("cpm-ant-10b", 4096, 48, 48),
        ("cpm-ant-7b", 4096, 37, 32),
        ("cpm-ant-3b", 2560, 37, 32),
        ("cpm-ant-1b", 2048, 25, 21),
        ("cpm-ant-300m", 512, 25, 21),
    ],
)
def test_a_preset_keeps_the_published_number_of_sub_blocks(name, dim, attention, ffn):
    with torch.device("meta"):
        model = CPMAnt(PRESETS[name])
    names = [n for n, _ in model.named_parameters()]
    assert sum(n.endswith("project_q.weight") for n in names) == attention
    assert sum(n.endswith("w_out.weight") for n in names) == ffn
    assert model.input_embedding.weight.shape == (30720, dim)


def test_a_config_survives_its_own_json_and_reads_both_spellings():
    masks = ((True, False), (False, False), (False, True))
    config = CPMAntConfig(**REFERENCE_SHAPE, mask_modules=masks)
    assert CPMAntConfig.from_dict(config.to_dict()) == config
    theirs = random_hugging_face().config.to_dict()
    assert CPMAntConfig.from_dict(theirs) == CONFIG
    assert CPMAntConfig.from_dict(theirs).dim_model == DIM
