"""The page in a real headless Chromium: sort, filter, rows, cells, languages, hostile names."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import board_records as made
import pytest
from browser import Page
from hypothesis import given
from hypothesis import strategies as st

from cpm_tune.leaderboard.aggregate import make_board
from cpm_tune.leaderboard.examples import IN_PAGE, is_right
from cpm_tune.leaderboard.html import as_html
from cpm_tune.leaderboard.page_data import lazy_parts, page_parts, source_of, thinned
from cpm_tune.leaderboard.results import Results, read_folder

HOSTILE = "</script><script>window.hacked=1</script><img src=x onerror=window.hacked=1>"

HOSTILE_ROW = f"{HOSTILE} / {HOSTILE}"


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
    opened.go("#/figures")
    assert len(opened.all("#against-trained svg, #curves svg")) == 2


def test_official_rows_stand_alone_and_best_first(opened: Page) -> None:
    assert len(opened.rows()) == 5
    assert opened.rows()[-1] == HOSTILE_ROW, "a row without all datasets has no mean"
    assert opened.scores() == sorted(opened.scores(), reverse=True)
    assert len(opened.scores()) == 4
    assert opened.all('th[aria-sort="descending"] [data-sort="score"]')
    assert "Official mean" in opened.one("#status").text
    assert not opened.all("#table tr.quoted")


def test_a_column_sorts_both_ways_by_keyboard_and_says_so(opened: Page) -> None:
    from selenium.webdriver.common.keys import Keys

    for order in ("descending", "ascending"):
        opened.one('[data-sort="ccpm"]').send_keys(Keys.ENTER)
        assert opened.all(f'th[aria-sort="{order}"] [data-sort="ccpm"]')
        values = opened.column("ccpm")
        assert values == sorted(values, reverse=order == "descending")
        assert len(values) == 5
        assert opened.js("document.activeElement.dataset.sort") == "ccpm"


def test_filters_and_search_choose_rows(opened: Page) -> None:
    opened.select("f-backbone", "small")
    assert set(opened.rows()) == {"small / lora", "small / bitfit"}
    opened.select("f-delta", "lora")
    assert opened.rows() == ["small / lora"]
    opened.one("#reset").click()
    assert len(opened.rows()) == 5
    opened.one("#f-find").send_keys("large bit")
    assert opened.rows() == ["large / bitfit"]
    opened.one("#f-find").send_keys("xyz")
    assert "No row fits" in opened.one("#table").text


def test_values_can_be_relative_to_any_row(opened: Page) -> None:
    raw = dict(zip(opened.rows(), opened.column("ccpm"), strict=True))
    published = "quoted: mT5-small, full fine-tuning"
    for base, value in {"small / bitfit": raw["small / bitfit"], published: 87.7}.items():
        opened.select("f-base", base)
        relative = dict(zip(opened.rows(), opened.column("ccpm"), strict=True))
        expected = {name: 100 * v / value for name, v in raw.items()}
        assert relative == pytest.approx(expected, abs=0.05)


def test_quoted_rows_are_marked_apart_and_hidden_by_default(opened: Page) -> None:
    assert "11 rows" in opened.one("label:has(#show-published)").text
    opened.one("#show-published").click()
    bands = opened.all("#table .band")
    assert "Quoted from publications, not measured here" in bands[0].text
    quoted = opened.all("#table tr.quoted")
    assert len(quoted) == 11
    assert all(row.find_elements("css selector", ".tag") for row in quoted)
    assert not opened.all("#table tr.quoted.best")
    opened.select("f-score", "index:normalised-mean")
    (xxl,) = [row.text for row in opened.all("#table tr.quoted") if "mT5-XXL" in row.text]
    assert "183.2" in xxl or "183.3" in xxl
    opened.one("#show-published").click()
    assert not opened.all("#table tr.quoted")


def test_a_large_number_keeps_its_zeros(opened: Page) -> None:
    (row,) = [r for r in opened.all("#table tr[data-row]") if "</script>" in r.text]
    assert "200k" in row.text


def test_the_language_switches_and_the_page_says_which(opened: Page) -> None:
    opened.one("#lang-zh").click()
    assert opened.js("document.documentElement.lang") == "zh-CN"
    text = opened.one("body").text
    for word in (
        "排行榜",
        "词句",
        "官方平均分",
        "已发表结果",
    ):
        assert word in text
    opened.one("#lang-en").click()
    assert "Official mean" in opened.one("body").text


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
    row.find_element("css selector", ".value").click()
    opened.settle()
    assert HOSTILE in opened.one("#row-title").text
    opened.one("#row-examples").click()
    opened.ready()
    assert HOSTILE in opened.one("#examples-list").text
    assert len(opened.all("#examples-list > li")) == 1
    assert opened.js("window.hacked") is None
    opened.go("#/about")
    assert "run.json" in opened.js("document.getElementById('left-out').textContent")


def test_every_control_has_a_name_and_tables_have_captions(opened: Page) -> None:
    opened.row("small / lora", dataset="ccpm")
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
    with opened.width(width):
        assert opened.js("document.documentElement.scrollWidth <= innerWidth")
        assert not opened.all("#table.scroll")


def test_the_page_holds_no_markup_of_records(page: Path, results: Results) -> None:
    text = page.read_text(encoding="utf-8")
    source = source_of(make_board(results, published=True), results)
    n = len(page_parts(source)) + len(list(lazy_parts(source))) + 1
    assert text.count("</script") == text.count("<script") == n
    assert "<img" not in text
    assert re.search(r"script-src 'sha256-[\w+/=]+'", text)
    assert not re.search(r"(src|href)=.?https?:", text)


def test_embedded_predictions_are_bounded(results: Results) -> None:
    board = make_board(results)
    source = source_of(board, results, per_run=3)
    parts = [value for name, value in lazy_parts(source) if name.startswith("run-")]
    assert {len(part["examples"]["right"]) for part in parts} == {3, 1}
    assert {part["n"] for part in parts} == {60, 1}
    few = replace(IN_PAGE, runs=4)
    assert len(source_of(board, results, bounds=few).runs) == 4
    first = next(iter(board.rows[0].cells.values())).runs[0].run_id
    assert source_of(board, results, bounds=few).runs[0].record.run_id == first


@given(st.lists(st.integers(0, 40), min_size=1, max_size=12), st.integers(0, 200))
def test_a_bound_on_all_predictions_is_shared_evenly(sizes: list[int], most: int) -> None:
    runs = [
        SimpleNamespace(record=SimpleNamespace(data={"test": SimpleNamespace(n=n)})) for n in sizes
    ]
    bounds = replace(IN_PAGE, in_all=most, per_run=30)
    each = bounds.at_most(runs)  # type: ignore[arg-type]
    shown = [min(each, n) for n in sizes]
    assert sum(shown) <= most
    assert each == 30 or sum(min(each + 1, n) for n in sizes) > most, "as many as fit"


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
