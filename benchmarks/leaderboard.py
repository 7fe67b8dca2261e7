"""How long a large results folder takes to aggregate, and a large page to open.

    python benchmarks/leaderboard.py records   # 10,000 records: read, validate, aggregate
    python benchmarks/leaderboard.py page      # 500 rows: open in headless Chromium

The records are made up (tests/board_records.py). Aims: under 5 s and under 2 s.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))

import board_records as made
from timing import timed

from cpm_tune.leaderboard.aggregate import make_board
from cpm_tune.leaderboard.html import as_html
from cpm_tune.leaderboard.results import Results, read_folder
from cpm_tune.schema.record import RunRecord

FLAGS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
)


def many(n_rows: int) -> Iterator[RunRecord]:
    """Rows x the seven datasets of CUGE lite x three seeds."""
    for i in range(n_rows):
        for task in made.LITE:
            for seed in (1, 2, 3):
                yield made.make_record(task, f"backbone-{i:03}", "lora", seed)


def fill(folder: Path, n_rows: int, predictions: bool) -> int:
    """Write the records, without flushing each one to disk."""
    flush, os.fsync = os.fsync, lambda fd: None
    try:
        return len([made.store(folder, record, predictions) for record in many(n_rows)])
    finally:
        os.fsync = flush


def show(what: str, action: Callable[[], Any]) -> Any:
    """Run, print wall and CPU seconds, return the result."""
    wall, cpu, value = timed(action)
    print(f"{what:12} {wall:6.2f} s wall, {cpu:6.2f} s of this process's CPU time")
    return value


def bench_records(folder: Path, n_rows: int) -> None:
    """Read and aggregate."""
    print(f"{fill(folder, n_rows, predictions=False):,} records")
    results: Results = show("read", lambda: read_folder(folder))
    board = show("aggregate", lambda: make_board(results))
    print(f"{len(board.rows)} rows, {len(board.columns)} columns")


def bench_page(folder: Path, n_rows: int) -> None:
    """Make the page and open it: until it can be used (its script has run: first rows and all
    figures are there), and until every row is there."""
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    print(f"{fill(folder, n_rows, predictions=True):,} records")
    results = read_folder(folder)
    board = make_board(results, published=True)
    text: str = show("page", lambda: as_html(board, results))
    path = folder / "board.html"
    path.write_text(text, encoding="utf-8")
    print(f"{len(board.rows)} rows, {path.stat().st_size / 1e6:.1f} MB")
    options = webdriver.ChromeOptions()
    options.binary_location = shutil.which("chromium") or ""
    for flag in (*FLAGS, f"--user-data-dir={folder / 'profile'}"):
        options.add_argument(flag)
    driver = webdriver.Chrome(options=options, service=Service(shutil.which("chromedriver")))
    try:
        driver.set_window_size(1400, 1000)
        ready = "return performance.getEntriesByType('navigation')[0].domContentLoadedEventEnd"
        whole = (
            "const done = arguments[0]; const look = () => document.getElementById('table')"
            ".ariaBusy === 'true' ? setTimeout(look, 5) : done(performance.now()); look()"
        )
        for run in range(3):
            driver.get(path.as_uri())
            shown = driver.execute_script(
                "return performance.getEntriesByType('paint').map((p) => p.startTime)"
            )
            usable = driver.execute_script(ready)
            every = driver.execute_async_script(whole)
            print(
                f"open {run + 1}: painted {max(shown, default=0) / 1000:.2f} s, "
                f"usable {usable / 1000:.2f} s, every row there {every / 1000:.2f} s"
            )
        sort = "const t = performance.now(); document.querySelector('[data-sort=ccpm]').click();"
        milliseconds = driver.execute_script(
            f"{sort} document.body.offsetHeight; return performance.now() - t"
        )
        print(f"sort         {milliseconds / 1000:6.2f} s")
    finally:
        driver.quit()


def main() -> None:
    """Parse and measure."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("what", choices=["records", "page"])
    parser.add_argument("--rows", type=int, help="of the board (default: 477 and 500)")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        if args.what == "records":
            bench_records(Path(place), args.rows or 477)
        else:
            bench_page(Path(place), args.rows or 500)


if __name__ == "__main__":
    main()
