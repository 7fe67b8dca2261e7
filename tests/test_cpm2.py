"""CPM-2 as a backbone: the files of ranks and Hugging Face's format are the same model."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import cpm2_ranks as cpm2
import numpy as np
import pytest
import torch
from conftest import CLI, write_jsonl
from cpm2_vocabulary import vocabulary

from cpm_tune.backbone.encdec.cpm2_ranks import read_checkpoint
from cpm_tune.backbone.encdec.loading import OURS
from cpm_tune.backbone.example import Answer, Example
from cpm_tune.backbone.families import open_folder
from cpm_tune.errors import UserError
from cpm_tune.schema.spec import Encoding

ENCODER, ANSWER = (30, 0, 47, 23, 24, 25, 11, 11, 40, 3, 2), (110, 12, 47, 31)
SHORT = ("--set", "train.max_steps=2", "--set", "train.eval_every=2", "--set", "train.batch_size=4")
LINES = vocabulary(12)
LINES = vocabulary(12 + -len(LINES) % 4)  # a multiple of four, as the published ones


def publish(folder: Path, n: int, dtype: torch.dtype = torch.float32) -> list[cpm2.Rank]:
    """Write a folder as TsinghuaAI's; return the states of its ranks."""
    ranks = cpm2.random_ranks(n, dtype, vocab=len(LINES))
    cpm2.write_ranks(folder, ranks)
    (folder / "vocab.txt").write_text("\n".join(LINES), encoding="utf-8")
    return ranks


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[cpm2.Rank]]:
    folder = tmp_path_factory.mktemp("cpm2") / "cpm2"
    return folder, publish(folder, 2)


def scored(path: Path, dtype: torch.dtype = torch.float32) -> tuple[Any, torch.Tensor]:
    """The backbone of a folder, and its logits at the places of ANSWER."""
    folder = open_folder(path)
    model = folder.open(dtype).eval()
    layout = folder.layout(Encoding(), folder.tokenizer())
    batch = layout.collate([Example("", (ENCODER,), (Answer(0, ANSWER),), 0, False)])
    (logits,) = model.scores(batch)
    return model, logits


def expected(ranks: list[cpm2.Rank]) -> torch.Tensor:
    return cpm2.logits(ranks, [*ENCODER], [1, *ANSWER[:-1]]).float()


def error_of(logits: torch.Tensor, right: torch.Tensor) -> float:
    """The largest error, in parts of the largest logit."""
    return float((logits - right).abs().max() / right.abs().max())


@pytest.mark.parametrize("n", [1, 2, 4])
def test_logits_and_gradients_are_those_of_the_ranks(tmp_path: Path, n: int) -> None:
    ranks = publish(tmp_path / "cpm2", n)
    model, logits = scored(tmp_path / "cpm2")
    assert error_of(logits.detach(), expected(ranks)) < 1e-5
    model, logits = scored(tmp_path / "cpm2" / "100000", torch.float64)
    torch.nn.functional.cross_entropy(logits, torch.tensor(ANSWER), reduction="sum").backward()
    slopes = cpm2.gradients(ranks, [*ENCODER], [1, *ANSWER[:-1]], [*ANSWER])
    _, right = read_checkpoint(cpm2.write_ranks(tmp_path / "slopes", slopes))
    assert len(right) == len(list(model.parameters()))
    for name, slope in right.items():
        parameter = model.get_parameter(OURS.get(name, name))
        assert error_of(parameter.grad, slope.whole()) < 1e-5, name


def test_a_head_tied_to_the_embedding_would_be_wrong_by_far(tmp_path: Path) -> None:
    """Transformers 5 ties an mT5's head silently; nothing here may."""
    ranks = publish(tmp_path / "cpm2", 2)
    right = expected(ranks)
    tied = [{**state, "lm_head.weight": state["word_embeds.weight"]} for state in ranks]
    assert error_of(expected(tied), right) > 0.5, "a tied head would not be seen below"
    folder = open_folder(tmp_path / "cpm2")
    model, logits = scored(folder.path)
    assert error_of(logits.detach(), right) < 1e-5
    (tmp_path / "saved").mkdir()
    folder.save(model, tmp_path / "saved", "hf", trained=True)
    assert error_of(scored(tmp_path / "saved")[1].detach(), right) < 1e-5
    control = folder.open(torch.float32, random_seed=1)
    assert not torch.equal(control.lm_head.weight, control.shared.weight)
    assert control.lm_head.weight.data_ptr() != control.shared.weight.data_ptr()


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32])
def test_a_checkpoint_is_the_same_after_both_conversions(
    cli: CLI, tmp_path: Path, dtype: torch.dtype
) -> None:
    """From four ranks to Hugging Face's format and back: every tensor has its bits."""
    ranks = publish(tmp_path / "cpm2", 4, dtype)
    shards = ("--max-shard-size", "20KB")
    code, out, error = cli("convert", tmp_path / "cpm2", tmp_path / "hf", "--to", "hf", *shards)
    assert code == 0, error
    assert len(list((tmp_path / "hf").glob("model-*.safetensors"))) > 2
    words = ("convert", tmp_path / "hf", tmp_path / "again", "--to", "reference", "--ranks", 4)
    code, out, error = cli(*words)
    assert code == 0, error
    assert "mp_rank_03_model_states.pt" in out
    for number, state in enumerate(ranks):
        file = f"100000/mp_rank_{number:02}_model_states.pt"
        again = torch.load(tmp_path / "again" / file, weights_only=True)["module"]
        assert again.keys() == state.keys()
        for name, value in state.items():
            assert again[name].dtype == dtype
            assert again[name].numpy().tobytes() == value.numpy().tobytes()
    code, _, error = cli(*words)
    assert (code, "already exists" in error) == (2, True)
    assert cli(*words, "--overwrite")[0] == 0
    configs = {open_folder(tmp_path / name).config for name in ("cpm2", "hf", "again")}
    assert len(configs) == 1
    right = expected(ranks)
    for name in ("cpm2", "hf", "again"):
        assert error_of(scored(tmp_path / name)[1].detach(), right) < 1e-5


def test_transformers_reads_the_converted_folder_if_its_head_is_untied_first(
    cli: CLI, published: tuple[Path, list[cpm2.Rank]], tmp_path: Path
) -> None:
    from safetensors.torch import load_file
    from transformers import AutoConfig, MT5ForConditionalGeneration

    folder, ranks = published
    assert cli("convert", folder, tmp_path / "hf", "--to", "hf")[0] == 0
    model = MT5ForConditionalGeneration(AutoConfig.from_pretrained(tmp_path / "hf"))
    model.lm_head.weight = torch.nn.Parameter(torch.empty_like(model.shared.weight))
    state = load_file(tmp_path / "hf" / "model.safetensors")
    copies = ("encoder.embed_tokens.weight", "decoder.embed_tokens.weight")
    model.load_state_dict({**state, **dict.fromkeys(copies, state["shared.weight"])})
    given = torch.tensor([ENCODER]), torch.tensor([[1, *ANSWER[:-1]]])
    with torch.no_grad():
        logits = model.eval()(input_ids=given[0], decoder_input_ids=given[1]).logits[0]
    assert error_of(logits, expected(ranks)) < 1e-5


def test_a_bilingual_checkpoint_ends_texts_with_its_own_sentinel(cli: CLI, tmp_path: Path) -> None:
    lines = vocabulary(12, bilingual=True)
    lines = vocabulary(12 + -len(lines) % 4, bilingual=True)
    ranks = cpm2.random_ranks(2, vocab=len(lines))
    folder = cpm2.write_ranks(tmp_path / "cpm2", ranks)
    (folder / "vocab.txt").write_text("\n".join(lines), encoding="utf-8")
    values = open_folder(folder).config.values
    assert lines[values["eos_token_id"]] == "<s_1>"
    assert (values["pad_token_id"], values["decoder_start_token_id"]) == (5, 1)
    assert (values["vocab_size"], values["d_kv"], values["num_heads"]) == (len(lines), 6, 4)
    assert cli("convert", folder, tmp_path / "hf", "--to", "hf")[0] == 0
    assert open_folder(tmp_path / "hf").config == open_folder(folder).config


def test_runs_texts_and_exports(
    cli: CLI, published: tuple[Path, list[cpm2.Rank]], tmp_path: Path
) -> None:
    data = tmp_path / "data"
    data.mkdir()
    for split, n in (("train", 8), ("dev", 4), ("test", 4)):
        rows = [
            {"id": i, "sentence1": "今天天气是好", "sentence2": "今天大学生", "label": i % 2}
            for i in range(n)
        ]
        write_jsonl(data / f"{split}.jsonl", rows)
    given = ("--task", "lcqmc", "--data", data, "--backbone", published[0])
    given = (*given, "--out", tmp_path / "out", "--control", "none")
    code, _, error = cli(*given, *SHORT, "--template", "cpm-2")
    assert code == 0, error
    (run,) = (tmp_path / "out").glob("lcqmc.*")
    code, _, error = cli("export", run, "--out", tmp_path / "merged", "--to", "hf")
    assert code == 0, error
    assert open_folder(tmp_path / "merged").config == open_folder(published[0]).config
    code, _, error = cli("generate", "今天天气", "--backbone", published[0], "--max-new-tokens", 4)
    assert code == 0, error
    assert not torch.equal(
        open_folder(tmp_path / "merged").open(torch.float32).lm_head.weight,
        open_folder(tmp_path / "merged").open(torch.float32).shared.weight,
    )


class Code:
    """What a pickle that runs code when it is loaded has in it."""

    def __init__(self, place: Path) -> None:
        self.place = place

    def __reduce__(self) -> Any:
        return os.system, (f"touch {self.place}",)


def spoil(folder: Path, rank: int, **changes: Any) -> None:
    """Change tensors of a rank's file, or with None remove them."""
    file = folder / "100000" / f"mp_rank_{rank:02}_model_states.pt"
    state = torch.load(file, weights_only=False)
    for name, value in changes.items():
        if value is None:
            del state["module"][name]
        else:
            state["module"][name] = value
    torch.save(state, file)


RANK = "100000/mp_rank_01_model_states.pt"
NORM, DENSE = "encoder.final_layernorm.weight", "encoder.blocks.0.self_attn.self_attn.dense.weight"
MOE = "encoder.blocks.0.ff.expert_centroids"
FAULTS: dict[str, tuple[Any, str]] = {
    "truncated": (
        lambda f: (f / RANK).write_bytes((f / RANK).read_bytes()[:9000]), "not a readable checkp"),
    "half a rank": (
        lambda f: (f / RANK).write_bytes((f / RANK).read_bytes()[:-9000]), "not a readable check"),
    "missing rank": (
        lambda f: (f / RANK).rename(f / RANK.replace("01", "02")), "mp_rank_01_model_states.pt is"),
    "one rank of two": (lambda f: (f / RANK).unlink(), "a rank's file is missing"),
    "another shape": (lambda f: spoil(f, 1, **{DENSE: torch.ones(20, 10)}), f"{DENSE} has shape"),
    "missing tensor": (lambda f: spoil(f, 1, **{NORM: None}), f"missing {NORM}"),
    "another dtype": (lambda f: spoil(f, 1, **{NORM: torch.ones(20).half()}), "torch.float16, in"),
    "code": (lambda f: spoil(f, 1, **{NORM: Code(f / "ran")}), "a pickle of more than tensors"),
    "numbers": (lambda f: spoil(f, 1, **{NORM: np.ones(20)}), "a pickle of more than tensors"),
    "nan": (lambda f: spoil(f, 1, **{DENSE: torch.full((20, 12), torch.nan)}), "is not finite"),
    "experts": (lambda f: spoil(f, 1, **{MOE: torch.ones(32, 20)}), "mixture of experts"),
    "neither": (
        lambda f: [
            torch.save({"module": {"a": torch.ones(1)}}, file)
            for file in sorted((f / "100000").iterdir())
        ],
        "expected a rank of CPM-1 (or of CPM-2",
    ),
    "vocabulary": (
        lambda f: (f / "vocab.txt").write_text("\n".join(vocabulary(8)), encoding="utf-8"),
        f"entries, but the model has {len(LINES)}",
    ),
    "another vocabulary": (lambda f: (f / "vocab.txt").write_text("a\nb\n"), "not a CPM-2 vocab"),
    "no vocabulary": (lambda f: (f / "vocab.txt").unlink(), "no vocabulary; put CPM-2's vocab.txt"),
}  # fmt: skip


@pytest.mark.parametrize("fault", FAULTS)
def test_what_is_wrong_with_a_folder_is_one_sentence(
    fault: str, cli: CLI, published: tuple[Path, list[cpm2.Rank]], tmp_path: Path
) -> None:
    folder, out = tmp_path / "copy", tmp_path / "out"
    shutil.copytree(published[0], folder)
    change, words = FAULTS[fault]
    change(folder)
    (folder / "ran").unlink(missing_ok=True)  # torch.load of the test itself
    code, _, error = cli("convert", folder, out, "--to", "hf")
    assert (code, words in error) == (2, True), error
    assert len(error.strip().splitlines()) == 1, error
    assert not out.exists()
    assert not (folder / "ran").exists()
    with pytest.raises(UserError):
        open_folder(folder).open(torch.float32)


def test_another_encoder_decoder_is_not_written_as_ranks(
    cli: CLI, published: tuple[Path, list[cpm2.Rank]], tmp_path: Path
) -> None:
    assert cli("convert", published[0], tmp_path / "hf", "--to", "hf")[0] == 0
    values = json.loads((tmp_path / "hf" / "config.json").read_text())
    (tmp_path / "hf" / "config.json").write_text(
        json.dumps(values | {"feed_forward_proj": "gated-silu"})
    )
    words = ("convert", tmp_path / "hf", tmp_path / "out", "--to")
    code, _, error = cli(*words, "reference")
    assert (code, "feed_forward_proj is 'gated-silu', CPM-2's is" in error) == (2, True), error
    code, _, error = cli("convert", published[0], tmp_path / "out", "--to", "native")
    assert (code, "--to hf or --to reference" in error) == (2, True), error
    words = ("convert", published[0], tmp_path / "out", "--to", "reference", "--ranks", 3)
    code, _, error = cli(*words)
    assert (code, error.startswith("error: --ranks 3: 4 attention heads")) == (2, True), error
    assert not (tmp_path / "out").exists()
