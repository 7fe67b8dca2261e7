"""Deltas on causal language models: by roles, identical at the start, saved, merged, exported."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from causal_folders import make_folder
from family_checks import (
    PRESETS,
    SHA,
    batch_of,
    check_delta,
    check_prefix_in_cache,
    config_of,
    logits_of,
    made_once,
    scatter,
)
from transformers import AutoModelForCausalLM

from cpm_tune.backbone.families import open_folder
from cpm_tune.delta.config import LoraConfig
from cpm_tune.delta.foreign import read_peft, write_peft
from cpm_tune.delta.insert import insert
from cpm_tune.delta.merge import merge
from cpm_tune.errors import UserError
from cpm_tune.schema.spec import Encoding

KINDS = ("gpt2", "llama", "bloom", "cohere", "phi3", "gemma2", "minicpm3", "opt")
NO_PREFIX = {"bloom", "gemma2", "minicpm3"}
LACKS = {("opt", "adapter"), ("opt", "low_rank_adapter"), ("opt", "compacter")}
LACKS |= {("opt", "parallel_adapter")}


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Any:
    quiet = {"attn_pdrop": 0.0, "resid_pdrop": 0.0, "embd_pdrop": 0.0}
    changes = {"gpt2": quiet, "opt": {"dropout": 0.0}}

    def make(folder: Path, kind: str) -> Path:
        return make_folder(folder, kind, **changes.get(kind, {}))

    return made_once(tmp_path_factory.mktemp("causal"), make)


def opened(path: Path) -> tuple[Any, Any]:
    folder = open_folder(path)
    layout = folder.layout(Encoding(prompt_type=None, segment=None), folder.tokenizer())
    return folder.open(torch.float32).eval(), layout


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("kind", KINDS)
def test_every_method_starts_trains_is_saved_and_taken_out(
    kind: str, preset: str, made: Any, tmp_path: Path
) -> None:
    prefix = preset.startswith("prefix") and kind in NO_PREFIX
    if prefix or (kind, preset) in LACKS:
        with pytest.raises(UserError) as refused:
            insert(opened(made(kind))[0], config_of(preset), SHA, 1)
        assert "\n" not in str(refused.value)
        return
    check_delta(lambda: opened(made(kind)), preset, tmp_path / "delta", close=1e-6, lr=0.5)


@pytest.mark.parametrize("kind", ["gpt2", "llama"])
def test_a_prefix_is_seen_when_texts_are_generated(kind: str, made: Any) -> None:
    model, layout = opened(made(kind))
    delta = insert(model, config_of("prefix"), SHA, 1)
    contexts = [(*layout.start, *range(10, 10 + n)) for n in (3, 9, 5)]
    check_prefix_in_cache(model, layout, contexts, delta)


def lora(kind: str) -> LoraConfig:
    """On fused and other projections."""
    return config_of("lora", modified_modules=["@attention.q", "@attention.v", "@ffn.out"])


@pytest.mark.parametrize("kind", ["gpt2", "llama", "bloom", "phi3"])
def test_a_lora_merged_or_read_by_peft_gives_the_same_logits(
    kind: str, made: Any, tmp_path: Path
) -> None:
    from peft import PeftModel

    folder = open_folder(made(kind))
    model, layout = opened(made(kind))
    delta = insert(model, lora(kind), SHA, 1)
    scatter(delta)
    batch = batch_of(layout)
    tuned = logits_of(model, batch)
    (tmp_path / "peft").mkdir()
    write_peft(tmp_path / "peft", model, delta.config, delta.state())
    base = AutoModelForCausalLM.from_pretrained(made(kind))
    theirs = PeftModel.from_pretrained(base, tmp_path / "peft").eval()
    rows = [batch.ids[r, :n].tolist() for r, n in enumerate(batch.lengths.tolist())]
    with torch.no_grad():
        whole = [theirs(torch.tensor([row])).logits[0] for row in rows]
    pairs = zip(batch.target_row.tolist(), batch.target_place.tolist(), strict=True)
    expected = torch.stack([whole[row][place] for row, place in pairs])
    torch.testing.assert_close(expected, tuned, atol=1e-5, rtol=1e-5)

    again, _ = opened(made(kind))
    config, state = read_peft(tmp_path / "peft", again)
    insert(again, config, SHA, 1, values=state)
    torch.testing.assert_close(logits_of(again, batch), tuned, atol=1e-5, rtol=1e-5)

    merge(delta)
    torch.testing.assert_close(logits_of(model, batch), tuned, atol=1e-5, rtol=1e-5)
    (tmp_path / "merged").mkdir()
    folder.save(model, tmp_path / "merged", "merged", trained=True)
    saved, _ = opened(tmp_path / "merged")
    torch.testing.assert_close(logits_of(saved, batch), tuned, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(("kind", "target"), [("gpt2", "c_attn"), ("llama", "q_proj")])
def test_a_lora_trained_with_peft_is_read(
    kind: str, target: str, made: Any, tmp_path: Path
) -> None:
    import peft

    base = AutoModelForCausalLM.from_pretrained(made(kind))
    config = peft.LoraConfig(r=4, target_modules=[target], init_lora_weights=False)
    theirs = peft.get_peft_model(base, config).eval()
    theirs.save_pretrained(tmp_path)
    model, layout = opened(made(kind))
    ours, state = read_peft(tmp_path, model)
    insert(model, ours, SHA, 1, values=state)
    batch = batch_of(layout)
    row = batch.ids[:1, : int(batch.lengths[0])]
    with torch.no_grad():
        expected = theirs(row).logits[0, batch.target_place[batch.target_row == 0]]
    ours_at = logits_of(model, batch)[batch.target_row == 0]
    torch.testing.assert_close(ours_at, expected, atol=1e-5, rtol=1e-5)


def test_a_role_that_a_model_lacks_and_hidden_pairs_are_refused(made: Any) -> None:
    mixtral = open_folder(made("mixtral"))
    with pytest.raises(UserError, match=r"has no @ffn\.in"):
        insert(mixtral.open(torch.float32), config_of("lora", modified_modules=["@ffn.in"]), SHA, 1)
    model, _ = opened(made("llama"))
    hidden = config_of("soft_prompt", text_sees_prompt=False)
    with pytest.raises(UserError, match="hides no pair"):
        insert(model, hidden, SHA, 1)
