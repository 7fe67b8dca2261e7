"""An independent CPM-Ant for the tests: Hugging Face's, with any attention mask.

The oracle runs the sub-modules of `transformers.CpmAntForCausalLM` one after the other, with a mask
written here from its definition. The same random weights reach our model as a user's would: saved
by transformers, opened by `open_folder`, read by `load_weights`. Below it is what the tests of
backbone folders share.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import CpmAntConfig, CpmAntForCausalLM

from cpm_tune.backbone.ant.checkpoint import load_weights, save_native
from cpm_tune.backbone.ant.config import CPMAntConfig as OurConfig
from cpm_tune.backbone.ant.folder import open_folder
from cpm_tune.backbone.ant.model import CPMAnt
from cpm_tune.backbone.opening import random_backbone
from cpm_tune.errors import UserError

SPECIALS = ("<pad>", "<unk>", "<s>", "</s>", "<d>", "</d>", "</n>", "</_>")
WORDS = (
    "今天",
    "天气",
    "今天天气",
    "不",
    "不错",
    "abc",
    "ab",
    *"今天气错，。？我你他爱北京上海大小abcd",
)
VOCABULARY = (*SPECIALS, *WORDS)
VOCABULARY_TEXT = "\n".join(VOCABULARY) + "\n"

# No two sizes alike, heads x dim_head unlike dim_model: a swapped axis or fan-in shows.
SHAPE = {
    "vocab_size": len(VOCABULARY),
    "hidden_size": 24,
    "num_attention_heads": 3,
    "dim_head": 10,
    "dim_ff": 42,
    "num_hidden_layers": 3,
    "position_bias_num_buckets": 16,
    "position_bias_max_distance": 20,
    "prompt_types": 5,
    "prompt_length": 4,
    "segment_types": 6,
}
REFERENCE_SHAPE = {
    {
        "hidden_size": "dim_model",
        "num_attention_heads": "num_heads",
        "num_hidden_layers": "num_layers",
    }.get(key, key): value
    for key, value in SHAPE.items()
}
VOCAB, DIM, LAYERS = SHAPE["vocab_size"], SHAPE["hidden_size"], SHAPE["num_hidden_layers"]
CONFIG = OurConfig(**REFERENCE_SHAPE)
PROMPT, SEGMENTS = SHAPE["prompt_length"], SHAPE["segment_types"]


def random_hugging_face(seed: int = 0) -> CpmAntForCausalLM:
    """Build a tiny CpmAnt in which every weight matters: norms off one, position bias large."""
    generator = torch.Generator().manual_seed(seed)
    model = CpmAntForCausalLM(CpmAntConfig(**SHAPE)).eval()
    with torch.no_grad():
        for name, weight in model.named_parameters():
            noise = torch.randn(weight.shape, generator=generator)
            if weight.dim() == 1:
                weight.copy_(1 + 0.3 * noise)
            elif name.endswith("relative_attention_bias"):
                weight.copy_(0.5 * noise)
            elif "embedding" in name:
                weight.copy_(0.3 * noise)
            else:
                weight.copy_(noise / math.sqrt(weight.shape[1]))
        model.lm_head.weight[:VOCAB].copy_(model.cpmant.input_embedding.weight[:VOCAB])
    return model


def talkative_hugging_face() -> CpmAntForCausalLM:
    """The same with weights whose texts depend on their prompts."""
    model = random_hugging_face(1)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "attention_out" in name:
                weight.mul_(0.5)
            elif "w_out" in name:
                weight.mul_(4)
            elif "output_layernorm" in name:
                weight.mul_(3)
    return model


def write_vocabulary(folder: Path, name: str = "vocab.txt") -> None:
    """Write the tiny vocabulary, one entry a line."""
    (folder / name).write_text(VOCABULARY_TEXT, encoding="utf-8")


def write_hugging_face(folder: Path, model: CpmAntForCausalLM, **options: object) -> Path:
    """Save a folder as transformers does, with its vocabulary."""
    folder.mkdir(parents=True, exist_ok=True)
    model.save_pretrained(folder, **options)
    write_vocabulary(folder)
    return folder


def unscaled_state(model: CpmAntForCausalLM) -> dict[str, Tensor]:
    """Return the weights as the reference stores them: before the scaling of its run time."""
    state = {}
    for name, weight in model.cpmant.state_dict().items():
        weight = weight.clone()
        if name == "input_embedding.weight":
            state["input_embedding.weight"] = weight[:VOCAB].clone() * math.sqrt(DIM)
            state["prompt_embedding.weight"] = weight[VOCAB:].clone() * math.sqrt(DIM)
        elif name == "segment_embedding.weight":
            state[name] = weight * math.sqrt(DIM)
        elif name == "position_bias.relative_attention_bias" or "layernorm" in name:
            state[name] = weight
        else:
            state[name] = weight * math.sqrt(weight.shape[1])
    return state


def write_reference(folder: Path, model: CpmAntForCausalLM, name: str = "cpm-ant-tiny.pt") -> Path:
    """Save a folder as the reference publishes it: .pt, its config beside it, ant.txt."""
    folder.mkdir(parents=True, exist_ok=True)
    torch.save(unscaled_state(model), folder / name)
    config = {**REFERENCE_SHAPE, "dropout_p": 0.0, "eps": 1e-6, "half": True}
    (folder / "cpm-ant-tiny.json").write_text(json.dumps(config), encoding="utf-8")
    write_vocabulary(folder, "ant.txt")
    return folder


def oracle_mask(context: Tensor, span: Tensor, real: Tensor) -> Tensor:
    """Say which query (row) sees which key (column), by the definition, one pair at a time.

    context, real (not padding): bool (batch, length); span: int64 (batch, length).
    """
    batch, length = context.shape
    allowed = torch.zeros(batch, length, length, dtype=torch.bool)
    for row in range(batch):
        for query in range(length):
            for key in range(length):
                seen = context[row, key] or (not context[row, query] and key <= query)
                together = span[row, query] == span[row, key]
                allowed[row, query, key] = seen and together and real[row, query] and real[row, key]
    return allowed


def oracle_hidden(
    model: CpmAntForCausalLM,
    ids: Tensor,
    segment: Tensor,
    context: Tensor | None = None,
    span: Tensor | None = None,
    real: Tensor | None = None,
    masked: tuple[tuple[bool, bool], ...] = ((False, False),) * LAYERS,
) -> Tensor:
    """Return hidden states (batch, length, dim), every sub-block of `masked` skipped."""
    body = model.cpmant
    context = torch.ones_like(ids, dtype=torch.bool) if context is None else context
    real = torch.ones_like(ids, dtype=torch.bool) if real is None else real
    span = torch.zeros_like(ids) if span is None else span
    allowed = oracle_mask(context, span, real)
    position = torch.arange(ids.shape[1]).repeat(len(ids), 1)
    bias = body.position_bias(position, position, segment, segment)
    x = body.input_embedding(ids) + body.segment_embedding(segment)
    if not any(attention or ffn for attention, ffn in masked):
        return body.encoder(x, allowed, bias)[0]
    for layer, (no_attention, no_ffn) in zip(body.encoder.layers, masked, strict=True):
        if not no_attention:
            x = layer.self_att(x, allowed, bias)[0]
        if not no_ffn:
            x = layer.ffn(x)
    return body.encoder.output_layernorm(x)


def oracle_logits(model: CpmAntForCausalLM, hidden: Tensor) -> Tensor:
    """Return logits over the tokens (batch, length, vocabulary)."""
    return model.lm_head(hidden)[..., :VOCAB]


def oracle_gradients(model: CpmAntForCausalLM) -> dict[str, Tensor]:
    """Return the gradients by our names; the head's belongs to the token embedding it equals."""
    body = model.cpmant
    gradients = {name: weight.grad for name, weight in body.named_parameters()}
    rows = gradients.pop("input_embedding.weight")
    tokens = rows[:VOCAB].clone()
    if model.lm_head.weight is not body.input_embedding.weight:  # not tied: two halves of one
        tokens += model.lm_head.weight.grad[:VOCAB]
    return {**gradients, "input_embedding.weight": tokens, "prompt_embedding.weight": rows[VOCAB:]}


def random_rows(seed: int, batch: int, length: int) -> tuple[Tensor, Tensor, Tensor]:
    """Draw ids (tokens and soft-prompt rows of every type), segments and a context mask."""
    generator = torch.Generator().manual_seed(seed)
    rows = VOCAB + SHAPE["prompt_types"] * PROMPT
    ids = torch.randint(rows, (batch, length), generator=generator)
    segment = torch.randint(SEGMENTS, (batch, length), generator=generator)
    context = torch.rand(batch, length, generator=generator) < 0.5
    return ids, segment, context


# --- folders ---


def write_native(folder: Path) -> Path:
    """Save a folder in our own layout."""
    save_native(folder, random_backbone(CONFIG, 1, torch.float32), VOCABULARY_TEXT, trained=True)
    return folder


def load(folder: Path, dtype: torch.dtype = torch.float32) -> CPMAnt:
    """Open a folder and read its weights."""
    return load_weights(open_folder(folder), dtype)


def complaint(about: object, action: Callable[[], object]) -> str:
    """Return the one-line message of the UserError that `action` must raise about that path."""
    with pytest.raises(UserError) as caught:
        action()
    message = str(caught.value)
    assert str(about) in message
    assert "\n" not in message
    return message.replace(str(about), "")


def expected_state(oracle: CpmAntForCausalLM) -> dict[str, Tensor]:
    """Return the weights that any layout must give, split here by hand from the oracle's."""
    state = dict(oracle.cpmant.state_dict())
    rows = state.pop("input_embedding.weight")
    return {
        **state,
        "input_embedding.weight": rows[:VOCAB],
        "prompt_embedding.weight": rows[VOCAB:],
    }


def assert_same_weights(model: CPMAnt, state: Mapping[str, Tensor], tolerance: float = 0.0) -> None:
    """Compare all weights of our model with expected ones."""
    ours = model.state_dict()
    assert ours.keys() == state.keys()
    for name, weight in ours.items():
        torch.testing.assert_close(weight, state[name], rtol=0, atol=tolerance, msg=name)


def rewrite_json(file: Path, **changes: object) -> None:
    """Change keys of a JSON file; None takes a key away."""
    values = {**json.loads(file.read_text(encoding="utf-8")), **changes}
    kept = {key: value for key, value in values.items() if value is not None}
    file.write_text(json.dumps(kept), encoding="utf-8")


def change_weights(folder: Path, change: Callable[[dict[str, Tensor]], object]) -> None:
    """Apply `change` to the dict of tensors in the folder's only weight file."""
    (file,) = open_folder(folder).weights
    if file.suffix == ".safetensors":
        state = load_file(file)
        change(state)
        save_file(state, file, metadata={"format": "pt"})
    else:
        state = torch.load(file, weights_only=True)
        change(state)
        torch.save(state, file)


def in_file(folder: Path, name: str) -> str:
    """Return a tensor's name as the folder's layout spells it."""
    return f"cpmant.{name}" if open_folder(folder).format == "hf" else name


every_layout = pytest.mark.parametrize(
    "folder", ["native", "hugging_face", "reference"], indirect=True
)
