"""The first screen of the page in Chromium: order, places, switches, widths, languages."""

from __future__ import annotations

import base64
import json
import os
import re
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import board_records as made
import pytest
from browser import Page

from cpm_tune.leaderboard.aggregate import make_board
from cpm_tune.leaderboard.board import Board, Index, IndexRule, Places
from cpm_tune.leaderboard.figures import hierarchy_mean, scores
from cpm_tune.leaderboard.html import PAGE, as_html
from cpm_tune.leaderboard.page_data import page_parts, source_of
from cpm_tune.leaderboard.results import Results, StoredRecord
from cpm_tune.schema.record import RunRecord
from cpm_tune.task.registry import load_tasks

AXE = "axe-core@4.11.1"
TASKS = ("ccpm", "c3", "lcsts", "math23k")


def with_controls(record: RunRecord, **values: float) -> RunRecord:
    """The record with other controls."""
    controls = {n.replace("_", "-"): {"value": v, "low": v, "high": v} for n, v in values.items()}
    return RunRecord.model_validate(
        {**record.model_dump(), "controls": {**record.model_dump()["controls"], **controls}}
    )


def cut_short(record: RunRecord) -> RunRecord:
    """The record of a run that was ended after 2 steps of 8 rows, with 1,000 rows to train on."""
    recipe = {**record.spec.recipe.model_dump(), "max_steps": 2, "batch_size": 8}  # type: ignore[union-attr]
    spec = record.spec.model_copy(
        update={"recipe": record.spec.recipe.model_validate(recipe)}  # type: ignore[union-attr]
    )
    train = {**record.model_dump()["data"]["test"], "n": 1000}
    values = {
        **record.model_dump(),
        **{"spec": spec, "run_id": spec.run_id, "spec_sha256": spec.sha256},
        "data": {**record.model_dump()["data"], "train": train},
        "training": {**record.model_dump()["training"], "steps": 2},
    }
    return RunRecord.model_validate(values)


def records() -> list[RunRecord]:
    """Official runs of four deltas, an untuned row, trials, another template, a run cut short."""
    official = [
        made.make_record(task, "large", delta, seed)
        for delta in ("lora", "adapter", "bitfit", "prefix")
        for task in TASKS
        for seed in (1, 2)
        if (delta, task) != ("prefix", "lcsts")
    ]
    untuned = [made.make_record(task, "large", "none", 1) for task in TASKS]
    return [
        *official,
        *untuned,
        with_controls(made.make_record("ccpm", "weak", "lora", 1), zero_shot=0.9, overlap=0.1),
        made.make_record("ccpm", "tiny", "lora", 1, sample=True),
        made.make_record("lcqmc", "tiny", "lora", 1, sample=True),
        made.make_record("ccpm", "large", "lora", 1, template="cpm-2"),
        cut_short(made.make_record("ccpm", "small", "lora", 1)),
    ]


@pytest.fixture(scope="module")
def results() -> Results:
    return Results(tuple(StoredRecord(r, Path("nowhere")) for r in records()), (), ())


@pytest.fixture(scope="module")
def board(results: Results) -> Board:
    return make_board(results, published=True)


@pytest.fixture(scope="module")
def page(board: Board, results: Results, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("table") / "board.html"
    path.write_text(as_html(board, results), encoding="utf-8")
    return path


@pytest.fixture
def opened(browser: Any, page: Path) -> Page:
    return Page(browser, page)


def row(opened: Page, name: str) -> Any:
    """The row of that name."""
    return opened.one(f'#table tr[data-row="{name}"]')


def places(opened: Page) -> dict[str, str]:
    """The places of rows, as shown."""
    code = (
        "[...document.querySelectorAll('#table tr[data-row]')]"
        ".map((r) => [r.dataset.row, r.querySelector('.rank').textContent])"
    )
    return dict(opened.js(code))


def by_intervals(intervals: Mapping[str, tuple[float, float]]) -> dict[str, str]:
    """The places that intervals leave, counted pair by pair."""
    shown = {}
    for name, (low, high) in intervals.items():
        first = 1 + sum(other[0] > high for other in intervals.values())
        last = len(intervals) - sum(other[1] < low for other in intervals.values())
        shown[name] = str(first) if first == last else f"{first}–{last}"
    return shown


def test_places_are_those_that_intervals_leave_and_only_the_first_are_shaded(
    opened: Page, board: Board
) -> None:
    opened.select("f-score", "ccpm")
    cells = {
        r.id: r.cells["ccpm"] for r in board.rows if "ccpm" in r.cells and r.backbone != "small"
    }
    expected = by_intervals({name: (cell.low, cell.high) for name, cell in cells.items()})
    shown = places(opened)
    assert {name: shown[name] for name in expected} == expected
    assert len(set(expected.values())) > 1, "the table has several groups"
    first = {name for name, place in shown.items() if place.split("–")[0] == "1"}
    assert {r.get_attribute("data-row") for r in opened.all("#table tr.best")} == first
    assert opened.one("#verdict").text.startswith(
        "Not certain which is first" if len(first) > 1 else "First:"
    )


def test_the_mean_and_its_interval_follow_the_hierarchy(opened: Page, board: Board) -> None:
    columns = [board.column(task) for task in TASKS]
    lora = next(r for r in board.rows if r.id == "large / lora")
    mean = hierarchy_mean(scores(lora), columns)
    # Each of the four capabilities has one dataset here, so each counts a quarter.
    below = sum((lora.cells[t].mean - lora.cells[t].low) ** 2 for t in TASKS) ** 0.5 / 4
    above = sum((lora.cells[t].high - lora.cells[t].mean) ** 2 for t in TASKS) ** 0.5 / 4
    assert mean is not None
    text = row(opened, "large / lora").find_element("css selector", ".score").text
    assert text.split("\n")[0].split() == [
        f"{mean:.2f}",
        f"{mean - below:.2f}–{mean + above:.2f}",
    ]
    assert "3 of 4 datasets" in row(opened, "large / prefix").text
    assert opened.rows()[0] != "large / none"


def test_tested_places_stand_before_those_of_intervals(
    browser: Any, board: Board, results: Results, tmp_path: Path
) -> None:
    tested = board.model_copy(deep=True)
    cells = [r.cells["ccpm"] for r in tested.rows if "ccpm" in r.cells]
    for number, cell in enumerate(cells, 1):
        cell.places = Places(first=number, last=number, of=len(cells))
    whole = [r for r in tested.rows if all(task in r.cells for task in TASKS)]
    tested.indices["mean"] = IndexRule(
        title="mean", rule="", columns={task: task for task in TASKS}, baseline="none"
    )
    for r in whole:
        r.forgetting = 0.125
        spread = {"samples_per_second": 13.6, "samples_per_second_std": 7.4}
        r.cost = r.cost.model_copy(update={"energy_joules": 5400.0, **spread})
        r.indices["mean"] = Index(value=1.0, places=Places(first=2, last=3, of=4))
    (tmp_path / "board.html").write_text(as_html(tested, results), encoding="utf-8")
    opened = Page(browser, tmp_path / "board.html")
    assert {places(opened)[r.id] for r in whole} == {"2–3"}
    assert row(opened, whole[0].id).text.endswith("0.125"), "forgetting stands with the costs"
    opened.go("#/table?open=cost")
    assert {"13.6 ± 7.4", "1.50 Wh"} <= {cell.text for cell in opened.all("td.cost")}
    opened.go("#/table")
    opened.go("#/table?score=ccpm&trials=true")
    shown = places(opened)
    names = [r.id for r in tested.rows if "ccpm" in r.cells]
    assert [shown[name] for name in names] == [str(n) for n in range(1, len(names) + 1)]
    assert "Paired tests" in opened.one("#verdict").text
    assert "paired tests" in opened.one("#legend").text
    opened.go("#/table?score=lcsts")
    assert "intervals overlap" in opened.one("#legend").text, "no tests of this dataset"


def test_a_cell_that_does_not_beat_its_controls_says_so(opened: Page) -> None:
    weak, strong = row(opened, "weak / lora"), row(opened, "large / lora")
    assert "below zero-shot" in weak.text
    assert "below" not in strong.text
    marks = weak.find_elements("css selector", ".cap .mark")
    kinds = {mark.get_attribute("class") for mark in marks}
    assert kinds == {"mark majority", "mark shortcut", "mark zero"}


def test_switches_say_what_they_hide_and_show_it(opened: Page) -> None:
    expected = {"trials": "2 rows, 2 columns", "templates": "1 column"}
    for name, count in expected.items():
        assert count in opened.one(f"label:has(#show-{name})").text
    assert {"tiny / lora", "small / lora"}.isdisjoint(
        " / ".join(n.split(" / ")[:2]) for n in opened.rows()
    )
    opened.one("#show-trials").click()
    shown = {" / ".join(name.split(" / ")[:2]) for name in opened.rows()}
    assert {"tiny / lora", "small / lora"} <= shown
    (short,) = (name for name in opened.rows() if name.startswith("small"))
    assert "few steps" in row(opened, short).text
    heads = opened.one("#table thead").text
    assert "ccpm · sample data" in heads
    assert "template cpm-2" not in heads
    opened.one("#show-templates").click()
    assert "ccpm · template cpm-2" in opened.one("#table thead").text
    assert "trials=true" in opened.js("location.hash")


def test_without_official_results_trials_are_shown_and_named(
    browser: Any, results: Results, tmp_path: Path
) -> None:
    trials = tuple(run for run in results.runs if run.record.spec.data.sample)
    other = made.make_record("ccpm", "tiny", "lora", 1, sample=True, template="cpm-2")
    only = Results((*trials, StoredRecord(other, Path("x"))), (), ())
    (tmp_path / "board.html").write_text(as_html(make_board(only), only), encoding="utf-8")
    opened = Page(browser, tmp_path / "board.html")
    assert "No official results yet" in opened.one(".banner").text
    assert opened.rows() == ["tiny / lora"]
    heads = opened.one("#table thead").text
    for name in ("cpm-ant", "cpm-2"):
        assert f"ccpm · template {name} v1" in heads


def test_a_link_restores_the_view(browser: Any, opened: Page, page: Path) -> None:
    opened.select("f-score", "c3")
    opened.one('[data-sort="cost:trained"]').click()
    opened.one("#f-find").send_keys("large")
    opened.one('tr[data-row="large / lora"] input').click()
    link, rows = opened.js("location.hash"), opened.rows()
    again = Page(browser, page, link)
    assert again.rows() == rows
    assert again.one("#f-find").get_attribute("value") == "large"
    assert again.all('th[aria-sort="ascending"] [data-sort="cost:trained"]')
    assert again.one('tr[data-row="large / lora"] input').is_selected()
    broken = Page(browser, page, "#/row/%E0%A4%A?rows=x")
    assert broken.rows(), "a link that is cut opens the table"


def test_a_switch_keeps_the_order_and_a_link_opens_what_it_shows(
    browser: Any, opened: Page, page: Path
) -> None:
    opened.one("#show-trials").click()
    ticked = opened.rows(), opened.one("#status").text
    linked = Page(browser, page, "#/table?trials=true")
    assert (linked.rows(), linked.one("#status").text) == ticked
    assert "Official mean" in ticked[1]
    assert "ccpm · sample data" in linked.one("#table thead").text
    # What was folded by hand stays so in the link.
    linked.one("#show-templates").click()
    linked.one("#table .capability .fold[aria-expanded=true]").click()
    hidden = linked.js("location.hash"), "#/table?trials=true&templates=true&open=-"
    for link in hidden:
        folded = Page(browser, page, link)
        assert "ccpm · sample data" not in folded.one("#table thead").text


def test_places_and_shading_follow_the_heading_that_rows_are_sorted_by(
    opened: Page, board: Board
) -> None:
    of_mean = places(opened)
    opened.one('[data-sort="ccpm"]').click()
    cells = {r.id: r.cells["ccpm"] for r in board.rows if "ccpm" in r.cells}
    known = {name for name in opened.rows() if places(opened)[name]}
    kept = {name: (cells[name].low, cells[name].high) for name in known}
    expected = by_intervals(kept)
    shown = places(opened)
    assert {name: shown[name] for name in known} == expected
    assert {name: of_mean[name] for name in known} != expected
    shaded = opened.all("#table tr.best .by")
    assert shaded
    assert all("dataset=ccpm" in cell.get_attribute("innerHTML") for cell in shaded)
    assert "Official mean" in opened.one("#table .score-head").text


def test_the_table_says_that_results_were_left_out(
    browser: Any, board: Board, results: Results, tmp_path: Path
) -> None:
    left = board.model_copy(update={"left_out": ["x: failed, not in the table.", "y: no."]})
    (tmp_path / "board.html").write_text(as_html(left, results), encoding="utf-8")
    opened = Page(browser, tmp_path / "board.html")
    link = opened.one("#left-out-link")
    assert link.text.startswith("2 left out")
    link.click()
    opened.wait("document.activeElement.id === 'left-out'")
    assert "x: failed" in opened.one("#left-out").text


def test_empty_boards_and_dead_links_say_what_is_missing(
    browser: Any, opened: Page, tmp_path: Path
) -> None:
    opened.go("#/row/nope")
    assert "no row with this name" in opened.one("#view-row").text
    nothing = Results((), (), ())
    (tmp_path / "board.html").write_text(as_html(make_board(nothing), nothing), encoding="utf-8")
    empty = Page(browser, tmp_path / "board.html")
    assert empty.one("#table").text == "There are no finished runs here yet."
    assert not empty.all(".filters")


def test_language_and_theme_are_kept(browser: Any, opened: Page, page: Path) -> None:
    opened.one("#lang-zh").click()
    opened.one('[data-theme-is="dark"]').click()
    again = Page(browser, page, kept=True)
    assert again.js("document.documentElement.lang") == "zh-CN"
    assert again.js("document.documentElement.dataset.theme") == "dark"


def test_notes_are_in_chinese_whole_and_by_their_parts(
    browser: Any, board: Board, results: Results, tmp_path: Path
) -> None:
    notes = {
        "one run: percentile bootstrap over examples, 1000 resamples, seed 0": "单次运行：对样例",
        "sample data, limited to 24 rows a split": "样本数据，每个划分限 24 行",
        "always 'x, y', the most frequent in dev": "始终回答 'x, y'，即 dev",
        "the label of the most similar row of train; 9 rows of train, 8 of test": "；训练集 9 行，",
    }
    left = board.model_copy(update={"left_out": list(notes)})
    (tmp_path / "board.html").write_text(as_html(left, results), encoding="utf-8")
    opened = Page(browser, tmp_path / "board.html", "#/about")
    opened.one("#lang-zh").click()
    for line, chinese in zip(opened.all("#left-out li"), notes.values(), strict=True):
        assert chinese in line.text


def test_where_shipped_data_sets_are_from_is_in_chinese(
    browser: Any, board: Board, results: Results, tmp_path: Path
) -> None:
    names = {"MIT", "Apache-2.0", "CC BY-NC 2.0"}
    every = {
        part
        for task in load_tasks()
        for text in (task.source.obtain, task.source.licence)
        for part in text.split("; ")
    }
    known = set(re.findall(r'^  "(.+?)": "', (PAGE / "sources.js").read_text("utf-8"), re.M))
    assert every - names == known
    (tmp_path / "board.html").write_text(as_html(board, results), encoding="utf-8")
    opened = Page(browser, tmp_path / "board.html")
    opened.one("#lang-zh").click()
    opened.row("large / lora", column="ccpm")
    assert "github.com/THUNLP-AIPoet/CCPM；保留原文件名" in opened.one("main").text


def test_new_data_is_shown_where_the_reader_is(
    opened: Page, board: Board, results: Results
) -> None:
    opened.one("#f-find").send_keys("new")
    assert "No row fits" in opened.one("#table").text
    runs = (*results.runs, StoredRecord(made.make_record("ccpm", "new", "lora", 1), Path("x")))
    more = Results(runs, (), ())
    parts = page_parts(source_of(make_board(more), more))
    opened.driver.execute_script("window.cpmTune.update(arguments[0])", parts)
    assert opened.rows() == ["new / lora"]
    assert opened.js("document.activeElement.id") == "f-find"


@pytest.mark.parametrize(("width", "least"), [(1400, 6), (768, 5), (420, 3)])
def test_the_first_screen_has_rows_with_score_interval_and_cost(
    opened: Page, width: int, least: int, tmp_path: Path
) -> None:
    """A picture of each width goes to the folder CPM_TUNE_PICTURES, if it is set."""
    with opened.width(width):
        assert opened.js("document.documentElement.scrollWidth <= innerWidth")
        seen = opened.js(
            "[...document.querySelectorAll('#table tr[data-row]')].filter((r) => ['.rank', "
            "'.name a', '.score', '.cost:last-child'].every((s) => { const b = r.querySelector(s)"
            ".getBoundingClientRect(); return b.width && b.left >= 0 && b.right <= innerWidth && "
            "b.bottom <= innerHeight; })).length"
        )
        assert seen >= least
        assert re.search(r"\d\d\.\d\d\s+\d\d\.\d\d–\d\d\.\d\d", row(opened, "large / lora").text)
        folder = Path(os.environ.get("CPM_TUNE_PICTURES", tmp_path))
        folder.mkdir(parents=True, exist_ok=True)
        picture = opened.driver.execute_cdp_cmd("Page.captureScreenshot", {"format": "png"})
        (folder / f"page-{width}.png").write_bytes(base64.b64decode(picture["data"]))


def test_a_phone_shows_capabilities_on_request(opened: Page) -> None:
    with opened.width(420):
        assert "Discourse" not in row(opened, "large / lora").text
        unscored = row(opened, "large / prefix").find_elements("css selector", ".cap .value")
        assert [cell.is_displayed() for cell in unscored] == [True] * 3, "it has no mean"
        assert "hidden at this width" in opened.one("#columns-hidden").text
        opened.one("#show-capabilities").click()
        assert not opened.all("#columns-hidden")
        value = opened.js("document.querySelector('tr[data-row=\"large / lora\"] .cap').innerText")
        assert re.search(r"\d", value)
        assert opened.js("document.documentElement.scrollWidth <= innerWidth")


def test_the_keyboard_reaches_a_row_and_its_view(opened: Page) -> None:
    from selenium.webdriver.common.action_chains import ActionChains
    from selenium.webdriver.common.keys import Keys

    for _ in range(60):
        ActionChains(opened.driver).send_keys(Keys.TAB).perform()
        if opened.js("document.activeElement.closest('.name a') !== null"):
            break
    assert opened.js("document.activeElement.closest('tr')?.dataset.row") == opened.rows()[0]
    ActionChains(opened.driver).send_keys(Keys.ENTER).perform()
    opened.wait("location.hash.startsWith('#/row/')")
    opened.wait("document.activeElement.tagName === 'H2'")


def test_chinese_covers_metrics_rules_and_settings(opened: Page) -> None:
    opened.one("#lang-zh").click()
    opened.one("#show-trials").click()
    opened.one("#show-templates").click()
    words = set(
        re.findall(r"[A-Za-z][a-z]{2,}", opened.js("document.getElementById('views').innerText"))
    )
    names = {*made.DELTAS, *TASKS, "ccpm", "large", "weak", "tiny", "small", "none", "GiB", "min"}
    known = {part for name in names for part in re.findall(r"[A-Za-z][a-z]{2,}", name)}
    assert words - known <= {"CUGE", "lite", "lcqmc", "cpm", "CSV", "CPM"}
    for text in ("准确率", "算式准确率", "样本数据", "多数类基线", "第一名"):
        assert text in opened.one("body").text


def test_the_page_prints_every_row_and_no_controls(opened: Page) -> None:
    opened.driver.execute_script(
        "const board = JSON.parse(document.getElementById('data-board').textContent);"
        "const [row] = board.rows; for (let i = 0; i < 200; i += 1) "
        "board.rows.push({...row, id: `more ${i}`}); window.cpmTune.update({board})"
    )
    first = len(opened.rows())
    assert first < 200, "the first rows are drawn at once, others when they are needed"
    opened.js("document.getElementById('more-rows').scrollIntoView()")
    opened.wait(f"document.querySelectorAll('#table tr[data-row]').length > {first}")
    opened.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "print"})
    try:
        for selector in (".filters", ".switches", "#menu", "#csv"):
            assert not opened.one(selector).is_displayed()
        assert opened.one("#table table").is_displayed()
        opened.row("large / lora")
        for kind in ("button", "select", "input", "a.button"):
            assert not any(node.is_displayed() for node in opened.all(f"#view-row {kind}"))
        opened.go("#/table")
    finally:
        opened.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": ""})
    opened.driver.execute_cdp_cmd("Page.printToPDF", {})
    assert len(opened.rows()) > 200


@pytest.fixture(scope="module")
def axe(tmp_path_factory: pytest.TempPathFactory) -> str:
    """axe-core's script, from npm; the test is skipped where npm does not give it."""
    npm = shutil.which("npm")
    if npm is None:
        pytest.skip("there is no npm")
    place = tmp_path_factory.mktemp("npm")
    words = [npm, "install", "--no-save", "--no-audit", "--no-fund", "--prefix", str(place), AXE]
    if subprocess.run(words, capture_output=True, check=False, timeout=120).returncode:
        pytest.skip(f"npm does not give {AXE}")
    return (place / "node_modules" / "axe-core" / "axe.min.js").read_text(encoding="utf-8")


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_axe_finds_nothing(opened: Page, axe: str, theme: str) -> None:
    still = {"features": [{"name": "prefers-reduced-motion", "value": "reduce"}]}
    opened.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", still)
    opened.one(f'[data-theme-is="{theme}"]').click()
    opened.driver.execute_script(axe)
    views = ("#/row/large%20%2F%20lora", "#/figures", "#/about", "#/table")
    for view in ("#/table?trials=true&published=true&open=cost", *views):
        opened.go(view)
        for width in (1400, 420) if view == "#/table" else (1400,):
            with opened.width(width):
                found = opened.driver.execute_async_script(
                    "axe.run().then((r) => arguments[0](r.violations))"
                )
            shown = [f"{v['id']}: {v['nodes'][0]['html'][:200]}" for v in found]
            assert shown == [], view


def test_the_csv_has_the_shown_rows_and_no_formulas(opened: Page) -> None:
    opened.js("window.saved = []")
    opened.js("URL.createObjectURL = (b) => { b.text().then((t) => saved.push(t)); return '#'; }")
    opened.one("#csv").click()
    opened.wait("saved.length === 1")
    lines = opened.js("saved[0]").strip().split("\r\n")
    assert len(lines) == 1 + len(opened.rows())
    assert json.dumps(lines[0]).startswith('"first,last,row')
