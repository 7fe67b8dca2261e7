"""What the tests of several families share: folders made once, deltas' configs, small batches, and
caches next to no cache."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from cpm_tune.backbone.base import Recomputed
from cpm_tune.backbone.example import Answer, Example
from cpm_tune.delta.config import parse_config
from cpm_tune.delta.insert import Delta, frozen_checksum, insert, load_delta
from cpm_tune.task.registry import load_preset, preset_files

SHA = "0" * 64
PRESETS = sorted(set(preset_files()) - {"none"})
IDENTICAL = {"lora", "bitfit", "parallel_adapter", "full"}  # at the start, bit by bit or nearly


def made_once(place: Path, make: Callable[[Path, str], Path]) -> Callable[[str], Path]:
    """Folders of models by kind, each made by the first call for it."""
    known = dict[str, Path]()

    def folder(kind: str) -> Path:
        if kind not in known:
            known[kind] = make(place / kind, kind)
        return known[kind]

    return folder


def config_of(preset: str, **changes: Any) -> Any:
    """A preset, small enough for tiny models."""
    values = load_preset(preset)
    small = {"soft_token_num": 6} if values["delta_type"] == "soft_prompt" else {}
    if values["delta_type"] in ("compacter", "low_rank_adapter"):
        small = {"reduction_factor": 4}
    if values.get("reparameterize"):
        small = {"embed_dim": 8, "mid_dim": 8}
    if values.get("option_token_num"):
        small["option_token_num"] = 1
    return parse_config({**values, **small, **changes}, preset)


def batch_of(layout: Any, soft: bool = False) -> Any:
    """Three sequences; with `soft` tokens at the front, in the middle and at the back."""
    first, lead = layout.first_free, layout.lead
    examples = []
    for n in (9, 4, 7):
        ids = list(range(10, 10 + n))
        if soft:
            ids = [first, first + 1, *ids[:3], first + 2, first + 3, *ids[3:], first + 4, first + 5]
        ids = [*getattr(layout, "start", ()), *ids]
        answer = Answer(0, (*lead, 20, 21), len(lead))
        examples.append(Example("", (tuple(ids),), (answer,), 0, False))
    return layout.collate(examples)


def logits_of(model: Any, batch: Any) -> torch.Tensor:
    with torch.no_grad():
        return torch.cat(list(model.scores(batch)))


def scatter(delta: Delta) -> None:
    """Give what is trained other values."""
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for parameter in delta.parameters.values():
            parameter += 0.05 * torch.randn(parameter.shape, generator=generator)


@torch.no_grad()
def check_cache(model: Any, layout: Any, contexts: Sequence[tuple[int, ...]], beams: int) -> Any:
    """That a cache of so many beams gives what no cache gives, also after rows have gone;
    returns the cache."""
    steps, rows, before = 4, len(contexts), 1
    kept = model.cache(layout, contexts, beams, steps * beams)
    recomputed = Recomputed(model, layout, contexts)
    torch.testing.assert_close(kept.start(), recomputed.start(), atol=1e-5, rtol=1e-5)
    generator = torch.Generator().manual_seed(1)
    for step in range(steps):
        parents = torch.randint(before, (rows, beams), generator=generator)
        tokens, before = torch.randint(4, 300, (rows, beams), generator=generator), beams
        torch.testing.assert_close(
            kept.step(tokens, parents), recomputed.step(tokens, parents), atol=1e-5, rtol=1e-5
        )
        if step == 1:
            kept.keep([4, 1, 2])
            recomputed.keep([4, 1, 2])
            rows = 3
    return kept


def check_delta(
    fresh: Callable[[], tuple[Any, Any]], preset: str, place: Path, close: float, lr: float
) -> None:
    """That a delta on `fresh` models (with their layouts) starts, trains, leaves the backbone as it
    was, and is saved: `close` is how near to the backbone those of `IDENTICAL` start."""
    model, layout = fresh()
    config = config_of(preset)
    batch = batch_of(layout)
    before, names = logits_of(model, batch), set(model.state_dict())
    delta = insert(model, config, SHA, 1)
    trained = (
        batch_of(layout, soft=True) if "soft_token_num" in type(config).model_fields else batch
    )
    started = logits_of(model, trained)
    if preset in IDENTICAL:
        torch.testing.assert_close(started, before, atol=close, rtol=close)
    scatter(delta)
    frozen = frozen_checksum(model, delta)
    optimizer = torch.optim.SGD(list(delta.parameters.values()), lr=lr)
    model.train()
    loss = -next(model.scores(trained)).log_softmax(-1)[:, 20].mean()
    loss.backward()
    optimizer.step()
    model.eval()
    for name, parameter in delta.parameters.items():
        assert parameter.grad is not None, name
    changed = logits_of(model, trained)
    assert (changed - started).abs().max() > 1e-4
    assert frozen_checksum(model, delta) == frozen
    delta.save(place)
    delta.remove()
    assert set(model.state_dict()) == names
    assert torch.equal(logits_of(model, batch), before)
    again, _ = fresh()
    load_delta(place, again, SHA)
    assert torch.equal(logits_of(again, trained), changed)


@torch.no_grad()
def check_prefix_in_cache(
    model: Any, layout: Any, contexts: Sequence[tuple[int, ...]], delta: Delta
) -> None:
    """That a cache of three contexts sees an inserted prefix, as no cache does; removes it."""
    kept, recomputed = model.cache(layout, contexts, 2, 9), Recomputed(model, layout, contexts)
    torch.testing.assert_close(kept.start(), recomputed.start(), atol=1e-5, rtol=1e-5)
    for parents in ([[0, 0]] * 3, [[1, 0], [0, 1], [1, 1]]):
        given = torch.tensor([[7, 8], [9, 10], [11, 12]]), torch.tensor(parents)
        torch.testing.assert_close(kept.step(*given), recomputed.step(*given), atol=1e-5, rtol=1e-5)
    other = Recomputed(model, layout, contexts).start()
    delta.remove()
    assert (Recomputed(model, layout, contexts).start() - other).abs().max() > 1e-3
