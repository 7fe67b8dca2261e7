"""A real headless Chromium, and what tests do with a page of the leaderboard in it."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

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

    def __init__(self, driver: Any, path: Path) -> None:
        self.driver = driver
        driver.get(path.as_uri())

    def js(self, code: str) -> Any:
        return self.driver.execute_script(f"return {code}")

    def all(self, selector: str) -> list[Any]:
        found: list[Any] = self.driver.find_elements("css selector", selector)
        return found

    def one(self, selector: str) -> Any:
        return self.driver.find_element("css selector", selector)

    def rows(self) -> list[str]:
        code = "[...document.querySelectorAll('#table tr[data-row]')].map((r) => r.dataset.row)"
        said: list[str] = self.js(code)
        return [name for name in said if not name.startswith("quoted")]

    def column(self, name: str) -> list[float]:
        """The scores of a column, measured rows, as shown."""
        code = (
            "[...document.querySelectorAll('#table tbody:first-of-type .score')]"
            f".filter((b) => b.ariaLabel.startsWith('{name}: '))"
            ".map((b) => Number(b.querySelector('b').textContent))"
        )
        found: list[float] = self.js(code)
        return found

    def select(self, control: str, value: str) -> None:
        from selenium.webdriver.support.ui import Select

        Select(self.one(f"#{control}")).select_by_value(value)
