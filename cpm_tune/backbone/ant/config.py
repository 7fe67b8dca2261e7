"""CPM-Ant's configuration, the published sizes as presets, and both spellings of its JSON.

The keys are those of the original config files; Hugging Face's spellings are accepted.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any, ClassVar

from cpm_tune.backbone.protocol import Shape
from cpm_tune.common.door import load
from cpm_tune.common.reading import read_json
from cpm_tune.common.sizes import counted
from cpm_tune.common.texts import shortened
from cpm_tune.errors import UserError

INSTEAD = "--to merged or --to opendelta"  # of formats that need every sub-block
MAX_LAYERS, MAX_WEIGHT = 1_000, 10**12
HUGGING_FACE = {
    "hidden_size": "dim_model",
    "num_hidden_layers": "num_layers",
    "num_attention_heads": "num_heads",
}
ROLES = {
    "@attention": ("self_attention",),
    "@attention.q": ("project_q",),
    "@attention.k": ("project_k",),
    "@attention.v": ("project_v",),
    "@attention.o": ("attention_out",),
    "@attention.norm": ("layernorm_before_attention",),
    "@ffn": ("ffn.ffn",),
    "@ffn.in": ("w_0", "w_1"),
    "@ffn.out": ("w_out",),
    "@ffn.norm": ("layernorm_before_ffn",),
    "@norm": ("output_layernorm",),
}


@dataclass(frozen=True)
class CPMAntConfig:
    """Shape of a CPM-Ant model.

    `mask_modules` has one [attention, ffn] pair of flags per layer; a flag that is true says that
    the sub-block is absent (structured pruning), as in the compressed releases.
    """

    vocab_size: int = 30720
    dim_model: int = 4096
    dim_ff: int = 10240
    num_layers: int = 48
    num_heads: int = 32
    dim_head: int = 128
    dropout_p: float = 0.0
    position_bias_num_buckets: int = 512
    position_bias_max_distance: int = 2048
    eps: float = 1e-6
    prompt_types: int = 32
    prompt_length: int = 32
    segment_types: int = 32
    mask_modules: tuple[tuple[bool, bool], ...] = field(default=())
    family: ClassVar = "ant"
    answers_apart: ClassVar = False
    roles: ClassVar[Mapping[str, tuple[str, ...]]] = ROLES

    def __post_init__(self) -> None:
        for item in fields(self):
            value = getattr(self, item.name)
            whole = isinstance(value, int) and not isinstance(value, bool)
            if item.type == "int" and not (whole and 0 < value < 2**31):
                raise ValueError(
                    f"'{item.name}' is {shortened(value)}, expected a whole number above 0, below "
                    "2^31"
                )
            if item.type == "float":
                number = whole or isinstance(value, float)
                if not (number and 0 <= value < 1) or (item.name == "eps" and value == 0):
                    raise ValueError(
                        f"'{item.name}' is {shortened(value)}, expected a number in [0, 1)"
                    )
        exact = self.position_bias_num_buckets // 4
        if exact < 1 or self.position_bias_max_distance <= exact:
            raise ValueError(
                "'position_bias_num_buckets' must be at least 4 and 'position_bias_max_distance' "
                "greater than a quarter of it"
            )
        if self.num_layers > MAX_LAYERS:
            raise ValueError(f"'num_layers' is {self.num_layers}, expected at most {MAX_LAYERS:,}")
        inner, heads = self.num_heads * self.dim_head, self.num_heads
        tables = self.vocab_size, self.prompt_types * self.prompt_length, self.segment_types
        pairs = self.position_bias_num_buckets + self.segment_types**2
        if max(self.dim_model * max(self.dim_ff, inner, *tables), pairs * heads) > MAX_WEIGHT:
            raise ValueError(f"its sizes give a weight of more than {MAX_WEIGHT:,} values")
        masks = self.mask_modules or ((False, False),) * self.num_layers
        if len(masks) != self.num_layers:
            layers = counted(self.num_layers, "layer")
            raise ValueError(f"'mask_modules' has {counted(len(masks), 'pair')} for {layers}")
        if any(len(pair) != 2 or any(flag not in (0, 1) for flag in pair) for pair in masks):
            raise ValueError("'mask_modules' must hold pairs of true and false")
        object.__setattr__(self, "mask_modules", tuple((bool(a), bool(f)) for a, f in masks))

    def to_dict(self) -> dict[str, Any]:
        """Return the config as JSON values, in the original spelling."""
        values = asdict(self)
        values["mask_modules"] = [list(pair) for pair in self.mask_modules]
        return values

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> CPMAntConfig:
        """Read either spelling; unrelated keys are ignored. Raises ValueError for bad values."""
        known = {f.name for f in fields(cls)}
        values = {HUGGING_FACE.get(key, key): value for key, value in values.items()}
        unset = "mask_modules" if values.get("mask_modules") is None else ""
        taken = {k: v for k, v in values.items() if k in known and k != unset}
        missing = {"vocab_size", "dim_model", "num_layers"} - taken.keys()
        if missing:
            raise ValueError(f"'{min(missing)}' is missing")
        if "mask_modules" in taken:
            taken["mask_modules"] = tuple(tuple(pair) for pair in taken["mask_modules"])
        return cls(**taken)

    @property
    def shape(self) -> Shape:
        """The architecture in numbers."""
        attending = sum(not no_attention for no_attention, _ in self.mask_modules)
        return Shape(
            width=self.dim_model,
            layers=self.num_layers,
            vocabulary=self.vocab_size,
            longest=self.position_bias_max_distance,
            cached=2 * self.num_heads * self.dim_head * attending,
        )

    def peft_prefix(self) -> str:
        """As in transformers' CpmAntForCausalLM; UserError for a pruned model, which it lacks."""
        load("cpm_tune.backbone.ant.hugging_face:check_whole")(self, INSTEAD)
        return "cpmant."

    def skeleton(self, layers: int | None = None) -> Any:
        """The CPMAnt without values, on the meta device; with its first `layers` layers alone."""
        config = self
        if layers is not None:
            config = replace(self, num_layers=layers, mask_modules=self.mask_modules[:layers])
        return load("cpm_tune.backbone.ant.model:skeleton")(config)

    @property
    def is_pruned(self) -> bool:
        """Whether a sub-block is absent."""
        return any(map(any, self.mask_modules))

    @classmethod
    def keys(cls) -> set[str]:
        """The keys of a config file, in both spellings."""
        return {f.name for f in fields(cls)} | HUGGING_FACE.keys()

    @classmethod
    def from_file(cls, path: Path) -> CPMAntConfig:
        """Read a config file; raise UserError naming it for what is wrong."""
        try:
            return cls.from_dict(read_json(path))
        except (OSError, ValueError, TypeError, AttributeError) as error:
            raise UserError(f"{path}: not a CPM-Ant config: {error}.") from error


def _spread(layers: int, attention: int, ffn: int) -> tuple[tuple[bool, bool], ...]:
    """Keep `attention` and `ffn` sub-blocks of `layers`, evenly spread."""

    def kept(n: int) -> set[int]:
        return {round(i * (layers - 1) / (n - 1)) for i in range(n)}

    a, f = kept(attention), kept(ffn)
    return tuple((i not in a, i not in f) for i in range(layers))


_TEN = CPMAntConfig()
_SEVEN = replace(_TEN, mask_modules=_spread(48, 37, 32))
_ONE = replace(_TEN, dim_model=2048, dim_ff=5120, num_heads=16, mask_modules=_spread(48, 25, 21))

# Published of the compressed models: hidden size and how many sub-blocks remain. Their heads, inner
# widths and which sub-blocks remain come with each checkpoint's own config, which always wins; here
# they are chosen so that the totals fit the names (for estimates without a checkpoint).
PRESETS: dict[str, CPMAntConfig] = {
    "cpm-ant-10b": _TEN,
    "cpm-ant-7b": _SEVEN,
    "cpm-ant-3b": replace(_SEVEN, dim_model=2560, dim_ff=6400, num_heads=20),
    "cpm-ant-1b": _ONE,
    "cpm-ant-300m": replace(_ONE, dim_model=512),
}
