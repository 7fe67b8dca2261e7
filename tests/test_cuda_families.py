"""What every family's training passes ask of a GPU: nothing, counted on the meta device, whose
tensors have no values to read; and their weights go there as they are read."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import causal_folders
import encdec_folders
import pytest
import torch
from test_kernels import Count

from cpm_tune.backbone.causal import loading
from cpm_tune.backbone.example import Answer, Example
from cpm_tune.backbone.families import open_folder
from cpm_tune.delta.config import LoraConfig, PrefixConfig
from cpm_tune.delta.insert import insert
from cpm_tune.schema.spec import Encoding
from cpm_tune.tuning.predict import batch_loss

META = torch.device("meta")
FAMILIES: dict[str, tuple[Callable[..., Path], str]] = {
    **{kind: (causal_folders.make_folder, kind) for kind in ("gpt2", "llama")},
    **{kind: (encdec_folders.make_folder, kind) for kind in list(encdec_folders.KINDS)[:2]},
}


@pytest.mark.parametrize("delta", [LoraConfig(lora_r=2), PrefixConfig(prefix_token_num=2)])
@pytest.mark.parametrize("name", FAMILIES)
def test_a_training_pass_on_a_gpu_reads_nothing(
    name: str,
    delta: LoraConfig | PrefixConfig,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Transformers itself asks once per pass whether rows are packed, which ours never are."""
    packed = "transformers.masking_utils.find_packed_sequence_indices"
    monkeypatch.setattr(packed, lambda position_ids: None)
    make, kind = FAMILIES[name]
    folder = open_folder(make(tmp_path / "made", kind))
    layout = folder.layout(Encoding(), folder.tokenizer())
    lead = layout.lead if hasattr(layout, "lead") else ()
    examples = [
        Example("", (tuple(range(5, 9 + n)),), (Answer(0, (*lead, 7, 6), len(lead)),), 0, False)
        for n in (0, 30, 90)
    ]
    model = folder.config.skeleton().to(torch.bfloat16).train()
    with torch.device("meta"):
        inserted = insert(model, delta, "", seed=1)
    moved = layout.collate(examples).copied(META)
    with Count() as count:
        batch_loss(model, moved, "generation").backward()
    assert count.reads == 0, count.each
    assert all(p.grad is not None and p.grad.is_meta for p in inserted.parameters.values())


@pytest.mark.parametrize("seed", [None, 1])
@pytest.mark.parametrize("name", FAMILIES)
def test_weights_go_to_the_device_as_they_are_read_or_drawn(
    name: str, seed: int | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also if an engine leaves the model whole."""
    for place in ("opening", "causal.loading"):
        monkeypatch.setattr(f"cpm_tune.backbone.{place}.check_finite", lambda *given: None)
    make, kind = FAMILIES[name]
    folder = open_folder(make(tmp_path / "made", kind))
    for engine in (None, lambda model: False):
        model = folder.open(torch.bfloat16, device=META, random_seed=seed, materialise=engine)
        assert {parameter.device for parameter in model.parameters()} == {META}
        assert not any(buffer.is_meta for buffer in model.buffers())


@pytest.mark.parametrize("seed", [None, 1])
@pytest.mark.parametrize("kind", ["gpt2", "llama"])
def test_weights_read_one_by_one_are_those_of_transformers(
    kind: str, seed: int | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As for a GPU, but onto the CPU."""
    folder = open_folder(causal_folders.make_folder(tmp_path / "made", kind))
    whole = folder.open(torch.float32, random_seed=seed)
    model = folder.open(
        torch.float32, random_seed=seed, materialise=loading._onto("cpu", lambda model: False)
    )
    ours, theirs = (dict(one.state_dict()) for one in (model, whole))
    ours, theirs = (
        {**one, **dict(m.named_buffers())} for one, m in ((ours, model), (theirs, whole))
    )
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
