"""What every delta promises, as one table: deltas x precisions x behaviours."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import decode_oracle
import pytest
import torch
from conftest import REPOSITORY
from delta_table import DELTAS, DTYPES, SHA, backbone, forward, perturb, sequence
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from cpm_tune.backbone.ant.checkpoint import load_weights
from cpm_tune.backbone.ant.config import PRESETS
from cpm_tune.backbone.ant.folder import open_folder
from cpm_tune.backbone.ant.model import CPMAnt
from cpm_tune.delta.config import NoneConfig, parse_config
from cpm_tune.delta.insert import frozen_checksum, insert, load_delta
from cpm_tune.errors import UserError
from cpm_tune.schema.spec import Decoding
from cpm_tune.task.registry import load_preset, preset_files

every_delta = pytest.mark.parametrize("name", DELTAS)
every_dtype = pytest.mark.parametrize("dtype", DTYPES.values(), ids=DTYPES)

# How far a fresh delta moves the hidden states, relative to their norm, as its paper has it.
EXACT, NEAR, FAR = (0.0, 0.0), (1e-9, 1e-2), (1e-2, 10.0)
AT_FIRST = {
    "full": EXACT,
    "lora": EXACT,
    "adapter": NEAR,
    "low_rank_adapter": FAR,
    "parallel_adapter": EXACT,
    "parallel_adapter, split": EXACT,
    "compacter": NEAR,
    "bitfit": EXACT,
    "prefix": FAR,
    "prefix, reparameterized": FAR,
}


pytestmark = pytest.mark.usefixtures("one_thread")


def frozen_forward(model: CPMAnt, name: str, dtype: torch.dtype = torch.float32) -> Tensor:
    with torch.no_grad():
        return forward(model, DELTAS[name], dtype)


def state(model: CPMAnt) -> dict[str, Tensor]:
    return {key: value.clone() for key, value in model.state_dict().items()}


def same(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return a.keys() == b.keys() and all(
        a[k].dtype == b[k].dtype and torch.equal(a[k], b[k]) for k in a
    )


@every_delta
@every_dtype
def test_exactly_the_delta_is_trainable_in_fp32(name: str, dtype: torch.dtype) -> None:
    model = backbone(dtype)
    before = set(dict(model.named_parameters()))
    delta = insert(model, DELTAS[name], SHA, seed=1)
    assert {n for n, p in model.named_parameters() if p.requires_grad} == set(delta.parameters)
    assert (
        (before == set(delta.parameters)) if name == "full" else not before & set(delta.parameters)
    )
    assert {p.dtype for p in delta.parameters.values()} == {torch.float32}
    assert delta.n_trainable == sum(p.numel() for p in model.parameters() if p.requires_grad) > 0
    assert not any(module.training for module in model.modules())  # as the backbone was
    frozen = {p.dtype for n, p in model.named_parameters() if n not in delta.parameters}
    assert frozen == (set() if name == "full" else {dtype})


@pytest.mark.parametrize("name", AT_FIRST)
@every_dtype
def test_at_first_a_delta_changes_as_much_as_its_paper_says(name: str, dtype: torch.dtype) -> None:
    model = backbone(dtype)
    plain = frozen_forward(model, name, dtype).float()
    delta = insert(model, DELTAS[name], SHA, seed=1)
    moved = (frozen_forward(model, name, dtype).float() - plain).norm() / plain.norm()
    low, high = AT_FIRST[name]
    if dtype == torch.bfloat16 and name == "full":  # fp32 weights now: up to bf16's rounding
        high = 2**-6
    assert low <= moved <= high
    perturb(delta)
    assert not torch.allclose(frozen_forward(model, name, dtype).float(), plain, atol=1e-3)


@every_delta
@every_dtype
def test_gradients_reach_all_of_the_delta_and_nothing_else(name: str, dtype: torch.dtype) -> None:
    model = backbone(dtype).train()
    delta = insert(model, DELTAS[name], SHA, seed=1)
    perturb(delta)
    (forward(model, DELTAS[name], dtype).float() ** 3).sum().backward()
    for key, parameter in model.named_parameters():
        assert (parameter.grad is not None) == (key in delta.parameters), key
        assert key not in delta.parameters or bool((parameter.grad != 0).any()), key


@every_delta
@every_dtype
def test_two_optimiser_steps_move_every_trained_tensor_alone(name: str, dtype: torch.dtype) -> None:
    model = backbone(dtype).train()
    delta = insert(model, DELTAS[name], SHA, seed=1)
    before, checksum = delta.state(), frozen_checksum(model, delta)
    optimizer = torch.optim.AdamW(delta.parameters.values(), lr=1e-3, weight_decay=0.0)
    for _ in range(2):  # at the first, one factor of a product may stand at zero
        (forward(model, DELTAS[name], dtype).float() ** 3).mean().backward()
        optimizer.step()
        optimizer.zero_grad()
    after = delta.state()
    assert [key for key in before if torch.equal(before[key], after[key])] == []
    assert frozen_checksum(model, delta) == checksum


@every_delta
@every_dtype
def test_removing_a_delta_restores_the_backbone_bit_for_bit(name: str, dtype: torch.dtype) -> None:
    model = backbone(dtype)
    values, soft = state(model), name.startswith("soft_prompt")
    plain = None if soft else frozen_forward(model, name, dtype)
    modules = [(key, set(vars(module))) for key, module in model.named_modules()]
    flags = [parameter.requires_grad for parameter in model.parameters()]
    delta = insert(model, DELTAS[name], SHA, seed=1)
    fresh = frozen_forward(model, name, dtype)
    perturb(delta)
    delta.remove()
    assert same(state(model), values)
    assert [(key, set(vars(module))) for key, module in model.named_modules()] == modules
    assert [parameter.requires_grad for parameter in model.parameters()] == flags
    if plain is not None:
        assert torch.equal(frozen_forward(model, name, dtype), plain)
    else:
        with pytest.raises(IndexError):
            frozen_forward(model, name, dtype)
    insert(model, DELTAS[name], SHA, seed=1)
    assert torch.equal(frozen_forward(model, name, dtype), fresh)


@every_delta
def test_a_second_delta_on_the_same_backbone_is_refused(name: str) -> None:
    model = backbone()
    delta = insert(model, DELTAS[name], SHA, seed=1)
    values = state(model)
    for config in (DELTAS[name], NoneConfig()):
        with pytest.raises(UserError, match="has a delta already"):
            insert(model, config, SHA, seed=1)
    assert same(state(model), values)
    assert all(p.requires_grad for p in delta.parameters.values())


@every_delta
def test_the_seed_alone_decides_the_first_values(name: str) -> None:
    before = torch.get_rng_state()
    first, again, half, other = (
        insert(backbone(dtype), DELTAS[name], SHA, seed=seed).state()
        for dtype, seed in (
            *((torch.float32, 1), (torch.float32, 1)),
            *((torch.bfloat16, 1), (torch.float32, 2)),
        )
    )
    assert torch.equal(torch.get_rng_state(), before)
    assert same(first, again)
    assert same(first, other) == (name in ("full", "bitfit"))
    if name == "full" or name.startswith("soft_prompt"):  # copies of the backbone's own values
        assert all(torch.allclose(first[k], half[k], rtol=1e-2) for k in first)
    else:
        assert same(first, half)


@every_delta
def test_the_saved_file_holds_the_delta_alone(name: str, tmp_path: Path) -> None:
    delta = insert(backbone(torch.bfloat16), DELTAS[name], SHA, seed=1)
    delta.save(tmp_path)
    path = tmp_path / "delta.safetensors"
    with safe_open(path, "pt") as file:
        sizes = {key: file.get_tensor(key).numel() for key in file.keys()}  # noqa: SIM118
    assert sizes == {key: p.numel() for key, p in delta.parameters.items()}
    header = 8 + int.from_bytes(path.read_bytes()[:8], "little")
    assert path.stat().st_size == header + 4 * delta.n_trainable


@every_delta
def test_a_saved_delta_is_refused_by_another_backbone(name: str, tmp_path: Path) -> None:
    insert(backbone(), DELTAS[name], "1" * 64, seed=1).save(tmp_path)
    with pytest.raises(UserError, match="tuned on another backbone"):
        load_delta(tmp_path, backbone(), "2" * 64)


CHILD = """
import sys; from pathlib import Path
sys.path.insert(0, "tests")
import torch; torch.set_num_threads(1)
from safetensors.torch import load_file
from cpm_tune.backbone.ant.checkpoint import load_weights
from cpm_tune.backbone.ant.folder import open_folder
from cpm_tune.delta.config import with_names
from cpm_tune.delta.insert import load_delta
from delta_table import DELTAS, DTYPES, forward
folder = open_folder(Path(sys.argv[1]))
for precision, dtype in DTYPES.items():
    model = load_weights(folder, dtype).eval()
    for name, config in DELTAS.items():
        place = Path(sys.argv[2]) / precision / name
        delta = load_delta(place, model, folder.sha256())
        with torch.no_grad():
            out = forward(model, config, dtype)
        assert delta.config == with_names(config, model.config.roles)
        print(name, torch.equal(out, load_file(place / "expected.safetensors")["out"]))
        delta.remove()
"""


def test_a_saved_delta_gives_identical_outputs_in_a_new_process(
    small_backbone: Path, tmp_path: Path
) -> None:
    folder = open_folder(small_backbone)
    for precision, dtype in DTYPES.items():
        model = load_weights(folder, dtype).eval()
        for name, config in DELTAS.items():
            place = tmp_path / precision / name
            place.mkdir(parents=True)
            delta = insert(model, config, folder.sha256(), seed=1)
            perturb(delta)
            delta.save(place)
            save_file({"out": frozen_forward(model, name, dtype)}, place / "expected.safetensors")
            delta.remove()
    words = [sys.executable, "-c", CHILD, str(small_backbone), str(tmp_path)]
    done = subprocess.run(words, capture_output=True, text=True, cwd=REPOSITORY)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [f"{name} True" for _ in DTYPES for name in DELTAS]


@every_delta
def test_a_delta_goes_into_a_backbone_with_absent_sub_blocks(name: str) -> None:
    model = backbone(mask_modules=((True, False), (False, True)))
    whole = insert(backbone(), DELTAS[name], SHA, seed=1)
    delta = insert(model, DELTAS[name], SHA, seed=1)
    assert set(delta.parameters) <= set(whole.parameters)
    perturb(delta)
    (forward(model, DELTAS[name]) ** 3).sum().backward()
    assert all(bool((p.grad != 0).any()) for p in delta.parameters.values())


@every_delta
def test_packed_sequences_come_out_as_they_would_alone(name: str) -> None:
    model, config = backbone(), DELTAS[name]
    with torch.no_grad():
        model.position_bias.relative_attention_bias.mul_(25)
    perturb(insert(model, config, SHA, seed=1), 0.2)
    parts = [sequence(model, config, start, n) for start, n in ((20, 12), (90, 7), (300, 15))]
    row = {key: torch.cat([part[key] for part in parts], 1) for key in parts[0]}
    lengths = [part["ids"].shape[1] for part in parts]
    row = {key: torch.cat([v, v[:, :4]], 1).repeat(2, 1) for key, v in row.items()}  # padding
    spans = zip((0, 1, 2, -1), (*lengths, 4), strict=True)
    span = torch.cat([torch.full((n,), k) for k, n in spans])
    with torch.no_grad():
        packed = model(**row, span=span.repeat(2, 1))[1]
        for k, part in enumerate(parts):
            alone = model(**part)[0]
            assert torch.allclose(packed[span == k], alone, atol=2e-5), name


@every_delta
def test_a_delta_is_the_same_function_in_every_layout(
    name: str, reference: Path, hugging_face: Path
) -> None:
    outputs = []
    for folder in (reference, hugging_face):
        model = load_weights(open_folder(folder), torch.float32).eval()
        perturb(insert(model, DELTAS[name], SHA, seed=1))
        outputs.append(frozen_forward(model, name))
    assert torch.allclose(*outputs, atol=1e-5)


def test_every_preset_trains_as_many_values_on_the_10b_shape_as_it_says() -> None:
    with torch.device("meta"):
        model = CPMAnt(PRESETS["cpm-ant-10b"])
        for name in preset_files():
            preset = load_preset(name)
            delta = insert(model, parse_config(preset, name), SHA, seed=0)
            assert delta.n_trainable == preset["about"]["trainable_on_10b"], name
            delta.remove()
    assert load_preset("lora")["about"]["trainable_on_10b"] == 6_291_456  # published: 6.3 million


# --- generation ---


@every_delta
def test_generation_with_the_cache_equals_running_the_whole_sequence_at_every_step(
    name: str,
) -> None:
    config, settings = DELTAS[name], Decoding(max_new_tokens=5, beams=2)
    model = decode_oracle.lively(backbone(), attention=1, ffn=2)
    perturb(insert(model, config, SHA, seed=1), 0.2)
    starts = ((20, 12), (40, 5), (7, 30))
    prefixes = [sequence(model, config, start, n)["ids"][0].tolist() for start, n in starts]
    how = {"n_prompt": model.config.prompt_length, "stop": (3,)}
    made = decode_oracle.generate(model, prefixes, max_new_tokens=5, beams=2, **how)
    for prefix, ours in zip(prefixes, made, strict=True):
        decode_oracle.assert_same(ours, decode_oracle.naive_search(model, prefix, settings, **how))
