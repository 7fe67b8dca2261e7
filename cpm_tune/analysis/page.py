"""Findings and tables as text or as one page of HTML that loads nothing and runs nothing."""

from __future__ import annotations

import html
from collections.abc import Sequence
from dataclasses import dataclass

from cpm_tune.common.texts import table

_STYLE = (
    "body{font:16px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem}"
    "table{border-collapse:collapse;margin:.5rem 0 1.5rem}th,td{padding:.25rem .75rem;"
    "border-bottom:1px solid #8886;text-align:left;vertical-align:top}"
    "@media(prefers-color-scheme:dark){body{background:#111;color:#eee}}"
)


@dataclass(frozen=True)
class Table:
    """A table with a title."""

    title: str
    header: Sequence[str]
    rows: Sequence[Sequence[str]]


def as_text(heading: str, lines: Sequence[str], tables: Sequence[Table]) -> str:
    """The heading, the lines, and the tables."""
    blocks = [heading, "\n".join(lines)]
    blocks += [f"{each.title}\n{table(each.header, each.rows)}" for each in tables]
    return "\n\n".join(filter(None, blocks))


def as_html(heading: str, lines: Sequence[str], tables: Sequence[Table]) -> str:
    """The same as a page; every text is escaped."""

    def cells(tag: str, row: Sequence[str]) -> str:
        return "".join(f"<{tag}>{html.escape(cell)}</{tag}>" for cell in row)

    parts = [f"<h1>{html.escape(heading)}</h1>", "<ul>"]
    parts += [f"<li>{html.escape(line)}</li>" for line in lines]
    parts.append("</ul>")
    for each in tables:
        parts += [f"<h2>{html.escape(each.title)}</h2>", "<table>"]
        parts += [f"<tr>{cells('th', each.header)}</tr>"]
        parts += [f"<tr>{cells('td', row)}</tr>" for row in each.rows]
        parts.append("</table>")
    head = (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width">'
        f"<title>{html.escape(heading)}</title><style>{_STYLE}</style></head><body>"
    )
    return "\n".join([head, *parts, "</body></html>"])
