"""The documentation as a site: built strictly, nothing from other hosts, links as on GitHub."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import REPOSITORY
from docs_site import PAGES, with_site_links

LOADED = re.compile(
    r'<(?:script|img|iframe)[^>]*\ssrc="([^"]*)"|<link[^>]*rel="stylesheet"[^>]*href="([^"]*)"'
)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The built site; a link or heading that is not there, or a page not in the outline, fails."""
    pytest.importorskip("mkdocs")
    out = tmp_path_factory.mktemp("site")
    built = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", out],
        capture_output=True,
        text=True,
        cwd=REPOSITORY,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
    )
    assert built.returncode == 0, built.stderr
    return out


def test_every_page_is_on_the_site(site: Path) -> None:
    sources = [
        str(path.relative_to(REPOSITORY / "docs")) for path in (REPOSITORY / "docs").rglob("*.md")
    ]
    for source in (*sources, *PAGES):
        name = source.removesuffix(".md")
        page = site / ("index.html" if name == "index" else f"{name}/index.html")
        assert page.is_file(), source


def test_nothing_is_loaded_from_other_hosts(site: Path) -> None:
    for page in site.rglob("*.html"):
        loaded = [a or b for a, b in LOADED.findall(page.read_text(encoding="utf-8"))]
        assert loaded
        assert not [address for address in loaded if re.match(r"(https?:)?//", address)], page


def test_chinese_is_found_by_its_words(site: Path) -> None:
    index = json.loads((site / "search" / "search_index.json").read_text(encoding="utf-8"))
    words = {word for page in index["docs"] for word in page["text"].split("\u200b")}
    assert "模型" in words
    assert r"\u200b" in index["config"]["separator"]


@pytest.mark.parametrize(
    ("page", "text", "expected"),
    [
        ("index.md", "[a](docs/runs.md#x)", "[a](runs.md#x)"),
        ("index.md", "[中文](README.zh.md)", "[中文](zh.md)"),
        ("index.md", "[a task](tasks/lcqmc.py)", "a task"),
        ("runs.md", "[a](../README.md#the-map)", "[a](index.md#the-map)"),
        ("tasks/discourse.md", "[a](../../CONTRIBUTING.md)", "[a](../contributing.md)"),
        ("tasks/discourse.md", "[a](../data.md)", "[a](../data.md)"),
        ("runs.md", "[a](https://example.org) [b](#c)", "[a](https://example.org) [b](#c)"),
        ("runs.md", "```\n[a](../x.py)\n```\n[a](../x.py)", "```\n[a](../x.py)\n```\na"),
    ],
)
def test_links_lead_to_pages_of_the_site(page: str, text: str, expected: str) -> None:
    assert with_site_links(text, page) == expected
