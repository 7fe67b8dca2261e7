"""The page in a real headless Chromium: sort, filter, rows, cells, languages, hostile names."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import board_records as made
import pytest
from browser import Page, chromium

from cpm_tune.leaderboard.aggregate import make_board
from cpm_tune.leaderboard.html import as_html, is_right, page_data, thinned
from cpm_tune.leaderboard.results import Results, read_folder

HOSTILE = "</script><script>window.hacked=1</script><img src=x onerror=window.hacked=1>"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("results")
    tasks = ("ccpm", "c3", "lcsts", "math23k")
    for record in made.suite(tasks, ("lora", "bitfit"), ("small", "large"), (1, 2)):
        made.store(place, record)
    one = made.make_record("ccpm", HOSTILE, HOSTILE, 1)
    hostile = made.store(place, one)
    lines = [{"id": HOSTILE, "scores": [1, 0], "prediction": HOSTILE, "target": HOSTILE}]
    text = "".join(json.dumps(line) + "\n" for line in lines) + "{half\n" + 9_000 * "[" + "\n"
    (hostile / "predictions.test.jsonl").write_text(text, encoding="utf-8")
    (place / HOSTILE.replace("/", "_")).mkdir()
    (place / HOSTILE.replace("/", "_") / "run.json").write_text("{", encoding="utf-8")
    return place


@pytest.fixture(scope="module")
def results(folder: Path) -> Results:
    return read_folder(folder)


@pytest.fixture(scope="module")
def page(results: Results, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("page") / "board.html"
    path.write_text(as_html(make_board(results, published=True), results), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    with chromium(tmp_path_factory.mktemp("profile")) as opened:
        yield opened


@pytest.fixture
def opened(browser: Any, page: Path) -> Page:
    return Page(browser, page)


def test_the_page_opens_without_errors_and_asks_for_nothing(browser: Any, page: Path) -> None:
    browser.get_log("performance")
    opened = Page(browser, page)
    assert opened.js("document.documentElement.dataset.ready") == "yes"
    assert browser.get_log("browser") == []
    events = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    sent = [e["params"] for e in events if e["method"] == "Network.requestWillBeSent"]
    # The browser's own first page may still be on its way.
    asked = [s["request"]["url"] for s in sent if not s["documentURL"].startswith("chrome://")]
    assert set(asked) <= {page.as_uri()}
    assert len(opened.all("#radar svg, #scatter svg, #curves svg")) == 3


def test_a_column_sorts_both_ways_by_keyboard_and_says_so(opened: Page) -> None:
    from selenium.webdriver.common.keys import Keys

    for order in ("descending", "ascending"):
        opened.one('[data-sort="ccpm"]').send_keys(Keys.ENTER)
        assert opened.all(f'th[aria-sort="{order}"] [data-sort="ccpm"]')
        values = opened.column("ccpm")
        assert len(values) == 5
        assert values == sorted(values, reverse=order == "descending")
        assert opened.js("document.activeElement.dataset.sort") == "ccpm"
    opened.one('[data-sort="c3"]').click()
    assert opened.rows()[-1].startswith("</script>"), "a row without a score is last"


def test_filters_leave_what_fits(opened: Page) -> None:
    opened.select("f-backbone", "small")
    opened.select("f-delta", "lora")
    assert opened.rows() == ["small / lora"]
    opened.select("f-capability", "discourse")
    assert opened.column("c3")
    assert not opened.column("ccpm")
    opened.one("#reset").click()
    assert len(opened.rows()) == 5
    opened.one("#f-search").send_keys("large bit")
    assert opened.rows() == ["large / bitfit"]
    opened.one("#f-search").send_keys("xyz")
    assert "No row fits" in opened.one("#table").text


def test_values_can_be_relative_to_any_row(opened: Page) -> None:
    raw = opened.column("ccpm")
    rows = opened.rows()
    base = rows.index("small / bitfit")
    opened.select("f-base", "small / bitfit")
    relative = opened.column("ccpm")
    assert relative[base] == 100
    assert relative == pytest.approx([100 * v / raw[base] for v in raw], abs=0.05)
    opened.select("f-base", "quoted: mT5-small, full fine-tuning")
    assert opened.column("ccpm") == pytest.approx([100 * v / 87.7 for v in raw], abs=0.05)


def test_quoted_rows_are_marked_apart_and_can_be_hidden(opened: Page) -> None:
    bands = opened.all("#table .band")
    assert "Quoted from publications, not measured here" in bands[0].text
    quoted = opened.all("#table tr.quoted")
    assert len(quoted) == 11
    assert all(row.find_elements("css selector", ".tag") for row in quoted)
    assert not opened.all("#table tr.quoted .best")
    (xxl,) = [row.text for row in quoted if "mT5-XXL" in row.text]
    assert "183.3" in xxl, "rounded as in every other format, not cut"
    assert "151.9" in xxl
    opened.one("#show-quoted").click()
    assert not opened.all("#table tr.quoted")


def test_a_large_number_keeps_its_zeros(opened: Page) -> None:
    (row,) = [r for r in opened.all("#table tr[data-row]") if "</script>" in r.text]
    assert "200k" in row.text


def test_rows_are_chosen_for_the_figures(opened: Page) -> None:
    chosen = [item.text.rstrip("× \n") for item in opened.all("#chosen li")]
    assert chosen == opened.rows()[:4]
    lines = len(opened.all("#curves path[fill='none'][stroke-width]"))
    assert lines == 4 * 2, "a line a seed"
    opened.one('tr[data-row="small / lora"] input').click()
    assert len(opened.all("#chosen li")) == 3
    assert len(opened.all("#curves path[fill='none'][stroke-width]")) == 3 * 2
    assert len(opened.all("#scatter .chosen-dot")) == 3
    assert opened.js("document.querySelectorAll('#radar-table tbody tr').length") == 3


def test_a_cell_opens_on_its_runs_and_predictions(opened: Page, folder: Path) -> None:
    from selenium.webdriver.common.keys import Keys

    opened.one('tr[data-row="small / lora"] .score').send_keys(Keys.ENTER)
    assert opened.js("document.getElementById('cell').open")
    said = opened.one("#cell").text
    assert "small / lora: ccpm" in said
    assert "Student's t over 2 seeds" in said
    file = next(p for p in folder.glob("ccpm.lora.s1.*/predictions.test.jsonl"))
    lines = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
    assert "20 of 2000 test rows" in said
    shown = opened.all("#predictions tbody tr")
    assert len(shown) == 20
    first = lines[0]
    assert f"{first['scores'][0]:.3f}" in shown[0].text
    n_right = sum(line["prediction"] == line["target"] for line in lines[:20])
    for value, n in (("right", n_right), ("wrong", 20 - n_right)):
        opened.select("p-which", value)
        assert len(opened.all("#predictions tbody tr")) == n
        assert len(opened.all(f"#predictions .{value}")) == n
    opened.one("#cell").send_keys(Keys.ESCAPE)
    assert not opened.js("document.getElementById('cell').open")


def test_the_language_switches_and_the_page_says_which(opened: Page) -> None:
    opened.one("#lang-zh").click()
    assert opened.js("document.documentElement.lang") == "zh-CN"
    text = opened.one("body").text
    for word in ("排行榜", "词句级理解", "帕累托", "引自公开发表"):
        assert word in text or word in opened.js("document.body.textContent")
    assert "Skip to" not in text
    opened.one("#lang-en").click()
    assert "Learning curves" in opened.one("body").text


def test_light_and_dark_differ_and_can_be_forced(opened: Page) -> None:
    shade = "getComputedStyle(document.body).backgroundColor"
    found = set()
    for theme in ("light", "dark"):
        opened.one(f'[data-theme-is="{theme}"]').click()
        found.add(opened.js(shade))
    assert len(found) == 2


def test_names_with_markup_are_shown_as_text(opened: Page) -> None:
    assert opened.js("window.hacked") is None
    assert not opened.all("img")
    row = next(r for r in opened.all("#table tr[data-row]") if "onerror" in r.text)
    assert HOSTILE in row.text
    row.find_element("css selector", ".score").click()
    assert HOSTILE in opened.one("#predictions").text
    assert len(opened.all("#predictions tbody tr")) == 1
    assert opened.js("window.hacked") is None
    assert "run.json" in opened.js("document.getElementById('left-out').textContent")


def test_every_control_has_a_name_and_tables_have_captions(opened: Page) -> None:
    opened.one('tr[data-row="small / lora"] .score').click()
    unnamed = opened.js(
        "[...document.querySelectorAll('button, select, input')].filter((n) => "
        "!(n.ariaLabel || n.textContent.trim() && n.tagName === 'BUTTON' || "
        "n.labels && n.labels.length)).map((n) => n.outerHTML)"
    )
    assert unnamed == []
    code = (
        "[...document.querySelectorAll('table')].every((n) => n.caption && n.caption.textContent)"
    )
    assert opened.js(code)


@pytest.mark.parametrize("width", [1400, 420])
def test_the_page_itself_never_scrolls_sideways(opened: Page, width: int) -> None:
    metrics = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
    opened.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    assert opened.js("document.documentElement.scrollWidth <= innerWidth")
    opened.driver.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


def test_the_page_holds_no_markup_of_records(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    assert text.count("</script") == 2
    assert "<img" not in text
    assert re.search(r"script-src 'sha256-[\w+/=]+'", text)
    assert not re.search(r"(src|href)=.?https?:", text)


def test_embedded_predictions_are_bounded(results: Results) -> None:
    data = page_data(make_board(results), results, per_run=3)
    assert {len(p) for p in data["predictions"].values()} == {3, 1}
    assert data["predictions"].keys() == data["curves"].keys()


def test_a_long_curve_keeps_its_ends() -> None:
    points = list(range(1000))
    kept = thinned(points, 60)
    assert (len(kept), kept[0], kept[-1]) == (60, 0, 999)
    assert thinned(points[:5]) == points[:5]


@pytest.mark.parametrize(
    ("metric", "prediction", "target", "expected"),
    [
        ("accuracy", 1, 1, True),
        ("accuracy", 1, 0, False),
        ("accuracy", None, 0, False),
        ("equation_accuracy", "2*3", {"answer": "6"}, True),
        ("equation_accuracy", "2*4", {"answer": "6"}, False),
        ("accuracy_at_1", ["甲", "乙"], "乙", False),
        ("accuracy_at_10", ["甲", "乙"], "乙", True),
        ("exact_match", "甲", ["乙", "甲"], True),
        ("exact_match", 5, ["乙", "甲"], None),
        ("relation_f1", "母", "母", True),
        ("no_such_metric", 1, 1, None),
        ("rouge_l_char_f", "甲", "甲", None),
    ],
)
def test_right_or_wrong_only_where_the_metric_says_so(
    metric: str, prediction: object, target: object, expected: bool | None
) -> None:
    assert is_right(metric, prediction, target) is expected
