"""What pydantic finds wrong with somebody's values, as clauses of our sentences."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from cpm_tune.common.sizes import value_text

if TYPE_CHECKING:
    from pydantic import ValidationError

_KINDS = {
    "int": "a whole number",
    "float": "a number",
    "finite": "a finite number",
    "decimal": "a number",
    "bool": "true or false",
    "string": "a text",
    "list": "a list",
    "tuple": "a list",
    "dict": "a mapping",
    "mapping": "a mapping",
    "model": "a mapping",
    "dataclass": "a mapping",
    "path": "a path",
}


def faults(error: ValidationError, prefix: str = "") -> list[str]:
    """Return one clause per mistake, without a full stop: `train.lr is -1, expected more than 0`.

    `prefix` stands before each key, such as "train.".
    """
    return [_clause(fault, prefix) for fault in error.errors(include_url=False)]


def _clause(fault: Mapping[str, Any], prefix: str) -> str:
    kind, message = str(fault["type"]), str(fault["msg"]).removeprefix("Value error, ")
    key = prefix + ".".join(map(str, fault["loc"])) if fault["loc"] else ""
    if kind == "json_invalid":
        return f"not whole JSON ({fault['ctx']['error']})"
    if not key:
        named = kind in ("value_error", "assertion_error")
        before = f"{prefix.rstrip('.')}: " if prefix else ""
        return before + (message if named else f"expected {expected(fault)}")
    if kind == "missing":
        return f"'{key}' is missing"
    if kind in ("extra_forbidden", "unexpected_keyword_argument"):
        return f"there is no key '{key}'"
    given = value_text(fault["input"])
    if kind in ("value_error", "assertion_error"):
        return f"{key} is {given}: {message}"
    return f"{key} is {given}, expected {expected(fault)}"


def expected(fault: Mapping[str, Any]) -> str:
    """What the value of a fault should have been, as a noun phrase."""
    kind, about = str(fault["type"]), _plain(fault.get("ctx", {}))
    bounds = {
        "greater_than": "more than {gt}",
        "greater_than_equal": "{ge} or more",
        "less_than": "less than {lt}",
        "less_than_equal": "at most {le}",
        "literal_error": "{expected}",
        "string_pattern_mismatch": "a text of the form {pattern}",
        "string_too_short": "a text of at least {min_length} characters",
        "string_too_long": "a text of at most {max_length} characters",
        "too_short": "at least {min_length}",
        "too_long": "at most {max_length}",
    }
    if kind.endswith("too_short") and about.get("min_length") == 1:
        return "a name" if kind.startswith("string") else "at least one"
    if kind in bounds:
        return bounds[kind].format(**about)
    known = next((text for start, text in _KINDS.items() if kind.startswith(start)), None)
    message = str(fault["msg"])
    return known or message[0].lower() + message[1:]


def _plain(about: Mapping[str, Any]) -> dict[str, Any]:
    """The same, with whole numbers as whole numbers: pydantic makes 0.0 of a bound of 0."""
    return {
        key: int(value) if isinstance(value, float) and value.is_integer() else value
        for key, value in about.items()
    }
