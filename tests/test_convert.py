"""Backbones between the layouts: the same bits there and back, for transformers the same."""

from __future__ import annotations

import json
import os
import signal
import zipfile
from pathlib import Path

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
    load,
    oracle_hidden,
    oracle_logits,
    random_rows,
    rewrite_json,
    unscaled_state,
)
from conftest import CLI
from safetensors.torch import load_file
from transformers import CpmAntForCausalLM

from cpm_tune.backbone.ant import convert as module
from cpm_tune.backbone.ant import formats
from cpm_tune.backbone.ant.checkpoint import save_native
from cpm_tune.backbone.ant.config import CPMAntConfig
from cpm_tune.backbone.ant.convert import convert
from cpm_tune.backbone.ant.folder import open_folder
from cpm_tune.backbone.bundled import resolve
from cpm_tune.backbone.opening import random_backbone
from cpm_tune.common.interrupt import NOTHING_WRITTEN

pytestmark = pytest.mark.usefixtures("one_thread")
LAYOUTS = ("reference", "hf", "native")
every_target = pytest.mark.parametrize("to", LAYOUTS)
HALVES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


@pytest.fixture(autouse=True)
def _small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tensors of the tests are cut into parts, too: 700 values are no multiple of any row."""
    for place in (formats, module):
        monkeypatch.setattr(place, "CHUNK", 700)


def stored(folder: Path) -> dict[str, torch.Tensor]:
    """All tensors of a folder's files, by other means than the ones tested."""
    state: dict[str, torch.Tensor] = {}
    for file in open_folder(folder).weights:
        safe = file.suffix == ".safetensors"
        state |= load_file(file) if safe else torch.load(file, weights_only=True)
    return state


def assert_same_bits(folder: Path, other: Path) -> None:
    ours, theirs = stored(folder), stored(other)
    assert ours.keys() == theirs.keys()
    for name, value in ours.items():
        assert value.dtype == theirs[name].dtype
        assert torch.equal(value, theirs[name]), name
    assert open_folder(folder).config == open_folder(other).config
    assert open_folder(folder).vocabulary.read_bytes() == open_folder(other).vocabulary.read_bytes()


def to(folder: Path, layout: str, out: Path, **how: object) -> Path:
    convert(open_folder(folder), out, layout, **how)  # type: ignore[arg-type]
    return out


@every_layout
@every_target
def test_a_layout_becomes_another_and_gives_the_same_backbone(folder, to, tmp_path):
    convert(open_folder(folder), tmp_path / "new", to)
    new = open_folder(tmp_path / "new")
    assert (new.format, new.config, len(new.tokenizer())) == (to, CONFIG, VOCAB)
    tolerance = 0.0 if "reference" not in (to, open_folder(folder).format) else 1e-6
    assert_same_weights(load(new.path), load(folder).state_dict(), tolerance)
    assert not list(tmp_path.glob("*.partial"))


@every_layout
@every_target
@pytest.mark.parametrize("dtype", HALVES)
def test_a_round_trip_gives_the_same_bits(folder, to, dtype, tmp_path):
    own = open_folder(folder).format
    start, there, back = tmp_path / "start", tmp_path / "there", tmp_path / "back"
    convert(open_folder(folder), start, own, dtype=HALVES[dtype])
    change_weights(start, lambda state: [value.mul_(1.1) for value in state.values()])
    convert(open_folder(start), there, to)
    convert(open_folder(there), back, own)
    assert_same_bits(start, back)
    convert(open_folder(there), tmp_path / "on", "native" if to == "hf" else "hf")
    convert(open_folder(tmp_path / "on"), tmp_path / "last", own)
    assert_same_bits(start, tmp_path / "last")


def test_a_converted_folder_does_not_depend_on_the_clock(native, tmp_path, monkeypatch):
    files = []
    for hours in (0, 5):
        now = 1_700_000_000 + 3600 * hours
        monkeypatch.setattr("time.time", lambda now=now: now)
        convert(open_folder(native), tmp_path / str(hours) / "out", "reference")
        made = sorted((tmp_path / str(hours) / "out").iterdir())
        files.append({file.name: file.read_bytes() for file in made})
    assert files[0] == files[1]


def test_small_half_precision_values_come_back_though_they_were_subnormal_between(tmp_path):
    config = CPMAntConfig(**{**REFERENCE_SHAPE, "dim_model": 256})  # divided by 16
    save_native(
        tmp_path / "start", random_backbone(config, 1, torch.float32), VOCABULARY_TEXT, trained=True
    )
    start = to(tmp_path / "start", "reference", tmp_path / "ref", dtype=torch.float16)
    change_weights(start, lambda state: [value.mul_(2.0**-9) for value in state.values()])
    there = to(start, "hf", tmp_path / "hf")
    assert_same_bits(start, to(there, "reference", tmp_path / "back"))
    (there / "scaling.npz").unlink()
    lossy = stored(to(there, "reference", tmp_path / "lossy"))
    assert not all(torch.equal(value, lossy[name]) for name, value in stored(start).items())


def test_unscaled_weights_are_those_of_the_definition(oracle, hugging_face, tmp_path):
    ours = stored(to(hugging_face, "reference", tmp_path / "ref"))
    theirs = unscaled_state(oracle)
    assert ours.keys() == theirs.keys()
    for name, value in theirs.items():
        torch.testing.assert_close(ours[name], value, rtol=1e-6, atol=0, msg=name)


@every_layout
def test_transformers_reads_what_was_written_and_agrees(folder, oracle, tmp_path):
    """Both directions: from transformers' weights to each layout, and back into transformers."""
    made = to(folder, "hf", tmp_path / "made", max_shard=6000)
    assert (made / "model.safetensors.index.json").is_file()
    theirs, told = CpmAntForCausalLM.from_pretrained(made, output_loading_info=True)
    assert not told["missing_keys"]
    assert not told["unexpected_keys"]
    ids, segment, context = random_rows(5, 2, 9)
    with torch.no_grad():
        hidden = oracle_hidden(theirs.eval(), ids, segment, context)
        model = load(folder).eval()
        ours = model.logits(model(ids, segment, context))
        torch.testing.assert_close(ours, oracle_logits(theirs, hidden), rtol=1e-4, atol=1e-4)
        if open_folder(folder).format == "hf":
            before = oracle_logits(oracle, oracle_hidden(oracle, ids, segment, context))
            again = load(to(made, "reference", tmp_path / "again")).eval()
            logits = again.logits(again(ids, segment, context))
            torch.testing.assert_close(logits, before, rtol=1e-4, atol=1e-4)


def test_shards_hold_no_more_than_was_asked_for(hugging_face, tmp_path):
    made = to(hugging_face, "hf", tmp_path / "many", max_shard=9000)
    index = json.loads((made / "model.safetensors.index.json").read_text())
    for file in sorted(set(index["weight_map"].values())):
        tensors = load_file(made / file)
        assert len(tensors) == 1 or sum(t.nbytes for t in tensors.values()) <= 9000
        assert {name for name, f in index["weight_map"].items() if f == file} == set(tensors)
    assert index["metadata"]["total_size"] == sum(t.nbytes for t in stored(made).values())


def test_a_pt_file_is_a_sound_zip_file_that_can_be_mapped(native, tmp_path):
    file = to(native, "reference", tmp_path / "made") / "made.pt"
    assert zipfile.ZipFile(file).testzip() is None
    mapped = torch.load(file, weights_only=True, mmap=True)
    assert {value.data_ptr() % 64 for value in mapped.values()} == {0}


@every_layout
def test_another_dtype_is_that_of_the_weights_and_of_the_config(folder, tmp_path):
    for layout in LAYOUTS:
        made = to(folder, layout, tmp_path / f"to-{layout}", dtype=torch.float16)
        assert {value.dtype for value in stored(made).values()} == {torch.float16}
        assert_same_weights(load(made), load(folder).state_dict(), 2e-3)
    assert json.loads((tmp_path / "to-reference" / "to-reference.json").read_text())["half"] is True
    assert json.loads((tmp_path / "to-hf" / "config.json").read_text())["torch_dtype"] == "float16"


MASKS = ((True, False), (False, True), (True, True))


def test_a_compressed_backbone_goes_where_its_shape_can_be_said(tmp_path):
    config = CPMAntConfig(**REFERENCE_SHAPE, mask_modules=MASKS)
    model = random_backbone(config, 2, torch.float32)
    save_native(tmp_path / "small", model, VOCABULARY_TEXT, trained=False)
    made = to(tmp_path / "small", "reference", tmp_path / "ref")
    assert open_folder(made).config.mask_modules == MASKS
    assert not open_folder(made).trained
    assert_same_weights(load(made), model.state_dict(), 1e-6)
    folder = open_folder(made)
    assert "mask_modules" in complaint("", lambda: convert(folder, tmp_path / "no", "hf"))
    assert not (tmp_path / "no").exists()


# --- what is wrong with the input ---


def test_what_does_not_fit_is_told_by_kind_with_layers_together(reference, tmp_path):
    def spoil(state: dict[str, torch.Tensor]) -> None:
        for layer in range(3):
            del state[f"encoder.layers.{layer}.ffn.ffn.w_out.weight"]
        state["encoder.layers.0.extra.weight"] = torch.ones(2)
        state["segment_embedding.weight"] = torch.ones(2, 3)

    change_weights(reference, spoil)
    folder = open_folder(reference)
    message = complaint(reference, lambda: convert(folder, tmp_path / "new", "hf"))
    assert "missing encoder.layers.[0-2].ffn.ffn.w_out.weight" in message
    assert "unexpected encoder.layers.0.extra.weight" in message
    assert "segment_embedding.weight has shape (2, 3), expected (6, 24)" in message
    assert sorted(tmp_path.iterdir()) == [reference]


def test_another_vocabulary_and_a_cut_shard_are_named_and_nothing_is_left(hugging_face, tmp_path):
    rewrite_json(hugging_face / "config.json", vocab_size=VOCAB + 1)
    folder = open_folder(hugging_face)
    said = complaint(hugging_face, lambda: convert(folder, tmp_path / "new", "native"))
    assert f"{VOCAB} entries, but the config says vocab_size {VOCAB + 1}" in said
    rewrite_json(hugging_face / "config.json", vocab_size=VOCAB)
    many = to(hugging_face, "hf", tmp_path / "many", max_shard=9000)
    shard = sorted(many.glob("*.safetensors"))[1]
    content = shard.read_bytes()
    shard.write_bytes(content[:-10])
    said = complaint(shard, lambda: convert(open_folder(many), tmp_path / "new", "native"))
    assert "not a readable checkpoint" in said
    shard.unlink()
    assert "missing" in complaint(many, lambda: convert(open_folder(many), tmp_path / "new", "hf"))
    assert sorted(tmp_path.iterdir()) == [hugging_face, many]


def test_what_a_dtype_cannot_hold_is_named(reference, tmp_path):
    change_weights(reference, lambda state: state["segment_embedding.weight"].fill_(1e6))
    folder = open_folder(reference)
    how = {"dtype": torch.float16}
    said = complaint(reference, lambda: convert(folder, tmp_path / "x", "reference", **how))
    assert "segment_embedding.weight is not finite in torch.float16" in said


@pytest.mark.parametrize("fault", ["other weights", "noise"])
def test_a_remainder_of_other_weights_is_refused(reference, tmp_path, fault):
    change_weights(reference, lambda state: [value.mul_(1.1) for value in state.values()])
    made = to(reference, "hf", tmp_path / "made")
    if fault == "noise":
        (made / "scaling.npz").write_bytes(b"noise")
    else:
        change_weights(made, lambda state: [value.mul_(2) for value in state.values()])
    folder = open_folder(made)
    said = complaint(made, lambda: convert(folder, tmp_path / "new", "reference"))
    assert "remove it" in said
    assert load(made) is not None  # who only loads it does not need the file


class Evil:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (str(Path("marker").resolve()),)


def test_a_malicious_pickle_is_refused_with_a_sentence(reference, tmp_path, cli: CLI, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.save({"evil": Evil()}, reference / "cpm-ant-tiny.pt")
    code, _, error = cli("convert", reference, "new", "--to", "hf")
    assert code == 2
    assert error.count("\n") == 1
    assert "a pickle of more than tensors (refused)" in error
    assert not Path("new").exists()
    assert not Path("marker").exists()


@pytest.mark.parametrize("more", [(), ("--overwrite",)])
def test_the_root_of_the_file_system_is_one_sentence(
    native: Path, tmp_path: Path, cli: CLI, more: tuple[str, ...]
) -> None:
    (tmp_path / "text.txt").write_text("天地玄黄。", encoding="utf-8")
    prune = ("--text", tmp_path / "text.txt", "--attention-layers", 1, "--ffn-layers", 1)
    for words in (("convert", native, "/"), ("prune", native, "/", *prune)):
        code, _, error = cli(*words, "--to", "native", *more)
        assert (code, error.count("\n")) == (2, 1)
        assert "error: /" in error


def test_the_command_replaces_only_a_backbone_and_only_when_told_to(native, tmp_path, cli: CLI):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "note").write_text("keep")
    words = ("convert", native, tmp_path / "mine", "--to", "hf")
    for more, said in (((), "already exists"), (("--overwrite",), "not a backbone folder")):
        code, _, error = cli(*words, *more)
        assert (code, said in error) == (2, True)
    assert (tmp_path / "mine" / "note").read_text() == "keep"
    for place, said in (
        (native / "inner", "is inside"),
        (tmp_path / "mine" / "note" / "x", "note is a file"),
    ):
        code, _, error = cli("convert", native, place, "--to", "hf")
        assert (code, said in error, error.count("\n")) == (2, True, 1)
    before = stored(native)
    assert cli("convert", native, native, "--to", "hf", "--overwrite")[0] == 0
    assert open_folder(native).format == "hf"
    assert torch.equal(stored(native)["lm_head.weight"], before["input_embedding.weight"])
    assert not list(tmp_path.glob("*.old"))


@pytest.mark.parametrize("size", ["-1GB", "0GB", "4", "much"])
def test_a_senseless_size_is_one_sentence(native, tmp_path, cli: CLI, size):
    code, _, error = cli("convert", native, tmp_path / "x", "--to", "hf", "--max-shard-size", size)
    assert code == 2
    assert f"--max-shard-size is '{size}', expected a size above zero" in error


def test_a_terminated_conversion_leaves_nothing(native, tmp_path, cli: CLI, monkeypatch):
    monkeypatch.setattr(module, "write_safetensors", lambda *_: signal.raise_signal(signal.SIGTERM))
    code, _, error = cli("convert", native, tmp_path / "new", "--to", "native")
    assert (code, error) == (143, f"interrupted; {NOTHING_WRITTEN}.\n")
    assert list(tmp_path.iterdir()) == [native]


# --- the hub ---


def test_a_hub_name_is_downloaded_when_given_as_one(hugging_face, monkeypatch):
    asked: list[tuple[str, str | None, tuple[str, ...]]] = []

    def fake(model: str, revision: str | None, allow_patterns: list[str]) -> str:
        asked.append((model, revision, tuple(allow_patterns)))
        return str(hugging_face)

    monkeypatch.setattr("huggingface_hub.snapshot_download", fake)
    assert open_folder(resolve("hub:openbmb/cpm-ant-10b@main")).format == "hf"
    assert asked == [
        ("openbmb/cpm-ant-10b", "main", ("*.json", "*.txt", "*.model", "*.safetensors"))
    ]
    torch.save(load_file(hugging_face / "model.safetensors"), hugging_face / "pytorch_model.bin")
    (hugging_face / "model.safetensors").unlink()
    resolve("hub:openbmb/cpm-ant-10b")
    assert asked[-1][1:] == (None, ("*.json", "*.txt", "*.model", "*.safetensors", "*.bin", "*.pt"))


def test_without_a_network_or_the_prefix_a_hub_name_is_one_sentence(monkeypatch):
    from huggingface_hub.errors import LocalEntryNotFoundError

    def offline(*_: object, **__: object) -> str:
        raise LocalEntryNotFoundError("no network")

    monkeypatch.setattr("huggingface_hub.snapshot_download", offline)
    name = "hub:openbmb/cpm-ant-10b"
    assert "cannot be reached" in complaint(name, lambda: resolve(name))
    assert "OWNER/NAME" in complaint("hub:x", lambda: resolve("hub:x"))
    said = complaint("openbmb/cpm", lambda: resolve("openbmb/cpm"))
    assert "hub:" in said
