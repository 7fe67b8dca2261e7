"""CPM-2's checkpoints of N model-parallel ranks: merged, they are transformers' mT5; and back."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cpm1_oracle as cpm1
import cpm2_ranks as cpm2
import pytest
import torch
from cpm2_ranks import random_ranks, write_ranks
from rank_checks import assert_refused, change
from transformers import MT5Config, MT5ForConditionalGeneration

from cpm_tune.backbone.causal.family import CAUSAL
from cpm_tune.backbone.encdec.cpm2_ranks import Sizes, mt5_config, read_checkpoint, write_checkpoint
from cpm_tune.backbone.ranks.files import is_cpm2, rank_files
from cpm_tune.backbone.ranks.rules import HALVES, divide, merge
from cpm_tune.errors import UserError

ENCODER, DECODER = [5, 0, 47, 23, 24, 25, 11, 11, 40, 3, 2], [1, 30, 12, 47]
LABELS = [30, 12, 47, 31]


def mt5(folder: Path) -> MT5ForConditionalGeneration:
    """Transformers' model, its head a parameter of its own before anything is loaded."""
    sizes, weights = read_checkpoint(folder)
    model = MT5ForConditionalGeneration(MT5Config(**mt5_config(sizes)))
    model.lm_head.weight = torch.nn.Parameter(torch.empty(sizes.vocabulary, sizes.width))
    state = {name: weight.whole() for name, weight in weights.items()}
    for stack in ("encoder", "decoder"):
        state[f"{stack}.embed_tokens.weight"] = state["shared.weight"]
    model.load_state_dict(state, strict=True)
    return model.eval()


def outputs(model: MT5ForConditionalGeneration) -> torch.Tensor:
    given = torch.tensor([ENCODER]), torch.tensor([DECODER])
    return model(input_ids=given[0], decoder_input_ids=given[1]).logits[0]


@pytest.mark.parametrize("zipped", [False, True])
@pytest.mark.parametrize("n", [1, 2, 4])
def test_merged_ranks_give_the_logits_and_gradients_of_the_ranks(
    tmp_path: Path, n: int, zipped: bool
) -> None:
    ranks = random_ranks(n)
    model = mt5(write_ranks(tmp_path / "cpm2", ranks, zipped=zipped)).double()
    logits = outputs(model)
    expected = cpm2.logits(ranks, ENCODER, DECODER)
    assert expected.abs().max() > 1
    torch.testing.assert_close(
        logits.double(), expected, rtol=0, atol=1e-5 * float(expected.abs().max())
    )
    torch.nn.functional.cross_entropy(logits, torch.tensor(LABELS), reduction="sum").backward()
    theirs = cpm2.gradients(ranks, ENCODER, DECODER, LABELS)
    _, slopes = read_checkpoint(write_ranks(tmp_path / "slopes", theirs))
    parameters = dict(model.named_parameters())
    assert len(slopes) == len(parameters)
    for name, slope in slopes.items():
        expected = slope.whole()
        assert expected.abs().max() > 1e-6
        torch.testing.assert_close(
            parameters[name].grad.double(),
            expected,
            rtol=0,
            atol=1e-5 * float(expected.abs().max()),
        )


def test_what_is_read_has_its_shape_and_dtype_before_any_value(tmp_path: Path) -> None:
    sizes, weights = read_checkpoint(write_ranks(tmp_path, random_ranks(2, torch.float16)))
    inner = cpm2.HEADS * cpm2.D_KV
    assert sizes == Sizes(cpm2.VOCAB, cpm2.WIDTH, inner, cpm2.HEADS, cpm2.BUCKETS, cpm2.FF, 3, 2)
    for weight in weights.values():
        whole = weight.whole()
        assert (whole.shape, whole.dtype) == (weight.shape, torch.float16) == (
            whole.shape, weight.dtype)  # fmt: skip


@pytest.mark.parametrize("before", [1, 2, 4])
@pytest.mark.parametrize("after", [1, 2, 4])
def test_ranks_are_divided_as_they_were_published(tmp_path: Path, before: int, after: int) -> None:
    """Written for `after` ranks and again for `before`, every tensor has its bits and its place."""
    ranks = random_ranks(before, torch.float16)
    sizes, weights = read_checkpoint(write_ranks(tmp_path / "a", ranks))
    (tmp_path / "b").mkdir()
    write_checkpoint(tmp_path / "b", weights, mt5_config(sizes), after, 100000)
    assert len(rank_files(tmp_path / "b")) == after
    sizes, weights = read_checkpoint(tmp_path / "b")
    (tmp_path / "c").mkdir()
    write_checkpoint(tmp_path / "c", weights, mt5_config(sizes), before, 1)
    for file, state in zip(rank_files(tmp_path / "c"), ranks, strict=True):
        again = torch.load(file, weights_only=True)["module"]
        assert again.keys() == state.keys()
        assert all(torch.equal(again[name], state[name]) for name in state)
        shared = {
            again[f"{at}word_embeds.weight"].data_ptr() for at in ("", "encoder.", "decoder.")
        }
        assert len(shared) == 1


def test_keys_of_all_ranks_come_before_values() -> None:
    parts = [torch.tensor([10 * kind + rank for kind in range(2)]) for rank in range(3)]
    whole = merge(HALVES, parts)
    assert whole.tolist() == [0, 1, 2, 10, 11, 12]
    assert [part.tolist() for part in divide(HALVES, whole, 3)] == [p.tolist() for p in parts]


def test_whose_ranks_they_are_is_told_by_their_names(tmp_path: Path) -> None:
    two = write_ranks(tmp_path / "cpm2", random_ranks(2))
    one = cpm1.write_ranks(tmp_path / "cpm1", cpm1.random_ranks(2))
    for folder in (two, two / "100000"):
        assert is_cpm2(folder)
        assert not CAUSAL.recognises(folder)
    assert not is_cpm2(one)
    assert CAUSAL.recognises(one)
    wrapped = [{f"module.{name}": value for name, value in s.items()} for s in random_ranks(1)]
    assert is_cpm2(write_ranks(tmp_path / "wrapped", wrapped))
    assert mt5(tmp_path / "wrapped")
    torch.save({"module": {"a": torch.ones(1)}}, one / "80000" / "mp_rank_00_model_states.pt")
    assert not is_cpm2(one)
    with pytest.raises(UserError, match=r"expected a rank of CPM-1 \(or of CPM-2"):
        CAUSAL.open(one)


def test_the_published_sizes_count_the_published_parameters() -> None:
    for rows, n in ((26240, 11_087_097_856), (51968, 11_297_861_632)):
        config = MT5Config(**mt5_config(Sizes(rows, 4096, 4096, 64, 32, 10240, 24, 24)))
        with torch.device("meta"):
            model = MT5ForConditionalGeneration(config)
            model.lm_head.weight = torch.nn.Parameter(torch.empty(rows, 4096))
        assert sum(parameter.numel() for parameter in model.parameters()) == n


NORM = "decoder.final_layernorm.weight"
QKV = "encoder.blocks.1.self_attn.self_attn.project.weight"
BIAS = "encoder.blocks.0.self_attn.self_attn.relative_attention_bias.weight"
WIDE = cpm2.WIDTH


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({NORM: None}, f"mp_rank_01_model_states.pt: not a rank of CPM-2's: missing {NORM}"),
        ({"lm_head.bias": torch.ones(2)}, "unexpected lm_head.bias"),
        ({QKV: torch.ones(WIDE, WIDE)}, f"{QKV} has shape ({WIDE}, {WIDE}), a part of 2 of"),
        ({NORM: torch.ones(WIDE).half()}, f"{NORM} is torch.float16, in rank 0 torch.float32"),
        ({NORM: torch.ones(WIDE).long()}, "torch.int64, expected a floating-point tensor"),
        ({NORM: torch.ones(WIDE)}, f"{NORM} differs between the ranks"),
        ({"encoder.word_embeds.weight": torch.ones(24, WIDE)}, "differs from word_embeds.weight"),
        ({"encoder.blocks.0.ff.expert_centroids": torch.ones(2)}, "mixture of experts"),
        ({"encoder.prompt_embeds.weight": torch.ones(100, WIDE)}, "contains a tuned prompt"),
    ],
)  # fmt: skip
def test_what_is_wrong_with_a_rank_is_one_sentence(
    tmp_path: Path, changes: dict[str, Any], words: str
) -> None:
    folder = write_ranks(tmp_path, random_ranks(2))
    change(folder, 1, **changes)
    assert_refused(read_checkpoint, folder, words)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({BIAS: None}, f"no {BIAS} of two dimensions"),
        ({BIAS: torch.ones(32, 5)}, "5 attention heads do not divide a projection of 36 rows"),
        ({BIAS: torch.ones(32, 0)}, "0 attention heads do not divide"),
        ({"word_embeds.weight": torch.ones(3)}, "no word_embeds.weight of two dimensions"),
    ],
)  # fmt: skip
def test_what_says_no_size_is_one_sentence(
    tmp_path: Path, changes: dict[str, Any], words: str
) -> None:
    folder = write_ranks(tmp_path, random_ranks(2))
    change(folder, 0, **changes)
    assert_refused(read_checkpoint, folder, words)


def test_what_cannot_be_divided_or_is_not_a_cpm_2_is_one_sentence(tmp_path: Path) -> None:
    sizes, weights = read_checkpoint(write_ranks(tmp_path / "a", random_ranks(1)))
    out = tmp_path / "b"
    out.mkdir()
    for n in (3, 0, 100, -1):
        with pytest.raises(UserError, match="cannot be divided over"):
            write_checkpoint(out, weights, mt5_config(sizes), n, 1)
    less = {key: weight for key, weight in weights.items() if key != "shared.weight"}
    with pytest.raises(UserError, match=r"not the weights of a CPM-2: missing shared\.weight"):
        write_checkpoint(out, less, mt5_config(sizes), 1, 1)
    assert not list(out.iterdir())
