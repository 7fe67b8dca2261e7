"""Backbone folders: three layouts in, one out, and their fingerprints."""

from __future__ import annotations

import shutil

import pytest
import torch
from backbone_oracle import (
    CONFIG,
    REFERENCE_SHAPE,
    VOCAB,
    VOCABULARY_TEXT,
    assert_same_weights,
    change_weights,
    complaint,
    every_layout,
    expected_state,
    in_file,
    load,
    rewrite_json,
    unscaled_state,
    write_hugging_face,
    write_vocabulary,
)
from safetensors.torch import load_file, save_file

from cpm_tune.backbone import bundled
from cpm_tune.backbone.ant.checkpoint import load_weights, save_native
from cpm_tune.backbone.ant.config import CPMAntConfig
from cpm_tune.backbone.ant.folder import open_folder
from cpm_tune.backbone.opening import random_backbone

NORM = "encoder.output_layernorm.weight"


# --- what can be read ---


@pytest.mark.parametrize("trained", [True, False])
def test_a_native_folder_gives_back_exactly_what_was_saved(tmp_path, trained):
    model = random_backbone(CONFIG, 1, torch.float32)
    save_native(tmp_path / "deep" / "mine", model, VOCABULARY_TEXT, trained=trained)
    folder = open_folder(tmp_path / "deep" / "mine")
    assert (folder.format, folder.name, folder.trained) == ("native", "mine", trained)
    assert folder.config == CONFIG
    assert len(folder.tokenizer()) == VOCAB
    assert_same_weights(load_weights(folder, torch.float32), model.state_dict())
    assert list((tmp_path / "deep").iterdir()) == [folder.path]  # nothing is left beside it


def test_a_native_folder_keeps_a_compressed_shape(tmp_path):
    masks = ((True, False), (False, True), (True, True))
    config = CPMAntConfig(**REFERENCE_SHAPE, mask_modules=masks)
    model = random_backbone(config, 2, torch.float32)
    save_native(tmp_path / "small", model, VOCABULARY_TEXT, trained=True)
    assert open_folder(tmp_path / "small").config.mask_modules == masks
    assert_same_weights(load(tmp_path / "small"), model.state_dict())


def test_hugging_faces_single_file_loads_exactly(oracle, hugging_face):
    assert open_folder(hugging_face).format == "hf"
    assert open_folder(hugging_face).config == CONFIG
    assert_same_weights(load(hugging_face), expected_state(oracle))


def test_hugging_faces_shards_load_exactly(oracle, tmp_path):
    folder = write_hugging_face(tmp_path, oracle, max_shard_size="8KB")
    assert len(open_folder(folder).weights) > 3
    assert_same_weights(load(folder), expected_state(oracle))


@pytest.mark.parametrize("shards", [1, 2])
def test_hugging_faces_pytorch_files_load_exactly(oracle, hugging_face, shards):
    (hugging_face / "model.safetensors").unlink()
    state = list(oracle.state_dict().items())
    for shard in range(shards):
        name = "pytorch_model" + (f"-0000{shard + 1}-of-00002" if shards > 1 else "") + ".bin"
        torch.save(dict(state[shard::shards]), hugging_face / name)
    assert len(open_folder(hugging_face).weights) == shards
    assert_same_weights(load(hugging_face), expected_state(oracle))


def test_the_references_file_loads_folded(oracle, reference):
    folder = open_folder(reference)
    assert (folder.format, folder.config, folder.trained) == ("reference", CONFIG, True)
    assert folder.vocabulary.name == "ant.txt"
    assert_same_weights(load(reference), expected_state(oracle), tolerance=1e-6)


def test_half_precision_is_folded_in_fp32(oracle, reference):
    file = reference / "cpm-ant-tiny.pt"
    state = {name: weight.half() for name, weight in unscaled_state(oracle).items()}
    torch.save(state, file)
    name = "encoder.layers.0.self_att.self_attention.attention_out.weight"
    exact = state[name].float() / state[name].shape[1] ** 0.5
    assert torch.equal(load(reference).state_dict()[name], exact)
    assert torch.equal(load(reference, torch.bfloat16).state_dict()[name], exact.bfloat16())


@every_layout
def test_all_weights_come_in_the_dtype_asked_for_and_can_be_trained(folder):
    for dtype in (torch.float32, torch.bfloat16):
        parameters = list(load(folder, dtype).parameters())
        assert {weight.dtype for weight in parameters} == {dtype}
        assert {weight.device.type for weight in parameters} == {"cpu"}
        assert all(weight.requires_grad for weight in parameters)


@every_layout
def test_training_a_loaded_backbone_leaves_its_files_alone(folder):
    before = open_folder(folder).sha256()
    model = load(folder)
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(1)
    del model
    assert open_folder(folder).sha256() == before


@every_layout
def test_any_layout_can_be_saved_as_native(folder, tmp_path):
    model = load(folder)
    save_native(tmp_path / "again", model, VOCABULARY_TEXT, trained=True)
    assert_same_weights(load(tmp_path / "again"), model.state_dict())


@pytest.mark.parametrize("same", [True, False])
def test_saving_over_a_folder_is_refused_and_leaves_it_as_it_was(native, same):
    before = open_folder(native).sha256()
    model = load(native) if same else random_backbone(CONFIG, 2, torch.float32)
    message = complaint(native, lambda: save_native(native, model, VOCABULARY_TEXT, trained=True))
    assert "already exists" in message
    assert open_folder(native).sha256() == before
    assert list(native.parent.iterdir()) == [native]  # nothing is left beside it


def test_saving_over_a_file_is_refused_and_leaves_it_as_it_was(tmp_path):
    file = tmp_path / "file"
    file.write_text("mine", encoding="utf-8")
    model = random_backbone(CONFIG, 1, torch.float32)
    message = complaint(file, lambda: save_native(file, model, VOCABULARY_TEXT, trained=True))
    assert "already exists" in message
    assert file.read_text(encoding="utf-8") == "mine"


def test_a_head_equal_to_the_token_embedding_is_accepted_whatever_the_dtype(oracle, hugging_face):
    head = expected_state(oracle)["input_embedding.weight"]
    change_weights(hugging_face, lambda state: state.update({"lm_head.weight": head.clone()}))
    for dtype in (torch.float32, torch.bfloat16):
        assert torch.equal(load(hugging_face, dtype).input_embedding.weight, head.to(dtype))


# --- fingerprints ---


@every_layout
def test_a_fingerprint_stays_when_the_folder_is_renamed_or_copied(folder, tmp_path):
    before = open_folder(folder).sha256()
    assert len(before) == 64
    assert open_folder(shutil.copytree(folder, tmp_path / "copy")).sha256() == before
    assert open_folder(folder.rename(tmp_path / "renamed")).sha256() == before


@every_layout
def test_a_fingerprint_changes_with_one_weight(folder):
    before = open_folder(folder).sha256()
    change_weights(folder, lambda state: state[in_file(folder, NORM)][3].add_(1e-3))
    assert open_folder(folder).sha256() != before


@every_layout
def test_a_fingerprint_changes_with_the_vocabulary(folder):
    before = open_folder(folder).sha256()
    file = open_folder(folder).vocabulary
    text = file.read_text(encoding="utf-8").replace("上\n海\n", "海\n上\n")
    file.write_text(text, encoding="utf-8")
    assert open_folder(folder).sha256() != before


@every_layout
@pytest.mark.parametrize(
    "change", [{"eps": 1e-5}, {"position_bias_max_distance": 21}, {"dropout_p": 0.1}]
)
def test_a_fingerprint_changes_with_the_config(folder, change):
    before = open_folder(folder).sha256()
    file = folder / "config.json"
    rewrite_json(file if file.is_file() else folder / "cpm-ant-tiny.json", **change)
    assert open_folder(folder).sha256() != before


def test_a_fingerprint_does_not_see_what_the_model_ignores(hugging_face):
    before = open_folder(hugging_face).sha256()
    rewrite_json(hugging_face / "config.json", transformers_version="0", use_cache=False)
    (hugging_face / "README.md").write_text("notes", encoding="utf-8")
    assert open_folder(hugging_face).sha256() == before


def test_a_fingerprint_changes_with_a_shard(oracle, tmp_path):
    folder = write_hugging_face(tmp_path, oracle, max_shard_size="8KB")
    before = open_folder(folder).sha256()
    shard = open_folder(folder).weights[-1]
    state = load_file(shard)
    save_file({name: weight + 1 for name, weight in state.items()}, shard)
    assert open_folder(folder).sha256() != before


# --- the bundled backbone and the names of presets ---


def test_the_embedded_backbone_is_small_trained_and_fits_its_vocabulary():
    folder = open_folder(bundled.resolve("cpm-ant-tiny"))
    assert folder.trained
    assert len(folder.tokenizer()) == folder.config.vocab_size
    assert sum(path.stat().st_size for path in folder.path.iterdir()) < 16 * 2**20
    model = load_weights(folder, torch.float32)
    assert 4e6 < sum(p.numel() for p in model.parameters()) < 7e6


def test_a_preset_without_its_checkpoint_is_a_user_error(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    message = complaint("cpm-ant-10b", lambda: bundled.resolve("cpm-ant-10b"))
    assert "not shipped" in message
    (tmp_path / "cpm-ant-10b").mkdir()
    write_vocabulary(tmp_path / "cpm-ant-10b")
    assert bundled.resolve("cpm-ant-10b").is_dir()  # a folder of that name wins
