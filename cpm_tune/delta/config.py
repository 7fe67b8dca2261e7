"""Delta configurations in OpenDelta's own vocabulary; an unknown key is an error.

One frozen class per `delta_type`. Defaults are the presets of `delta_configs/`; formulas, sizes and
sources: docs/deltas.md.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal, Self, TypeVar, get_args

from pydantic import AfterValidator, BeforeValidator, Field, ValidationError, model_validator

from cpm_tune.common.faults import faults
from cpm_tune.delta.names import check_ending
from cpm_tune.delta.slots import apportion
from cpm_tune.errors import UserError, did_you_mean
from cpm_tune.schema.frozen import Frozen

Name = Annotated[str, Field(min_length=1)]


def _one_is_a_list(value: Any) -> Any:
    if value in ([], ()):
        raise ValueError("expected at least one name")
    return (value,) if isinstance(value, str) else value


Names = Annotated[tuple[Name, ...], BeforeValidator(_one_is_a_list)]
Ending = Annotated[Name, AfterValidator(check_ending)]
Endings = Annotated[tuple[Ending, ...], BeforeValidator(_one_is_a_list)]
Count = Annotated[int, Field(ge=1, lt=2**31, strict=True)]
NonLinearity = Literal["relu", "tanh", "swish", "gelu_new", "gelu_orig", "leakyrelu"]


class NoneConfig(Frozen):
    """No delta: the backbone as it is."""

    delta_type: Literal["none"] = "none"


class FullConfig(Frozen):
    """Nothing is frozen: the backbone's own parameters are trained, in fp32."""

    delta_type: Literal["full"] = "full"


class _Dependent(Frozen):
    """A setting without effect is a mistake, and would give the run another ID.

    `needs`: (setting, another setting, the value that this must have for an effect of the first).
    """

    needs: ClassVar[tuple[tuple[str, str, Any], ...]] = ()

    @model_validator(mode="after")
    def _in_effect(self) -> Self:
        for key, other, value in self.needs:
            changed = getattr(self, key) != type(self).model_fields[key].default
            if changed and getattr(self, other) != value:
                raise ValueError(f"{key} has no effect unless {other} is {str(value).lower()}")
        return self


class ModuleConfig(_Dependent):
    """A delta on each module whose name ends in one of `modified_modules` (whole parts of the
    name, or a regular expression after `[r]`, as in OpenDelta), except those whose name starts with
    one of `exclude_modules`.

    A name such as @attention.q is a role, which every family of models has its own names for.
    """

    modified_modules: Endings
    exclude_modules: tuple[Name, ...] = ()

    @model_validator(mode="after")
    def _each_once(self) -> Self:
        names = self.modified_modules
        if not isinstance(self, ParallelAdapterConfig) and len(set(names)) < len(names):
            twice = next(name for name in names if names.count(name) > 1)
            raise ValueError(f"modified_modules names {twice} twice")
        return self


class LoraConfig(ModuleConfig):
    """y = W x + (lora_alpha / lora_r) * B A x, on linear layers."""

    delta_type: Literal["lora"] = "lora"
    modified_modules: Endings = ("@attention.q", "@attention.v")
    lora_r: Count = 8
    lora_alpha: Annotated[float, Field(gt=0, strict=True)] = 16
    lora_dropout: Annotated[float, Field(ge=0, lt=1, strict=True)] = 0.0


class AdapterConfig(ModuleConfig):
    """h + up(f(down(h))) on a module's output h; by default inside the residual branches."""

    delta_type: Literal["adapter"] = "adapter"
    modified_modules: Endings = ("@attention", "@ffn")
    bottleneck_dim: Count = 24
    non_linearity: NonLinearity = "gelu_new"


class LowRankAdapterConfig(ModuleConfig):
    """An adapter whose two weights are products of matrices of rank `low_rank_rank`; its bottleneck
    is the width divided by `reduction_factor`."""

    delta_type: Literal["low_rank_adapter"] = "low_rank_adapter"
    modified_modules: Endings = ("@attention", "@ffn")
    reduction_factor: Count = 32
    non_linearity: NonLinearity = "gelu_new"
    low_rank_w_init: Literal["glorot-uniform", "glorot-normal"] = "glorot-uniform"
    low_rank_rank: Count = 1


class CompacterConfig(ModuleConfig):
    """An adapter whose weights are sums of `hypercomplex_division` Kronecker products; its
    bottleneck is the width divided by `reduction_factor`."""

    delta_type: Literal["compacter"] = "compacter"
    modified_modules: Endings = ("@attention", "@ffn")
    reduction_factor: Count = 16
    non_linearity: NonLinearity = "gelu_new"
    hypercomplex_division: Count = 4
    hypercomplex_nonlinearity: Literal["glorot-uniform", "glorot-normal", "normal"] = (
        "glorot-uniform"
    )
    phm_c_init: Literal["normal", "uniform"] = "normal"
    phm_init_range: Annotated[float, Field(gt=0, strict=True)] = 0.0001
    phm_rank: Count = 1
    factorized_phm: bool = True
    factorized_phm_rule: bool = False
    use_bias_up_sampler: bool = True
    use_bias_down_sampler: bool = True
    needs = (("phm_init_range", "hypercomplex_nonlinearity", "normal"),)


class ParallelAdapterConfig(ModuleConfig):
    """y = F(x) + scaled * up(f(down(x))), from a module's input to a module's output.

    `modified_modules` come in pairs: where an adapter's input is taken, where its output is added.
    """

    delta_type: Literal["parallel_adapter"] = "parallel_adapter"
    modified_modules: Endings = ("@attention", "@attention", "@ffn", "@ffn")
    bottleneck_dim: Count = 24
    non_linearity: NonLinearity = "gelu_new"
    scaled: Annotated[float, Field(gt=0, strict=True)] = 1.0

    @model_validator(mode="after")
    def _pairs(self) -> ParallelAdapterConfig:
        if len(self.modified_modules) % 2:
            raise ValueError(
                f"modified_modules has {len(self.modified_modules)} names, expected pairs of "
                "(input of, output of), such as @attention, @attention"
            )
        return self


class BitFitConfig(ModuleConfig):
    """y = F(x) + b. CPM-Ant has no bias at all, so the vectors are added, starting at zero.

    A bias on keys alone changes nothing (softmax removes what all keys share), hence not
    @attention.k.
    """

    delta_type: Literal["bitfit"] = "bitfit"
    modified_modules: Endings = (
        *("@attention.norm", "@attention.q", "@attention.v", "@attention.o"),
        *("@ffn.norm", "@ffn.in", "@ffn.out", "@norm"),
    )


class PrefixConfig(ModuleConfig):
    """`prefix_token_num` trained keys and values, seen by every query of each attention module.

    With `reparameterize` they are made from embeddings (of `embed_dim`) by a network with one
    hidden layer (of `mid_dim`), shared by all layers up to its last product.
    """

    delta_type: Literal["prefix"] = "prefix"
    modified_modules: Endings = ("@attention",)
    prefix_token_num: Count = 6
    reparameterize: bool = False
    embed_dim: Count = 512
    mid_dim: Count = 512
    needs = (("embed_dim", "reparameterize", True), ("mid_dim", "reparameterize", True))


class SoftPromptConfig(_Dependent):
    """`soft_token_num` trained input embeddings, divided over the `slots` of the template in the
    ratio of `ratio_list`.

    `option_token_num` of them, taken from the first slot, precede each option. `token_init`:
    vocabulary (embeddings of tokens drawn at random), text (those of `init_text`, repeated), mask
    (that of the entry <mask>, for all), prompt (the backbone's own prompt of type
    `init_prompt_type`, repeated), random (uniform within +-`init_range`, at the original scale).
    `prompt_sees_text` and `text_sees_prompt` are attention masks: false hides the text from soft
    tokens, or soft tokens from all others; `check_masks` says which can be answered.
    """

    delta_type: Literal["soft_prompt"] = "soft_prompt"
    soft_token_num: Count = 100
    slots: Names = ("front", "middle", "back")
    ratio_list: tuple[Annotated[float, Field(ge=0, strict=True)], ...] = (33, 34, 33)
    option_token_num: Annotated[int, Field(ge=0, lt=2**31, strict=True)] = 0
    token_init: Literal["vocabulary", "text", "mask", "prompt", "random"] = "vocabulary"
    init_text: str = ""
    init_prompt_type: Annotated[int, Field(ge=0, lt=2**31, strict=True)] = 2
    init_range: Annotated[float, Field(gt=0, strict=True)] = 0.5
    prompt_sees_text: bool = True
    text_sees_prompt: bool = True
    needs = (("init_range", "token_init", "random"), ("init_prompt_type", "token_init", "prompt"))

    @model_validator(mode="after")
    def _slots(self) -> SoftPromptConfig:
        apportion(self.soft_token_num, self.slots, self.ratio_list)
        if (self.token_init == "text") != bool(self.init_text):
            raise ValueError("token_init 'text' and init_text belong together; give both or none")
        if not (self.prompt_sees_text or self.text_sees_prompt):
            raise ValueError("prompt and text must see each other in one direction at least")
        return self


DeltaConfig = (
    NoneConfig
    | FullConfig
    | LoraConfig
    | AdapterConfig
    | LowRankAdapterConfig
    | ParallelAdapterConfig
    | CompacterConfig
    | BitFitConfig
    | PrefixConfig
    | SoftPromptConfig
)
T = TypeVar("T", bound=Frozen)
CONFIGS: dict[str, type[DeltaConfig]] = {
    model.model_fields["delta_type"].default: model for model in get_args(DeltaConfig)
}


def check_masks(config: DeltaConfig, answers_apart: bool) -> None:
    """Raise UserError for a soft prompt's masks that leave nothing to answer with: at the end of
    the text, unless a decoder answers, which sees text and prompt (`answers_apart`)."""
    if answers_apart or not isinstance(config, SoftPromptConfig):
        return
    back = bool(dict(zip(config.slots, config.ratio_list, strict=True)).get("back"))
    if not config.prompt_sees_text and back:
        raise UserError(
            "delta.prompt_sees_text is false, but the back slot answers, so it must see the text; "
            "set its ratio to 0."
        )
    if not config.text_sees_prompt and not back:
        raise UserError(
            "delta.text_sees_prompt is false: text that does not see the prompt needs a back slot, "
            "to be answered; give it a ratio."
        )


def with_names(config: T, roles: Mapping[str, tuple[str, ...]]) -> T:
    """The config with a family's own names of modules for roles.

    Raises UserError for a role that the family does not have.
    """
    if not isinstance(config, ModuleConfig):
        return config
    names: list[str] = []
    once = not isinstance(config, ParallelAdapterConfig)  # its names are pairs
    for name in config.modified_modules:
        if name.startswith("@") and name not in roles:
            raise UserError(
                f"delta.modified_modules: this family of models has no {name}."
                f"{did_you_mean(name, roles)}"
            )
        ways = roles.get(name, (name,))
        names += [way for way in ways if not (once and name in roles and way in names)]
    if tuple(names) == config.modified_modules:
        return config
    try:
        return type(config).model_validate({**config.model_dump(), "modified_modules": names})
    except ValidationError as error:
        shown = ", ".join(config.modified_modules)
        raise UserError(
            f"delta, with this backbone's names for {shown}: {faults(error)[0]}."
        ) from error


_APART = ("about", "lr_factor", "lr_width")  # of a preset, not of the method


def lr_factor(values: Mapping[str, Any], where: str, width: int | None = None) -> float:
    """The factor of a raw config on a task's learning rate, which is LoRA's (default: 1).

    `lr_width` is the width of the backbone that the factor was measured on: on one of `width` it is
    divided by their ratio, as Adam's rate for full matrices should be (Yang et al., 2022).
    """
    for key in ("lr_factor", "lr_width"):
        value = values.get(key, 1)
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < 1e6:
            raise UserError(f"{where}: {key} is {value!r}, expected a number above 0.")
    scale = values["lr_width"] / width if width and "lr_width" in values else 1.0
    return float(values.get("lr_factor", 1) * scale)


def parse_config(values: Mapping[str, Any], where: str) -> DeltaConfig:
    """Check a raw config; raise UserError naming the key.

    Its "about" header, "lr_factor" and "lr_width" are dropped.
    """
    values = {key: value for key, value in values.items() if key not in _APART}
    kind = values.get("delta_type")
    if kind is None:
        raise UserError(f"{where}: no delta_type; give one of {', '.join(CONFIGS)}.")
    if not isinstance(kind, str) or kind not in CONFIGS:
        raise UserError(f"{where}: delta_type is {kind!r}.{did_you_mean(str(kind), CONFIGS)}")
    model = CONFIGS[kind]
    unknown = [key for key in values if key not in model.model_fields]
    if unknown:
        raise UserError(
            "\n".join(
                f"{where}: '{key}' is not a setting of {kind}."
                f"{did_you_mean(str(key), model.model_fields)}"
                for key in unknown
            )
        )
    try:
        return model.model_validate(values)
    except ValidationError as error:
        raise UserError("\n".join(f"{where}: {fault}." for fault in faults(error))) from error
