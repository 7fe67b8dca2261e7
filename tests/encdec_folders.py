"""Tiny encoder-decoders of transformers in Hugging Face's format, with a vocabulary made here."""

from __future__ import annotations

import io
import json
from functools import cache
from pathlib import Path
from typing import Any

import torch
from conftest import vocabulary

SHAPE: dict[str, Any] = {
    "d_model": 32,
    "d_kv": 8,
    "d_ff": 48,
    "num_layers": 2,
    "num_heads": 4,
    "dropout_rate": 0.0,
}
KINDS: dict[str, dict[str, Any]] = {
    "mt5": {"model_type": "mt5", "tie_word_embeddings": False},
    "t5": {"model_type": "t5", "feed_forward_proj": "relu"},
    "t5-v1_1": {
        "model_type": "t5",
        "feed_forward_proj": "gated-gelu",
        "tie_word_embeddings": False,
        "num_decoder_layers": 3,
    },
}


@cache
def sentencepiece_model() -> bytes:
    """A sentencepiece model of the tests' characters, with pad, eos and unk as T5 has them."""
    import sentencepiece

    characters = [entry for entry in vocabulary()[8:] if len(entry) == 1]
    lines = ["".join(characters[start : start + 20]) for start in range(0, len(characters), 20)]
    lines += ["今天 天气 很好", "天气 很好", "我们 今天 出去", "what is it", "is it what"] * 20
    made = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(lines),
        model_writer=made,
        vocab_size=7000,
        hard_vocab_limit=False,
        character_coverage=1.0,
        pad_id=0,
        eos_id=1,
        unk_id=2,
        bos_id=-1,
        minloglevel=2,
    )
    return made.getvalue()


def write_config(folder: Path, kind: str, **changes: Any) -> dict[str, Any]:
    """Write config.json and vocabulary; return the config's values."""
    import sentencepiece

    model = sentencepiece_model()
    (folder / "spiece.model").write_bytes(model)
    entries = len(sentencepiece.SentencePieceProcessor(model_proto=model))
    special = {"pad_token_id": 0, "eos_token_id": 1, "decoder_start_token_id": 0}
    rows = {"vocab_size": -(-(entries + 100) // 16) * 16 + 16}
    values = {**SHAPE, **rows, **special, **KINDS[kind], **changes}
    (folder / "config.json").write_text(json.dumps(values))
    return values


def make_model(values: dict[str, Any]) -> Any:
    """Transformers' own model with random weights, whose head is tied only if the values say so."""
    from transformers import AutoConfig, AutoModelForSeq2SeqLM

    kind = {key: value for key, value in values.items() if key != "model_type"}
    config = AutoConfig.for_model(values["model_type"], **kind)
    config._attn_implementation = "eager"
    torch.manual_seed(5)
    model = AutoModelForSeq2SeqLM.from_config(config).eval()
    tied = values.get("tie_word_embeddings", values["model_type"] == "t5")
    if not tied:  # or transformers 5 ties it, whatever the config says
        model.lm_head.weight = torch.nn.Parameter(torch.empty_like(model.lm_head.weight))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            scale = parameter.shape[-1] ** -0.5 if parameter.dim() > 1 else 0.1
            if "relative_attention_bias" in name:
                scale = 1.0
            if name == "shared.weight":
                scale = 1.0
            added = torch.randn(parameter.shape) * scale
            parameter.copy_(added if parameter.dim() > 1 else 1 + added)
    return model


def make_folder(folder: Path, kind: str = "mt5", **changes: Any) -> Path:
    """A folder with a random model of that kind, whose weights count as trained."""
    from safetensors.torch import save_file

    folder.mkdir(parents=True)
    model = make_model(write_config(folder, kind, **changes))
    unique = dict(model.named_parameters())  # a tied tensor once
    save_file(
        {name: tensor.detach().clone() for name, tensor in unique.items()},
        folder / "model.safetensors",
    )
    return folder
