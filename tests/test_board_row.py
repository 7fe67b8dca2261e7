"""The page's views of a row, its examples and the figures, and the files next to the page."""

from __future__ import annotations

import csv
import io
import json
import random
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import board_records as made
import pytest
from browser import Page
from conftest import CLI

from cpm_tune.analysis.errors import KINDS, Answered, diff, find_errors
from cpm_tune.leaderboard.aggregate import make_board
from cpm_tune.leaderboard.figures import pareto_front, points
from cpm_tune.leaderboard.html import as_html
from cpm_tune.leaderboard.results import read_folder
from cpm_tune.metrics import get_metric
from cpm_tune.schema.record import ForgettingRecord, RunRecord
from cpm_tune.task.registry import load_task

HOSTILE = "</script><script>window.hacked=1</script><img src=x onerror=window.hacked=1>"
FIRST, SECOND = "small / lora", "small / bitfit"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two rows on ccpm whose predictions are of the same examples, and shares of train."""
    place = tmp_path_factory.mktemp("results")
    for delta in ("lora", "bitfit"):
        for task in ("ccpm", "lcsts"):
            for seed in (1, 2):
                run = made.store(place, made.make_record(task, "small", delta, seed))
                if task == "ccpm":
                    write_answers(run, f"{delta} {seed}")
    made.store(place, made.make_record("ccpm", "small", "none", 1))
    for n in (100, 400):
        made.store(place, of_rows(made.make_record("ccpm", "small", "adapter", 1), n))
    return place


def of_rows(record: RunRecord, n: int) -> RunRecord:
    """A run on `n` rows of train, whose forgetting was measured."""
    assert record.spec.recipe is not None
    recipe = record.spec.recipe.model_copy(update={"rows": n})
    spec = record.spec.model_copy(update={"recipe": recipe})
    size = {"texts": 1, "characters": 9, "tokens": 9, "sha256": "0" * 64}
    loss = {"bare": 3.0, "tuned": 3.25, "difference": 0.25, "low": 0.125, "high": 0.5}
    more: dict[str, Any] = {
        "forgetting": {"plain": ForgettingRecord.model_validate({**size, **loss})},
        "data": {**record.data, "train": record.data["test"].model_copy(update={"n": n})},
    }
    named = {"spec": spec, "run_id": spec.run_id, "spec_sha256": spec.sha256}
    return record.model_copy(update={**more, **named})


def write_answers(run: Path, seed: str) -> None:
    """Answers of four options to forty examples, some of whose ids are hostile."""
    noise, lines = random.Random(seed), []
    for i in range(40):
        scores = [round(noise.gauss(k == i % 4, 1), 4) for k in range(4)]
        name = {2: HOSTILE, 3: "-1+1", 4: "-4e0"}.get(i, f"example {i}")
        line = {"id": name, "scores": scores, "prediction": scores.index(max(scores))}
        lines.append(json.dumps({**line, "target": i % 4}) + "\n")
    (run / "predictions.test.jsonl").write_text("".join(lines), encoding="utf-8")


def answers(folder: Path, delta: str, seed: int = 1) -> list[Answered]:
    (file,) = folder.glob(f"ccpm.{delta}.s{seed}.*/predictions.test.jsonl")
    lines = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
    return [Answered(x["id"], x["prediction"], x["target"], tuple(x["scores"])) for x in lines]


@pytest.fixture(scope="module")
def page(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    results = read_folder(folder)
    path = tmp_path_factory.mktemp("page") / "board.html"
    path.write_text(as_html(make_board(results), results), encoding="utf-8")
    return path


@pytest.fixture
def opened(browser: Any, page: Path) -> Page:
    return Page(browser, page)


def ids(opened: Page) -> list[str]:
    code = "[...document.querySelectorAll('#examples-list > li')].map((li) => li.value - 1)"
    return [str(number) for number in opened.js(code)]


def saved(opened: Page, button: str) -> str:
    """The text of the file that a button offers."""
    code = """
    const done = arguments[arguments.length - 1];
    URL.createObjectURL = (blob) => { blob.text().then(done); return "about:blank"; };
    HTMLAnchorElement.prototype.click = function () { window.savedAs = this.download; };
    const words = arguments[0];
    [...document.querySelectorAll("button")].find((b) => b.textContent === words).click();
    """
    text: str = opened.driver.execute_async_script(code, button)
    return text


def test_a_row_says_how_its_number_came_about(opened: Page, folder: Path) -> None:
    opened.row(FIRST, dataset="ccpm")
    text = opened.one("#view-row").text
    assert "Student's t over 2 seeds" in text
    assert len(opened.all("#row-seeds tbody tr")) == 2
    assert len(opened.all("#row-dev svg .line")) == 2, "a curve per seed"
    assert "dev accuracy" in opened.one("#row-dev svg").text
    assert "step" in opened.one("#row-loss svg").text
    controls = [row.text for row in opened.all("#row-controls tbody tr")]
    assert [line.split()[0] for line in controls] == ["this", "majority"]
    command = opened.one("#row-command").text
    for word in ("--task ccpm", "--backbone small", "--delta lora", "--seed 1", "--data DIR"):
        assert word in command
    (file,) = folder.glob("ccpm.lora.s1.*/run.json")
    assert saved(opened, "Record (run.json)") == file.read_text(encoding="utf-8")
    assert opened.js("window.savedAs") == f"{file.parent.name}.json"
    assert opened.all('a[href="https://arxiv.org/abs/2106.01979"]')
    assert opened.all('a[href="https://arxiv.org/bibtex/2106.01979"]')
    opened.row("small / adapter / train.rows=100", dataset="ccpm")
    assert "+0.2500" in opened.one("#row-forgetting").text
    assert "train.rows" in opened.one("#row-settings").text
    opened.row(FIRST, dataset="ccpm")
    opened.select("r-seed", opened.js("document.getElementById('r-seed').options[1].value"))
    opened.ready()
    assert "--seed 2" in opened.one("#row-command").text
    link = opened.js("location.hash")
    opened.go("#/table")
    opened.go(link)
    opened.ready()
    assert "--seed 2" in opened.one("#row-command").text, "a link restores the view"


def test_examples_are_filtered_and_sorted(opened: Page, folder: Path) -> None:
    mine = answers(folder, "lora")
    errors = find_errors(load_task("ccpm"), "accuracy", mine)
    right = [i for i, a in enumerate(mine) if a.prediction == a.target]
    wrong = [i for i, a in enumerate(mine) if a.prediction != a.target]
    opened.examples(FIRST, dataset="ccpm")
    for show, numbers in (("right", right), ("wrong", wrong)):
        opened.select("e-show", show)
        assert ids(opened) == list(map(str, numbers))
    opened.select("e-sort", "surest")
    assert ids(opened) == list(map(str, errors.surest)), "the order of the command errors"
    link = opened.js("location.hash")
    opened.go("#/table")
    opened.go(link)
    opened.ready()
    assert ids(opened) == list(map(str, errors.surest)), "a link restores the filters"
    opened.examples(FIRST, dataset="ccpm")
    counts = [int(n.text) for n in opened.all("#errors .confusion td")]
    assert counts == [n for row in errors.confusion for n in row]
    assert errors.calibration is not None
    assert f"{errors.calibration.ece:.4f}" in opened.one("#view-examples").text
    place = max(range(len(counts)), key=lambda at: (at % 5 != at // 5, counts[at]))
    opened.all("#errors .confusion td")[place].find_element("css selector", "button").click()
    assert len(ids(opened)) == counts[place]
    opened.examples(FIRST, dataset="ccpm", label="2")
    assert ids(opened) == [str(i) for i in range(2, 40, 4)]
    opened.one("#e-find").send_keys("onerror example")
    assert ids(opened) == []
    opened.examples(FIRST, dataset="ccpm", find="ONERROR")
    assert ids(opened) == ["2"]
    assert HOSTILE in opened.one("#examples-list").text
    assert opened.js("window.hacked") is None
    opened.examples(FIRST, dataset="ccpm", least="0.5")
    leads = [
        a.scores[a.target] - max(s for k, s in enumerate(a.scores) if k != a.target) for a in mine
    ]
    assert ids(opened) == [str(i) for i, lead in enumerate(leads) if lead >= 0.5]


def test_examples_as_csv_have_numbers(opened: Page, folder: Path) -> None:
    opened.row(FIRST, dataset="ccpm")
    lines = list(csv.DictReader(io.StringIO(saved(opened, "Examples (CSV)"))))
    margins = [
        a.scores[a.target] - max(s for k, s in enumerate(a.scores) if k != a.target)
        for a in answers(folder, "lora")
    ]
    assert min(margins) < 0
    assert [float(line["margin"]) for line in lines] == pytest.approx(margins, abs=1e-4)
    assert (lines[3]["id"], lines[4]["id"]) == ("'-1+1", "-4e0"), "a formula, and a number"


def test_rows_that_agree_say_so(opened: Page) -> None:
    details = opened.js("JSON.parse(document.getElementById('data-details').textContent)")
    opened.examples(FIRST, dataset="ccpm", **{"with": SECOND})
    assert "agree" not in opened.one("#examples-status").text
    assert opened.one("#e-with").text.split("\n")[0].strip() == "no other row"
    details["rows"][SECOND]["ccpm"] = details["rows"][FIRST]["ccpm"]
    opened.js(f"cpmTune.update({{details: {json.dumps(details)}}})")
    opened.ready()
    assert opened.one("#examples-status").text == "The two rows agree on all 40 examples."


def test_two_rows_are_next_to_each_other_where_they_differ(opened: Page, folder: Path) -> None:
    right = get_metric("accuracy").right
    assert right is not None
    kinds = diff(right, answers(folder, "lora"), answers(folder, "bitfit"))
    opened.row(FIRST, dataset="ccpm")
    opened.select("r-with", SECOND)
    opened.ready()
    counts = [int(row.text.split()[-2]) for row in opened.all("#both tbody tr")]
    assert counts == [len(kinds[kind]) for kind in KINDS]
    for show, kind in (("first", KINDS[1]), ("second", KINDS[2]), ("neither", KINDS[3])):
        opened.select("e-show", show)
        assert ids(opened) == list(map(str, kinds[kind]))
    opened.select("e-show", "differ")
    assert {*kinds[KINDS[1]], *kinds[KINDS[2]]} <= {*map(int, ids(opened))}
    assert not {*map(int, ids(opened))} & {*kinds[KINDS[0]]}
    item = opened.one("#examples-list > li")
    assert len(item.find_elements("css selector", ".answer")) == 2
    with opened.width(420):
        assert opened.js("document.documentElement.scrollWidth <= innerWidth")


def test_figures_have_a_front_and_are_files(opened: Page, folder: Path) -> None:
    board = make_board(read_folder(folder))
    opened.go("#/figures?score=ccpm")
    rows = opened.js(
        "[...document.querySelectorAll('#against-trained-more tbody tr')].map((r) =>"
        " [r.cells[0].textContent, r.cells[5].textContent])"
    )
    assert {row[0] for row in rows} == {row.id for row in board.rows}
    only = board.model_copy(update={"columns": [c for c in board.columns if c.id == "ccpm"]})
    front = {point.name for point in pareto_front(points(only, "n_trainable"))}
    assert {name for name, on in rows if on == "yes"} == front
    text = saved(opened, "CSV")
    assert text.splitlines()[0] == "Row,trained,accuracy,from,to,on the front"
    assert len(text.splitlines()) == 1 + len(rows)
    trained = {line["Row"]: int(line["trained"]) for line in csv.DictReader(io.StringIO(text))}
    assert trained[FIRST] == 6_291_456, "as shown: 6.29M"
    drawn = saved(opened, "SVG")
    assert ET.fromstring(drawn).tag == "{http://www.w3.org/2000/svg}svg"
    assert "var(" not in drawn, "colours are written out"
    text = opened.js("document.getElementById('rows-curves-more').textContent")
    assert [n for n in ("100", "400") if f"small / adapter{n}" in text] == ["100", "400"]
    text = opened.js("document.getElementById('against-forgetting-more').textContent")
    assert text.count("0.25") == 2, "the rows whose forgetting was measured"
    before = len(opened.all("#chosen li"))
    opened.one("#against-trained .chosen-dot").click()
    assert len(opened.all("#chosen li")) == before - 1
    assert opened.all("#against-seconds svg, #against-memory svg, #curves svg")
    assert "mouse" not in opened.one("#figures").text
    opened.js("document.querySelector('#against-trained .dot').focus()")
    assert opened.one("#against-trained .hover").text.startswith("small / ")


def test_files_next_to_the_page_have_everything(
    cli: CLI, browser: Any, folder: Path, tmp_path: Path
) -> None:
    page = tmp_path / "a b.html"
    words = ("leaderboard", str(folder), "--files", "--out", str(page))
    assert cli(*words)[0] == 0
    beside = tmp_path / "a b.files"
    assert cli(*words)[0] == 0, "an earlier folder is replaced"
    assert len(list(beside.glob("run-*.js"))) == len(list(folder.glob("*/run.json")))
    assert not any("</script" in path.read_text(encoding="utf-8") for path in beside.glob("*.js"))
    assert "example 1" not in page.read_text(encoding="utf-8")
    browser.get_log("performance")
    opened = Page(browser, page)
    opened.examples(FIRST, dataset="ccpm", **{"with": SECOND, "show": "both"})
    assert len(ids(opened)) == len(opened.all("#examples-list .answer")) / 2 > 0
    opened.examples(FIRST, dataset="ccpm")
    assert len(ids(opened)) == 40
    assert opened.js("window.hacked") is None
    assert browser.get_log("browser") == []
    events = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    sent = [e["params"] for e in events if e["method"] == "Network.requestWillBeSent"]
    asked = {s["request"]["url"] for s in sent if s["documentURL"] == page.as_uri()}
    assert all(url.startswith(tmp_path.as_uri()) for url in asked)
    assert len(asked) == 3, "the page and two runs, not all of them"
    (beside / "mine.txt").write_text("x", encoding="utf-8")
    code, _, error = cli(*words)
    assert (code, "has other files" in error) == (2, True)
    assert (beside / "mine.txt").exists()


@pytest.mark.parametrize("words", [["--files"], ["--files", "--out", "board.md"]])
def test_files_are_for_the_page(cli: CLI, folder: Path, words: list[str]) -> None:
    code, _, error = cli("leaderboard", str(folder), *words)
    assert (code, "--files is for the page" in error) == (2, True)
