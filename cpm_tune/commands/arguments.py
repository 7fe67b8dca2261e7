"""From a class of options to a parser, its help, and an instance; a mistake is one sentence."""

from __future__ import annotations

import argparse
import inspect
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, dataclass, replace
from pathlib import Path
from typing import Any, NoReturn, TypeVar

from cpm_tune.common.door import load
from cpm_tune.common.events import emit
from cpm_tune.common.option import Declared, checked, declared
from cpm_tune.common.reading import read_mapping
from cpm_tune.common.sizes import value_text
from cpm_tune.errors import UserError, did_you_mean, readable
from cpm_tune.schema.options import MOST

T = TypeVar("T")
G = TypeVar("G", bound="CommandLine")


@dataclass(frozen=True, kw_only=True)
class CommandLine:
    """A base of options: the command line itself, and the fields that it sets."""

    words: tuple[str, ...] = ()
    given: frozenset[str] = frozenset()


class Parser(argparse.ArgumentParser):
    """The parser of a class of options, in our error style; it wants whole option names.

    The docstring of `options` is the description, and after its "examples:" the epilog. `prog` is
    how the command is called, `program` what stands for "tune.py" in the examples.
    """

    def __init__(self, options: type, prog: str, program: str) -> None:
        about = (inspect.getdoc(options) or "").replace("tune.py", program)
        text, examples, rest = about.partition("examples:")
        super().__init__(
            prog=prog,
            description=text.strip(),
            epilog=examples + rest,
            formatter_class=argparse.RawDescriptionHelpFormatter,
            argument_default=argparse.SUPPRESS,
            allow_abbrev=False,
        )
        self._negative_number_matcher = re.compile(r"-\.?\d")  # -1GB is a value, not an option
        for option in declared(options):
            self._add(option)
        self.add_argument("--debug", action="store_true", help="show tracebacks")

    def _add(self, option: Declared) -> None:
        about, required = option.option, option.default is MISSING
        more: dict[str, Any] = {"help": argparse.SUPPRESS if about.hidden else _help(option)}
        if option.kind is bool:
            switch = argparse.BooleanOptionalAction if option.default is not False else "store_true"
            self.add_argument(option.name, dest=option.field, action=switch, **more)
            return
        more["metavar"] = about.metavar or f"{{{','.join(map(str, option.choices))}}}"
        if about.bare:
            more |= {"nargs": "?", "const": True}
        if about.positional:
            several = "*" if option.many else "?"
            self.add_argument(option.field, nargs=None if required else several, **more)
            return
        action = "append" if option.many else "store"
        self.add_argument(option.name, dest=option.field, required=required, action=action, **more)

    def list_commands(self, summaries: Mapping[str, str]) -> None:
        """Append the commands to the description, one line each."""
        width = max(map(len, summaries), default=0)
        lines = [f"  {name:{width}}  {summary}" for name, summary in summaries.items()]
        if lines:
            heading = "commands, each with --help:"
            self.description = "\n".join((str(self.description), "", heading, *lines))

    def _meant(self, name: str) -> str:
        """What an unknown option may mean: another one, or a setting."""
        options = [text for action in self._actions for text in action.option_strings]
        bare = {text.lstrip("-"): text for text in options}  # dashes make no names alike
        settings = load("cpm_tune.planning.settings:KEYS") if "--set" in options else ()
        meant = did_you_mean(name.lstrip("-"), [*bare, *settings])
        meant = re.sub(r"'([\w-]+)'", lambda match: f"'{bare[match[1]]}'", meant)
        return re.sub(r"'(\w+\.\w+)'", r"'--set \1=VALUE'", meant) if "mean" in meant else ""

    def error(self, message: str) -> NoReturn:
        """Print mistakes, a line each, and exit with code 2."""
        first, _, words = message.partition("unrecognized arguments: ")
        if not first and words.startswith("-"):
            message += f".{self._meant(words.split()[0].partition('=')[0])}"
        for line in message.split("\n"):
            emit("error", text=readable(line))
            print(f"error: {readable(line)} (see {self.prog} --help)", file=sys.stderr)
        raise SystemExit(2)


def _help(option: Declared) -> str:
    """The help text with the option's bounds and default."""
    default = option.option.default
    if not default and option.default not in (None, MISSING) and option.kind is not bool:
        values = option.default if isinstance(option.default, tuple) else (option.default,)
        default = ",".join(map(str, values))
    bounds = option.option.bounds.removesuffix(f" to {MOST}")
    remarks = [bounds, f"default: {default}" if default else ""]
    text = option.option.help
    if remark := "; ".join(filter(None, remarks)):
        text = f"{text[:-1]}; {remark})" if text.endswith(")") else f"{text} ({remark})"
    return text.replace("%", "%%")


def parse(options: type[T], parser: Parser, argv: Sequence[str]) -> T:
    """The options of a command line. Mistakes in it, all of them, end the program with code 2."""
    known = {option.field: option for option in declared(options)}
    several = any(option.many and option.option.positional for option in known.values())
    reads = parser.parse_intermixed_args if several else parser.parse_args
    given = vars(reads(list(argv)))
    given.pop("debug", None)
    values, problems = {}, []
    for field, value in given.items():
        option = known[field]
        try:
            values[field] = option.parse(value)
        except ValueError as error:
            problems.append(f"{option.name} {error}")
        for other in option.option.not_with:
            if other in given:
                problems.append(f"{option.name} and {known[other].name} exclude each other")
    if problems:
        parser.error("\n".join(problems))
    if issubclass(options, CommandLine):
        values |= {"words": tuple(argv), "given": frozenset(given)}
    return options(**values)


def over_file(
    options: G, path: Path, mappings: Sequence[str] = ("set",)
) -> tuple[G, dict[str, Mapping[str, Any]]]:
    """The options with those of a file (YAML or JSON) where the command line has none, and the
    file's mappings of settings: its `set`, and `space` if that is one of `mappings`.

    Raises UserError with every mistake in the file, a line each.
    """
    values = read_mapping(path, "--config", "task: lcqmc")
    if "spec_sha256" in values:  # a run's record
        include = getattr(options, "include", ())
        again = load("cpm_tune.commands.again:options_of")
        values = again(path, include, options.given, searching="space" in mappings)
    parts = {name: values.pop(name, None) or {} for name in mappings}
    named = dict[str, Any]()
    try:
        for key, value in values.items():
            if (field := key.replace("-", "_")) in named:
                raise ValueError(f"'{key}' is there twice.")
            named[field] = value
        for name, part in parts.items():
            if not isinstance(part, Mapping):
                raise ValueError(f"{name} is {value_text(part)}, expected a mapping.")  # noqa: TRY004
        others = [f"set: {key}" for key in load("cpm_tune.planning.settings:KEYS")]
        chosen = checked(type(options), named, file=True, others=others)
    except ValueError as error:
        problems = str(error).split("\n")
        raise UserError("\n".join(f"--config {path}: {p}" for p in problems)) from error
    chosen = {field: value for field, value in chosen.items() if field not in options.given}
    return replace(options, **chosen), parts
