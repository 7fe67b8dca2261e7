"""The argument parser of all commands: one sentence for a mistake, exit code 2."""

from __future__ import annotations

import argparse
import re
import sys
from typing import Any, NoReturn

from cpm_tune.errors import readable


class Parser(argparse.ArgumentParser):
    """argparse with our error style."""

    def __init__(self, *given: Any, **named: Any) -> None:
        super().__init__(*given, **named)
        self._negative_number_matcher = re.compile(r"-\.?\d")  # -1GB is a value, no option

    def error(self, message: str) -> NoReturn:
        print(f"error: {readable(message)} (see {self.prog} --help)", file=sys.stderr)
        raise SystemExit(2)


def add_holding(p: argparse.ArgumentParser, limit_for: str = "") -> None:
    """Add the options that say how a frozen backbone is held; a limit may be `limit_for` less."""
    p.add_argument(
        "--memory-limit",
        metavar="SIZE",
        help=f"most of the backbone in memory at a time, as 4GB{limit_for}",
    )
    p.add_argument(
        "--quantize",
        choices=["int8"],
        help="the frozen backbone's linear weights in 8 bits (extra int8); changes results",
    )


def make_parser(prog: str, about: str, epilog: str = "") -> Parser:
    """Return a parser that keeps the layout of its texts and wants whole option names."""
    return Parser(
        prog=prog,
        description=about,
        epilog=epilog,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
