"""Hooks of MkDocs for the documentation's site: the pages at the root of the repository are part of
it, and links to files that are no pages become plain text.

`python -m mkdocs build --strict` writes the site into build/site; nothing on it is loaded from
other hosts.
"""

from __future__ import annotations

import posixpath
import re
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
# Pages of the site that are not in docs/: their address there, and the file.
PAGES = {
    "index.md": "README.md",
    "zh.md": "README.zh.md",
    "contributing.md": "CONTRIBUTING.md",
    "changelog.md": "CHANGELOG.md",
}
_ADDRESS = {file: page for page, file in PAGES.items()}
_LINK = re.compile(r"(?<!!)\[(?P<text>(?:[^\[\]]|\[[^\]]*\])*)\]\((?P<target>[^()\s]+)\)")
_FENCE = re.compile(r"^(```|~~~).*?^\1", re.DOTALL | re.MULTILINE)


def on_config(config: Any) -> Any:
    """Give headings the anchors that they have on GitHub."""
    from pymdownx.slugs import slugify

    config["mdx_configs"].setdefault("toc", {})["slugify"] = slugify(case="lower")
    return config


def on_files(files: Any, config: Any) -> Any:
    """Add the pages that are not in docs/."""
    from mkdocs.structure.files import File

    for page, file in PAGES.items():
        text = (ROOT / file).read_text(encoding="utf-8")
        files.append(File.generated(config, page, content=text))
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, files: Any) -> str:
    """Point links at pages of the site."""
    return with_site_links(markdown, page.file.src_uri)


def with_site_links(markdown: str, page: str) -> str:
    """The text of a page, by its address within the site, with the links that it has there."""
    source = PAGES.get(page, f"docs/{page}")

    def linked(match: re.Match[str]) -> str:
        text, target = match["text"], match["target"]
        file, _, anchor = target.partition("#")
        if re.match(r"[a-z]+:", target) or not file:
            return match[0]
        path = posixpath.normpath(posixpath.join(posixpath.dirname(source), file))
        there = _ADDRESS.get(path) or path.removeprefix("docs/")
        if path not in _ADDRESS and not (path.startswith("docs/") and path.endswith(".md")):
            return text
        relative = posixpath.relpath(there, posixpath.dirname(page) or ".")
        return f"[{text}]({relative}{'#' * bool(anchor)}{anchor})"

    parts, end = [], 0
    for fence in _FENCE.finditer(markdown):
        parts += [_LINK.sub(linked, markdown[end : fence.start()]), fence[0]]
        end = fence.end()
    text = "".join([*parts, _LINK.sub(linked, markdown[end:])])
    # Pictures are in docs/, and so in the site; pages of the root name them from there.
    return text if page not in PAGES else text.replace("](docs/pictures/", "](pictures/")
