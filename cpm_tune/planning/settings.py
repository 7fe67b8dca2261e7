"""Settings such as train.lr=1e-3: from the command line or a file to checked models."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from cpm_tune.common.faults import faults
from cpm_tune.common.reading import parse_yaml
from cpm_tune.delta.config import CONFIGS
from cpm_tune.errors import UserError, did_you_mean, readable
from cpm_tune.schema.spec import Decoding, Encoding, Execution, Recipe

M = TypeVar("M", bound=BaseModel)

PARTS: Mapping[str, type[BaseModel]] = {
    "train": Recipe,
    "encode": Encoding,
    "decode": Decoding,
    "run": Execution,
}
KEYS = {f"{part}.{name}" for part, model in PARTS.items() for name in model.model_fields}
DELTA_KEYS = {f"delta.{name}" for model in CONFIGS.values() for name in model.model_fields} - {
    "delta.delta_type"
}
# Settings whose values are texts, whatever they look like: 2024, nan.
_TEXTS = {
    f"{part}.{name}"
    for part, models in {"delta": CONFIGS.values(), **{p: (m,) for p, m in PARTS.items()}}.items()
    for model in models
    for name, field in model.model_fields.items()
    if field.annotation in (str, str | None)
}


def parse_settings(items: Sequence[str]) -> dict[str, Any]:
    """Parse `key=value` texts. Values are YAML: 1e-3, true and [a, b] mean that, but a value stays
    as it is where the setting is a text. Raises UserError with every mistake, a line each."""
    settings: dict[str, Any] = {}
    problems = []
    for item in items:
        key, sign, text = item.partition("=")
        key = key.strip()
        if not sign or not key:
            problems.append(f"--set {readable(item)}: expected key=value, such as train.lr=1e-3.")
            continue
        try:
            value = parse_yaml(text)
        except ValueError as error:
            value = text
            if key not in _TEXTS:
                problems.append(f"--set {readable(item)}: the value is not valid YAML ({error}).")
        settings[key] = text if key in _TEXTS and not isinstance(value, str) else value
    if problems:
        raise UserError("\n".join(problems))
    return settings


def flat_settings(settings: Mapping[Any, Any]) -> dict[str, Any]:
    """Nested settings by dotted keys: {"train": {"lr": 1}} and {"train.lr": 1} are {"train.lr": 1}.

    Values below the second level stay as they are: no setting has such keys.
    """
    flat: dict[str, Any] = {}
    for key, value in settings.items():
        if isinstance(value, Mapping):
            flat |= {f"{key}.{name}": inner for name, inner in value.items()}
        else:
            flat[str(key)] = value
    return flat


def build(model: type[M], part: str, settings: Mapping[str, Any], defaults: Mapping[str, Any]) -> M:
    """A settings model from those of the defaults that belong to it and the user's `part.*`.

    Raises UserError with every mistake, a line each.
    """
    values = {key: value for key, value in defaults.items() if key in model.model_fields}
    problems = []
    for key, value in settings.items():
        owner, _, name = key.partition(".")
        if owner != part:
            continue
        if name not in model.model_fields:
            same = {other for other in KEYS if other.endswith(f".{name}")}
            known = same or {f"{part}.{field}" for field in model.model_fields}
            problems.append(f"there is no setting '{key}'.{did_you_mean(key, known)}")
        elif isinstance(value, bool) and model.model_fields[name].annotation is not bool:
            problems.append(f"{key} is {value}, expected a number or a name.")
        else:
            values[name] = value
    try:
        settings_model = model(**values)
    except ValidationError as error:
        problems += [f"{fault}." for fault in faults(error, f"{part}.")]
    if problems:
        raise UserError("\n".join(problems))
    return settings_model
