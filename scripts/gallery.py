"""Make the pictures of docs/pictures/ from a results folder, and its page.

    python scripts/gallery.py examples/words --page results/example.html

The pictures are the page in Chromium at 1,400 and 420 pixels, a row's view, the figures' view, the
terminal's tables (rich) and the plot of cost and quality (matplotlib), as PNG of at most 150 kB and
as SVG. `--live URL` adds a picture of a page that `leaderboard serve` shows. Needs Chromium,
chromedriver and the packages of `make setup`, and a Chinese font for Chinese names.
"""

from __future__ import annotations

import argparse
import io
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cpm_tune.common.writing import write_atomically
from cpm_tune.leaderboard.aggregate import make_board
from cpm_tune.leaderboard.export import export
from cpm_tune.leaderboard.plot import draw
from cpm_tune.leaderboard.results import read_folder

ROOT = Path(__file__).resolve().parents[1]
MOST = 150_000  # bytes of a picture
PER_RUN = 30  # predictions, of the page's examples
WIDTH = 120  # characters of the terminal
# Nothing of a picture is loaded from other hosts: rich's own form of an SVG names fonts of one.
SVG = """<svg class="rich-terminal" viewBox="0 0 {width} {height}" xmlns="http://www.w3.org/2000/svg">
<style>
.{unique_id}-matrix {{
  font-family: "DejaVu Sans Mono", Menlo, Consolas, monospace; font-size: {char_height}px;
  line-height: {line_height}px; font-variant-east-asian: full-width;
}}
.{unique_id}-title {{ font-size: 18px; font-weight: bold; font-family: sans-serif; }}
{styles}
</style>
<defs>
<clipPath id="{unique_id}-clip-terminal">
<rect x="0" y="0" width="{terminal_width}" height="{terminal_height}" />
</clipPath>
{lines}
</defs>
{chrome}
<g transform="translate({terminal_x}, {terminal_y})" clip-path="url(#{unique_id}-clip-terminal)">
{backgrounds}
<g class="{unique_id}-matrix">
{matrix}
</g>
</g>
</svg>
"""


@dataclass(frozen=True)
class Shot:
    """A picture of a view: its name, the view's address, the window's width and most height in
    pixels."""

    name: str
    view: str
    width: int
    height: int


def shots(row: str) -> list[Shot]:
    """The pictures of the page; `row` is the address of a row's view."""
    return [
        Shot("page", "", 1400, 860),
        Shot("page-phone", "", 420, 860),
        Shot("row", row, 1400, 1000),
        Shot("figures", "#/figures", 1400, 1000),
    ]


@contextmanager
def browser(profile: Path) -> Iterator[Any]:
    """A headless Chromium with a profile of its own."""
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    options = webdriver.ChromeOptions()
    options.binary_location = shutil.which("chromium") or ""
    for flag in ("--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={profile}"):
        options.add_argument(flag)
    driver = webdriver.Chrome(options=options, service=Service(shutil.which("chromedriver")))
    try:
        yield driver
    finally:
        driver.quit()


def resize(driver: Any, width: int, height: int) -> None:
    """Another size of the window's content."""
    metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
    driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)


def taken(driver: Any, url: str, shot: Shot, out: Path) -> Path:
    """Take one picture and return its path."""
    resize(driver, shot.width, shot.height)
    driver.get("about:blank")
    driver.get(url + shot.view)
    end = time.monotonic() + 30
    ready = "return document.documentElement.dataset.ready === 'yes'"
    while not driver.execute_script(ready) and time.monotonic() < end:
        time.sleep(0.1)
    time.sleep(1 if url.startswith("file:") else 5)  # what is drawn later
    used = driver.execute_script("return document.body.getBoundingClientRect().bottom + 12")
    resize(driver, shot.width, min(shot.height, int(used)))
    path = out / f"{shot.name}.png"
    write_atomically(path, small(driver.get_screenshot_as_png()))
    return path


def small(png: bytes) -> bytes:
    """The picture with at most 256 colours, or fewer if it would have more than MOST bytes."""
    from PIL import Image

    picture = Image.open(io.BytesIO(png)).convert("RGB")
    for colours in (256, 96, 32, 16):
        saved = io.BytesIO()
        picture.quantize(colours, dither=Image.Dither.NONE).save(saved, "PNG", optimize=True)
        if saved.tell() <= MOST:
            break
    return saved.getvalue()


def terminal(results: Path, text: str) -> str:
    """What a terminal shows of a command's output, as SVG."""
    from rich.console import Console
    from rich.text import Text

    console = Console(record=True, width=WIDTH, file=io.StringIO(), legacy_windows=False)
    console.print(Text(f"$ python tune.py leaderboard {results}", style="bold"), soft_wrap=True)
    console.print(Text(text), soft_wrap=True)
    return console.export_svg(title="cpm-tune", code_format=SVG, unique_id="terminal")


def main() -> None:
    """Parse and make the pictures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("results", type=Path, help="results folder")
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "pictures", help="for pictures")
    parser.add_argument("--page", type=Path, help="write the page there too")
    parser.add_argument("--row", default="#/row/cpm-ant-tiny%20%2F%20lora", help="a row's address")
    parser.add_argument("--live", help="address of a page that is served")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    page, _ = export(args.results, "html", published=True, per_run=PER_RUN, places=True)
    if args.page is not None:
        write_atomically(args.page, page)
    text, _ = export(args.results, "text", places=True)
    write_atomically(args.out / "terminal.svg", terminal(args.results, text))
    read = read_folder(args.results)
    with tempfile.TemporaryDirectory() as place:
        drawn = draw(make_board(read), read, Path(place))
        plot = next(path for path in drawn if path.name.startswith("cost-quality.n_trainable.svg"))
        write_atomically(args.out / "plot.svg", plot.read_bytes())
        file = Path(place, "page.html")
        file.write_text(page, encoding="utf-8")
        with browser(Path(place, "profile")) as driver:
            for shot in shots(args.row):
                taken(driver, file.as_uri(), shot, args.out)
            if args.live:
                taken(driver, args.live, Shot("serve", "", 1400, 700), args.out)
    for path in sorted(args.out.iterdir()):
        print(f"{path}: {path.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
