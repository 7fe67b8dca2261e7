"""From a class of options to a parser, its help, and an instance; a mistake is one sentence."""

from __future__ import annotations

import argparse
import inspect
import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NoReturn, TypeVar

from cpm_tune.common.option import Declared, checked, declared
from cpm_tune.common.reading import read_mapping
from cpm_tune.errors import UserError, readable

T = TypeVar("T")
G = TypeVar("G", bound="CommandLine")


@dataclass(frozen=True, kw_only=True)
class CommandLine:
    """A base of options: the command line itself, and the fields that it sets."""

    words: tuple[str, ...] = ()
    given: frozenset[str] = frozenset()


class Parser(argparse.ArgumentParser):
    """argparse with our error style and whole option names; the help keeps its layout."""

    def __init__(self, prog: str, about: str) -> None:
        text, examples, rest = about.partition("examples:")
        super().__init__(
            prog=prog,
            description=text.strip(),
            epilog=examples + rest,
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )
        self._negative_number_matcher = re.compile(r"-\.?\d")  # -1GB is a value, not an option

    def list_commands(self, summaries: Mapping[str, str]) -> None:
        """Append the commands to the description, one line each."""
        width = max(map(len, summaries), default=0)
        lines = [f"  {name:{width}}  {summary}" for name, summary in summaries.items()]
        if lines:
            heading = "commands, each with --help:"
            self.description = "\n".join((str(self.description), "", heading, *lines))

    def error(self, message: str) -> NoReturn:
        self.fail([message])

    def fail(self, messages: Iterable[str]) -> NoReturn:
        """Print mistakes, a line each, and exit with code 2."""
        for message in messages:
            print(f"error: {readable(message)} (see {self.prog} --help)", file=sys.stderr)
        raise SystemExit(2)


def make_parser(options: type, prog: str, program: str) -> Parser:
    """The parser of a class of options; its docstring is the description, up to its examples.

    `prog` is how the command is called, `program` what stands for "tune.py" in the examples.
    """
    parser = Parser(prog, (inspect.getdoc(options) or "").replace("tune.py", program))
    for option in declared(options):
        _add(parser, option)
    parser.add_argument(
        "--debug", action="store_true", default=argparse.SUPPRESS, help="show tracebacks"
    )
    return parser


def _add(parser: Parser, option: Declared) -> None:
    about = option.option
    shown: dict[str, Any] = {"default": argparse.SUPPRESS}
    shown["help"] = argparse.SUPPRESS if about.hidden else _help(option)
    if option.kind is bool:
        switch = argparse.BooleanOptionalAction if option.default is not False else "store_true"
        parser.add_argument(option.name, dest=option.field, action=switch, **shown)
        return
    shown["metavar"] = about.metavar or f"{{{','.join(map(str, option.choices))}}}"
    if about.bare:
        shown |= {"nargs": "?", "const": True}
    if about.positional:
        several = "*" if option.many else "?"
        parser.add_argument(option.field, nargs=None if option.required else several, **shown)
        return
    if option.many and not about.commas:
        shown["action"] = "append"
    parser.add_argument(option.name, dest=option.field, required=option.required, **shown)


def _help(option: Declared) -> str:
    """The help with what is true of the option: its bounds and its default."""
    default = option.option.default
    if not default and option.default is not None and option.kind is not bool:
        values = option.default if isinstance(option.default, tuple) else (option.default,)
        default = ",".join(map(str, values))
    remarks = [option.bounds, f"default: {default}" if default else ""]
    text = option.option.help
    if remark := "; ".join(filter(None, remarks)):
        text = f"{text[:-1]}; {remark})" if text.endswith(")") else f"{text} ({remark})"
    return text.replace("%", "%%")


def parse(options: type[T], parser: Parser, argv: Sequence[str]) -> T:
    """The options of a command line. Mistakes in it, all of them, end the program with code 2."""
    known = {option.field: option for option in declared(options)}
    several = any(option.many and option.option.positional for option in known.values())
    reads = parser.parse_intermixed_args if several else parser.parse_args
    texts = vars(reads(list(argv)))
    texts.pop("debug", None)
    values, problems = {}, []
    for field, text in texts.items():
        option = known[field]
        try:
            values[field] = _value(option, text)
        except ValueError as error:
            problems.append(f"{option.name} {error}")
        for other in option.option.not_with:
            if other in texts:
                problems.append(f"{option.name} and {known[other].name} exclude each other")
    if problems:
        parser.fail(problems)
    if issubclass(options, CommandLine):
        values |= {"words": tuple(argv), "given": frozenset(texts)}
    return options(**values)


def _value(option: Declared, text: Any) -> Any:
    if isinstance(text, bool):
        return text
    if not isinstance(text, list):
        return option.parse(text)
    parts = [option.parse(part) for part in text]
    return (
        tuple(part for several in parts for part in several) if option.option.commas else (*parts,)
    )


def over_file(options: G, path: Path) -> tuple[G, Mapping[str, Any]]:
    """The options with those of a file (YAML or JSON) where the command line has none, and the
    settings (`set`) of the file.

    Raises UserError with every mistake in the file, a line each.
    """
    values = read_mapping(path, "--config", "task: lcqmc")
    values = {key.replace("-", "_"): value for key, value in values.items()}
    settings = values.pop("set", None) or {}
    problems = []
    if not isinstance(settings, Mapping):
        problems.append(f"set is {settings!r}, expected a mapping.")
    try:
        chosen = checked(type(options), values, file=True)
    except ValueError as error:
        problems += str(error).splitlines()
    if problems:
        raise UserError("\n".join(f"--config {path}: {problem}" for problem in problems))
    chosen = {field: value for field, value in chosen.items() if field not in options.given}
    return replace(options, **chosen), settings
