"""Delta configurations in OpenDelta's own vocabulary; an unknown key is an error."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError

from cpm_tune.errors import UserError, did_you_mean
from cpm_tune.spec import Frozen

Name = Annotated[str, Field(min_length=1)]


class NoneConfig(Frozen):
    """No delta: the backbone as it is."""

    delta_type: Literal["none"] = "none"


class LoraConfig(Frozen):
    """y = W x + (lora_alpha / lora_r) * B A x for each module whose name ends in one of
    `modified_modules`, except those whose name starts with one of `exclude_modules`."""

    delta_type: Literal["lora"] = "lora"
    modified_modules: Annotated[tuple[Name, ...], Field(min_length=1)] = ("project_q", "project_v")
    exclude_modules: tuple[Name, ...] = ()
    lora_r: Annotated[int, Field(ge=1)] = 8
    lora_alpha: Annotated[float, Field(gt=0)] = 16
    lora_dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0


DeltaConfig = NoneConfig | LoraConfig
CONFIGS: dict[str, type[NoneConfig] | type[LoraConfig]] = {"none": NoneConfig, "lora": LoraConfig}


def parse_config(values: Mapping[str, Any], where: str) -> DeltaConfig:
    """Check a raw config (its "about" header is dropped); raise UserError naming the key."""
    values = {key: value for key, value in values.items() if key != "about"}
    kind = values.get("delta_type")
    if not isinstance(kind, str) or kind not in CONFIGS:
        raise UserError(f"{where}: delta_type is {kind!r}.{did_you_mean(str(kind), CONFIGS)}")
    model = CONFIGS[kind]
    unknown = [key for key in values if key not in model.model_fields]
    if unknown:
        raise UserError(
            f"{where}: '{unknown[0]}' is not a setting of {kind}."
            f"{did_you_mean(unknown[0], model.model_fields)}"
        )
    try:
        return model.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(map(str, first["loc"]))
        raise UserError(f"{where}: {key} is {first['input']!r}: {first['msg'].lower()}.") from error
