"""Writes docs/commands.md, every command with its options, from the options' declarations.

    python scripts/commands_page.py

The test suite checks that the page is up to date.
"""

from __future__ import annotations

import argparse
import re
from pathlib import Path

from cpm_tune.commands.arguments import Parser
from cpm_tune.commands.table import COMMANDS, TUNE

PAGE = Path(__file__).resolve().parent.parent / "docs" / "commands.md"

HEAD = """# Commands

`python scripts/commands_page.py` generates this page from the declarations of the options;
`tune.py COMMAND --help` prints the same. The installed command is called `cpm-tune` instead of
`tune.py`. `--debug` shows tracebacks in every command.
"""


def page() -> str:
    """The whole page."""
    parsers = {"": Parser(TUNE.options, "tune.py", "tune.py")} | {
        name: Parser(command.options, f"tune.py {name}", "tune.py")
        for name, command in COMMANDS.items()
    }
    names = [f"[`{name or 'tune'}`](#{_heading(name).replace(' ', '-')})" for name in parsers]
    sections = [_section(name, parser) for name, parser in parsers.items()]
    return "\n".join([HEAD, " · ".join(names), "", *sections])


def _heading(name: str) -> str:
    return name or "tune"


def _section(name: str, parser: Parser) -> str:
    lines = [f"## {_heading(name)}", "", _text(parser.description), ""]
    rows = [_row(action) for action in parser._actions if _shown(action)]
    if rows:
        lines += ["| option | meaning |", "|---|---|", *rows, ""]
    if parser.epilog:
        examples = parser.epilog.removeprefix("examples:\n")
        lines += [f"    {line.strip()}".rstrip() for line in examples.splitlines()] + [""]
    return "\n".join(lines)


def _shown(action: argparse.Action) -> bool:
    return action.help != argparse.SUPPRESS and action.dest not in ("help", "debug")


def _row(action: argparse.Action) -> str:
    value = "" if action.nargs == 0 else f" {action.metavar}"
    names = [f"{option}{value}" for option in action.option_strings] or [str(action.metavar)]
    code = ", ".join("`" + name.replace("|", "\\|") + "`" for name in names)
    return f"| {code} | {_text(action.help)} |"


def _text(text: str | None) -> str:
    return re.sub(r"([|*<])", r"\\\1", (text or "").replace("%%", "%"))


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
