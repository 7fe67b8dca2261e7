"""A real headless Chromium, and what tests do with a page of the leaderboard in it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

import pytest

FLAGS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
)


@contextmanager
def chromium(profile: Path) -> Iterator[Any]:
    """A browser of 1400 x 1000; the test is skipped where there is none."""
    webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is not installed")
    from selenium.webdriver.chrome.service import Service

    binary = shutil.which("chromium") or shutil.which("google-chrome")
    driver = shutil.which("chromedriver")
    if binary is None or driver is None:
        pytest.skip("no chromium and chromedriver here (Debian: chromium chromium-driver)")
    options = webdriver.ChromeOptions()
    options.binary_location = binary
    for flag in (*FLAGS, f"--user-data-dir={profile}", "--lang=en-US"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    opened = webdriver.Chrome(options=options, service=Service(driver))
    opened.set_window_size(1400, 1000)
    try:
        yield opened
    finally:
        opened.quit()


class Page:
    """What a test does with the page."""

    def __init__(self, driver: Any, path: Path, view: str = "", kept: bool = False) -> None:
        self.driver = driver
        self.path = path
        driver.get("about:blank")
        if not kept:  # a language or theme that another test chose
            origin = {"origin": "file:///", "storageTypes": "local_storage"}
            driver.execute_cdp_cmd("Storage.clearDataForOrigin", origin)
        driver.get(path.as_uri() + view)

    def go(self, view: str) -> None:
        """Follow a link of the page, such as "#/figures"."""
        self.js(f"location.hash = {json.dumps(view)}")
        self.settle()

    def settle(self) -> None:
        """Let the page follow a link."""
        self.js("new Promise((done) => setTimeout(done, 20))")

    def wait(self, code: str, tries: int = 100) -> None:
        """Wait until an expression is true."""
        for _ in range(tries):
            if self.js(code):
                return
            self.settle()
        raise AssertionError(code)

    def row(self, name: str, **query: str) -> None:
        """Open a row's view."""
        self.go(f"#/row/{quote(name, safe='')}?{urlencode(query)}")
        self.ready()

    def examples(self, name: str, **query: str) -> None:
        """Open the examples of a row."""
        self.go(f"#/examples/{quote(name, safe='')}?{urlencode(query)}")
        self.ready()

    def ready(self) -> None:
        """Wait until what is read one by one is there."""
        code = (
            "const [done] = arguments; const look = () => (document.querySelector('[aria-busy]') ? "
        )
        code += "setTimeout(look, 5) : setTimeout(done, 5)); setTimeout(look, 5);"
        self.driver.execute_async_script(code)

    def js(self, code: str) -> Any:
        return self.driver.execute_script(f"return {code}")

    def all(self, selector: str) -> list[Any]:
        found: list[Any] = self.driver.find_elements("css selector", selector)
        return found

    def one(self, selector: str) -> Any:
        return self.driver.find_element("css selector", selector)

    def rows(self) -> list[str]:
        """The measured rows, in the order in which they are shown."""
        code = "[...document.querySelectorAll('#table tr[data-row]')].map((r) => r.dataset.row)"
        names: list[str] = self.js(code)
        return [name for name in names if not name.startswith("quoted")]

    def column(self, name: str) -> list[float]:
        """The scores of a column, measured rows that have one, as shown."""
        code = (
            "[...document.querySelectorAll('#table tbody:first-of-type .value')]"
            f".filter((a) => a.hash.includes('dataset={name}') && !a.hash.includes('{name}%'))"
            ".map((a) => Number(a.textContent))"
        )
        values: list[float] = self.js(code)
        return values

    def scores(self) -> list[float]:
        """What the rows are ordered by, of rows that have it."""
        code = "[...document.querySelectorAll('#table .score b')].map((b) => Number(b.textContent))"
        values: list[float] = self.js(code)
        return values

    def select(self, control: str, value: str) -> None:
        from selenium.webdriver.support.ui import Select

        self.js("document.querySelectorAll('details').forEach((d) => { d.open = true })")
        self.wait(f"document.getElementById('{control}') !== null")
        Select(self.one(f"#{control}")).select_by_value(value)

    @contextmanager
    def width(self, pixels: int, height: int = 900) -> Iterator[None]:
        """Another width of the window."""
        metrics = {"width": pixels, "height": height, "deviceScaleFactor": 1, "mobile": False}
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
        try:
            yield
        finally:
            self.driver.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
