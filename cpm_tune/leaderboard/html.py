"""A Board as one self-contained HTML page: nothing is fetched, the data is embedded as JSON. With
`--files`, the parts of single runs are scripts in a folder next to it.

Texts of records reach the page as text only: in the JSON every `<` is escaped, and the scripts set
it by textContent. The page's own policy lets no script run but the one with the right hash.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from cpm_tune.leaderboard.board import Board
from cpm_tune.leaderboard.page_data import Source, lazy_parts, page_parts, source_of
from cpm_tune.leaderboard.results import Results

PAGE = Path(__file__).with_name("page")
# One script, in this order; a view (page/router.js) is a file of its own before main.js.
SCRIPTS = (
    *("base.js", "text.js", "data.js", "names.js", "sources.js", "values.js", "router.js"),
    *("table.js", "text_row.js", "runs.js", "chart.js", "row.js", "errors.js", "examples.js"),
    *("figures.js", "about.js", "main.js"),
)
SMALL = 100_000  # characters; larger parts come after the script, which draws the table first
STYLES = ("style.css", "row.css", "live.css")


def as_html(board: Board, results: Results, per_run: int | None = None) -> str:
    """The page with everything in it: at most `per_run` predictions of each run."""
    return page_of(source_of(board, results, per_run))


def page_of(source: Source) -> str:
    """The page of a source, with the parts of its runs unless they are in a folder next to it."""
    if not source.folder:
        return page(page_parts(source), lazy=lazy_parts(source))
    # A page on a disk may not fetch: it reads these parts by scripts that its own script adds.
    return page(page_parts(source), trust="'strict-dynamic'")


def as_script(name: str, value: Any) -> str:
    """A lazy part as a script next to the page."""
    return f"cpmTune.give({as_json(name)},{_embeddable(as_json(value))});\n"


def page(
    parts: Mapping[str, Any],
    scripts: tuple[str, ...] = (),
    policy: str = "",
    lazy: Iterable[tuple[str, Any]] = (),
    trust: str = "",
) -> str:
    """The page of these parts of data.

    A server adds its own scripts (names of files in page/) and what they may do (`policy`, such as
    "connect-src 'self'"); they show new data by `update(parts)` of page/data.js. `lazy` parts come
    after the script, so that the table is there before the browser has read them; `trust` is what
    else may run, as a script-src.
    """
    *common, last = SCRIPTS
    names = (*common, *scripts, last)
    script = "(() => {\n'use strict';\n" + "".join(map(_part, names)) + "})();\n"
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    elements = {name: _element(name, value) for name, value in parts.items()}
    early = {name: e for name, e in elements.items() if name == "board" or len(e) < SMALL}
    late = [element for name, element in elements.items() if name not in early]
    texts = {
        "@@STYLE@@": "".join(map(_part, STYLES)),
        "@@HASH@@": " ".join(filter(None, (f"'sha256-{digest}'", trust))),
        "@@POLICY@@": f"; {policy}" if policy else "",
        "@@SCRIPT@@": script,
        "@@EARLY@@": "\n".join(early.values()),
        "@@LATE@@": "\n".join([*late, *(_element(name, value) for name, value in lazy)]),
    }
    rest = _part("page.html")
    pieces = []
    for mark, text in sorted(texts.items(), key=lambda pair: rest.index(pair[0])):
        before, _, rest = rest.partition(mark)
        pieces += [before, text]
    return "".join((*pieces, rest))


def as_json(value: Any) -> str:
    """A part of the data as the page's JSON."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False)


def _element(name: str, value: Any) -> str:
    data = _embeddable(as_json(value))
    return f'<script type="application/json" id="data-{name}">{data}</script>'


def _embeddable(data: str) -> str:
    """JSON that may stand in a script element of a UTF-8 file: half a surrogate pair is escaped."""
    data = data.replace("<", "\\u003c").replace("\u2028", "\\u2028")
    return data.encode(errors="backslashreplace").decode()


def _part(name: str) -> str:
    return (PAGE / name).read_text(encoding="utf-8")
