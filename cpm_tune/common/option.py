"""How an option is declared, once: its type is a field's annotation, everything else an `Option`.

    @dataclass(frozen=True, kw_only=True)
    class Show:
        rows: Annotated[int, Option("rows to show", least=0)] = 2

The command line (`cpm_tune.commands.arguments`), files of options, pydantic's models and help texts
read types, defaults and bounds from such fields.
"""

from __future__ import annotations

import math
import types
from collections.abc import Iterator, Mapping
from dataclasses import MISSING, dataclass, fields
from os import PathLike
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Union, get_args, get_origin, get_type_hints

from cpm_tune.common.sizes import shortened
from cpm_tune.errors import did_you_mean

MOST_OF_A_RANGE = 1000  # numbers: more is a slip


@dataclass(frozen=True)
class Option:
    """What is known of an option beside its type and default.

    `least` and `most` bound a number, `above` excludes its bound. `default` describes a default
    that the value does not show, such as "the task's first". `choices` are
    the values, if they are no Literal. `positional`: an argument without a
    name. `commas`: one text with commas instead of repeating the option; with `ranges`, 1-3
    in it is 1, 2, 3. `bare`: it may stand
    without a value, which is then True. `not_with` names the fields that exclude it. `hidden`
    options are not in the help, `in_file` ones may stand in a --config file. Where an annotation
    has several of these, the last one that sets an attribute wins.
    """

    help: str = ""
    metavar: str = ""
    least: float | None = None
    most: float | None = None
    above: float | None = None
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
        return iter([bound(value) for bound, value in bounds.items() if value is not None])

    def over(self, other: Option) -> Option:
        """This option's attributes where they are set, otherwise the other's."""
        chosen = {
            field.name: mine if mine != field.default else getattr(other, field.name)
            for field in fields(self)
            for mine in (getattr(self, field.name),)
        }
        return Option(**chosen)


@dataclass(frozen=True)
class Declared:
    """An option as a field declares it. `kind` is the type of one value: str, int, float, bool,
    Path, or dict; `choices` are what it may be; `many`: the field is a tuple of such values.
    """

    field: str
    kind: type
    choices: tuple[Any, ...]
    many: bool
    required: bool
    default: Any
    option: Option

    @property
    def name(self) -> str:
        """The option as the command line spells it: `--skip-bad-rows`, or SRC."""
        if self.option.positional:
            return self.option.metavar
        return "--" + (self.option.name or self.field).replace("_", "-")

    @property
    def bounds(self) -> str:
        """The range of a number in words: `from 1`, `from 0 to 4294967295`, `above 0`."""
        option, words = self.option, []
        if option.above is not None:
            words.append(f"above {option.above:g}")
        if option.least is not None:
            words.append(f"from {_digits(option.least)}")
        if option.most is not None:
            words.append(
                f"{'to' if option.least is not None else 'at most'} {_digits(option.most)}"
            )
        return " ".join(words) if option.above is None else ", ".join(words)

    @property
    def expected(self) -> str:
        """A noun phrase for what one value has to be."""
        if self.choices:
            *others, last = map(str, self.choices)
            return f"{', '.join(others)} or {last}" if others else last
        nouns = {int: "a whole number", float: "a number", bool: "true or false", dict: "a mapping"}
        return f"{nouns.get(self.kind, 'a text')} {self.bounds}".strip()

    def parse(self, text: str) -> Any:
        """The value of a text on the command line; raise ValueError with what is wrong with it."""
        if self.many and self.option.commas:
            parts = split_list(text, ranges=self.option.ranges)
            return tuple(self._one(part) for part in parts)
        return self._one(text)

    def _one(self, text: str) -> Any:
        value: Any = text
        if self.kind in (int, float, Path):
            try:
                value = self.kind(text)
            except ValueError:
                raise self._wrong(text) from None
        return self._bounded(value, shown=text)

    def check(self, value: Any) -> Any:
        """The value of a file's entry; raise ValueError with what is wrong with it."""
        if self.many:
            entries = value if isinstance(value, list | tuple) else [value]
            return tuple(self._entry(entry) for entry in entries)
        return self._entry(value)

    def _entry(self, value: Any) -> Any:
        types_of: Mapping[type, Any] = {Path: (str, PathLike), float: (int, float)}
        fits = isinstance(value, types_of.get(self.kind, self.kind))
        if not fits or (isinstance(value, bool) and self.kind is not bool):
            raise self._wrong(value)
        return self._bounded(Path(value) if self.kind is Path else value, shown=value)

    def _bounded(self, value: Any, shown: Any) -> Any:
        option = self.option
        if self.choices and value not in self.choices:
            raise self._wrong(shown)
        if isinstance(value, int | float) and not (
            (option.least is None or value >= option.least)
            and (option.most is None or value <= option.most)
            and (option.above is None or value > option.above)
            and (isinstance(value, int) or math.isfinite(value))
        ):
            raise self._wrong(shown)
        return value

    def _wrong(self, value: Any) -> ValueError:
        given = value if isinstance(value, str) and self.kind in (int, float) else repr(value)
        return ValueError(f"is {shortened(str(given), 60)}, expected {self.expected}")


def split_list(text: str, *, ranges: bool = False) -> list[str]:
    """The parts of a list with commas; with `ranges`, 1-3 becomes 1, 2 and 3."""
    parts: list[str] = []
    for part in filter(None, map(str.strip, text.split(","))):
        first, _, last = part.partition("-")
        digits = ranges and first.isdecimal() and last.isdecimal()
        if digits and 0 <= int(last) - int(first) < MOST_OF_A_RANGE:
            parts += map(str, range(int(first), int(last) + 1))
        else:
            parts.append(part)
    return parts


def declared(options: type) -> list[Declared]:
    """The options that a dataclass declares, in the order of its fields."""
    hints = get_type_hints(options, include_extras=True)
    result = []
    for field in fields(options):
        kind, found = _unwrapped(hints[field.name])
        if found is None:
            continue
        many = get_origin(kind) is tuple
        if many:
            kind, of_one = _unwrapped(get_args(kind)[0])
            found = found if of_one is None else found.over(of_one)
        choices = get_args(kind) if get_origin(kind) is Literal else found.choices
        required = field.default is MISSING and field.default_factory is MISSING
        default = None if required else field.default
        kind = type(choices[0]) if choices else get_origin(kind) or kind
        result.append(Declared(field.name, kind, choices, many, required, default, found))
    return result


def checked(options: type, values: Mapping[str, Any], *, file: bool = False) -> dict[str, Any]:
    """The values of options given by name, by field; None leaves a default.

    `file`: only the options that a file may give. Raises ValueError with every mistake, a sentence
    per line.
    """
    known = {
        (option.option.name or option.field) if file else option.field: option
        for option in declared(options)
        if option.option.in_file or not file
    }
    chosen, problems = {}, []
    for key, value in values.items():
        if key not in known:
            problems.append(f"there is no option '{key}'.{did_you_mean(key, known)}")
        elif value is not None:
            try:
                chosen[known[key].field] = known[key].check(value)
            except ValueError as error:
                problems.append(f"{key} {error}.")
    if problems:
        raise ValueError("\n".join(problems))
    return chosen


def _unwrapped(hint: Any) -> tuple[Any, Option | None]:
    """A type without None and Annotated, and the Option that it carries."""
    found: Option | None = None
    while True:
        if get_origin(hint) is Annotated:
            hint, *extras = get_args(hint)
            for option in reversed([extra for extra in extras if isinstance(extra, Option)]):
                found = option if found is None else found.over(option)
        elif get_origin(hint) in (Union, types.UnionType):
            hint = next(one for one in get_args(hint) if one is not type(None))
        else:
            return hint, found


def _digits(bound: float) -> str:
    return str(bound) if isinstance(bound, int) else f"{bound:g}"
