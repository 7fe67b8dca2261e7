"""From a config.json's values to transformers' model, without weights. Imports transformers."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from functools import lru_cache
from typing import Any

import torch

from cpm_tune.backbone.causal import attention
from cpm_tune.backbone.causal.config import CausalConfig
from cpm_tune.backbone.causal.hf import (
    CONFIG_MAPPING,
    AutoModelForCausalLM,
    PretrainedConfig,
    logging,
)
from cpm_tune.backbone.causal.hf import __version__ as _VERSION
from cpm_tune.backbone.causal.model import CausalLM, layers_in
from cpm_tune.backbone.protocol import Shape
from cpm_tune.backbone.quantize import quiet_logging
from cpm_tune.errors import UserError

MOST_LAYERS = 1000
_LAYERS = ("num_hidden_layers", "n_layer", "n_layers", "num_layers")
NO_LIMIT = 2**20  # tokens, where positions have none


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Silence transformers' warnings and progress bars: what matters is checked here."""
    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity(logging.CRITICAL)
    logging.disable_progress_bar()
    try:
        with quiet_logging():
            yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()


def architecture(config: CausalConfig, layers: int | None = None) -> PretrainedConfig:
    """Transformers' config, with the first `layers` layers alone if given.

    Raises UserError for values that transformers refuses, or a transformers that is too old.
    """
    if int(_VERSION.split(".")[0]) < 5:
        raise UserError(
            f"causal language models need transformers 5, this is {_VERSION}: "
            "pip install -U transformers."
        )
    values = config.values
    for key in _LAYERS:  # before lists are made of them
        if isinstance(n := values.get(key, 1), int) and n > MOST_LAYERS:
            raise UserError(f"config.json has {key} {n}, expected at most {MOST_LAYERS}.")
    try:
        with quiet():
            made = CONFIG_MAPPING[values["model_type"]].from_dict(values)
            made.use_cache = False
            if layers is not None:
                whole = made.num_hidden_layers
                made.num_hidden_layers = layers
                for key, value in list(vars(made).items()):
                    if isinstance(value, list) and len(value) == whole:
                        setattr(made, key, value[:layers])
    except Exception as error:  # any of a hundred classes' own checks
        raise _refused(values, error) from error
    return made


def model_class(made: PretrainedConfig) -> Any:
    """Transformers' class for a config."""
    with quiet():  # this imports its module, and torchao with it
        return AutoModelForCausalLM._model_mapping[type(made)]


def skeleton(config: CausalConfig, layers: int | None = None) -> CausalLM:
    """A CausalLM without values, on the meta device."""
    made = architecture(config, layers)
    try:
        with quiet(), torch.device("meta"):
            model = model_class(made)._from_config(made)
            attention.use(model)
            return CausalLM(config, model)
    except UserError:
        raise
    except Exception as error:  # as above
        raise _refused(config.values, error) from error


def _refused(values: dict[str, Any], error: Exception) -> UserError:
    reason = " ".join(f"{type(error).__name__}: {error}".split())[:300]
    return UserError(
        f"transformers {_VERSION} cannot build a {values.get('model_type')} from this config.json: "
        f"{reason}; expected the file that belongs to the model."
    )


@lru_cache(maxsize=16)
def shape_of(config: CausalConfig) -> Shape:
    """The architecture in numbers."""
    made = architecture(config)
    model = skeleton(config).model
    width = int(made.hidden_size)
    heads = int(getattr(made, "num_attention_heads", 1) or 1)
    kv_heads = int(getattr(made, "num_key_value_heads", None) or heads)
    head = int(getattr(made, "head_dim", None) or width // heads)
    n = len(layers_in(model, made.num_hidden_layers))
    longest = next(
        (
            value
            for key in ("max_position_embeddings", "n_positions", "max_seq_len", "seq_length")
            if isinstance(value := getattr(made, key, None), int) and value > 0
        ),
        NO_LIMIT,
    )
    rows = model.get_output_embeddings().weight.shape[0]
    limit = longest if longest < NO_LIMIT else None
    return Shape(width, n, int(rows), longest, 2 * kv_heads * head * n, limit)
