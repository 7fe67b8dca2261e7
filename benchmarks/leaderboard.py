"""How long a large results folder takes to aggregate, and a large page to open.

    python benchmarks/leaderboard.py records   # 10,000 records: read, validate, aggregate
    python benchmarks/leaderboard.py page      # 500 rows: open in headless Chromium
    python benchmarks/leaderboard.py page --rows 5000

The records are made up (tests/board_records.py). Aims: under 5 s; painted under 0.5 s for 500 rows,
usable under 1 s for 5,000.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))

import board_records as made
from timing import timed

from cpm_tune.leaderboard.aggregate import make_board
from cpm_tune.leaderboard.html import page
from cpm_tune.leaderboard.page_data import page_parts, source_of
from cpm_tune.leaderboard.results import Results, read_folder
from cpm_tune.schema.record import RunRecord

MADE = 100  # rows of the page that are made up; more are the same again by other names


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


def repeat(parts: dict[str, Any], n_rows: int) -> None:
    """Repeat the rows of a page's data, with their runs' curves, until there are `n_rows`."""
    rows, details = parts["board"]["rows"], parts["details"]["rows"]
    for number in range(len(rows), n_rows):
        row = rows[number % MADE]
        copied = json.loads(json.dumps(details[row["id"]]).replace(".s", f".{number}s"))
        rows.append({**row, "id": f"{row['id']} {number}"})
        details[rows[-1]["id"]] = copied
        for run in (run for cell in copied.values() for run in cell["runs"]):
            original = run["run_id"].replace(f".{number}s", ".s")
            parts["curves"][run["run_id"]] = parts["curves"][original]


def bench_page(folder: Path, n_rows: int) -> None:
    """Make the page and open it: until something is painted, until the table can be used (the
    script has run), until all of the file is read; then another order, and a dataset's."""
    from browser import chromium

    print(f"{fill(folder, min(n_rows, MADE), predictions=True):,} records")
    results = read_folder(folder)
    board = make_board(results, published=True)
    parts = show("parts", lambda: page_parts(source_of(board, results)))
    repeat(parts, n_rows)
    path = folder / "board.html"
    path.write_text(page(parts), encoding="utf-8")
    print(f"{len(parts['board']['rows'])} rows, {path.stat().st_size / 1e6:.1f} MB")
    times = (
        "const entry = (kind, name) => performance.getEntriesByType(kind).find((e) => !name || "
        "e.name === name); return [entry('paint', 'first-contentful-paint')?.startTime, "
        "entry('mark', 'ready').startTime, entry('navigation').domContentLoadedEventEnd]"
    )
    order = (
        "const t = performance.now(); {}; document.body.offsetHeight; return performance.now() - t"
    )
    change = (
        "const s = document.getElementById('f-score'); s.value = 'c3'; "
        "s.dispatchEvent(new Event('change'))"
    )
    click = "document.querySelector('[data-sort=\"cost:seconds\"]').click()"
    with chromium(folder / "profile") as driver:
        for run in range(4):
            driver.get("about:blank")
            driver.execute_cdp_cmd("Performance.enable", {"timeDomain": "threadTicks"})
            driver.get(path.as_uri())
            painted, usable, read = (value or 0 for value in driver.execute_script(times))
            print(
                f"open {run + 1}: painted {painted / 1000:.2f} s, usable {usable / 1000:.2f} s, "
                f"all read {read / 1000:.2f} s"
            )
            busy = {
                m["name"]: m["value"]
                for m in driver.execute_cdp_cmd("Performance.getMetrics", {})["metrics"]
            }
            print(f"        the page's own CPU time: {busy['TaskDuration']:.2f} s")
        for name, code in (("by cost", click), ("by c3", change)):
            print(f"{name:12} {driver.execute_script(order.format(code)) / 1000:6.2f} s")


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
