"""Tiny causal language models in Hugging Face's format, with a tokenizer of their own."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from conftest import vocabulary

SPECIALS = ["<pad>", "<s>", "</s>", "<unk>"]
_LLAMA: dict[str, Any] = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 512,
}
_GPT2 = {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 512}
_LATENT = {
    "q_lora_rank": 16,
    "kv_lora_rank": 16,
    "qk_nope_head_dim": 8,
    "qk_rope_head_dim": 8,
    "v_head_dim": 8,
}
SHAPES: dict[str, dict[str, Any]] = {
    "gpt2": _GPT2,
    "llama": _LLAMA,
    "qwen2": _LLAMA,
    "qwen3": {**_LLAMA, "head_dim": 8},
    "mistral": {**_LLAMA, "sliding_window": 5},
    "gemma": {**_LLAMA, "head_dim": 8},
    "gemma2": {**_LLAMA, "head_dim": 8, "sliding_window": 5, "final_logit_softcapping": 0.4},
    "cohere": {**_LLAMA, "logit_scale": 0.25},
    "granite": {**_LLAMA, "logits_scaling": 4.0, "embedding_multiplier": 3.0},
    "glm": {**_LLAMA, "head_dim": 8},
    "phi3": _LLAMA,
    "bloom": {"hidden_size": 32, "n_layer": 2, "n_head": 4},
    "gpt_neox": {k: v for k, v in _LLAMA.items() if k != "num_key_value_heads"},
    "opt": {
        **{k: v for k, v in _LLAMA.items() if k not in ("num_key_value_heads",)},
        "ffn_dim": 48,
        "word_embed_proj_dim": 32,
    },
    "minicpm3": {**_LLAMA, "num_key_value_heads": 4, **_LATENT},
    "mixtral": {**_LLAMA, "num_local_experts": 4},
    "mamba": {"hidden_size": 32, "num_hidden_layers": 2, "state_size": 4},
}


def entries() -> list[str]:
    return [*SPECIALS, *vocabulary()[8:]]


def write_tokenizer(folder: Path, *, bos: bool) -> int:
    """A tokenizer of characters; return the number of its entries."""
    known = {entry: index for index, entry in enumerate([*entries(), "\n", " "])}
    added = [
        {
            "id": index,
            "content": text,
            "single_word": False,
            "lstrip": False,
            "rstrip": False,
            "normalized": False,
            "special": True,
        }
        for index, text in enumerate(SPECIALS)
    ]
    template = {
        "type": "TemplateProcessing",
        "single": [
            {"SpecialToken": {"id": "<s>", "type_id": 0}},
            {"Sequence": {"id": "A", "type_id": 0}},
        ],
        "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
        "special_tokens": {"<s>": {"id": "<s>", "ids": [1], "tokens": ["<s>"]}},
    }
    values = {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": added,
        "normalizer": None,
        "pre_tokenizer": {
            "type": "Split",
            "pattern": {"Regex": "[\\s\\S]"},
            "behavior": "Isolated",
            "invert": False,
        },
        "post_processor": template if bos else None,
        "decoder": {"type": "Fuse"},
        "model": {"type": "WordLevel", "vocab": known, "unk_token": "<unk>"},
    }
    (folder / "tokenizer.json").write_text(json.dumps(values, ensure_ascii=False))
    about = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": "<s>",
        "eos_token": "</s>",
        "pad_token": "<pad>",
        "unk_token": "<unk>",
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(about))
    return len(known)


def make_model(kind: str, rows: int, **changes: Any) -> Any:
    """A random model of transformers', larger weights than its own so that logits differ."""
    from transformers import AutoConfig, AutoModelForCausalLM

    shape = {**SHAPES[kind], "vocab_size": rows, **changes}
    config = AutoConfig.for_model(
        kind, **shape, bos_token_id=1, eos_token_id=2, pad_token_id=0, use_cache=True
    )
    torch.manual_seed(5)
    model = AutoModelForCausalLM.from_config(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            scale = parameter.shape[-1] ** -0.5 if parameter.dim() > 1 else 0.1
            added = torch.randn(parameter.shape) * scale
            parameter.copy_(added if parameter.dim() > 1 else parameter + added)
    return model


def make_folder(folder: Path, kind: str, **changes: Any) -> Path:
    """A folder with a random model of that type, whose weights count as trained."""
    folder.mkdir(parents=True)
    rows = write_tokenizer(folder, bos=kind != "gpt2")
    make_model(kind, rows, **changes).save_pretrained(folder)
    (folder / "generation_config.json").unlink(missing_ok=True)
    return folder
