"""The space of a search: for each setting a range, or a list of values.

`train.lr=log:1e-4..1e-2` is a range on a logarithmic scale, `train.weight_decay=0..0.1` on a linear
one, `delta.lora_r=4,8,16` are values. Ranges of settings that are whole numbers have whole numbers.
"""

from __future__ import annotations

import itertools
import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from typing import Any, get_args

from pydantic import BaseModel

from cpm_tune.common.reading import parse_yaml
from cpm_tune.common.sizes import value_text
from cpm_tune.delta.config import CONFIGS, DeltaConfig
from cpm_tune.errors import UserError, did_you_mean, readable
from cpm_tune.planning.settings import DELTA_KEYS, KEYS, PARTS
from cpm_tune.schema.spec import Recipe

_FORM = "a range such as log:1e-4..1e-2 or 0..0.1, or values such as 4,8,16"
_RANGE = re.compile(r"(log:)?([^,]*?)\.\.([^,]*)")
# The size of a delta, searched by default at half, once and twice the delta's own.
_SIZES = {
    "lora": "lora_r",
    "adapter": "bottleneck_dim",
    "parallel_adapter": "bottleneck_dim",
    "prefix": "prefix_token_num",
}
# Settings that decide which rows trials train on or are scored on.
_ROWS = ("train.rows", "train.rows_share", "train.dev_rows")
MOST = 100  # values of one setting, and settings of a space


@dataclass(frozen=True)
class Range:
    """All numbers from `low` to `high`, both included; `log`: drawn on a logarithmic scale."""

    low: float
    high: float
    log: bool
    whole: bool

    def __str__(self) -> str:
        return f"{'log:' * self.log}{self.low!r}..{self.high!r}"

    @property
    def checked(self) -> tuple[Any, ...]:
        """Values that show whether all can be used: the ends."""
        return (self.low, self.high)

    def parse(self, text: Any) -> Any:
        """A value from its text, or from a number."""
        return int(text) if self.whole else float(text)

    def includes(self, value: Any) -> bool:
        """Whether the search may try this value."""
        number = isinstance(value, int | float) and not isinstance(value, bool)
        return number and self.low <= value <= self.high


@dataclass(frozen=True)
class Choices:
    """Some values."""

    values: tuple[Any, ...]

    def __str__(self) -> str:
        return ",".join(map(setting_text, self.values))

    @property
    def checked(self) -> tuple[Any, ...]:
        """All values."""
        return self.values

    def parse(self, text: Any) -> Any:
        """A value from its text."""
        return next(value for value in self.values if setting_text(value) == text)

    def includes(self, value: Any) -> bool:
        """Whether the search may try this value."""
        return value in self.values


Dimension = Range | Choices
Space = Mapping[str, Dimension]


def setting_text(value: Any) -> str:
    """A value as `--set` takes it: a list is in brackets."""
    if isinstance(value, str):
        return value
    if isinstance(value, float):
        return repr(value)
    return json.dumps(value, ensure_ascii=False) if isinstance(value, list) else value_text(value)


def parse_items(items: Sequence[str]) -> dict[str, str]:
    """The texts of --space KEY=VALUES by key. Raises UserError with every mistake, a line each."""
    space: dict[str, str] = {}
    problems = []
    for item in items:
        key, sign, text = item.partition("=")
        key = key.strip()
        if not (sign and key and text.strip()):
            problems.append(f"--space {readable(item)}: expected KEY=VALUES: {_FORM}.")
        elif key in space:
            problems.append(f"--space: {readable(key)} is there twice; keep one of the two.")
        else:
            space[key] = text.strip()
    if problems:
        raise UserError("\n".join(problems))
    return space


def make_space(
    given: Mapping[str, Any], where: str = "--space", delta: str | None = None
) -> dict[str, Dimension]:
    """The space of settings by key; each is a text, or in a file a list of values.

    `delta`: the delta_type, if it is known; settings of others are not proposed for a slip.
    Raises UserError with every mistake, a line each, after `where`.
    """
    fields = CONFIGS[delta].model_fields if delta in CONFIGS else None
    near = DELTA_KEYS if fields is None else DELTA_KEYS & {f"delta.{name}" for name in fields}
    space, problems = {}, []
    if len(given) > MOST:
        raise UserError(f"{where}: {len(given)} settings, at most {MOST} can be searched.")
    for key, value in given.items():
        try:
            space[key] = _dimension(key, value, near)
        except ValueError as error:
            end = "" if str(error).endswith(("?", ".")) else "."
            problems.append(f"{where} {readable(key)}: {error}{end}")
    if problems:
        raise UserError("\n".join(problems))
    return space


def default_space(recipe: Recipe, delta: DeltaConfig) -> dict[str, Dimension]:
    """The learning rate from a tenth to ten times the run's own, and the delta's size, if it has
    one that fits."""
    low, high = (float(f"{recipe.lr * factor:.3g}") for factor in (0.1, 10))
    space: dict[str, Dimension] = {"train.lr": Range(low, high, log=True, whole=False)}
    name = _SIZES.get(delta.delta_type)
    size = getattr(delta, name, None) if name else None
    if isinstance(size, int) and size > 1:
        space[f"delta.{name}"] = Choices((size // 2, size, size * 2))
    return space


def size_of(space: Space) -> int | None:
    """The number of points of a space; None if it has a range of fractions."""
    sizes = []
    for dimension in space.values():
        if isinstance(dimension, Choices):
            sizes.append(len(dimension.values))
        elif dimension.whole:
            sizes.append(int(dimension.high - dimension.low) + 1)
        else:
            return None
    return math.prod(sizes)


def points(space: Space) -> Iterator[dict[str, Any]]:
    """Every point of a space without ranges of fractions."""
    axes = [
        v.values if isinstance(v, Choices) else range(int(v.low), int(v.high) + 1)
        for v in space.values()
    ]
    for values in itertools.product(*axes):
        yield dict(zip(space, values, strict=True))


def _dimension(key: str, value: Any, near: Set[str]) -> Dimension:
    """Raises ValueError with the rest of a sentence about the key; `near`: what may be meant."""
    if key not in KEYS | DELTA_KEYS:
        raise ValueError(f"there is no such setting.{did_you_mean(key, KEYS | near)}")
    if key.startswith("run."):
        raise ValueError("it changes no result, so it cannot be searched")
    if key in _ROWS:
        raise ValueError(
            "it changes which rows are used, so its trials cannot be compared; give it with --set, "
            "and several values in a sweep of `bench`"
        )
    if isinstance(value, list):
        return _choices(value)
    if not isinstance(value, str):
        raise ValueError(f"{value_text(value)} is one value; expected {_FORM}")  # noqa: TRY004
    if (match := _RANGE.fullmatch(value)) is not None and not value.startswith("["):
        return _range(key, bool(match[1]), match[2], match[3])
    if value.startswith("log:"):
        raise ValueError(f"{value!r:.60} is no range; expected LOW..HIGH after log:, as 1e-4..1e-2")
    try:
        values = parse_yaml(f"[{value}]")
    except ValueError as error:
        raise ValueError(f"{value!r:.60} cannot be read ({error}); expected {_FORM}") from error
    return _choices(values)


def _choices(values: list[Any]) -> Choices:
    if len(values) < 2:
        given = f"{setting_text(values[0])} is one value" if values else "it has no values"
        raise ValueError(f"{given}; expected {_FORM}")
    if len(values) > MOST:
        raise ValueError(f"{len(values)} values, at most {MOST} can be searched")
    texts = [setting_text(value) for value in values]
    if len(set(texts)) < len(texts):
        again = next(text for text in texts if texts.count(text) > 1)
        raise ValueError(f"{again} is there twice")
    if any(isinstance(value, dict) for value in values):
        raise ValueError(f"a mapping is no value of a setting; expected {_FORM}")
    return Choices(tuple(values))


def _range(key: str, log: bool, low_text: str, high_text: str) -> Range:
    kinds = set(_kinds(key))
    if not kinds & {int, float}:
        raise ValueError("it is no number, so it has no range; list its values, as a,b")
    ends = []
    for text in (low_text, high_text):
        try:
            ends.append(float(text))
        except ValueError:
            raise ValueError(f"{text!r:.40} is no number; expected {_FORM}") from None
        if not math.isfinite(ends[-1]):
            raise ValueError(f"{text!r:.40} is no finite number; expected {_FORM}")
    low, high = ends
    if low >= high and high_text.startswith("."):
        raise ValueError(f"three dots: {low_text}..{high_text} ends in {high:g}; a range has two")
    if low == high:
        raise ValueError(f"both ends of the range are {low:g}; give another one, or omit it")
    if low > high:
        raise ValueError(f"the range {low:g}..{high:g} is empty; the lower end comes first")
    whole = float not in kinds
    if whole and not (low.is_integer() and high.is_integer()):
        raise ValueError(f"its values are whole numbers, not {low:g}..{high:g}")
    if log and low <= 0:
        raise ValueError(f"a logarithmic range begins above 0, not at {low:g}")
    return Range(int(low), int(high), log, True) if whole else Range(low, high, log, False)


def _kinds(key: str) -> Iterator[Any]:
    """The types that a setting's values may have."""
    part, _, name = key.partition(".")
    models: list[type[BaseModel]] = [PARTS[part]] if part in PARTS else list(CONFIGS.values())
    for model in models:
        if (field := model.model_fields.get(name)) is not None:
            yield from _inside(field.annotation)


def _inside(annotation: Any) -> Iterator[Any]:
    parts = get_args(annotation)
    if isinstance(annotation, type) and not parts:
        yield annotation
    for part in parts:
        yield from _inside(part)
