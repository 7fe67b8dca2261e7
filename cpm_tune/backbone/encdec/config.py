"""The architecture of an encoder-decoder of T5's kind, and the published sizes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from cpm_tune.backbone.protocol import ConfigDefaults, Shape
from cpm_tune.common.door import load
from cpm_tune.errors import UserError

MODEL_TYPES = ("t5", "mt5")
_DENSE = ("relu", "gated-gelu", "gated-silu")
_MOST = {"num_layers": 1000, "num_decoder_layers": 1000}
_LAYER = r"[r]{stack}\.block\.\d+\.layer\.{place}\.layer_norm"


@dataclass(frozen=True)
class EncDecConfig(ConfigDefaults):
    """What decides the logits, by the names of transformers' T5Config.

    feed_forward_proj: relu, gated-gelu (with tanh, as T5 1.1, mT5 and CPM-2) or gated-silu.
    tied: the head is the embedding. scaled: hidden states are divided by the root of d_model before
    the head.
    """

    model_type: str = "mt5"
    vocab_size: int = 250112
    d_model: int = 512
    d_kv: int = 64
    d_ff: int = 1024
    num_layers: int = 8
    num_decoder_layers: int = 8
    num_heads: int = 6
    relative_attention_num_buckets: int = 32
    relative_attention_max_distance: int = 128
    dropout_rate: float = 0.1
    layer_norm_epsilon: float = 1e-6
    feed_forward_proj: str = "gated-gelu"
    tied: bool = False
    scaled: bool = False
    pad_token_id: int = 0
    eos_token_id: int = 1
    decoder_start_token_id: int = 0

    family = "encdec"
    answers_apart = True

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> EncDecConfig:
        """The config of a config.json's values; raise UserError for values that are none.

        T5's head is tied unless the values say otherwise, mT5's is not; a tied T5's hidden states
        are scaled.
        """
        kind = values.get("model_type")
        if kind not in MODEL_TYPES:
            raise UserError(f"model_type is {kind!r:.60}, expected {' or '.join(MODEL_TYPES)}.")
        t5 = kind == "t5"
        defaults = cls() if not t5 else T5
        made: dict[str, Any] = {"model_type": kind}
        for name, default in vars(defaults).items():
            given = values.get(name)
            if name in ("model_type", "tied", "scaled") or given is None:
                continue
            if name == "eos_token_id" and isinstance(given, list) and given:
                given = given[0]
            made[name] = _checked(name, given, default)
        made.setdefault("num_decoder_layers", made.get("num_layers", defaults.num_layers))
        tied, scaled = (_flag(values, n) for n in ("tie_word_embeddings", "scale_decoder_outputs"))
        # transformers 5 writes that every T5 is tied; one whose outputs are not scaled is not.
        made["tied"] = (tied is not False and scaled is not False) if t5 else tied is True
        made["scaled"] = t5 and (made["tied"] if scaled is None else scaled is True)
        config = replace(defaults, **made)
        if config.feed_forward_proj not in _DENSE:
            raise UserError(
                f"feed_forward_proj is {config.feed_forward_proj!r:.60}, expected one of "
                f"{', '.join(_DENSE)}."
            )
        if config.relative_attention_num_buckets < 4 or config.relative_attention_num_buckets % 2:
            raise UserError("relative_attention_num_buckets: expected an even number from 4.")
        if config.relative_attention_max_distance <= config.relative_attention_num_buckets // 2:
            raise UserError(
                "relative_attention_max_distance: expected more than half the number of buckets."
            )
        for name in ("pad_token_id", "eos_token_id", "decoder_start_token_id"):
            if getattr(config, name) >= config.vocab_size:
                raise UserError(f"{name} is outside of the vocabulary of {config.vocab_size}.")
        return config

    @property
    def values(self) -> dict[str, Any]:
        """The values of a config.json."""
        values = {"architectures": [_CLASSES[self.model_type]], **vars(self)}
        tied, scaled = values.pop("tied"), values.pop("scaled")
        values |= {"tie_word_embeddings": tied, "is_encoder_decoder": True}
        return values | ({"scale_decoder_outputs": scaled} if self.model_type == "t5" else {})

    @property
    def shape(self) -> Shape:
        layers = self.num_layers + self.num_decoder_layers
        cached = 2 * self.num_heads * self.d_kv * self.num_decoder_layers
        longest = self.relative_attention_max_distance
        return Shape(self.d_model, layers, self.vocab_size, longest, cached)

    @property
    def roles(self) -> Mapping[str, tuple[str, ...]]:
        """`@attention` is the self-attention of both stacks, `@cross` the decoder's attention to
        the encoder."""
        roles: dict[str, tuple[str, ...]] = {}
        for role, name in (("attention", "SelfAttention"), ("cross", "EncDecAttention")):
            roles[f"@{role}"] = (name,)
            roles |= {f"@{role}.{part}": (f"{name}.{part}",) for part in "qkvo"}
        gated = self.feed_forward_proj.startswith("gated")
        dense = ("wi_0", "wi_1") if gated else ("wi",)
        return roles | {
            "@attention.norm": ("0.layer_norm",),
            "@cross.norm": (_LAYER.format(stack="decoder", place=1),),
            "@ffn": ("DenseReluDense",),
            "@ffn.in": tuple(f"DenseReluDense.{name}" for name in dense),
            "@ffn.out": ("DenseReluDense.wo",),
            "@ffn.norm": (_LAYER.format(stack="encoder", place=1), "2.layer_norm"),
            "@norm": ("final_layer_norm",),
        }

    def peft_prefix(self) -> str:
        """Nothing: modules have transformers' names."""
        return ""

    def skeleton(self, layers: int | None = None) -> Any:
        """The EncDec without values, on the meta device; with `layers` layers of both stacks
        together, half of them the decoder's."""
        config = self
        if layers is not None:
            few = max(1, layers // 2)
            config = replace(self, num_layers=layers - few or 1, num_decoder_layers=few)
        return load("cpm_tune.backbone.encdec.model:skeleton")(config)


def _flag(values: Mapping[str, Any], name: str) -> bool | None:
    """A value that is true or false, if it is there; raise UserError for another."""
    value = values.get(name)
    if value is not None and not isinstance(value, bool):
        raise UserError(f"{name} is {value!r:.60}, expected true or false.")
    return value


_CLASSES = {"t5": "T5ForConditionalGeneration", "mt5": "MT5ForConditionalGeneration"}


def _checked(name: str, value: Any, default: Any) -> Any:
    """A value of a config.json of the default's type; raise UserError for another."""
    if isinstance(default, str):
        if not isinstance(value, str):
            raise UserError(f"{name} is {value!r:.60}, expected a text.")
        return value
    whole = isinstance(default, int)
    number = isinstance(value, int if whole else int | float) and not isinstance(value, bool)
    least = 0 if name.endswith("_id") or not whole else 1
    if not number or not least <= value <= _MOST.get(name, 2**31):
        kind = "a whole number" if whole else "a number"
        raise UserError(
            f"{name} is {value!r:.60}, expected {kind} from {least} to {_MOST.get(name, 2**31)}."
        )
    if name == "layer_norm_epsilon" and value == 0:
        raise UserError("layer_norm_epsilon is 0, expected more.")
    if name == "dropout_rate" and value >= 1:
        raise UserError(f"dropout_rate is {value}, expected less than 1.")
    return value


T5 = EncDecConfig(
    model_type="t5",
    vocab_size=32128,
    d_ff=2048,
    num_layers=6,
    num_decoder_layers=6,
    num_heads=8,
    feed_forward_proj="relu",
    tied=True,
    scaled=True,
)


def _of_size(d_model: int, d_ff: int, layers: int, heads: int, **others: Any) -> EncDecConfig:
    return EncDecConfig(
        d_model=d_model,
        d_ff=d_ff,
        num_layers=layers,
        num_decoder_layers=layers,
        num_heads=heads,
        **others,
    )


def cpm_2(rows: int, eos: int, **others: Any) -> EncDecConfig:
    """CPM-2 with a vocabulary of that many rows, in whose files `eos` is the sentinel that ends
    generated texts."""
    special = {"pad_token_id": 5, "eos_token_id": eos, "decoder_start_token_id": 1}
    return _of_size(4096, 10240, 24, 64, vocab_size=rows, **special, **others)


PRESETS = {
    "mt5-small": _of_size(512, 1024, 8, 6),
    "mt5-large": _of_size(1024, 2816, 24, 16),
    "mt5-xxl": _of_size(4096, 10240, 24, 64),
    "cpm-2": cpm_2(26240, 26051),
    "cpm-2-bilingual": cpm_2(51968, 51784),
}
