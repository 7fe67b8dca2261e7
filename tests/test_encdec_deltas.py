"""Deltas on encoder-decoders: by roles, identical at the start, saved, merged, exported."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from encdec_folders import make_folder, make_model, write_config
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

from cpm_tune.backbone.encdec.config import EncDecConfig
from cpm_tune.backbone.families import open_folder
from cpm_tune.delta.foreign import read_peft, write_peft
from cpm_tune.delta.insert import insert
from cpm_tune.delta.merge import merge
from cpm_tune.errors import UserError
from cpm_tune.schema.spec import Encoding

KINDS = ("mt5", "t5")


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return made_once(tmp_path_factory.mktemp("encdec"), make_folder)


def opened(path: Path) -> tuple[Any, Any]:
    folder = open_folder(path)
    layout = folder.layout(Encoding(target="sentinel"), folder.tokenizer())
    return folder.open(torch.float32).eval(), layout


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("kind", KINDS)
def test_every_method_starts_trains_is_saved_and_taken_out(
    kind: str, preset: str, made: Any, tmp_path: Path
) -> None:
    check_delta(lambda: opened(made(kind)), preset, tmp_path / "delta", close=1e-5, lr=0.1)


def test_roles_name_both_stacks_and_the_attention_between_them(made: Any) -> None:
    def modified(*names: str, **changes: Any) -> list[str]:
        model, _ = opened(made("mt5"))
        delta = insert(model, config_of("bitfit", modified_modules=names, **changes), SHA, 1)
        return [name.removesuffix(".bitfit.bias") for name in delta.parameters]

    blocks = [f"{stack}.block.{n}.layer" for stack in ("encoder", "decoder") for n in (0, 1)]
    assert modified("@attention.q") == [f"{block}.0.SelfAttention.q" for block in blocks]
    cross = [f"{block}.1.EncDecAttention.q" for block in blocks[2:]]
    assert modified("@cross.q") == cross
    assert modified("@cross.norm") == [f"{block}.1.layer_norm" for block in blocks[2:]]
    ffn = [f"{block}.{1 + ('decoder' in block)}" for block in blocks]
    assert modified("@ffn.norm") == [f"{block}.layer_norm" for block in ffn]
    ends = [f"{block}.DenseReluDense.{part}" for block in ffn for part in ("wi_0", "wi_1")]
    assert modified("@ffn.in") == ends
    assert modified("@norm") == ["encoder.final_layer_norm", "decoder.final_layer_norm"]
    alone = modified("@attention.q", exclude_modules=["decoder"])
    assert alone == [f"{block}.0.SelfAttention.q" for block in blocks[:2]]


def test_a_prefix_is_seen_when_texts_are_generated(made: Any) -> None:
    model, layout = opened(made("mt5"))
    names = ["@attention", "@cross"]
    delta = insert(model, config_of("prefix", modified_modules=names), SHA, 1)
    contexts = [tuple(range(10, 10 + n)) for n in (3, 9, 5)]
    check_prefix_in_cache(model, layout, contexts, delta)


@pytest.mark.parametrize("blind", ["prompt_sees_text", "text_sees_prompt"])
def test_a_soft_prompt_can_be_hidden_from_the_text_in_the_encoder(blind: str, made: Any) -> None:
    """What cannot see the other part, at the first layer, does not change with it."""
    model, layout = opened(made("mt5"))
    slots = {"slots": ["front"], "ratio_list": [1]}
    if blind == "text_sees_prompt":
        slots = {"slots": ["back"], "ratio_list": [1]}
    delta = insert(model, config_of("soft_prompt", **slots, **{blind: False}), SHA, 1)
    first = layout.first_free
    soft, text = [*range(first, first + 6)], [10, 11, 12]
    ids = torch.tensor([[*soft, *text]])
    seen = torch.ones_like(ids, dtype=torch.bool)
    with torch.no_grad():
        before = model.encode(ids, seen)[0]
        if blind == "prompt_sees_text":
            ids[0, 7] = 30
        else:
            scatter(delta)
        after = model.encode(ids, seen)[0]
    blind_rows, others = (slice(0, 6), slice(6, 9))
    if blind == "text_sees_prompt":
        blind_rows, others = others, blind_rows
    torch.testing.assert_close(after[blind_rows], before[blind_rows])
    assert (after[others] - before[others]).abs().max() > 1e-3


def theirs_at(model: Any, batch: Any) -> torch.Tensor:
    """The logits of transformers' class at a batch's targets, each row alone."""
    rows = []
    for r, n in enumerate(batch.lengths.tolist()):
        decoder = batch.decoder_ids[r : r + 1]
        rows.append(model(input_ids=batch.ids[r : r + 1, :n], decoder_input_ids=decoder).logits[0])
    pairs = zip(batch.target_row.tolist(), batch.target_place.tolist(), strict=True)
    return torch.stack([rows[row][place] for row, place in pairs])


@pytest.mark.parametrize("kind", KINDS)
def test_a_lora_merged_or_read_by_peft_gives_the_same_logits(
    kind: str, made: Any, tmp_path: Path
) -> None:
    from peft import PeftModel

    folder = open_folder(made(kind))
    model, layout = opened(made(kind))
    names = ["@attention.q", "@cross.v", "@ffn.out"]
    delta = insert(model, config_of("lora", modified_modules=names), SHA, 1)
    scatter(delta)
    batch = batch_of(layout)
    tuned = logits_of(model, batch)
    (tmp_path / "peft").mkdir()
    write_peft(tmp_path / "peft", model, delta.config, delta.state())
    other = tmp_path / "other"
    other.mkdir()
    base = make_model(write_config(other, kind))
    theirs = PeftModel.from_pretrained(base, tmp_path / "peft").eval()
    with torch.no_grad():
        torch.testing.assert_close(theirs_at(theirs, batch), tuned, atol=1e-5, rtol=1e-5)

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


def test_a_lora_trained_with_peft_is_read(made: Any, tmp_path: Path) -> None:
    """Its q and v are those of all three attentions."""
    import peft

    other = tmp_path / "other"
    other.mkdir()
    base = make_model(write_config(other, "mt5"))
    config = peft.LoraConfig(r=4, target_modules=["q", "v"], init_lora_weights=False)
    theirs = peft.get_peft_model(base, config).eval()
    theirs.save_pretrained(tmp_path / "peft")
    model, layout = opened(made("mt5"))
    ours, state = read_peft(tmp_path / "peft", model)
    assert len(state) == 2 * 2 * 6
    insert(model, ours, SHA, 1, values=state)
    batch = batch_of(layout)
    with torch.no_grad():
        expected = theirs_at(theirs, batch)
    torch.testing.assert_close(logits_of(model, batch), expected, atol=1e-5, rtol=1e-5)


def test_gradients_are_those_of_transformers_own(made: Any, tmp_path: Path) -> None:
    """Of every weight, fully tuned, dropout being off."""
    other = tmp_path / "other"
    other.mkdir()
    theirs = make_model(write_config(other, "mt5"))
    model, layout = opened(made("mt5"))
    delta = insert(model, config_of("full"), SHA, 1)
    batch = batch_of(layout)
    (logits,) = model.scores(batch)
    logits.log_softmax(-1)[:, 20].sum().backward()
    theirs_at(theirs, batch).log_softmax(-1)[:, 20].sum().backward()
    from cpm_tune.backbone.encdec.loading import THEIRS

    expected = dict(theirs.named_parameters())
    for name, parameter in delta.parameters.items():
        given = expected[THEIRS.get(name, name)].grad
        assert given is not None, name
        assert parameter.grad is not None, name
        scale = float(given.abs().max()) + 1e-8
        torch.testing.assert_close(parameter.grad / scale, given / scale, atol=1e-4, rtol=1e-4)


def test_a_role_that_does_not_exist_is_refused() -> None:
    with pytest.raises(UserError, match=r"has no @cross\.in"):
        insert(
            EncDecConfig().skeleton(2), config_of("lora", modified_modules=["@cross.in"]), SHA, 1
        )
