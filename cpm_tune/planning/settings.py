"""Settings such as train.lr=1e-3: from the command line or a file to checked models."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from cpm_tune.common.faults import faults
from cpm_tune.common.reading import parse_yaml
from cpm_tune.common.sizes import value_text
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


_EXAMPLES = {
    "train": "lr: 0.001",
    "encode": "max_length: 256",
    "decode": "beams: 3",
    "run": "device: cpu",
    "delta": "lora_r: 8",
}


@dataclass(frozen=True)
class _Bool:
    """True or false where a setting is neither."""

    value: bool

    def __repr__(self) -> str:
        return value_text(self.value)


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
        if key in _EXAMPLES:
            example = _EXAMPLES[key].replace(": ", "=")
            problems.append(
                f"--set {readable(item)}: {key} is a group of settings; name one, such as "
                f"{key}.{example}."
            )
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

    Values below the second level stay as they are: no setting has such keys. Raises ValueError for
    a setting that is there twice, and for a part that is not a mapping of its settings.
    """
    flat: dict[str, Any] = {}
    for key, value in settings.items():
        if key in (*PARTS, "delta") and not isinstance(value, Mapping):
            raise ValueError(
                f"{key} is {value_text(value)}, expected a mapping of its settings, such as "
                f"{{{_EXAMPLES[key]}}}"
            )
        several = isinstance(value, Mapping)
        inside = (
            [(f"{key}.{part}", v) for part, v in value.items()] if several else [(str(key), value)]
        )
        for name, each in inside:
            if name in flat:
                raise ValueError(f"'{name}' is there twice")
            flat[name] = each
    return flat


@contextlib.contextmanager
def in_file(where: str, keys: Collection[str]) -> Iterator[None]:
    """Name the file of settings in the sentences of a UserError that are about these keys."""
    words = "|".join(re.escape(part) for key in keys for part in (key, key.partition(".")[2]))
    about = re.compile(rf"(^|: |')({words})( |')")
    try:
        yield
    except UserError as error:
        lines = str(error).split("\n")
        if not keys:
            raise
        named = (about.search(line) and not line.startswith(where) for line in lines)
        text = [f"{where}: {li}" if here else li for li, here in zip(lines, named, strict=True)]
        raise UserError("\n".join(text)) from error


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
            values[name] = _Bool(value)  # which pydantic would take for a number
        else:
            values[name] = value
    try:
        settings_model = model(**values)
    except ValidationError as error:
        problems += [f"{fault}." for fault in faults(error, f"{part}.")]
    if problems:
        raise UserError("\n".join(problems))
    return settings_model
