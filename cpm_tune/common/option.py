"""How an option is declared, once: its type is a field's annotation, everything else an `Option`.

    @dataclass(frozen=True, kw_only=True)
    class Show:
        rows: Annotated[int, Option("rows to show", least=0)] = 2

The command line (`cpm_tune.commands.arguments`), files of options, pydantic's models and help texts
read types, defaults and bounds from such fields.
"""

from __future__ import annotations

import contextlib
import types
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, fields, replace
from math import inf
from os import PathLike
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Union, get_args, get_origin, get_type_hints

from cpm_tune.common.paths import name_fault
from cpm_tune.common.sizes import shortened
from cpm_tune.errors import did_you_mean

MOST_OF_A_RANGE = 1000  # numbers: more is a slip
_NOUNS = {int: "a whole number", float: "a number", bool: "true or false"}
# In a file and in Python a path may be a text, and 1 is a number as 1.0 is.
_ACCEPTED: Mapping[type, Any] = {Path: (str, PathLike), float: (int, float)}


@dataclass(frozen=True)
class Option:
    """What is known of an option in addition to its type and default.

    `least` and `most` bound a number, `above` excludes its bound. `default` describes a default
    that the value does not show, such as "the task's first". `choices` are the possible values, if
    the type is not a Literal. `positional`: an argument without a name. `commas`: a text may
    have several values, with commas; with `ranges`, 1-3 in it is 1, 2, 3. `bare`: the value may be
    omitted, and is then True. `not_with` names the fields that exclude it. `hidden`
    options are not in the help, `in_file` ones may be in a --config file.

    If an annotation has several, the outermost one that sets an attribute wins.
    """

    help: str = ""
    metavar: str = ""
    least: float = -inf
    most: float = inf
    above: float = -inf
    default: str = ""
    choices: tuple[str, ...] = ()
    name: str = ""
    positional: bool = False
    commas: bool = False
    ranges: bool = False
    bare: bool = False
    not_with: tuple[str, ...] = ()
    hidden: bool = False
    in_file: bool = True

    # pydantic reads the bounds: https://github.com/annotated-types/annotated-types#groupedmetadata
    __is_annotated_types_grouped_metadata__: ClassVar[Literal[True]] = True

    def __iter__(self) -> Iterator[object]:
        from annotated_types import Ge, Gt, Le

        bounds = {Ge: self.least, Le: self.most, Gt: self.above}
        return iter([kind(bound) for kind, bound in bounds.items() if abs(bound) < inf])

    @property
    def bounds(self) -> str:
        """The range of a number in words: `from 1`, `from 0 to 9`, `above 0, at most 1`."""
        first = f"from {self.least}" if self.least > -inf else ""
        first = f"above {self.above}" if self.above > -inf else first
        join = " to " if self.least > -inf else ", at most "
        return f"{first}{join}{self.most}".removeprefix(", ") if self.most < inf else first

    def allows(self, number: float) -> bool:
        """Whether a number is within the bounds, and finite."""
        return self.above < number < inf and self.least <= number <= self.most


@dataclass(frozen=True)
class Declared:
    """An option as a field declares it.

    `kind` is the type of one value: str, int, float, bool or Path. `choices` are its possible
    values. `many`: the field is a tuple of such values. `default` is MISSING if there is none.
    """

    field: str
    kind: type
    choices: tuple[Any, ...]
    many: bool
    default: Any
    option: Option

    @property
    def name(self) -> str:
        """The option as the command line spells it: `--skip-bad-rows`, or SRC."""
        if self.option.positional:
            return self.option.metavar
        return "--" + (self.option.name or self.field).replace("_", "-")

    @property
    def expected(self) -> str:
        """A noun phrase for what one value has to be."""
        if self.choices:
            *others, last = map(str, self.choices)
            return f"{', '.join(others)} or {last}" if others else last
        return f"{_NOUNS.get(self.kind, 'a text')} {self.option.bounds}".strip()

    def parse(self, text: Any) -> Any:
        """The value of a text on the command line, or of a list of them; a switch is a value.

        Raises ValueError with what is wrong with it.
        """
        if isinstance(text, bool):
            return text
        if isinstance(text, list):
            if self.option.commas:
                return tuple(value for each in text for value in self.parse(each))
            return tuple(map(self._parse, text))
        if self.option.commas:
            return tuple(map(self._parse, split_list(text, ranges=self.option.ranges)))
        return self._parse(text)

    def check(self, value: Any) -> Any:
        """The value given by a file or in Python; raise ValueError with what is wrong with it."""
        if self.many and self.option.commas and isinstance(value, str):
            return self.parse(value)
        if self.many:
            return tuple(map(self._check, value if isinstance(value, list | tuple) else [value]))
        return self._check(value)

    def _parse(self, text: str) -> Any:
        value = None
        with contextlib.suppress(ValueError):
            value = self.kind(text)
        if value is None or not self._allowed(value):
            shown = text if self.kind in (int, float) else repr(text)
            raise ValueError(f"is {shortened(shown, 60)}, expected {self.expected}")
        return _named(value)

    def _check(self, value: Any) -> Any:
        fits = isinstance(value, _ACCEPTED.get(self.kind, self.kind))
        if not fits or isinstance(value, bool) != (self.kind is bool) or not self._allowed(value):
            raise ValueError(f"is {shortened(repr(value), 60)}, expected {self.expected}")
        return _named(Path(value) if self.kind is Path else value)

    def _allowed(self, value: Any) -> bool:
        if self.choices:
            return value in self.choices
        return self.kind not in (int, float) or self.option.allows(value)


def _named(value: Any) -> Any:
    """The value; raise ValueError if it is a text or a path that is not UTF-8."""
    if isinstance(value, str | Path) and (fault := name_fault(value)):
        raise ValueError(f"{value}: {fault}")
    return value


def split_list(text: str, *, ranges: bool = False) -> list[str]:
    """The parts of a list with commas; with `ranges`, 1-3 becomes 1, 2 and 3.

    Raises ValueError for a range that falls or is very long.
    """
    parts: list[str] = []
    for part in filter(None, map(str.strip, text.split(","))):
        first, _, last = part.partition("-")
        if not (ranges and first.isdecimal() and last.isdecimal()):
            parts.append(part)
            continue
        if len(first) > 10 or len(last) > 10 or not 0 <= int(last) - int(first) < MOST_OF_A_RANGE:
            raise ValueError(
                f"is {shortened(part, 60)}, expected a range from a smaller number to a greater "
                f"one, of at most {MOST_OF_A_RANGE:,} numbers, such as 1-3"
            )
        parts += map(str, range(int(first), int(last) + 1))
    return parts


def declared(options: type) -> list[Declared]:
    """The options that a dataclass declares, in the order of its fields."""
    hints, result = get_type_hints(options, include_extras=True), []
    for field in fields(options):
        kind, option = _unwrapped(hints[field.name])
        many = get_origin(kind) is tuple
        if many:
            kind, option = _unwrapped(get_args(kind)[0], option)
        if option is not None:
            choices = get_args(kind) if get_origin(kind) is Literal else option.choices
            kind = type(choices[0]) if choices else kind
            result.append(Declared(field.name, kind, choices, many, field.default, option))
    return result


def checked(
    options: type, values: Mapping[str, Any], *, file: bool = False, others: Iterable[str] = ()
) -> dict[str, Any]:
    """The values of options given by name, by field; None leaves a default.

    `file`: only the options that a file may give, by their names there. `others` are names that an
    unknown one may mean. Raises ValueError with every mistake, a sentence per line.
    """
    known = {o.option.name * file or o.field: o for o in declared(options)}
    known = {name: o for name, o in known.items() if o.option.in_file or not file}
    chosen, problems = {}, []
    for key, value in values.items():
        if key not in known:
            problems.append(f"there is no option '{key}'.{did_you_mean(key, [*known, *others])}")
        elif value is not None:
            try:
                chosen[known[key].field] = known[key].check(value)
            except ValueError as error:
                problems.append(f"{key} {error}.")
    if problems:
        raise ValueError("\n".join(problems))
    return chosen


def _unwrapped(hint: Any, option: Option | None = None) -> tuple[Any, Option | None]:
    """A type without None and Annotated, and the option that it carries, with `option` over it."""
    while get_origin(hint) in (Annotated, Union, types.UnionType):
        if get_origin(hint) is not Annotated:
            hint = next(one for one in get_args(hint) if one is not type(None))
            continue
        hint, *extras = get_args(hint)
        for extra in reversed(extras):
            if isinstance(extra, Option):
                option = extra if option is None else replace(extra, **_set_attributes(option))
    return hint, option


def _set_attributes(option: Option) -> dict[str, Any]:
    values = ((field, getattr(option, field.name)) for field in fields(option))
    return {field.name: value for field, value in values if value != field.default}
