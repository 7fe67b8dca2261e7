"""The page's examples: their texts beside predictions, whose they are, and where they end."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
from backbone_oracle import rewrite_json
from bench_runs import write_data
from browser import Page
from conftest import CLI, write_jsonl

from cpm_tune.commands.cli import main
from cpm_tune.common.paths import file_sha256
from cpm_tune.data.splits import sample_folder
from cpm_tune.leaderboard import texts as bounds
from cpm_tune.leaderboard.results import read_folder
from cpm_tune.leaderboard.texts import read_texts
from cpm_tune.task.registry import load_task

HOSTILE = "</script><script>window.hacked=1</script><img src=x onerror=window.hacked=1>"
LONG = "长" * 4_000


def read_lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory, small_backbone: Path) -> Path:
    """A folder with `data` (hostile and long texts among it), and `results`: zero-shot runs on it
    and on sample data, and a system outside."""
    folder = tmp_path_factory.mktemp("texts")
    data = write_data(folder / "data")
    for task, field in (("lcqmc", "sentence1"), ("ccpm", "translation")):
        rows = read_lines(data / task / "test.jsonl")
        rows[1][field], rows[2][field] = HOSTILE, LONG
        if task == "ccpm":
            rows[3]["choices"] = [HOSTILE, LONG, "秋", "冬"]
        write_jsonl(data / task / "test.jsonl", rows)
    common = ["--delta", "none", "--backbone", str(small_backbone), "--quiet"]
    out = ["--out", str(folder / "results")]
    for task in ("lcqmc", "ccpm"):
        assert main(["--task", task, "--data", str(data), *common, *out]) == 0
    assert main(["--task", "math23k", "--limit", "3", *common, *out]) == 0
    answers = str(data / "ccpm" / "test.jsonl")
    words = ["score", "--task", "ccpm", "--data", str(data), "--predictions", answers]
    assert main([*words, "--name", "outside", *out]) == 0
    return folder


Parts = dict[str, Any]


def page_of(cli: CLI, place: Path, *more: str) -> tuple[Parts, str]:
    """The parts of the page that the command writes, and the command's notes."""
    path = place / "page.html"
    code, _, notes = cli("leaderboard", str(place / "results"), "--out", str(path), *more)
    assert code == 0, notes
    text = path.read_text(encoding="utf-8")
    parts = re.findall(r'id="data-([\w-]+)">(.*?)</script>', text, re.DOTALL)
    return {name: json.loads(data) for name, data in parts}, notes


def part_of(data: Parts, task: str, delta: str = "none") -> Any:
    """A run's own part."""
    (run,) = (name for name in data["runs"]["of"] if name.startswith(f"{task}.{delta}."))
    return data[data["runs"]["of"][run]]


def set_of(data: Parts, task: str, delta: str = "none") -> Any:
    """The set of rows of a run; None if it has none."""
    name = part_of(data, task, delta)["set"]
    return None if name is None else data[name]


def examples(data: Parts, task: str, delta: str = "none") -> list[Any]:
    """The texts of a run, in the order of its predictions; None where there are none."""
    rows = (set_of(data, task, delta) or {"rows": []})["rows"]
    n = len(part_of(data, task, delta)["examples"]["right"])
    return [rows[i] if i < len(rows) else None for i in range(n)]


def test_examples_are_the_rows_of_the_file_in_their_template(cli: CLI, place: Path) -> None:
    data, said = page_of(cli, place, "--texts")
    assert said == ""
    rows = read_lines(place / "data" / "lcqmc" / "test.jsonl")
    shown = examples(data, "lcqmc")
    assert len(shown) == len(rows) == 8
    for row, example in zip(rows, shown, strict=True):
        first = row["sentence1"]
        first = first if len(first) <= 300 else first[:300] + "…"
        assert example == {"text": f"{first}和{row['sentence2']}的意思", "after": "[是否正确]"}
    made = set_of(data, "lcqmc")
    assert (made["labels"], made["options"]) == ([0, 1], ["不同", "相同"])
    assert made["lengths"] == [len(row["sentence1"]) + len(row["sentence2"]) for row in rows]


def test_options_of_a_row_are_there_and_bounded(cli: CLI, place: Path) -> None:
    data, _ = page_of(cli, place, "--texts")
    shown = examples(data, "ccpm")
    assert shown[0]["options"] == list("春夏秋冬")
    assert shown[3]["options"] == [HOSTILE, "长" * 200 + "…", "秋", "冬"]


def test_a_system_outside_is_shown_by_fields(cli: CLI, place: Path) -> None:
    data, _ = page_of(cli, place, "--texts")
    row = read_lines(place / "data" / "ccpm" / "test.jsonl")[0]
    first = examples(data, "ccpm", "outside")[0]
    assert first["text"] == f"translation: {row['translation']}\nchoices: 春 / 夏 / 秋 / 冬"


def test_only_sample_data_is_shown_unasked_and_nothing_where_it_is_refused(
    cli: CLI, place: Path
) -> None:
    data, said = page_of(cli, place)
    assert said == ""
    assert [task for task in ("lcqmc", "ccpm", "math23k") if examples(data, task)[0]] == ["math23k"]
    assert len(set_of(data, "lcqmc")["lengths"]) == 8, "lengths are no texts"
    raw = (sample_folder(load_task("math23k")) / "test.jsonl").read_text(encoding="utf-8")
    assert all(
        example["text"].split("\n")[0][:20] in raw.replace("\\n", "\n")
        for example in examples(data, "math23k")
    )
    assert examples(data, "lcqmc") == [None] * 8
    refused, _ = page_of(cli, place, "--no-texts")
    assert not any(value["rows"] for name, value in refused.items() if name.startswith("set-"))


def test_data_that_is_gone_or_another_is_one_note_and_the_page_still_comes(
    cli: CLI, place: Path, tmp_path: Path
) -> None:
    shutil.copytree(place / "results", tmp_path / "results")
    moved, data = tmp_path / "moved", place / "data"
    data.rename(moved)
    try:
        found, said = page_of(cli, place, "--texts")
        assert said.count("\n") == 2, "one for each data, not for each run"
        where = data / "ccpm" / "test.jsonl"
        note = "note: ccpm: examples are shown without texts:"
        assert f"{note} {where} no longer exists; give --data DIR." in said
        assert examples(found, "ccpm") == [None] * 8
        assert all(example for example in examples(found, "math23k"))
        found, said = page_of(cli, place, "--texts", "--data", str(moved))
        assert said == ""
        assert all(example for example in examples(found, "ccpm"))
        rows = read_lines(moved / "ccpm" / "test.jsonl")
        changed = tmp_path / "changed" / "ccpm"
        changed.mkdir(parents=True)
        write_jsonl(changed / "test.jsonl", rows[::-1])
        found, said = page_of(cli, place, "--texts", "--data", str(changed.parent))
        file = changed / "test.jsonl"
        assert f"{note} {file} is not the file that was tested on; its sha256 differs." in said
        assert examples(found, "ccpm") == [None] * 8
    finally:
        moved.rename(data)


def test_a_second_run_on_a_copy_of_the_data_says_where_it_is(
    cli: CLI, place: Path, tmp_path: Path, small_backbone: Path
) -> None:
    paths = [tmp_path / "one", tmp_path / "two"]
    words = ["--task", "lcqmc", "--delta", "none", "--backbone", str(small_backbone), "--quiet"]
    for path, length in zip(paths, ("64", "48"), strict=True):
        shutil.copytree(place / "data" / "lcqmc", path)
        more = ["--data", str(path), "--set", f"encode.max_length={length}"]
        assert main([*words, *more, "--out", str(tmp_path / "results")]) == 0
    for gone in paths:
        gone.rename(tmp_path / "away")
        data, said = page_of(cli, tmp_path, "--texts")
        assert said == ""
        parts = [data[name] for name in data["runs"]["of"].values()]
        assert len({part["set"] for part in parts}) == 1
        assert parts[0]["set"] in data
        (tmp_path / "away").rename(gone)


def test_predictions_of_other_ids_have_no_texts(cli: CLI, place: Path) -> None:
    (run,) = (place / "results").glob("lcqmc.*")
    file = run / "predictions.test.jsonl"
    before = file.read_text(encoding="utf-8")
    lines = before.splitlines(keepends=True)
    file.write_text("".join([lines[1], lines[0], *lines[2:]]), encoding="utf-8")
    record = run / "run.json"
    recorded = record.read_text(encoding="utf-8")
    hashes = json.loads(recorded)["predictions"]
    rewrite_json(record, predictions={**hashes, file.name: file_sha256(file)})
    try:
        data, said = page_of(cli, place, "--texts")
    finally:
        file.write_text(before, encoding="utf-8")
        record.write_text(recorded, encoding="utf-8")
    assert said.count("whose ids are not those of the data") == 1
    assert part_of(data, "lcqmc")["set"] is None
    assert len(part_of(data, "lcqmc")["examples"]["right"]) == 8


@pytest.mark.parametrize("gone", [False, True])
def test_predictions_that_are_not_the_record_s_are_not_shown(
    cli: CLI, place: Path, gone: bool
) -> None:
    (file,) = (place / "results").glob("lcqmc.none.*/predictions.test.jsonl")
    whole = file.read_bytes()
    try:
        file.unlink() if gone else file.write_bytes(whole[: len(whole) // 2])
        data, said = page_of(cli, place, "--texts")
    finally:
        file.write_bytes(whole)
    assert part_of(data, "lcqmc")["examples"]["right"] == ""
    assert f"{file}: not shown" in said
    assert said.count("\n") == 1


def test_texts_of_a_page_are_bounded(place: Path) -> None:
    results = read_folder(place / "results")
    runs = (*results.runs, *results.systems)

    def texts(per_run: int, most: int) -> list[Any]:
        return [one["rows"] for one in read_texts(runs, per_run, "all", examples=most).sets if one]

    assert [len(rows) for rows in texts(20, 9)] == [2, 2, 2, 2]
    assert texts(20, 3) == []
    longest = bounds.PROMPT + bounds.FIELD + bounds.OPTION_TEXTS + 20 * bounds.OPTIONS + 100
    for rows in texts(20, 2_000):
        assert all(len(json.dumps(row, ensure_ascii=False)) < longest for row in rows)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--texts", "--out", "board.md"], "--texts is for the page"),
        (["--no-texts"], "--texts is for the page"),
        (["--data", "x", "--out", "board.html"], "--data needs --texts"),
        (["--texts", "--data", "x", "--out", "board.html"], "x: there is no such folder"),
    ],
)
def test_what_does_not_fit_is_refused(
    cli: CLI, place: Path, monkeypatch: pytest.MonkeyPatch, words: list[str], said: str
) -> None:
    monkeypatch.chdir(place)
    code, _, error = cli("leaderboard", "results", *words)
    assert code == 2
    assert said in error
    assert not list(place.glob("board.*"))


@pytest.fixture
def opened(browser: Any, cli: CLI, place: Path) -> Page:
    page_of(cli, place, "--texts")
    return Page(browser, place / "page.html")


def open_examples(opened: Page, column: str, delta: str = "none") -> list[Any]:
    """Open the examples of a row in a column; return them."""
    board = opened.js("JSON.parse(document.getElementById('data-board').textContent).rows")
    (row,) = (r["id"] for r in board if delta in r["delta"] and column in r["cells"])
    opened.examples(row, dataset=column)
    return opened.all("#examples-list > li")


def test_examples_have_their_options_and_answers(opened: Page, place: Path) -> None:
    (run,) = (place / "results").glob("lcqmc.*")
    lines = read_lines(run / "predictions.test.jsonl")
    words = ("不同", "相同")
    shown = open_examples(opened, "lcqmc")
    assert len(shown) == 8
    for item, line in zip(shown, lines, strict=True):
        options = [node.text for node in item.find_elements("css selector", ".options li")]
        assert options == [f"{s:.3f} {words[i]}" for i, s in enumerate(line["scores"])]
        texts = [node.text for node in item.find_elements("css selector", ".text")]
        assert texts == [f"{n} {words[n]}" for n in (line["target"], line["prediction"])]
    assert "猫怎么养和如何养鸟的意思option[是否正确]" in shown[0].text
    opened.one("#lang-zh").click()
    assert "选项" in open_examples(opened, "lcqmc", "none")[0].text


def test_a_row_numbers_options_alike_and_names_a_folder_only_if_there_is_one(
    opened: Page, place: Path
) -> None:
    board = opened.js("JSON.parse(document.getElementById('data-board').textContent).rows")
    (row,) = (r["id"] for r in board if "ccpm" in r["cells"] and "none" in r["delta"])
    (run,) = (place / "results").glob("ccpm.none.*")
    note = json.loads((run / "run.json").read_text(encoding="utf-8"))["controls"]["majority"][
        "note"
    ]
    option = re.fullmatch(r"always 'option (\d+)', (.*)", note)
    assert option
    opened.row(row, dataset="ccpm")
    assert f"always {int(option[1]) - 1}, {option[2]}" in opened.one("#row-controls").text
    text = opened.one("#row-body").text
    assert "in place of DIR" in text
    assert "Nothing to draw" not in text, "it was not trained"
    opened.row(row, dataset="math23k")
    text = opened.one("#row-body").text
    assert f"--config {next((place / 'results').glob('math23k.*')).name}.json" in text
    assert "DIR" not in text
    (row,) = (r["id"] for r in board if "outside" in r["delta"])
    opened.row(row, dataset="ccpm")
    text = opened.one("#row-body").text
    assert "- v0" not in text
    assert "Nothing to draw" not in text


def test_texts_with_markup_are_shown_as_text(opened: Page) -> None:
    for column, delta in (("lcqmc", "none"), ("ccpm", "none"), ("ccpm", "outside")):
        assert HOSTILE in open_examples(opened, column, delta)[1].text
        if column == "ccpm":
            assert HOSTILE in opened.one("#examples-list").text.split("…", 1)[1]
        assert not opened.all("img")
        assert opened.js("window.hacked") is None
    assert opened.driver.get_log("browser") == []


@pytest.mark.parametrize("width", [1400, 420])
def test_examples_fit_the_window(opened: Page, width: int) -> None:
    with opened.width(width):
        assert len(open_examples(opened, "ccpm")) == 8
        assert opened.js("document.documentElement.scrollWidth <= innerWidth")
