"""CPM-1's checkpoints of N model-parallel ranks: merged, they are transformers' GPT-2; and back."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import cpm1_oracle as cpm1
import pytest
import torch
from cpm1_oracle import HEADS, LAYERS, POSITIONS, VOCAB, WIDTH, random_ranks, write_ranks
from rank_checks import assert_refused, change
from transformers import GPT2Config, GPT2LMHeadModel

from cpm_tune.backbone.causal.family import CAUSAL
from cpm_tune.backbone.causal.megatron import (
    Shape,
    gpt2_config,
    read_checkpoint,
    write_checkpoint,
)
from cpm_tune.backbone.ranks.files import rank_files
from cpm_tune.backbone.ranks.rules import THIRDS, divide, merge
from cpm_tune.errors import UserError

IDS = [7, 0, 47, 5, 23, 24, 25, 11, 11]


def gpt2(folder: Path) -> GPT2LMHeadModel:
    shape, weights = read_checkpoint(folder)
    model = GPT2LMHeadModel(GPT2Config(**gpt2_config(shape, HEADS)))
    state = {name: weight.whole() for name, weight in weights.items()}
    state["lm_head.weight"] = state["transformer.wte.weight"]
    model.load_state_dict(state, strict=True)
    return model.eval()


@pytest.mark.parametrize("zipped", [False, True])
@pytest.mark.parametrize("n", [1, 2, 4])
def test_merged_ranks_give_the_logits_of_the_ranks(tmp_path: Path, n: int, zipped: bool) -> None:
    ranks = random_ranks(n)
    model = gpt2(write_ranks(tmp_path / "cpm1", ranks, zipped=zipped))
    with torch.no_grad():
        theirs = model(torch.tensor([IDS])).logits[0].double()
    expected = cpm1.logits(ranks, IDS)
    assert expected.abs().max() > 1
    torch.testing.assert_close(theirs, expected, rtol=0, atol=1e-5)


def test_what_is_read_has_its_shape_and_dtype_before_any_value(tmp_path: Path) -> None:
    folder = write_ranks(tmp_path, random_ranks(2, torch.float16))
    shape, weights = read_checkpoint(folder)
    assert shape == Shape(VOCAB, POSITIONS, WIDTH, LAYERS)
    for weight in weights.values():
        whole = weight.whole()
        assert (whole.shape, whole.dtype) == (weight.shape, weight.dtype) == (
            whole.shape, torch.float16)  # fmt: skip
        assert whole.is_contiguous()
    names = GPT2LMHeadModel(GPT2Config(**gpt2_config(shape, HEADS))).state_dict().keys()
    assert {*weights, "lm_head.weight"} == names


@pytest.mark.parametrize("before", [1, 2, 4])
@pytest.mark.parametrize("after", [1, 2, 4])
def test_ranks_are_divided_as_they_were_published(tmp_path: Path, before: int, after: int) -> None:
    """Written for `after` ranks and again for `before`, every tensor has its bits and its place."""
    ranks = random_ranks(before, torch.float16)
    _, weights = read_checkpoint(write_ranks(tmp_path / "a", ranks))
    (tmp_path / "b").mkdir()
    write_checkpoint(tmp_path / "b", weights, HEADS, after, 80000)
    assert len(rank_files(tmp_path / "b")) == after
    _, weights = read_checkpoint(tmp_path / "b")
    (tmp_path / "c").mkdir()
    write_checkpoint(tmp_path / "c", weights, HEADS, before)
    for file, state in zip(rank_files(tmp_path / "c"), ranks, strict=True):
        again = torch.load(file, weights_only=True)["module"]
        assert list(again) == list(state)
        assert all(torch.equal(again[name], state[name]) for name in state)


@pytest.mark.parametrize("n", [1, 2, 3])
def test_queries_of_all_ranks_come_before_keys(n: int) -> None:
    parts = [torch.tensor([10 * kind + rank for kind in range(3)]) for rank in range(n)]
    whole = merge(THIRDS, parts)
    assert whole.tolist() == [10 * kind + rank for kind in range(3) for rank in range(n)]
    assert [part.tolist() for part in divide(THIRDS, whole, n)] == [part.tolist() for part in parts]


def test_either_folder_is_taken_and_files_are_in_the_order_of_ranks(tmp_path: Path) -> None:
    folder = write_ranks(tmp_path / "cpm1", random_ranks(2))
    assert rank_files(folder) == rank_files(folder / "80000")
    assert CAUSAL.recognises(folder)
    assert CAUSAL.recognises(folder / "80000")
    assert not CAUSAL.recognises(tmp_path)
    assert not CAUSAL.recognises(tmp_path / "nowhere")
    (folder / "latest_checkpointed_iteration.txt").write_text("release\n")
    (folder / "80000").rename(folder / "release")
    assert len(rank_files(folder)) == 2


def test_weights_of_a_wrapped_model_are_read(tmp_path: Path) -> None:
    ranks = random_ranks(2)
    _, plain = read_checkpoint(write_ranks(tmp_path / "a", ranks))
    wrapped = [{f"module.{name}": value for name, value in state.items()} for state in ranks]
    _, weights = read_checkpoint(write_ranks(tmp_path / "b", wrapped))
    assert all(torch.equal(weights[name].whole(), plain[name].whole()) for name in plain)


NORM = "transformer.final_layernorm.bias"
QKV = "transformer.layers.1.attention.query_key_value.weight"


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({NORM: None}, f"mp_rank_01_model_states.pt: not a rank of CPM-1's: missing {NORM}"),
        ({"lm_head.weight": torch.ones(2)}, "unexpected lm_head.weight"),
        ({NORM: torch.ones(3)}, f"{NORM} has shape (3,), a part of 2 of ({WIDTH},)"),
        ({QKV: torch.ones(WIDTH, WIDTH)}, f"{QKV} has shape ({WIDTH}, {WIDTH})"),
        ({NORM: torch.ones(WIDTH).half()}, f"{NORM} is torch.float16, in rank 0 torch.float32"),
        ({NORM: torch.ones(WIDTH).long()}, "torch.int64, expected a floating-point tensor"),
        ({NORM: torch.ones(WIDTH)}, f"{NORM} differs between the ranks"),
        ({"transformer.layers.7.mlp.x": torch.ones(1)}, "unexpected transformer.layers.7.mlp.x"),
        ({"encoder.word_embeds.weight": torch.ones(1)}, "unexpected encoder.word_embeds.weight"),
    ],
)  # fmt: skip
def test_what_is_wrong_with_a_rank_is_one_sentence(
    tmp_path: Path, changes: dict[str, Any], words: str
) -> None:
    folder = write_ranks(tmp_path, random_ranks(2))
    change(folder, 1, **changes)
    assert_refused(read_checkpoint, folder, words)


def test_what_is_wrong_with_a_folder_is_one_sentence(tmp_path: Path) -> None:
    folder = write_ranks(tmp_path / "a", random_ranks(4))
    latest = folder / "latest_checkpointed_iteration.txt"
    for text in ("", "../..", "7" * 99, "5"):
        words = "no checkpoint here" if text == "5" else "expected an iteration"
        latest.write_text(text)
        with pytest.raises(UserError, match=words):
            rank_files(folder)
    latest.write_text("80000")
    (folder / "80000" / "mp_rank_02_model_states.pt").unlink()
    with pytest.raises(UserError, match=r"mp_rank_02_model_states\.pt is missing, but"):
        rank_files(folder)
    file = folder / "80000" / "mp_rank_00_model_states.pt"
    for other in (folder / "80000").glob("mp_rank_0[1-9]*"):
        other.unlink()
    values: list[tuple[Any, str]] = [
        ({"model": 1}, "no weights under 'module'"),
        ([1], "no weights under 'module'"),
        ({"module": {"a": torch.ones(1)}}, "no word_embeddings.weight of two"),
        ({"module": {"word_embeddings.weight": torch.ones(1)}}, "no word_embeddings.weight of two"),
    ]
    for value, words in values:
        torch.save(value, file)
        with pytest.raises(UserError, match=words):
            read_checkpoint(folder / "80000")
    file.write_bytes(b"PK\x03\x04")
    with pytest.raises(UserError, match="not a readable checkpoint"):
        read_checkpoint(folder / "80000")


def test_heads_are_known_for_the_published_sizes_only() -> None:
    for layers, width, heads in ((32, 2560, 32), (24, 1024, 16), (12, 768, 12)):
        assert gpt2_config(Shape(30000, 1024, width, layers))["n_head"] == heads
    with pytest.raises(UserError, match="give their number"):
        gpt2_config(Shape(30000, 1024, 512, 4))
    with pytest.raises(UserError, match="7 attention heads do not divide"):
        gpt2_config(Shape(30000, 1024, 512, 4), 7)


def test_the_published_config_counts_the_published_parameters() -> None:
    for layers, width, n in ((32, 2560, 2_597_073_920), (12, 768, 108_882_432)):
        config = GPT2Config(**gpt2_config(Shape(30000, 1024, width, layers)))
        with torch.device("meta"):
            model = GPT2LMHeadModel(config)
        assert sum(p.numel() for p in model.parameters()) == n


def test_what_cannot_be_divided_or_is_not_a_cpm_1_is_one_sentence(tmp_path: Path) -> None:
    _, weights = read_checkpoint(write_ranks(tmp_path / "a", random_ranks(1)))
    for n in (3, 0, 100, -1):
        shutil.rmtree(tmp_path / "b", ignore_errors=True)
        (tmp_path / "b").mkdir()
        with pytest.raises(UserError, match="cannot be divided over"):
            write_checkpoint(tmp_path / "b", weights, HEADS, n)
        assert not list((tmp_path / "b").iterdir())
    for name in ("transformer.wte.weight", "transformer.h.0.ln_1.bias"):
        less = {key: weight for key, weight in weights.items() if key != name}
        with pytest.raises(UserError, match=f"not the weights of a CPM-1: .*{name}"):
            write_checkpoint(tmp_path / "b", less, HEADS, 1)
