"""Checkpoints as people have them: heads with prompt rows, prefixes, CPM-Ant+, other models."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from backbone_oracle import (
    CONFIG,
    VOCAB,
    VOCABULARY,
    assert_same_weights,
    change_weights,
    complaint,
    every_layout,
    expected_state,
    load,
    rewrite_json,
    unscaled_state,
    write_reference,
)
from conftest import CLI
from transformers import CpmAntForCausalLM

from cpm_tune.backbone.ant.convert import convert
from cpm_tune.backbone.ant.folder import open_folder
from cpm_tune.backbone.ant.tokenizer import PlusTokenizer

HEAD, TABLE = "lm_head.weight", "cpmant.input_embedding.weight"
PLUS_ENTRIES = (*VOCABULARY, "<mask>", "<", ">", " abc", " a", "天气 ", "气 今")


# --- heads ---


def test_a_head_of_tokens_and_prompts_as_transformers_4_wrote_it_opens(oracle, hugging_face):
    change_weights(hugging_face, lambda state: state.update({HEAD: state[TABLE].clone()}))
    assert_same_weights(load(hugging_face), expected_state(oracle))


@pytest.mark.parametrize("row", [0, VOCAB - 1, VOCAB, -1])
def test_one_changed_row_of_such_a_head_is_found_out(hugging_face, row):
    def change(state):
        state[HEAD] = state[TABLE].clone()
        state[HEAD][row, 3] += 1e-6

    change_weights(hugging_face, change)
    message = complaint(hugging_face, lambda: load(hugging_face))
    assert "lm_head differs from the token embedding" in message


@pytest.mark.parametrize("rows", [1, VOCAB - 1, VOCAB + 1])
def test_a_head_of_another_length_is_no_copy(hugging_face, rows):
    change_weights(hugging_face, lambda s: s.update({HEAD: s[TABLE][:rows].clone()}))
    assert "lm_head differs" in complaint(hugging_face, lambda: load(hugging_face))


# --- prefixes ---


@every_layout
@pytest.mark.parametrize("prefix", ["module.", "model.", "_orig_mod.module."])
def test_a_prefix_that_all_names_share_is_taken_off(oracle, folder, prefix):
    def change(state):
        for name in list(state):
            state[prefix + name] = state.pop(name)

    expected = {name: w.clone() for name, w in load(folder).state_dict().items()}
    change_weights(folder, change)
    assert_same_weights(load(folder), expected)


def test_the_original_format_under_cpmant_is_still_the_original(oracle, reference):
    state = {f"cpmant.{name}": w for name, w in unscaled_state(oracle).items()}
    torch.save(state, reference / "cpm-ant-tiny.pt")
    assert_same_weights(load(reference), expected_state(oracle), tolerance=1e-6)


@pytest.mark.parametrize("prefix", ["", "module."])
@pytest.mark.parametrize("head", [True, False])
def test_hugging_faces_weights_with_the_original_config_are_refused(
    oracle, reference, prefix, head
):
    state = {prefix + name: w for name, w in oracle.state_dict().items() if head or name != HEAD}
    torch.save(state, reference / "cpm-ant-tiny.pt")
    message = complaint(reference, lambda: load(reference))
    assert "weights of Hugging Face's CpmAnt, which are scaled otherwise" in message


def test_a_prefix_of_some_names_only_is_named(hugging_face):
    change_weights(hugging_face, lambda state: state.update({"module.a": state.pop(HEAD)}))
    assert "unexpected module.a" in complaint(hugging_face, lambda: load(hugging_face))


def test_a_file_of_layers_alone_is_told_by_its_own_names(oracle, reference):
    state = {n: w for n, w in unscaled_state(oracle).items() if n.startswith("encoder.layers.")}
    torch.save(state, reference / "cpm-ant-tiny.pt")
    message = complaint(reference, lambda: load(reference))
    assert "missing input_embedding.weight" in message
    assert "unexpected" not in message


# --- CPM-Ant+ ---


@pytest.fixture
def plus(oracle: CpmAntForCausalLM, tmp_path: Path) -> Path:
    """CPM-Ant+ as it was published: one table, a vocabulary that begins as CPM-Ant's."""
    folder = write_reference(tmp_path / "plus", oracle, "cpm-ant-plus.pt")
    state = unscaled_state(oracle)
    tables = [state.pop(f"{name}_embedding.weight") for name in ("input", "prompt")]
    torch.save({**state, "input_embedding.weight": torch.cat(tables)}, folder / "cpm-ant-plus.pt")
    (folder / "ant.txt").rename(folder / "ant_plus.txt")
    return folder


def test_ant_plus_opens(oracle, plus):
    folder = open_folder(plus)
    assert (folder.format, folder.config, folder.plus) == ("reference", CONFIG, True)
    assert isinstance(folder.tokenizer(), PlusTokenizer)
    assert_same_weights(load(plus), expected_state(oracle), tolerance=1e-6)


@pytest.mark.parametrize("to", ["native", "hf"])
def test_ant_plus_is_converted_and_comes_back_byte_for_byte(plus, tmp_path, to):
    convert(open_folder(plus), tmp_path / "there", to)
    there = open_folder(tmp_path / "there")
    assert there.plus
    assert_same_weights(load(there.path), load(plus).state_dict())
    assert there.tokenizer().sha256 == open_folder(plus).tokenizer().sha256
    convert(there, tmp_path / "back" / "cpm-ant-plus", "reference")
    back = tmp_path / "back" / "cpm-ant-plus"
    ours, theirs = (torch.load(f / "cpm-ant-plus.pt", weights_only=True) for f in (back, plus))
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    assert (back / "ant_plus.txt").read_bytes() == (plus / "ant_plus.txt").read_bytes()
    assert open_folder(back).plus


def test_a_run_and_an_export_keep_ant_plus(cli: CLI, small_backbone, tmp_path, data):
    """The whole way: tuned, exported merged, opened again."""
    plus = shutil.copytree(small_backbone, tmp_path / "plus")
    (plus / "vocab.txt").rename(plus / "ant_plus.txt")
    words = ["--task", "lcqmc", "--data", data, "--backbone", plus]
    words += ["--set", "train.max_steps=1", "--control", "none", "--out", tmp_path / "out"]
    code, _, error = cli(*words, "--delta", "lora", "--set", "delta.lora_r=2")
    assert code == 0, error
    (run,) = (tmp_path / "out").glob("lcqmc.lora*")
    for to in ("merged", "hf"):
        code, _, error = cli("export", run, "--to", to, "--out", tmp_path / to)
        assert code == 0, error
        assert open_folder(tmp_path / to).plus


def test_a_fingerprint_tells_how_text_is_cut(plus):
    sha256 = open_folder(plus).sha256()
    (plus / "ant_plus.txt").rename(plus / "ant.txt")
    assert open_folder(plus).sha256() != sha256


def test_a_vocabulary_with_spaced_twins_is_ant_plus_under_any_name(plus):
    (plus / "ant_plus.txt").unlink()
    (plus / "vocab.txt").write_text("\n".join(PLUS_ENTRIES) + "\n", encoding="utf-8")
    rewrite_json(plus / "cpm-ant-tiny.json", vocab_size=len(PLUS_ENTRIES))
    folder = open_folder(plus)
    assert folder.plus
    assert len(folder.tokenizer()) == len(PLUS_ENTRIES)


def longest_match(text: str, entries: tuple[str, ...]) -> list[int]:
    """CPM-Ant+'s rule from its definition: at each place the longest entry, else nothing."""
    names = {"</_>": " ", "</n>": "\n"}
    ids = {names.get(e, e): i for i, e in enumerate(entries)}
    known = {e: i for e, i in ids.items() if not (e.startswith("<") and e.endswith(">"))}
    made = []
    while text:
        fitting = [e for e in known if text.startswith(e)]
        best = max(fitting, key=len, default=text[0])
        made += [known[best]] if fitting else []
        text = text[len(best) :]
    return made


@pytest.mark.parametrize(
    "text",
    [
        "",
        "今天天气不错",
        "天气 今天\n abc a",
        "<s>a<unk>",
        "我爱\t北京上海ab",
        "  abcabc气 今",
        "☃☃",
    ],
)
def test_ant_plus_cuts_text_by_longest_match_without_words(text):
    tokenizer = PlusTokenizer(PLUS_ENTRIES)
    assert tokenizer.encode(text) == longest_match(text, PLUS_ENTRIES)
    dropped = tokenizer.unknown(text)
    assert set(dropped) <= set(text)
    if not dropped:
        assert tokenizer.decode(tokenizer.encode(text)) == text


# --- what is not CPM-Ant ---


@pytest.mark.parametrize(
    ("files", "words"),
    [
        (
            {"config.json": {"model_type": "minicpm", "architectures": ["MiniCPMForCausalLM"]}},
            ["model_type 'minicpm' (MiniCPMForCausalLM)", "model_type cpmant"],
        ),
        ({"config.json": {"model_type": "minicpm", "hidden_size": 8}}, ["model_type 'minicpm'"]),
        ({"config.json": {"model_type": "gpt2", "n_embd": 8}}, ["model_type 'gpt2'"]),
        ({"config.json": {"model_type": "cpmbee", "dim_model": 8}}, ["model_type 'cpmbee'"]),
        ({"config.json": {"model_type": "x" * 10_000}}, ["model_type 'xxx"]),
        ({"run.json": {}}, ["a run, not a backbone"]),
        ({"delta.json": {}}, ["a delta, not a backbone"]),
        ({"adapter_config.json": {}}, ["an adapter of PEFT's"]),
        ({"latest_checkpointed_iteration.txt": 80000}, ["CPM-1 or CPM-2"]),
        ({"mp_rank_00_model_states.pt": 0}, ["CPM-1 or CPM-2"]),
        ({"80000/mp_rank_00_model_states.pt": 0}, ["CPM-1 or CPM-2"]),
        ({"ggml-model.gguf": 0}, ["llama.cpp"]),
    ],
)  # fmt: skip
@pytest.mark.parametrize("vocabulary", [True, False])
def test_another_model_says_what_it_is_and_what_was_expected(tmp_path, files, words, vocabulary):
    if vocabulary:
        (tmp_path / "vocab.txt").write_text("a\n")
    (tmp_path / "model.safetensors").write_bytes(b"")
    for name, content in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(json.dumps(content))
    message = complaint(tmp_path, lambda: open_folder(tmp_path))
    assert all(word in message for word in words), message
    assert len(message) < 400


def test_a_model_of_the_same_shape_but_another_name_is_not_opened(hugging_face):
    rewrite_json(hugging_face / "config.json", model_type="cpmbee")
    assert "'cpmbee'" in complaint(hugging_face, lambda: open_folder(hugging_face))


def test_what_reads_hugging_faces_format_is_printed_by_convert(cli: CLI, plus, tmp_path):
    for to, printed in (("hf", True), ("native", False), ("reference", False)):
        code, out, _ = cli("convert", plus, tmp_path / to, "--to", to)
        assert (code, "transformers 5.16.0 or later" in out) == (0, printed)
