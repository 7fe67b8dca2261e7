"""A family of models that makes a mistake is told so in one sentence, and never computes wrong."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import toy_family
from conftest import CLI, vocabulary
from safetensors.torch import save_file
from torch import nn

import cpm_tune
from cpm_tune.backbone import families as door
from cpm_tune.backbone.base import check_logits, checked_scores, collated
from cpm_tune.backbone.example import Answer, Example
from cpm_tune.backbone.opening import random_backbone, read_backbone
from cpm_tune.backbone.padded import PaddedLayout
from cpm_tune.backbone.protocol import Shape
from cpm_tune.delta.layers import BiasPadding, PrefixLayer
from cpm_tune.errors import UserError

ENTRIES = ("<s>", "</s>", "<pad>", "<unk>", *vocabulary()[8:])
CONFIG = toy_family.Config(16, 2, ENTRIES)
EXAMPLES = [Example("1", ((0, 9, 8),), (Answer(0, (5, 6)), Answer(0, (7,))), 0, False)]


@pytest.fixture
def toy(tmp_path: Path) -> Path:
    folder = tmp_path / "toy"
    folder.mkdir()
    (folder / "toy.json").write_text(json.dumps({"width": 16, "depth": 2, "entries": ENTRIES}))
    model = random_backbone(CONFIG, 1, torch.float32)
    save_file(model.state_dict(), folder / "toy.safetensors")
    return folder


def install(patch: pytest.MonkeyPatch, **members: Any) -> None:
    """Let the toy be an installed family, with these members in place of its own."""
    family = type("Family", (toy_family.Family,), members)()
    patch.setattr(door, "_installed", lambda: (family,))


def fails(*_: object) -> Any:
    raise KeyError("width")


@pytest.mark.parametrize("name", ["recognises", "open"])
def test_a_family_that_fails_is_named_and_does_no_harm_elsewhere(
    cli: CLI, toy: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(monkeypatch, **{name: fails})
    code, _, error = cli("generate", "猫", "--backbone", toy)
    assert (code, "the model family 'toy' cannot" in error, "KeyError" in error) == (2, True, True)
    assert cli("generate", "猫", "--max-new-tokens", 2)[0] == 0


def test_a_family_that_recognises_everything_does_not_get_the_bundled_backbone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    install(monkeypatch, recognises=lambda *_: True)
    assert cpm_tune.load_backbone().folder.config.family == "ant"


class Wrong(toy_family.Toy):
    """A toy whose logits are changed on their way out."""

    change: Any = None

    def scores(self, batch: Any, tokens: Any = None) -> Any:
        for part in super().scores(batch, tokens):
            yield self.change(part)


@pytest.mark.parametrize(
    ("change", "alone"),
    [
        (lambda part: part[:-1], False),
        (lambda part: torch.cat([part, part[:1]]), False),
        (lambda part: part[:, :-1], False),
        (lambda part: part.bfloat16(), False),
        (lambda part: part.repeat(1, 3), True),
    ],
)
def test_logits_of_another_shape_or_dtype_are_refused(change: Any, alone: bool) -> None:
    model = Wrong(CONFIG)
    batch = PaddedLayout(toy_family.Tokenizer(ENTRIES), (0,)).collate(EXAMPLES)
    tokens = batch.target_token[:, None] if alone else None
    model.change = lambda part: part
    assert sum(map(len, checked_scores(model, batch, tokens))) == 3
    model.change = change
    with pytest.raises(UserError, match="a mistake of the family toy"):
        list(checked_scores(model, batch, tokens))


def test_a_cache_of_another_shape_is_refused() -> None:
    good = torch.zeros(2, 1, len(ENTRIES))
    assert check_logits(toy_family.Toy(CONFIG), good, 2, 1) is good
    for bad in (good[:1], good[..., 1:], good.half()):
        with pytest.raises(UserError, match="a mistake of the family toy"):
            check_logits(toy_family.Toy(CONFIG), bad, 2, 1)


def test_a_layout_that_loses_a_target_is_refused() -> None:
    class Losing(PaddedLayout):
        def collate(self, examples: Any) -> Any:
            batch = super().collate(examples)
            return replace(batch, target_token=batch.target_token[1:])

    with pytest.raises(UserError, match="Losing makes 2 targets of 2 candidates, expected 3 of 2"):
        collated(Losing(toy_family.Tokenizer(ENTRIES), (0,)), EXAMPLES)


def test_weights_that_do_not_fit_are_listed(tmp_path: Path) -> None:
    state = random_backbone(CONFIG, 1, torch.float32).state_dict()
    state["other"] = state.pop("cells.0.gate.bias")
    state["embedding.weight"] = state["embedding.weight"][:5]
    with pytest.raises(UserError) as error:
        read_backbone(CONFIG, state.items(), torch.float32, tmp_path)
    for words in ("missing cells.0.gate.bias", "unexpected other", "(5, 16), expected"):
        assert words in str(error.value)


def test_buffers_need_values(monkeypatch: pytest.MonkeyPatch) -> None:
    class Buffered(toy_family.Toy):
        def __init__(self, config: Any) -> None:
            super().__init__(config)
            self.register_buffer("mask", torch.ones(4), persistent=False)

    class Filled(Buffered):
        def fill_buffers(self) -> None:
            self.mask = torch.ones(4)

    monkeypatch.setattr(toy_family, "Toy", Buffered)
    with pytest.raises(UserError, match="have buffers \\(mask\\), and no `fill_buffers`"):
        random_backbone(CONFIG, 1, torch.float32)
    monkeypatch.setattr(toy_family, "Toy", Filled)
    assert random_backbone(CONFIG, 1, torch.float32).mask.tolist() == [1, 1, 1, 1]


def test_norms_are_ones_whatever_they_are_called(monkeypatch: pytest.MonkeyPatch) -> None:
    class Normed(toy_family.Toy):
        def __init__(self, config: Any) -> None:
            super().__init__(config)
            self.ln_f = nn.LayerNorm(config.width)

    monkeypatch.setattr(toy_family, "Toy", Normed)
    model = random_backbone(CONFIG, 1, torch.float32)
    assert model.ln_f.weight.tolist() == [1] * 16
    assert model.ln_f.bias.tolist() == [0] * 16


def test_a_prefix_that_attention_would_not_see_is_refused() -> None:
    layer = PrefixLayer(2, 8, torch.device("cpu"), BiasPadding())
    key = torch.zeros(1, 2, 3, 4)
    layer.extend(key, key, torch.zeros(1, 1, 3, 3))
    for bad, bias in ((key, torch.ones(1, 1, 3, 3, dtype=torch.bool)), (key[:, :1], None)):
        with pytest.raises(UserError, match="a mistake of this family"):
            layer.extend(bad, bad, torch.zeros(1, 1, 3, 3) if bias is None else bias)


def test_texts_longer_than_a_model_reads_are_refused_before_anything_runs(
    cli: CLI, toy: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    short = property(lambda c: Shape(c.width, c.depth, len(c.entries), 32, 0, limit=32))
    monkeypatch.setattr(toy_family.Config, "shape", short)
    install(monkeypatch)
    given = ("--task", "lcqmc", "--data", data, "--backbone", toy, "--out", tmp_path / "out")
    code, _, error = cli(*given, "--dry-run")
    assert (code, "encode.max_length is" in error, "32 tokens at most" in error) == (2, True, True)
    assert cli(*given, "--dry-run", "--set", "encode.max_length=32")[0] == 0
    code, _, error = cli("generate", "猫" * 40, "--backbone", toy, "--max-new-tokens", 4)
    assert (code, "more than max_length 32" in error) == (2, True), error
    assert cli("generate", "猫", "--backbone", toy, "--max-new-tokens", 4)[0] == 0
    code, _, error = cli("estimate", "--backbone", toy, "--length", 64)
    assert (code, "--length is 64" in error) == (2, True)


def test_roles_that_become_other_pairs_are_one_sentence(cli: CLI) -> None:
    pair = "delta.modified_modules=['@ffn.in', '@ffn.out']"
    code, _, error = cli(
        "--task", "lcqmc", "--delta", "parallel_adapter", "--set", pair, "--dry-run"
    )
    assert (code, "modified_modules has 3 names" in error) == (2, True)
