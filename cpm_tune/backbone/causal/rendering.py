"""Renders chat templates, which are programs of somebody's: a script for a process of its own.

It reads {"template", "names", "limits", "turns"} as JSON and writes {"texts"} or {"error"}. The
environment is Jinja's immutable sandbox with what transformers gives templates, but for
strftime_now: a prompt that changes with the date is no fixed prompt, and templates that ask whether
there is such a function have a date of their own. Imports nothing of this package.
"""

from __future__ import annotations

import json
import resource
import sys
from typing import Any, NoReturn


def main() -> None:
    """Render and write the answer."""
    given = json.load(sys.stdin)
    limits = given["limits"]
    resource.setrlimit(resource.RLIMIT_CPU, (limits["seconds"], limits["seconds"] + 1))
    resource.setrlimit(resource.RLIMIT_AS, (limits["memory"], limits["memory"]))
    answer: dict[str, Any]
    try:
        answer = {"texts": _render(given)}
    except MemoryError:
        answer = {"error": "takes too much memory"}
    except Exception as error:  # whatever a template can raise
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        answer = {"error": f"fails ({reason[:160]})"}
    json.dump(answer, sys.stdout)


def _render(given: dict[str, Any]) -> list[str]:
    from jinja2.exceptions import TemplateError
    from jinja2.ext import loopcontrols
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    def raise_exception(message: object) -> NoReturn:
        raise TemplateError(str(message))

    def tojson(value: Any, indent: int | None = None) -> str:
        return json.dumps(value, ensure_ascii=False, indent=indent)

    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[_marks(), loopcontrols]
    )
    environment.filters["tojson"] = tojson
    environment.globals["raise_exception"] = raise_exception
    template, texts = environment.from_string(given["template"]), []
    for messages, asks in given["turns"]:
        pieces, size = [], 0
        for piece in template.generate(
            messages=messages,
            tools=None,
            documents=None,
            add_generation_prompt=asks,
            **given["names"],
        ):
            pieces.append(piece)
            size += len(piece)
            if size > given["limits"]["characters"]:
                raise MemoryError
        texts.append("".join(pieces))
    return texts


def _marks() -> type:
    """The tag {% generation %}, with which some templates mark what an assistant wrote."""
    from jinja2 import nodes
    from jinja2.ext import Extension
    from jinja2.parser import Parser

    class Marks(Extension):
        tags = {"generation"}  # noqa: RUF012

        def parse(self, parser: Parser) -> list[nodes.Node]:
            next(parser.stream)
            return parser.parse_statements(("name:endgeneration",), drop_needle=True)

    return Marks


if __name__ == "__main__":
    main()
