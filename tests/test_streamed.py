"""A backbone within a memory limit computes what the whole one does, bit for bit."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from backbone_oracle import REFERENCE_SHAPE, VOCABULARY_TEXT, complaint, random_rows
from conftest import CLI, small_config, vocabulary
from delta_table import DELTAS, SHA, perturb
from torch import Tensor

from cpm_tune.backbone.ant.checkpoint import load_weights, save_native
from cpm_tune.backbone.ant.config import CPMAntConfig
from cpm_tune.backbone.ant.convert import convert
from cpm_tune.backbone.ant.folder import open_folder
from cpm_tune.backbone.ant.layout import AntLayout
from cpm_tune.backbone.ant.model import CPMAnt
from cpm_tune.backbone.ant.streamed import open_streamed
from cpm_tune.backbone.opening import random_backbone
from cpm_tune.decode import Request, generate
from cpm_tune.delta.config import FullConfig, LoraConfig
from cpm_tune.delta.insert import insert
from cpm_tune.delta.merge import merge
from cpm_tune.errors import UserError
from cpm_tune.schema.spec import Decoding

pytestmark = pytest.mark.usefixtures("one_thread")
# Seven layers, one of them empty, one without attention, one without FFN.
MASKS = tuple((n in (2, 4), n in (4, 5)) for n in range(7))
SHAPE = CPMAntConfig(**{**REFERENCE_SHAPE, "num_layers": 7, "mask_modules": MASKS})


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The same backbone in three layouts, the whole one in Hugging Face's."""
    place = tmp_path_factory.mktemp("streamed")
    whole = CPMAntConfig(**{**REFERENCE_SHAPE, "num_layers": 7})
    for name, config in (("native", SHAPE), ("whole", whole)):
        model = random_backbone(config, 3, torch.float32)
        save_native(place / name, model, VOCABULARY_TEXT, trained=True)
    convert(open_folder(place / "native"), place / "reference", "reference")
    convert(open_folder(place / "whole"), place / "hf", "hf", max_shard=20_000)
    return {path.name: path for path in place.iterdir()}


def least(folder: Path, dtype: torch.dtype) -> int:
    """The smallest limit, as the error says it."""
    with pytest.raises(UserError) as caught:
        open_streamed(open_folder(folder), dtype, limit=1)
    return round(float(str(caught.value).partition("needs ")[2].partition("KB")[0]) * 1000)


def resident(model: CPMAnt) -> int:
    """Bytes of all memory that the parameters lie in."""
    found = {}
    for parameter in model.parameters():
        storage = parameter.untyped_storage()
        found[storage.data_ptr()] = storage.nbytes()
    return sum(found.values())


@torch.inference_mode()
def outputs(model: CPMAnt, soft: bool = False) -> tuple[Tensor, list[object]]:
    """Scores of a packed batch, twice, and generated texts; with a soft token if there are."""
    model.eval()
    ids, segment, context = random_rows(5, 2, 9)
    if soft:
        ids[:, 2] = SHAPE.vocab_size + SHAPE.prompt_types * SHAPE.prompt_length
    first = model.logits(model(ids, segment, context))
    again = model.logits(model(ids, segment, context))
    assert torch.equal(first, again)
    settings = Decoding(max_new_tokens=4, beams=2)
    request = Request(settings, AntLayout((), 1, 2, 0), stop=frozenset({3}))
    prefixes = [tuple(row) for row in ids.clamp(max=25).tolist()]
    return first, generate(model, prefixes, request)


@pytest.mark.parametrize("layout", ["native", "reference", "hf"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_scores_and_texts_are_those_of_the_whole_backbone(folders, layout, dtype):
    folder, start = open_folder(folders[layout]), least(folders[layout], dtype)
    whole = load_weights(folder, dtype)
    expected = outputs(whole)
    total, kinds = sum(p.nbytes for p in whole.parameters()), set()
    for limit in range(start, total, (total - start) // 5):  # odd and even numbers come and go
        model = open_streamed(folder, dtype, limit=limit)
        assert model.streamed
        assert resident(model) <= limit
        kinds.add(resident(model))
        scores, texts = outputs(model)
        assert torch.equal(scores, expected[0])
        assert texts == expected[1]
    assert len(kinds) > 2
    assert not open_streamed(folder, dtype, limit=2 * total).streamed


@pytest.mark.parametrize("delta", [name for name in sorted(DELTAS) if name != "full"])
def test_every_delta_works_in_it(folders, delta):
    folder, results = open_folder(folders["whole"]), []
    for limit in (None, least(folders["whole"], torch.float32)):
        model = folder.open(torch.float32, limit=limit)
        inserted = insert(model, DELTAS[delta], SHA, 1)
        perturb(inserted)
        results.append(outputs(model, delta.startswith("soft_prompt")))
        inserted.remove()
        results.append(outputs(model))
    assert torch.equal(results[0][0], results[2][0])
    assert results[0][1] == results[2][1]
    assert torch.equal(results[1][0], results[3][0])
    assert not torch.equal(results[0][0], results[1][0])


def test_what_would_change_its_weights_is_refused(folders):
    folder = open_folder(folders["whole"])
    model = open_streamed(folder, torch.float32, limit=least(folder.path, torch.float32))
    assert "export" in complaint("", lambda: insert(model, FullConfig(), SHA, 1))
    delta = insert(model, LoraConfig(), SHA, 1)
    perturb(delta)
    assert "merged" in complaint("", lambda: merge(delta))
    ids, segment, _ = random_rows(5, 2, 9)
    assert "cannot be trained" in complaint("", lambda: model(ids, segment))


def test_weights_that_are_no_numbers_are_named_when_they_are_met(folders, tmp_path):
    from backbone_oracle import change_weights

    shutil.copytree(folders["whole"], tmp_path / "broken")
    name = "encoder.layers.3.ffn.ffn.w_out.weight"
    change_weights(tmp_path / "broken", lambda state: state[name].fill_(float("nan")))
    folder = open_folder(tmp_path / "broken")
    ids, segment, _ = random_rows(5, 2, 9)
    with torch.inference_mode():
        model = open_streamed(folder, torch.float32, limit=least(folder.path, torch.float32))
        for _ in range(2):  # and every time again
            said = complaint(folder.path, lambda: model(ids, segment))
            assert f"tensor {name} is not finite" in said


# --- the commands ---


@pytest.fixture(scope="module")
def deep(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A backbone with enough layers to come and go."""
    folder = tmp_path_factory.mktemp("deep") / "deep"
    model = random_backbone(small_config(num_layers=6, dim_model=16, dim_ff=64), 7, torch.float32)
    save_native(folder, model, "\n".join(vocabulary()) + "\n", trained=True)
    return folder


def test_the_commands_within_a_limit_give_the_same_results(deep, data, tmp_path, cli: CLI):
    limit = f"{least(deep, torch.float32) / 1000}KB"
    words = ["--task", "lcqmc", "--backbone", deep, "--data", data, "--control", "none", "--quiet"]
    tuned = [*words, "--delta", "lora", "--set", "train.max_steps=2", "--out", tmp_path / "runs"]
    assert cli(*tuned)[0] == 0
    (run,) = (tmp_path / "runs").glob("lcqmc.*")
    lines = []
    for name, more in (("whole", ()), ("limited", ("--memory-limit", limit))):
        out = tmp_path / f"{name}.predictions"
        code, _, error = cli("predict", run, "--data", data, "--out", out, *more)
        assert code == 0, error
        lines.append((out / "predictions.test.jsonl").read_text())
        results = tmp_path / name
        assert cli(*words, "--delta", "none", "--out", results, *more)[0] == 0
        (zero_shot,) = results.glob("lcqmc.*")
        lines.append((zero_shot / "predictions.test.jsonl").read_text())
        given = ("猫怎么养", "--delta-from", run, "--max-new-tokens", 4, "--jsonl")
        lines.append(cli("generate", *given, *more)[1])
    assert '"text"' in lines[2]
    assert lines[:3] == lines[3:]
    assert json.loads((zero_shot / "run.json").read_text())["execution"]["memory_limit"] == limit


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--delta", "none", "--memory-limit", "-1GB"), "--memory-limit is '-1GB'"),
        (("--delta", "none", "--memory-limit", "4"), "--memory-limit is '4'"),
        (("--delta", "none", "--memory-limit", "1KB"), "raise the limit"),
        (("--delta", "lora", "--memory-limit", "1GB"), "works without training"),
    ],
)
def test_a_limit_that_makes_no_sense_is_one_sentence(deep, data, tmp_path, cli: CLI, words, said):
    start = ("--task", "lcqmc", "--backbone", deep, "--data", data, "--control", "none")
    code, _, error = cli(*start, *words, "--out", tmp_path / "out")
    assert code == 2
    assert said in error
    assert error.count("error:") == 1
