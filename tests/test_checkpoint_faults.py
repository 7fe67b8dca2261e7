"""What is said when a backbone folder or its weights are wrong."""

from __future__ import annotations

import io
import os
import pickle
import shutil

import pytest
import torch
from backbone_oracle import (
    DIM,
    PROMPT,
    VOCAB,
    VOCABULARY_TEXT,
    change_weights,
    complaint,
    every_layout,
    in_file,
    load,
    rewrite_json,
    unscaled_state,
    write_hugging_face,
)
from safetensors.torch import load_file, save_file

from cpm_tune.backbone.ant.folder import open_folder
from cpm_tune.backbone.storage.stored import stored_tensors

NORM = "encoder.output_layernorm.weight"
W_1 = "encoder.layers.2.ffn.ffn.w_in.w_1.weight"
BROKEN = "not a readable checkpoint"
REFUSED = f"{BROKEN}: corrupt, or a pickle of more than tensors (refused)"


# --- what is wrong with a folder ---


def test_a_missing_folder_is_named(tmp_path):
    absent = tmp_path / "absent"
    assert "no such folder" in complaint(absent, lambda: open_folder(absent))


def test_a_file_in_the_place_of_a_folder_is_named(tmp_path):
    (tmp_path / "file").write_text("x", encoding="utf-8")
    assert "a file, expected a folder" in complaint(
        tmp_path / "file", lambda: open_folder(tmp_path / "file")
    )


@every_layout
def test_a_folder_without_vocabulary_is_named(folder):
    open_folder(folder).vocabulary.unlink()
    assert "vocab.txt" in complaint(folder, lambda: open_folder(folder))


@every_layout
def test_a_folder_without_config_is_named(folder):
    for file in folder.glob("*.json"):
        file.unlink()
    assert "no CPM-Ant config" in complaint(folder, lambda: open_folder(folder))


def test_a_json_file_of_another_kind_is_no_config(hugging_face):
    for content in ("[1, 2]", '"text"', '{"model_type": "bert"}'):
        (hugging_face / "config.json").write_text(content, encoding="utf-8")
        message = complaint(hugging_face, lambda: open_folder(hugging_face))
        assert "no CPM-Ant config" in message


@every_layout
def test_a_folder_without_weights_is_named(folder):
    for file in open_folder(folder).weights:
        file.unlink()
    assert "no weights" in complaint(folder, lambda: open_folder(folder))


@pytest.mark.parametrize("content", [b"", b"{", b'{"dim_model": 1,}', b'{"a": "\xff"}'])
def test_a_config_that_is_not_json_is_named(hugging_face, content):
    file = hugging_face / "config.json"
    file.write_bytes(content)
    assert "not valid JSON" in complaint(file, lambda: open_folder(hugging_face))


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("vocab_size", 2.0, "'vocab_size' is 2.0"),
        ("dim_ff", "42", "'dim_ff' is '42'"),
        ("dim_ff", "4" * 9_000, "'dim_ff' is '444"),
        ("dim_head", 0, "'dim_head' is 0"),
        ("position_bias_num_buckets", 0, "'position_bias_num_buckets' is 0"),
        ("position_bias_max_distance", "20", "'position_bias_max_distance' is '20'"),
        ("prompt_types", "5", "'prompt_types' is '5'"),
        ("prompt_length", -1, "'prompt_length' is -1"),
        ("segment_types", 2**31, "'segment_types' is 2147483648"),
        ("hidden_size", -24, "'dim_model' is -24"),
        ("num_hidden_layers", True, "'num_layers' is True"),
        ("num_attention_heads", [3], "'num_heads' is [3]"),
        ("dropout_p", 1, "'dropout_p' is 1"),
        ("dropout_p", -0.1, "'dropout_p' is -0.1"),
        ("dropout_p", "x", "'dropout_p' is 'x'"),
        ("eps", 0, "'eps' is 0"),
        ("eps", float("nan"), "'eps' is nan"),
        ("vocab_size", None, "'vocab_size' is missing"),
        ("num_hidden_layers", None, "'num_layers' is missing"),
        ("num_hidden_layers", 10**7, "'num_layers' is 10000000, expected at most 1,000"),
        ("segment_types", 2**31 - 1, "a weight of more than 1,000,000,000,000 values"),
        ("mask_modules", [[0, 1]], "1 pair for 3 layers"),
        ("mask_modules", [[0], [0], [0]], "pairs of true and false"),
        ("mask_modules", 7, "not iterable"),
    ],
)
def test_a_config_with_a_wrong_value_is_named_with_its_key(hugging_face, key, value, said):
    file = hugging_face / "config.json"
    rewrite_json(file, **{key: value})
    assert said in complaint(file, lambda: open_folder(hugging_face))


def test_several_reference_checkpoints_are_listed(reference):
    shutil.copy(reference / "cpm-ant-tiny.pt", reference / "older.pt")
    message = complaint(reference, lambda: open_folder(reference))
    assert "cpm-ant-tiny.pt, older.pt" in message


def test_a_vocabulary_of_another_size_is_named(native):
    with (native / "vocab.txt").open("a", encoding="utf-8") as file:
        file.write("多\n")
    message = complaint(native / "vocab.txt", open_folder(native).tokenizer)
    assert f"{VOCAB + 1} entries" in message
    assert f"vocab_size {VOCAB}" in message


def test_a_vocabulary_without_special_entries_is_named(native):
    text = VOCABULARY_TEXT.replace("<unk>\n", "多\n")
    (native / "vocab.txt").write_text(text, encoding="utf-8")
    message = complaint(native / "vocab.txt", open_folder(native).tokenizer)
    assert "'<unk>' is missing" in message


# --- what is wrong with weights ---


@every_layout
def test_a_missing_tensor_is_named(folder):
    key = in_file(folder, W_1)
    change_weights(folder, lambda state: state.pop(key))
    assert f"missing {W_1}" in complaint(folder, lambda: load(folder))


@every_layout
def test_an_unexpected_tensor_is_named(folder):
    key = in_file(folder, "encoder.layers.3.extra.weight")
    change_weights(folder, lambda state: state.update({key: torch.ones(2, 2)}))
    message = complaint(folder, lambda: load(folder))
    assert "unexpected encoder.layers.3.extra.weight" in message


@every_layout
@pytest.mark.parametrize("name", ["segment_embedding.weight", NORM])
def test_a_tensor_of_the_wrong_shape_is_named_with_both_shapes(folder, name):
    key = in_file(folder, name)
    good = tuple(load(folder).state_dict()[name].shape)
    wrong = (good[0] + 1, *good[1:])
    change_weights(folder, lambda state: state.update({key: torch.ones(wrong)}))
    message = complaint(folder, lambda: load(folder))
    assert f"{name} has shape {wrong}, expected {good}" in message


def test_a_config_of_another_size_is_found_out_by_the_weights(reference):
    rewrite_json(reference / "cpm-ant-tiny.json", num_layers=4)
    message = complaint(reference, lambda: load(reference))
    assert "missing encoder.layers.3." in message
    assert "more" in message  # a long list is cut


def test_a_lost_shard_is_found_out(oracle, tmp_path):
    folder = write_hugging_face(tmp_path, oracle, max_shard_size="8KB")
    index, shards = folder / "model.safetensors.index.json", open_folder(folder).weights
    shards[1].unlink()
    message = complaint(index, lambda: open_folder(folder))
    assert f"names the shard {shards[1].name}, which is not in the folder (1 of " in message
    shards[2].unlink()
    assert "(2 of " in complaint(index, lambda: open_folder(folder))
    for shard in folder.glob("*.safetensors"):
        shard.unlink()
    assert shards[0].name in complaint(index, lambda: open_folder(folder))
    index.unlink()
    assert "no weights" in complaint(folder, lambda: open_folder(folder))


def test_a_tensor_that_is_in_no_shard_is_named_with_the_shard(oracle, tmp_path):
    folder = write_hugging_face(tmp_path, oracle, max_shard_size="8KB")
    index = folder / "model.safetensors.index.json"
    shard = open_folder(folder).weights[2]
    state = load_file(shard)
    name = sorted(state)[0]
    save_file({key: value for key, value in state.items() if key != name}, shard)
    message = complaint(index, lambda: load(folder))
    assert f"tensor {name} should be in {shard.name}, but is in no shard (1 tensor in" in message
    save_file(state, shard)
    load(folder)
    for content in ("{", "[]", '{"weight_map": [1]}', '{"weight_map": {"a": 1}}'):
        index.write_text(content, encoding="utf-8")
        assert "not a readable index" in complaint(index, lambda: open_folder(folder))
    index.unlink()  # the shards themselves say what they hold
    load(folder)


def test_an_index_beside_the_one_file_that_holds_all_is_not_asked(hugging_face):
    index = hugging_face / "model.safetensors.index.json"
    index.write_text('{"weight_map": {"a": "model-00001-of-00002.safetensors"}}')
    load(hugging_face)


def test_a_prompt_table_of_another_length_is_found_out(hugging_face):
    rewrite_json(hugging_face / "config.json", prompt_length=PROMPT + 1)
    message = complaint(hugging_face, lambda: load(hugging_face))
    assert "prompt_embedding.weight has shape" in message


def test_a_head_that_is_not_the_token_embedding_is_refused(hugging_face):
    change_weights(
        hugging_face, lambda state: state.update({"lm_head.weight": torch.ones(VOCAB, DIM)})
    )
    message = complaint(hugging_face, lambda: load(hugging_face))
    assert "lm_head differs from the token embedding" in message


def test_a_tensor_under_both_spellings_of_its_name_is_refused(hugging_face):
    change_weights(hugging_face, lambda state: state.update({NORM: torch.ones(DIM)}))
    message = complaint(hugging_face, lambda: load(hugging_face))
    assert f"tensor {NORM} occurs twice" in message


def test_a_tensor_in_two_files_is_refused(native):
    shutil.copy(native / "model.safetensors", native / "older.safetensors")
    assert "occurs twice" in complaint(native, lambda: load(native))


pickled_or_not = pytest.mark.parametrize("folder", ["hugging_face", "reference"], indirect=True)


@pickled_or_not
@pytest.mark.parametrize("keep", [0, 5, 0.3, 0.9])
def test_a_truncated_file_is_named(folder, keep):
    (file,) = open_folder(folder).weights
    content = file.read_bytes()
    file.write_bytes(content[: keep if isinstance(keep, int) else int(len(content) * keep)])
    assert BROKEN in complaint(file, lambda: load(folder))


@pickled_or_not
@pytest.mark.parametrize(
    "content",
    [b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 9\n", b"\xff" * 4096],
    ids=["git-lfs pointer", "noise"],
)
def test_a_file_that_is_no_checkpoint_is_named(folder, content):
    (file,) = open_folder(folder).weights
    file.write_bytes(content)
    message = complaint(file, lambda: load(folder))
    assert (REFUSED if file.suffix == ".pt" else BROKEN) in message


@pytest.mark.parametrize("place", [0, 8, 100])
def test_a_corrupt_safetensors_header_is_named(hugging_face, place):
    (file,) = open_folder(hugging_face).weights
    content = bytearray(file.read_bytes())
    content[place : place + 8] = b"\xff" * 8
    file.write_bytes(content)
    assert BROKEN in complaint(file, lambda: load(hugging_face))


def test_a_corrupt_name_inside_a_pt_file_is_named(reference):
    (file,) = open_folder(reference).weights
    content = file.read_bytes()
    assert b"segment_embedding" in content
    file.write_bytes(content.replace(b"segment_embedding", b"\xffegment_embedding"))
    assert BROKEN in complaint(file, lambda: load(reference))


@pytest.mark.parametrize("content", [[1, 2], torch.ones(3), "text", 7], ids=type)
def test_a_pt_file_without_a_dict_is_named_with_what_it_holds(reference, content):
    (file,) = open_folder(reference).weights
    torch.save(content, file)
    message = complaint(file, lambda: load(reference))
    assert f"expected a state dict, found {type(content).__name__}" in message


@pytest.mark.parametrize(
    ("wrap", "said"),
    [
        (lambda state: {"model": state}, "'model' is dict"),
        (lambda state: {**state, "step": 3}, "'step' is int"),
        (lambda state: {**state, NORM: torch.ones(DIM).long()}, f"'{NORM}' is torch.int64"),
    ],
    ids=["a wrapped state", "a number too many", "whole numbers"],
)
def test_what_is_no_floating_point_tensor_is_named(reference, oracle, wrap, said):
    (file,) = open_folder(reference).weights
    torch.save(wrap(unscaled_state(oracle)), file)
    assert said in complaint(file, lambda: load(reference))


def test_whole_numbers_in_a_safetensors_file_are_named(native):
    change_weights(native, lambda state: state.update({NORM: torch.ones(DIM).long()}))
    message = complaint(native, lambda: load(native))
    assert f"'{NORM}' is torch.int64" in message


class Evil:
    """Unpickled, it makes a folder."""

    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return os.mkdir, (str(self.marker),)


def evil_bytes(kind, marker, state):
    """A checkpoint with the weights and one thing too many, in one of torch's formats."""
    content = {**state, "evil": Evil(marker)}
    if kind == "bare pickle":
        return pickle.dumps(Evil(marker))
    file = io.BytesIO()
    torch.save(content, file, _use_new_zipfile_serialization=kind == "zip")
    return file.getvalue()


@pickled_or_not
@pytest.mark.parametrize("kind", ["zip", "legacy", "bare pickle"])
@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
def test_a_malicious_pickle_is_refused_and_never_run(folder, oracle, tmp_path, kind):
    if open_folder(folder).format == "hf":
        (folder / "model.safetensors").unlink()
        file, state = folder / "pytorch_model.bin", oracle.state_dict()
    else:
        file, state = folder / "cpm-ant-tiny.pt", unscaled_state(oracle)
    marker = tmp_path / "marker"
    content = evil_bytes(kind, marker, state)
    file.write_bytes(content)
    assert REFUSED in complaint(file, lambda: load(folder))
    assert not marker.exists()
    if kind != "bare pickle":
        torch.load(io.BytesIO(content), weights_only=False)  # our own, and it does bite
        assert marker.is_dir()


@pytest.mark.parametrize("name", ["model.pt", "model.safetensors"])
def test_an_empty_file_of_weights_is_called_empty(name, tmp_path):
    (tmp_path / name).write_bytes(b"")
    assert "the file is empty" in complaint(
        tmp_path / name, lambda: list(stored_tensors([tmp_path / name]))
    )
