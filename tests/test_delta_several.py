"""Several deltas on one backbone: each as if alone, and nothing left behind."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from delta_table import DELTAS, DTYPES, SHA, backbone, forward, perturb, sequence
from torch import Tensor

from cpm_tune.backbone.ant.model import CPMAnt
from cpm_tune.delta.config import DeltaConfig, LoraConfig
from cpm_tune.delta.insert import insert
from cpm_tune.delta.several import Deltas
from cpm_tune.errors import UserError

pytestmark = pytest.mark.usefixtures("one_thread")
SHARED = {name: config for name, config in DELTAS.items() if name != "full"}


@dataclass(frozen=True)
class Alone:
    """A delta that was made on a backbone of its own, and what it says there."""

    config: DeltaConfig
    state: dict[str, Tensor]
    output: Tensor


def alone(config: DeltaConfig, seed: int, dtype: torch.dtype) -> Alone:
    model = backbone(dtype)
    delta = insert(model, config, SHA, seed)
    perturb(delta, 0.1)
    with torch.no_grad():
        return Alone(config, delta.state(), forward(model, config, dtype))


@torch.no_grad()
def output(model: CPMAnt, config: DeltaConfig, dtype: torch.dtype) -> Tensor:
    return forward(model, config, dtype)


@pytest.mark.parametrize("dtype", DTYPES.values(), ids=DTYPES)
def test_each_delta_speaks_as_if_alone_and_the_backbone_is_untouched(dtype: torch.dtype) -> None:
    model = backbone(dtype)
    weights = {name: value.clone() for name, value in model.state_dict().items()}
    plain = output(model, LoraConfig(), dtype)
    made = {name: alone(config, 1, dtype) for name, config in SHARED.items()}
    made |= {f"lora {seed}": alone(LoraConfig(), seed, dtype) for seed in (2, 3)}
    deltas = Deltas(model, SHA)
    for name, one in made.items():
        deltas.add(name, one.config, one.state)
    assert deltas.names == tuple(made)
    order = [*made, None, *reversed(made), "lora 2", "lora 3", None, "lora", "lora 3", "prefix"]
    for name in order:
        with deltas.active(name) as active:
            assert active is model
            if name is None:
                assert torch.equal(output(model, LoraConfig(), dtype), plain)
            else:
                assert torch.equal(output(model, made[name].config, dtype), made[name].output), name
    deltas.close()
    after = model.state_dict()
    assert after.keys() == weights.keys()
    assert all(torch.equal(after[name], weights[name]) for name in weights)
    assert torch.equal(output(model, LoraConfig(), dtype), plain)


def test_examples_of_one_batch_go_to_their_own_deltas() -> None:
    model, config = backbone(), LoraConfig()
    deltas = Deltas(model, SHA)
    for seed in (1, 2):
        one = alone(config, seed, torch.float32)
        deltas.add(f"{seed}", config, one.state)
    starts = [20, 30, 40, 50, 60]
    names = ["2", None, "1", "2", None]
    calls = []

    @torch.no_grad()
    def work(active: CPMAnt, group: list[int]) -> list[Tensor]:
        calls.append(group)
        return [active(**sequence(active, config, start, 9)) for start in group]

    found = deltas.run(names, starts, work)
    assert calls == [[20, 50], [30, 60], [40]]
    for name, start, got in zip(names, starts, found, strict=True):
        with deltas.active(name), torch.no_grad():
            assert torch.equal(model(**sequence(model, config, start, 9)), got)
    with pytest.raises(UserError, match="there is no delta '3'"):
        deltas.run(["1", "3"], [20, 30], work)
    assert len(calls) == 3


def test_what_cannot_be_shared_is_refused_and_leaves_the_rest_usable(tmp_path: Path) -> None:
    model = backbone()
    deltas = Deltas(model, SHA)
    one = alone(LoraConfig(), 1, torch.float32)
    deltas.add("a", one.config, one.state)
    with pytest.raises(UserError, match="'a' exists already"):
        deltas.add("a", one.config, one.state)
    with pytest.raises(UserError, match="which shares nothing with the backbone"):
        deltas.add("b", DELTAS["full"], {})
    with pytest.raises(UserError, match="does not fit"):
        deltas.add("b", LoraConfig(lora_r=4), one.state)
    insert(backbone(), LoraConfig(), "1" * 64, seed=1).save(tmp_path)
    with pytest.raises(UserError, match="tuned on another backbone"):
        deltas.load("b", tmp_path)
    active = pytest.raises(UserError, match="is active on this")
    with deltas.active("a"), active, deltas.active(None):
        pass
    with deltas.active("a") as busy:
        for step in (deltas.close, lambda: deltas.drop("a")):
            with pytest.raises(UserError, match="is active on this"):
                step()
        assert torch.equal(output(busy, one.config, torch.float32), one.output)
    assert deltas.names == ("a",)
    with deltas.active("a"):
        assert torch.equal(output(model, one.config, torch.float32), one.output)
    deltas.drop("a")
    insert(model, LoraConfig(), SHA, seed=1)  # free again
