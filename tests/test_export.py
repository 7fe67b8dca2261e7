"""Merging, exporting and importing deltas, checked by the libraries that they are for."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from backbone_oracle import VOCABULARY_TEXT
from conftest import CLI
from delta_table import DELTAS, SHA, backbone, forward, perturb
from torch import Tensor

from cpm_tune.backbone.ant.checkpoint import load_weights
from cpm_tune.backbone.ant.folder import open_folder
from cpm_tune.backbone.ant.hugging_face import save_hugging_face
from cpm_tune.backbone.ant.model import CPMAnt
from cpm_tune.delta.config import AdapterConfig, CompacterConfig, LoraConfig
from cpm_tune.delta.foreign import read_peft, write_opendelta, write_peft
from cpm_tune.delta.insert import insert
from cpm_tune.delta.merge import merge
from cpm_tune.delta.several import Deltas
from cpm_tune.errors import UserError
from cpm_tune.planning.plan import Request, make_plan
from cpm_tune.runs.card import write_card, write_results
from cpm_tune.runs.execute import execute

pytestmark = pytest.mark.usefixtures("one_thread")
WIDE = LoraConfig(
    modified_modules=("project_q", "attention_out", "w_0", "w_out"),
    exclude_modules=("encoder.layers.1.ffn",),
    lora_r=3,
)
IDS = torch.tensor([[2, 9, 14, 5, 20, 11, 8], [2, 12, 12, 7, 6, 23, 17]])


def hf_forward(model: torch.nn.Module) -> Tensor:
    """Logits of transformers' own forward pass, which puts its prompt in front and drops it."""
    with torch.no_grad():
        return model.eval()(input_ids=IDS, use_cache=False).logits


def our_logits(model: CPMAnt) -> Tensor:
    """The same input in our model: prompt type 2, segment 2, everything visible, as there."""
    shape = model.config
    head = shape.vocab_size + 2 * shape.prompt_length + torch.arange(shape.prompt_length)
    ids = torch.cat((head.expand(len(IDS), -1), IDS), 1)
    segment = torch.full_like(ids, 2)
    segment[:, : shape.prompt_length] = 0
    with torch.no_grad():
        return model.logits(model(ids, segment)[:, shape.prompt_length :])


def close(a: Tensor, b: Tensor) -> bool:
    return a.shape == b.shape and torch.allclose(a, b, atol=2e-5, rtol=1e-4)


def with_lora(folder: Path) -> CPMAnt:
    model = load_weights(open_folder(folder), torch.float32).eval()
    perturb(insert(model, WIDE, SHA, seed=1), 0.2)
    return model


def test_a_lora_exported_to_peft_gives_the_same_logits_on_transformers_cpmant(
    hugging_face: Path, tmp_path: Path
) -> None:
    from peft import PeftModel
    from transformers import CpmAntForCausalLM

    model = load_weights(open_folder(hugging_face), torch.float32).eval()
    plain = our_logits(model)
    delta = insert(model, WIDE, SHA, seed=1)
    perturb(delta, 0.2)
    write_peft(tmp_path, model, WIDE, delta.state())
    theirs = CpmAntForCausalLM.from_pretrained(hugging_face)
    assert close(hf_forward(theirs), plain)
    theirs = PeftModel.from_pretrained(theirs, tmp_path)
    assert sum(p.numel() for n, p in theirs.named_parameters() if "lora_" in n) == delta.n_trainable
    assert close(hf_forward(theirs), our_logits(model))
    assert not torch.allclose(plain, our_logits(model), atol=1e-2)


@pytest.mark.parametrize("changes", [{}, {"use_rslora": True, "lora_alpha": 5}])
def test_a_lora_trained_with_peft_is_read_back(
    hugging_face: Path, tmp_path: Path, changes: dict[str, object]
) -> None:
    import peft
    from transformers import CpmAntForCausalLM

    config = peft.LoraConfig(r=4, target_modules=["project_k", "w_1"], **changes)
    theirs = peft.get_peft_model(CpmAntForCausalLM.from_pretrained(hugging_face), config)
    with torch.no_grad():
        for name, parameter in theirs.named_parameters():
            if "lora_B" in name:
                parameter.normal_(generator=torch.Generator().manual_seed(1))
    theirs.save_pretrained(tmp_path)
    model = load_weights(open_folder(hugging_face), torch.float32).eval()
    ours, state = read_peft(tmp_path, model)
    assert ours.modified_modules == ("project_k", "w_1")
    insert(model, ours, SHA, seed=0).load_state(state)
    assert close(our_logits(model), hf_forward(theirs))


def test_what_peft_or_its_variants_cannot_say_is_a_sentence(tmp_path: Path) -> None:
    model = backbone()
    for config in DELTAS.values():
        if not isinstance(config, LoraConfig):
            with pytest.raises(UserError, match="PEFT cannot express"):
                write_peft(tmp_path, model, config, {})
    short = backbone(mask_modules=((True, False), (False, True)))
    with pytest.raises(UserError, match="has every sub-block"):
        write_peft(tmp_path, short, LoraConfig(), {})
    with pytest.raises(UserError, match="no readable delta, adapter_config"):
        read_peft(tmp_path, model)
    delta = insert(model, LoraConfig(), SHA, seed=1)
    write_peft(tmp_path, model, LoraConfig(), delta.state())
    file = tmp_path / "adapter_config.json"
    values = json.loads(file.read_text())
    variants = {
        **{"use_dora": True, "bias": "all", "lora_bias": True},
        **{"use_qalora": True, "layer_replication": [[0, 1]], "trainable_token_indices": [1]},
        **{"alora_invocation_tokens": [1], "of_a_later_version": {"a": 1}},
    }
    for key, value in variants.items():
        file.write_text(json.dumps({**values, key: value}))
        with pytest.raises(UserError, match=f"{key} is .*, which is not supported here"):
            read_peft(tmp_path, model)
    for how in ("pissa", "pissa_niter_4", "olora", "corda", "loftq"):
        file.write_text(json.dumps({**values, "init_lora_weights": how}))
        with pytest.raises(UserError, match="changes the backbone's weights as well"):
            read_peft(tmp_path, model)
    for key, value in (("r", -8), ("r", "8"), ("lora_alpha", None), ("lora_dropout", [1])):
        file.write_text(json.dumps({**values, "use_rslora": True, key: value}))
        with pytest.raises(UserError, match=key):
            read_peft(tmp_path, model)
    file.write_text("[" * 200_000)
    with pytest.raises(UserError, match="nested too deep"):
        read_peft(tmp_path, model)
    file.write_text(json.dumps({**values, "peft_type": "PREFIX_TUNING"}))
    with pytest.raises(UserError, match="expected LORA"):
        read_peft(tmp_path, model)


def test_merged_weights_are_the_delta_and_load_in_transformers(
    hugging_face: Path, tmp_path: Path
) -> None:
    from transformers import CpmAntForCausalLM

    model = with_lora(hugging_face)
    expected = our_logits(model)
    delta_free = load_weights(open_folder(hugging_face), torch.float32)
    names = {name for name, _ in delta_free.named_parameters()}
    delta = insert(delta_free, WIDE, SHA, seed=1)
    perturb(delta, 0.2)
    found = merge(delta)
    assert 0 < found.largest < 1e-4
    assert {name for name, _ in delta_free.named_parameters()} == names
    assert close(our_logits(delta_free.eval()), expected)
    save_hugging_face(tmp_path, delta_free, VOCABULARY_TEXT)
    theirs, info = CpmAntForCausalLM.from_pretrained(tmp_path, output_loading_info=True)
    assert not any(info.values()), info
    assert close(hf_forward(theirs), expected)
    again = open_folder(tmp_path)
    assert again.tokenizer().encode("今天天气不错") == open_folder(hugging_face).tokenizer().encode(
        "今天天气不错"
    )
    assert close(our_logits(load_weights(again, torch.float32).eval()), expected)


def test_what_peft_writes_without_being_asked_is_read(tmp_path: Path) -> None:
    from peft import LoraConfig as Theirs

    model = backbone()
    write_peft(tmp_path, model, LoraConfig(), insert(model, LoraConfig(), SHA, seed=1).state())
    Theirs(r=8, lora_alpha=16, target_modules=["project_q", "project_v"]).save_pretrained(tmp_path)
    names = ("project_q", "project_v")
    assert read_peft(tmp_path, backbone())[0] == LoraConfig(modified_modules=names)


def test_a_merge_that_is_not_exact_enough_leaves_the_backbone_as_it_was() -> None:
    model = backbone(torch.bfloat16)
    weights = {name: value.clone() for name, value in model.state_dict().items()}
    delta = insert(model, LoraConfig(), SHA, seed=1)
    perturb(delta, 0.5)
    with pytest.raises(UserError, match="give other outputs"):
        merge(delta)
    after = model.state_dict()
    assert after.keys() == weights.keys()
    assert all(torch.equal(after[name], value) for name, value in weights.items())


def test_only_what_weights_can_hold_is_merged() -> None:
    for name, config in DELTAS.items():
        model = backbone()
        delta = insert(model, config, SHA, seed=1)
        if name in ("lora", "full"):
            merge(delta)
            continue
        with pytest.raises(UserError, match="cannot be merged"):
            merge(delta)
        assert delta.parameters  # it is still there


@pytest.mark.parametrize(
    "config",
    [WIDE, AdapterConfig(bottleneck_dim=4), CompacterConfig(reduction_factor=2)],
    ids=lambda c: c.delta_type,
)
def test_opendelta_loads_its_export(config: LoraConfig, tmp_path: Path) -> None:
    model = backbone()
    delta = insert(model, config, SHA, seed=1)
    perturb(delta, 0.2)
    with torch.no_grad():
        expected = forward(model, config)
    write_opendelta(tmp_path, model, config, delta.state())

    from opendelta import AutoDeltaConfig, AutoDeltaModel

    bare = backbone()
    bare.dummy_inputs = {"ids": torch.zeros(1, 2, dtype=torch.int64)}
    bare.dummy_inputs["segment"] = bare.dummy_inputs["ids"]
    read = AutoDeltaConfig.from_finetuned(str(tmp_path))
    theirs = AutoDeltaModel.from_config(read, bare)
    theirs.load_checkpoint(str(tmp_path))
    with torch.no_grad():
        assert close(forward(bare, config), expected)
    with pytest.raises(UserError, match="does not work on CPM-Ant"):
        write_opendelta(tmp_path, model, DELTAS["bitfit"], {})


def test_a_card_and_results_are_those_that_the_hub_reads(
    small_backbone: Path, tmp_path: Path
) -> None:
    import yaml
    from huggingface_hub import ModelCard, parse_eval_result_entries

    request = Request(
        "lcqmc",
        "lora",
        str(small_backbone),
        limit=12,
        settings={"train.max_steps": 1, "train.eval_every": 1},
    )
    record = execute(make_plan(request), tmp_path).record
    backbone = record.backbone.model_copy(update={"name": "somebody/a_model<b>"})
    named = record.model_copy(update={"backbone": backbone})
    write_card(tmp_path, named, "peft")
    refused = ModelCard.load(tmp_path / "README.md")
    assert (refused.data.eval_results, "sample data" in refused.text) == (None, True)
    write_card(tmp_path, named.model_copy(update={"comparable": True}), "peft")
    card = ModelCard.load(tmp_path / "README.md")
    results = {result.metric_type: result for result in card.data.eval_results}
    assert results["accuracy"].metric_value == record.test.value
    assert (results["accuracy"].dataset_type, card.data.library_name) == ("lcqmc", "peft")
    assert card.data.get("base_model") is None  # not a name of the hub
    for text in (
        f"{record.test.value:.4f} ",
        "majority",
        "sample data",
        record.spec.backbone.sha256,
    ):
        assert text in card.text
    assert r"somebody/a\_model\<b\>" in card.text
    with pytest.raises(UserError, match=r"no score for a public leaderboard: .*sample data"):
        write_results(tmp_path, record, "somebody/lcqmc")
    official = record.model_copy(update={"comparable": True, "note": ""})
    write_results(tmp_path, official, "somebody/lcqmc:pairs")
    (entry,) = parse_eval_result_entries(
        yaml.safe_load((tmp_path / ".eval_results" / "lcqmc.yaml").read_text(encoding="utf-8"))
    )
    assert (entry.dataset_id, entry.task_id) == ("somebody/lcqmc", "pairs")
    assert (entry.value, record.test.signature in entry.notes) == (record.test.value, True)


def test_a_run_is_exported_and_comes_back(
    cli: CLI, data: Path, small_backbone: Path, tmp_path: Path
) -> None:
    from transformers import AutoTokenizer

    first = ["--task", "lcqmc", "--data", data, "--backbone", small_backbone]
    first += ["--set", "train.max_steps=3", "--set", "train.lr=1"]
    words = [*first, "--control", "none", "--out", tmp_path / "results", "--delta", "lora"]
    assert cli(*words)[0] == 0
    (run,) = (tmp_path / "results").glob("lcqmc.lora*")
    said = {}
    for to in ("peft", "opendelta", "hf", "merged"):
        code, said[to], error = cli("export", run, "--to", to, "--out", tmp_path / to)
        assert code == 0, error
    assert "largest difference of logits" in said["merged"]
    assert "transformers 5.16.0 or later" in said["hf"]
    assert {p.name for p in (tmp_path / "hf").iterdir()} == {
        *("config.json", "model.safetensors", "vocab.txt", "tokenizer_config.json"),
        "README.md",
    }
    words = ["--to", "hf", "--out", tmp_path / "x", "--hub-dataset", "x"]
    code, _, error = cli("export", run, *words, "--backbone", tmp_path / "never read")
    assert (code, "expected OWNER/NAME or OWNER/NAME:TASK_ID" in error) == (2, True)
    assert not (tmp_path / "x").exists()
    theirs = AutoTokenizer.from_pretrained(tmp_path / "hf")
    text = "怎么养猫，\n如何 养鱼？A4"
    ids = open_folder(small_backbone).tokenizer().encode(text)
    assert theirs(text)["input_ids"] == [theirs.bos_token_id, *ids]
    before = sorted((tmp_path / "peft").iterdir())
    code, _, error = cli("export", run, "--to", "merged", "--out", tmp_path / "peft")
    assert (code, "already exists" in error) == (2, True)
    assert sorted((tmp_path / "peft").iterdir()) == before
    without = shutil.copytree(run, tmp_path / "without")
    (without / "delta.safetensors").unlink()
    for words in (("predict", without), ("export", without, "--to", "peft")):
        code, _, error = cli(*words, "--out", tmp_path / "none")
        assert (code, "delta.safetensors is missing" in error) == (2, True)
        assert not (tmp_path / "none").exists()

    # Scored by the merged backbone without delta, and by the delta that went through PEFT.
    zero = ["--task", "lcqmc", "--data", data, "--delta", "none", "--out", tmp_path / "zero"]
    for backbone_folder in (tmp_path / "merged", small_backbone):
        assert cli(*zero, "--backbone", backbone_folder)[0] == 0
    runs = {
        json.loads((p / "run.json").read_text())["backbone"]["name"]: p
        for p in (tmp_path / "zero").glob("lcqmc.none*")
    }
    back = tmp_path / "back"
    words = ["predict", runs["small"], "--data", data, "--out", back]
    assert cli(*words, "--delta-from", tmp_path / "peft")[0] == 0
    expected = scores(run)
    assert expected != scores(runs["small"])
    for made in (runs["merged"], back):
        assert torch.allclose(torch.tensor(scores(made)), torch.tensor(expected), atol=1e-4)

    assert cli(*words[:-1], tmp_path / "other", "--delta-from", tmp_path)[0] == 2
    code, _, error = cli("export", runs["small"], "--to", "peft", "--out", tmp_path / "none")
    assert (code, "has no delta to export" in error) == (2, True)
    assert not (tmp_path / "none").exists()

    # What was learnt on random weights is the control's alone.
    random = [*first, "--delta", "lora", "--control", "random-backbone", "--out", tmp_path / "two"]
    assert cli(*random)[0] == 0
    (control,) = (
        p.parent
        for p in (tmp_path / "two").glob("lcqmc.lora*/run.json")
        if json.loads(p.read_text())["spec"]["backbone"]["init"] == "random"
    )
    for to in ("peft", "opendelta"):
        code, _, error = cli("export", control, "--to", to, "--out", tmp_path / "none")
        assert (code, "trained on random weights" in error) == (2, True)
    deltas = Deltas(load_weights(open_folder(small_backbone), torch.float32), "0" * 64)
    with pytest.raises(UserError, match="trained on random weights"):
        deltas.load("a", control)
    deltas = Deltas(
        load_weights(open_folder(small_backbone), torch.float32),
        open_folder(small_backbone).sha256(),
    )
    deltas.load("run", run)
    deltas.load("peft", tmp_path / "peft")
    assert deltas.names == ("run", "peft")
    (run / "delta.safetensors").write_bytes(b"other")
    code, _, error = cli("export", run, "--to", "peft", "--out", tmp_path / "none")
    assert (code, "the file was changed" in error) == (2, True)
    assert not list(tmp_path.glob("none*"))


def scores(folder: Path) -> list[list[float]]:
    lines = (folder / "predictions.test.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line)["scores"] for line in lines]
