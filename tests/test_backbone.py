"""The backbone against Hugging Face's CpmAnt, an independent implementation, in fp32."""

from __future__ import annotations

import copy
import json
import math

import pytest
import torch
import torch.nn.functional as F
from backbone_oracle import (
    LAYERS,
    PROMPT,
    REFERENCE_SHAPE,
    VOCAB,
    oracle_gradients,
    oracle_hidden,
    oracle_logits,
    random_hugging_face,
    random_rows,
    unscaled_state,
    write_hugging_face,
    write_reference,
)
from safetensors.torch import load_file, save_file

from cpm_tune.backbone.ant.checkpoint import load_weights
from cpm_tune.backbone.ant.config import CPMAntConfig
from cpm_tune.backbone.ant.folder import open_folder
from cpm_tune.backbone.ant.position import PositionBias

TOLERANCE = 1e-5


def differs(ours, theirs):
    """Largest absolute difference; infinite where either is not a number."""
    return (ours - theirs).abs().nan_to_num(nan=math.inf).max().item()


@pytest.fixture(scope="module")
def oracle():
    return random_hugging_face()


@pytest.fixture(scope="module")
def backbone(oracle, tmp_path_factory):
    folder = write_hugging_face(tmp_path_factory.mktemp("hf"), oracle)
    return load_weights(open_folder(folder), torch.float32).eval()


# --- against Hugging Face's own forward: all context, prompt type 2, segment 2 ---


def whole_rows(text):
    """Return our row for what HF's forward does with `text`: id 0 is padding, on the left."""
    prompt = torch.arange(VOCAB + 2 * PROMPT, VOCAB + 3 * PROMPT).repeat(len(text), 1)
    real = torch.cat((torch.ones_like(prompt), text), dim=1) != 0
    segment = torch.cat((torch.zeros_like(prompt), (text != 0) * 2), dim=1)
    return torch.cat((prompt, text), dim=1), segment, real


def test_the_whole_forward_equals_hugging_faces(oracle, backbone):
    text = torch.randint(1, VOCAB, (3, 26), generator=torch.Generator().manual_seed(1))
    ids, segment, _ = whole_rows(text)
    with torch.no_grad():
        theirs = oracle(input_ids=text, use_cache=False).logits[..., :VOCAB]
        ours = backbone.logits(backbone(ids, segment))[:, PROMPT:]
    assert differs(ours, theirs) < TOLERANCE


def test_a_left_padded_forward_equals_hugging_faces(oracle, backbone):
    text = torch.randint(1, VOCAB, (3, 17), generator=torch.Generator().manual_seed(2))
    for row, padding in enumerate((0, 3, 11)):
        text[row, :padding] = 0
    ids, segment, real = whole_rows(text)
    span = torch.where(real, 0, -1)
    with torch.no_grad():
        theirs = oracle(input_ids=text, use_cache=False).logits[..., :VOCAB]
        ours = backbone.logits(backbone(ids, segment, span=span))[:, PROMPT:]
    assert differs(ours[text != 0], theirs[text != 0]) < TOLERANCE


# --- against its sub-modules: any mask ---


@pytest.mark.parametrize("seed", range(4))
def test_any_context_any_segments_any_prompt_equal_the_oracle(oracle, backbone, seed):
    ids, segment, context = random_rows(seed, batch=2, length=30)
    with torch.no_grad():
        theirs = oracle_hidden(oracle, ids, segment, context)
        ours = backbone(ids, segment, context)
        assert differs(ours, theirs) < TOLERANCE
        assert differs(backbone.logits(ours), oracle_logits(oracle, theirs)) < TOLERANCE


def test_causal_only_equals_the_oracle_and_never_looks_ahead(oracle, backbone):
    ids, segment, _ = random_rows(5, batch=2, length=30)
    causal = torch.zeros_like(ids, dtype=torch.bool)
    changed = ids.clone()
    changed[:, 20] = (changed[:, 20] + 1) % VOCAB
    with torch.no_grad():
        ours = backbone(ids, segment, causal)
        after = backbone(changed, segment, causal)
        assert differs(ours, oracle_hidden(oracle, ids, segment, causal)) < TOLERANCE
    assert differs(ours[:, :20], after[:, :20]) < 1e-6
    assert (ours[:, 20:] - after[:, 20:]).abs().amax(-1).min() > 1e-4  # and all after it does


def test_context_is_all_of_a_row_unless_said_otherwise(oracle, backbone):
    ids, segment, _ = random_rows(6, batch=2, length=12)
    with torch.no_grad():
        assert differs(backbone(ids, segment), oracle_hidden(oracle, ids, segment)) < TOLERANCE


def test_right_padding_by_length_equals_the_oracle(oracle, backbone):
    ids, segment, context = random_rows(7, batch=4, length=21)
    length = torch.tensor([21, 13, 4, 1])
    real = torch.arange(21)[None, :] < length[:, None]
    with torch.no_grad():
        theirs = oracle_hidden(oracle, ids, segment, context, real=real)
        ours = backbone(ids, segment, context, length=length)
    assert differs(ours[real], theirs[real]) < TOLERANCE


def test_a_padded_row_equals_the_row_without_padding(backbone):
    ids, segment, context = random_rows(8, batch=3, length=19)
    with torch.no_grad():
        padded = backbone(ids, segment, context, length=torch.tensor([19, 8, 1]))
        for row, n in enumerate((19, 8, 1)):
            one = slice(row, row + 1)
            alone = backbone(ids[one, :n], segment[one, :n], context[one, :n])
            assert differs(padded[one, :n], alone) < TOLERANCE


def test_a_packed_row_equals_its_examples_alone_and_the_oracle(oracle, backbone):
    ids, segment, context = random_rows(9, batch=2, length=40)
    cuts = ((11, 3, 17, 9), (1, 24, 6, 9))  # the last piece of each row is padding
    span = torch.stack(
        [torch.repeat_interleave(torch.tensor([0, 1, 2, -1]), torch.tensor(c)) for c in cuts]
    )
    with torch.no_grad():
        packed = backbone(ids, segment, context, span)
        theirs = oracle_hidden(oracle, ids, segment, context, span, real=span >= 0)
        assert differs(packed[span >= 0], theirs[span >= 0]) < TOLERANCE
        for row, sizes in enumerate(cuts):
            start = 0
            for size in sizes[:-1]:
                piece = (slice(row, row + 1), slice(start, start + size))
                alone = backbone(ids[piece], segment[piece], context[piece])
                assert differs(packed[piece], alone) < TOLERANCE
                start += size


def test_a_packed_row_may_have_a_length_too(oracle, backbone):
    ids, segment, context = random_rows(10, batch=2, length=16)
    span = (torch.arange(16) // 5).repeat(2, 1)
    length = torch.tensor([16, 7])
    real = torch.arange(16)[None, :] < length[:, None]
    with torch.no_grad():
        theirs = oracle_hidden(oracle, ids, segment, context, span, real)
        ours = backbone(ids, segment, context, span, length)
    assert differs(ours[real], theirs[real]) < TOLERANCE


def test_what_padding_holds_changes_no_other_position(backbone):
    ids, segment, _ = random_rows(11, batch=3, length=14)
    other_ids, other_segment, other_context = random_rows(12, batch=3, length=14)
    length = torch.tensor([14, 9, 0])
    real = torch.arange(14)[None, :] < length[:, None]
    context = real & (torch.arange(14) < 4)
    with torch.no_grad():
        first = backbone(ids, segment, context, length=length)
        second = backbone(
            torch.where(real, ids, other_ids),
            torch.where(real, segment, other_segment),
            torch.where(real, context, other_context),
            length=length,
        )
    assert differs(first[real], second[real]) < 1e-6
    assert differs(first[~real], second[~real]) > 1e-3  # it was not the same input twice


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_padding_gives_no_nan_forward_or_backward(backbone, dtype):
    model = copy.deepcopy(backbone).to(dtype)
    ids, segment, context = random_rows(13, batch=4, length=14)
    hidden = model(ids, segment, context, length=torch.tensor([14, 6, 1, 0]))
    assert hidden.isfinite().all()
    model.logits(hidden).float().logsumexp(-1).sum().backward()
    assert all(weight.grad.isfinite().all() for weight in model.parameters())


def test_every_gradient_equals_the_oracles(oracle, backbone):
    ids, segment, context = random_rows(14, batch=3, length=32)
    span = (torch.arange(32) // 13).repeat(3, 1)
    length = torch.tensor([32, 30, 9])
    real = torch.arange(32)[None, :] < length[:, None]
    targets = torch.randint(VOCAB, (3, 32), generator=torch.Generator().manual_seed(15))
    losses = []
    for model in (oracle, backbone):
        model.zero_grad(set_to_none=True)
        if model is oracle:
            logits = oracle_logits(oracle, oracle_hidden(oracle, ids, segment, context, span, real))
        else:
            logits = backbone.logits(backbone(ids, segment, context, span, length))
        losses.append(F.cross_entropy(logits[real], targets[real], reduction="sum"))
        losses[-1].backward()
    assert losses[0].item() == pytest.approx(losses[1].item(), rel=1e-6)
    theirs = oracle_gradients(oracle)
    ours = {name: weight.grad for name, weight in backbone.named_parameters()}
    assert ours.keys() == theirs.keys()
    for name, gradient in ours.items():
        scale = theirs[name].abs().max().item()
        assert scale > 1e-3, f"{name} has no gradient to compare"
        assert differs(gradient, theirs[name]) < TOLERANCE * max(scale, 1), name


MASKED = (
    ((True, False), (False, False), (False, True)),
    ((False, True), (True, True), (True, False)),
    ((True, True),) * LAYERS,
)


@pytest.mark.parametrize("masked", MASKED)
def test_a_compressed_model_equals_the_oracle_with_those_sub_blocks_skipped(
    oracle, masked, tmp_path
):
    state = load_file(write_hugging_face(tmp_path, oracle) / "model.safetensors")
    gone = [
        f"cpmant.encoder.layers.{layer}.{block}."
        for layer, pair in enumerate(masked)
        for block, is_masked in zip(("self_att", "ffn"), pair, strict=True)
        if is_masked
    ]
    kept = {k: v for k, v in state.items() if not k.startswith(tuple(gone))}
    assert len(kept) < len(state)
    save_file(kept, tmp_path / "model.safetensors", metadata={"format": "pt"})
    config = open_folder(tmp_path).config.to_dict()
    config = {**config, "model_type": "cpmant", "mask_modules": [list(p) for p in masked]}
    (tmp_path / "config.json").write_text(json.dumps(config), encoding="utf-8")
    model = load_weights(open_folder(tmp_path), torch.float32).eval()

    ids, segment, context = random_rows(16, batch=2, length=15)
    with torch.no_grad():
        theirs = oracle_hidden(oracle, ids, segment, context, masked=masked)
        assert differs(model(ids, segment, context), theirs) < TOLERANCE


@pytest.mark.parametrize(("buckets", "furthest"), [(16, 20), (32, 128), (50, 333), (512, 2048)])
def test_the_bucket_of_every_distance_equals_hugging_faces(oracle, buckets, furthest):
    length = furthest + 60
    config = CPMAntConfig(
        **{
            **REFERENCE_SHAPE,
            "position_bias_num_buckets": buckets,
            "position_bias_max_distance": furthest,
            "num_heads": 1,
        }
    )
    bias = PositionBias(config)
    with torch.no_grad():
        table = bias.relative_attention_bias
        table.copy_(torch.arange(len(table))[:, None])  # each row holds its own number
        ours = bias(torch.full((1, length), 3))[0, 0]
    index = torch.arange(length, dtype=torch.int32)
    theirs = oracle.cpmant.position_bias._position_bucket(
        index[None, :] - index[:, None], num_buckets=buckets, max_distance=furthest
    )
    assert torch.equal(ours, theirs.float())
    assert ours.max() == buckets - 1  # the far end is reached, on both sides
    assert ours[-1, 0] == buckets // 2 - 1


def test_bfloat16_is_finite_and_near_fp32(backbone):
    ids, segment, context = random_rows(17, batch=2, length=30)
    half = copy.deepcopy(backbone).to(torch.bfloat16)
    with torch.no_grad():
        exact = backbone(ids, segment, context)
        rough = half(ids, segment, context)
    assert rough.dtype == torch.bfloat16
    assert rough.isfinite().all()
    cosine = F.cosine_similarity(rough.float(), exact, dim=-1)
    assert cosine.min() > 0.995
    assert (rough.float() - exact).abs().mean() < 0.03


# --- the reference's layout: weights not scaled, scaling at run time ---


def test_a_reference_checkpoint_gives_the_hidden_states_of_the_hugging_face_layout(
    oracle, backbone, tmp_path
):
    folder = open_folder(write_reference(tmp_path, oracle))
    assert folder.format == "reference"
    model = load_weights(folder, torch.float32).eval()
    ids, segment, context = random_rows(18, batch=2, length=30)
    with torch.no_grad():
        theirs = oracle_hidden(oracle, ids, segment, context)
        assert differs(model(ids, segment, context), theirs) < TOLERANCE
        assert differs(model(ids, segment, context), backbone(ids, segment, context)) < TOLERANCE
        assert differs(model.logits(theirs), oracle_logits(oracle, theirs)) < TOLERANCE


@pytest.mark.parametrize(
    "name",
    [
        "self_att.self_attention.project_q",
        "self_att.self_attention.project_v",
        "self_att.self_attention.attention_out",
        "ffn.ffn.w_in.w_0",
        "ffn.ffn.w_out",
    ],
)
def test_lora_on_a_folded_weight_equals_lora_on_the_references_scaled_linear(
    oracle, name, tmp_path
):
    linear = load_weights(
        open_folder(write_reference(tmp_path, oracle)), torch.float32
    ).get_submodule(f"encoder.layers.1.{name}")
    unscaled = unscaled_state(oracle)[f"encoder.layers.1.{name}.weight"]
    generator = torch.Generator().manual_seed(19)
    fan_out, fan_in = unscaled.shape
    a = torch.randn(2, fan_in, generator=generator)
    b = torch.randn(fan_out, 2, generator=generator)
    x = torch.randn(7, fan_in, generator=generator)
    scale = 0.5

    def reference(x):  # y = W x / sqrt(in); w_out divides its input, which is the same
        if name.endswith("w_out"):
            return F.linear(x / math.sqrt(fan_in), unscaled)
        return F.linear(x, unscaled) / math.sqrt(fan_in)

    def add_lora(module, inputs, output):  # as OpenDelta: from the module's input to its output
        return output + scale * F.linear(F.linear(inputs[0], a), b)

    linear.register_forward_hook(add_lora)
    with torch.no_grad():
        expected = reference(x) + scale * F.linear(F.linear(x, a), b)
        assert differs(linear(x), expected) < TOLERANCE
        assert differs(F.linear(x, linear.weight + scale * b @ a), expected) < TOLERANCE
