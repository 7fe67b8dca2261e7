"""Exports of a board: Markdown, CSV, LaTeX, files, figures. The page has a test file of its own."""

from __future__ import annotations

import csv
import io
import itertools
import json
import re
import shutil
import statistics
import subprocess
import xml.etree.ElementTree as ET
from pathlib import Path

import board_records as made
import pytest
import test_record as single
from conftest import CLI
from hypothesis import given
from hypothesis import strategies as st

from cpm_tune.errors import UserError
from cpm_tune.leaderboard.aggregate import make_board
from cpm_tune.leaderboard.board import Board
from cpm_tune.leaderboard.export import export
from cpm_tune.leaderboard.figures import Point, amounts, pareto_front, points
from cpm_tune.leaderboard.formats import FORMATS, by_ending
from cpm_tune.leaderboard.results import Results, StoredRecord, read_folder
from cpm_tune.leaderboard.tables import number
from cpm_tune.leaderboard.tables_csv import as_csv, as_csv_wide
from cpm_tune.leaderboard.tables_latex import as_latex, escape
from cpm_tune.leaderboard.tables_md import as_markdown
from cpm_tune.schema.record import RunRecord
from cpm_tune.schema.spec import BackboneSpec, Recipe

NASTY = "=<b>x</b> & |_%$#~^\\{}"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("results")
    for record in made.suite(("ccpm", "lcsts", "kdconv"), ("lora", "none"), ("b", NASTY), (1, 2)):
        made.store(place, record)
    (place / "broken").mkdir()
    (place / "broken" / "run.json").write_text("{", encoding="utf-8")
    return place


@pytest.fixture(scope="module")
def board(folder: Path) -> Board:
    return make_board(read_folder(folder), published=True)


def test_a_long_csv_has_a_line_for_every_score(board: Board) -> None:
    lines = list(csv.DictReader(io.StringIO(as_csv(board))))
    measured = [line for line in lines if line["origin"] == "measured"]
    assert len(measured) == sum(len(row.cells) for row in board.rows)
    assert len(lines) - len(measured) == sum(len(row.cells) for row in board.quoted)
    for line in measured:
        (row,) = (r for r in board.rows if r.id == line["row"].removeprefix("'"))
        assert float(line["mean"]) == pytest.approx(row.cells[line["column"]].mean, rel=1e-11)
        assert int(line["seeds"]) == len(row.cells[line["column"]].runs)


def test_a_wide_csv_has_a_line_for_every_row_and_no_formula(board: Board) -> None:
    lines = list(csv.DictReader(io.StringIO(as_csv_wide(board))))
    assert len(lines) == len(board.rows) + len(board.quoted)
    assert {line["origin"] for line in lines} == {"measured", "quoted"}
    assert any(line["backbone"] == f"'{NASTY}" for line in lines)
    assert float(lines[0]["ccpm"]) == pytest.approx(board.rows[0].cells["ccpm"].mean, rel=1e-11)


def test_a_wide_csv_tells_controls_and_settings_apart() -> None:
    wider = single.spec(delta={"delta_type": "lora", "lora_r": 16})
    random = single.spec(backbone=BackboneSpec(sha256=single.SHA, init="random"))
    runs = [single.record(0.6), single.record(0.6, of=wider), single.record(0.6, of=random)]
    stored = tuple(StoredRecord(one, Path()) for one in runs)
    lines = list(csv.DictReader(io.StringIO(as_csv_wide(make_board(Results(stored, (), ()))))))
    assert len({(line["control"], line["settings"]) for line in lines}) == 3


@pytest.mark.parametrize(
    ("value", "digits", "text"),
    [
        ((100 * 0.575 + 0) / 2, 1, "28.8"),
        (28.25, 1, "28.3"),
        (-0.125, 2, "-0.13"),
        (0.0, 2, "0.00"),
        (1e300, 0, f"{1e300:.0f}"),
        (float("nan"), 2, "nan"),
        (None, 2, ""),
    ],
)
def test_halves_are_rounded_up(value: float | None, digits: int, text: str) -> None:
    assert number(value, digits) == text


def test_a_csv_has_no_rounding_errors_of_binary_numbers() -> None:
    board = make_board(Results((StoredRecord(single.record(0.575), Path()),), (), ()))
    board.rows[0].cells["lcqmc"].mean = 100 * 0.575
    (line,) = csv.DictReader(io.StringIO(as_csv(board)))
    assert line["mean"] == "57.5"


def test_markdown_tables_are_whole_and_mark_best_and_quoted(board: Board) -> None:
    text = as_markdown(board)
    for table in re.findall(r"(?:^\|.*\n)+", text, re.MULTILINE):
        widths = {len(re.findall(r"(?<!\\)\|", line)) for line in table.splitlines()}
        assert len(widths) == 1, table
    assert "<b>" not in text.replace("\\<b\\>", "")
    measured, quoted = text.split("## Published results", 1)
    assert "not measured here" in quoted
    assert "91.60" not in measured
    best = max(row.cells["ccpm"].mean for row in board.rows)
    (line,) = (line for line in measured.splitlines() if f"**{best:.2f}" in line)
    assert "lora" in line
    assert "broken" in text


def test_latex_is_balanced_and_escaped(board: Board) -> None:
    text = as_latex(board)
    begun, ended = (re.findall(rf"\\{word}\{{(\w+)\}}", text) for word in ("begin", "end"))
    assert sorted(begun) == sorted(ended)
    for body in re.findall(
        r"\\begin\{tabular\}\{(l r*|lr*)\}(.*?)\\end\{tabular\}", text, re.DOTALL
    ):
        columns = len(body[0])
        lines = [line for line in body[1].splitlines() if line.endswith(r"\\")]
        assert all(len(re.findall(r"(?<!\\)&", line)) == columns - 1 for line in lines)
        assert [r for r in (r"\toprule", r"\midrule", r"\bottomrule") if r not in body[1]] == []
    assert escape(NASTY) in text
    assert "not measured here" in text


def _latex_is_here() -> bool:
    if not (shutil.which("pdflatex") and shutil.which("kpsewhich")):
        return False
    wanted = ["booktabs.sty", "geometry.sty", "iftex.sty"]
    return not subprocess.run(["kpsewhich", *wanted], capture_output=True).returncode


@pytest.mark.skipif(not _latex_is_here(), reason="no pdflatex with booktabs here")
def test_latex_compiles(board: Board, tmp_path: Path) -> None:
    (tmp_path / "board.tex").write_text(as_latex(board), encoding="utf-8")
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "board.tex"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-2000:]
    assert (tmp_path / "board.pdf").stat().st_size > 1000


def test_the_command_writes_each_format_by_the_files_ending(
    cli: CLI, folder: Path, tmp_path: Path
) -> None:
    for name, begins in (("a.md", "# Lead"), ("a.csv", "origin,"), ("a.json", "{"), ("a.tex", "%")):
        code, said, noted = cli("leaderboard", folder, "--out", tmp_path / name, "--published")
        assert (code, str(tmp_path / name) in said) == (0, True)
        assert "broken" in noted
        assert (tmp_path / name).read_text(encoding="utf-8").startswith(begins)
    said = json.loads((tmp_path / "a.json").read_text(encoding="utf-8"))
    assert Board.model_validate(said) == make_board(read_folder(folder), published=True)
    code, _, noted = cli("leaderboard", folder, "--out", tmp_path)
    assert (code, "a folder" in noted) == (2, True)
    code, said, _ = cli("leaderboard", folder, "--published")
    assert code == 0
    assert said.index("ccpm v1: accuracy") < said.index("quoted from publications")


def test_every_format_has_a_renderer_and_every_ending_a_format(folder: Path) -> None:
    for name, format_ in FORMATS.items():
        text, left_out = export(folder, name)
        assert "lora" in text
        assert "broken" in left_out[0]
        assert all(by_ending(Path("x" + ending)) == name for ending in format_.endings)
    assert by_ending(None) == by_ending(Path("x")) == "text"
    with pytest.raises(UserError, match=r"no format has the ending '\.doc'.*--format"):
        by_ending(Path("x.doc"))


def test_the_same_results_give_the_same_bytes(folder: Path) -> None:
    one, other = (make_board(read_folder(folder)) for _ in range(2))
    assert as_csv(one) == as_csv(other)
    assert as_latex(one) == as_latex(other)


@given(
    st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)), min_size=1, max_size=12),
    st.booleans(),
)
def test_the_pareto_front_is_what_nothing_dominates(
    pairs: list[tuple[int, int]], more: bool
) -> None:
    points = [Point(str(i), cost, quality) for i, (cost, quality) in enumerate(pairs)]
    sign = -1 if more else 1

    def dominated(p: Point) -> bool:
        return any(
            sign * q.cost <= sign * p.cost
            and q.quality >= p.quality
            and (q.cost, q.quality) != (p.cost, p.quality)
            for q in points
        )

    front = pareto_front(points, more)
    assert {(p.cost, p.quality) for p in front} == {
        (p.cost, p.quality) for p in points if not dominated(p)
    }


def of_sizes(delta: str, sizes: tuple[int | None, ...], seeds: tuple[int, ...]) -> list[RunRecord]:
    """Runs on lcqmc with parts of 2,000 rows of train (None: all of them)."""
    records = []
    for size, seed in itertools.product(sizes, seeds):
        record = made.make_record("lcqmc", "b", delta, seed, lr=1e-3 * (1 + (size or 3)))
        recipe = Recipe(rows=size)
        spec = record.spec.model_copy(update={"recipe": recipe})
        train = record.data["test"].model_copy(update={"n": size or 2000})
        data = {**record.data, "train": train}
        changes = {"spec": spec, "spec_sha256": spec.sha256, "run_id": spec.run_id, "data": data}
        records.append(record.model_copy(update=changes))
    return records


def test_scores_over_the_number_of_training_rows() -> None:
    records = of_sizes("lora", (20, 10, None), (1, 2, 3)) + of_sizes("bitfit", (10,), (1,))
    runs = tuple(StoredRecord(record, Path()) for record in records)
    board = make_board(Results(runs, (), ()))
    (column,) = board.columns
    (curve,) = amounts(column, board.rows, {r.run_id: r for r in records}).items()
    name, points = curve
    assert name == "b / lora", "a row of one size is no curve"
    assert [point.n for point in points] == [10, 20, 2000]
    for point in points:
        n = None if point.n == 2000 else point.n
        values = [100 * r.test.value for r in records if r.spec.recipe == Recipe(rows=n)][:3]
        assert point.mean == pytest.approx(statistics.fmean(values))
        assert (point.low, point.high) == (min(values), max(values))


def test_scores_over_the_number_of_training_rows_are_drawn(cli: CLI, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    for record in of_sizes("lora", (10, 20), (1, 2)):
        made.store(tmp_path / "results", record)
    code, out, error = cli("leaderboard", "plot", tmp_path / "results", "--out", tmp_path / "f")
    assert code == 0, error
    assert {Path(line).name for line in out.splitlines()} >= {"rows.lcqmc.png", "rows.lcqmc.svg"}


def test_figures_are_drawn_as_png_and_svg(cli: CLI, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    folder, out = tmp_path / "results", tmp_path / "figures"
    for record in made.suite(("ccpm",), ("lora", "none"), ("b", NASTY), (1,)):
        made.store(folder, record)
    row = ("--row", f"{NASTY} / lora", "--row", "quoted: CPM-2, full fine-tuning")
    code, said, error = cli(
        "leaderboard", "plot", folder, "--out", out, "--published", "--cost", "seconds", *row
    )
    assert code == 0, error
    drawn = {path.name for path in out.iterdir()}
    names = ("capabilities", "cost-quality.seconds", "curves.ccpm")
    assert drawn == {f"{name}.{ending}" for name in names for ending in ("png", "svg")}
    assert said.count("\n") == len(drawn)
    for path in out.iterdir():
        if path.suffix == ".svg":
            assert ET.parse(path).getroot().tag.endswith("svg")
        else:
            assert path.read_bytes().startswith(b"\x89PNG")
    code, _, error = cli("leaderboard", "plot", folder, "--out", out, "--row", "nobody")
    assert (code, "there is no such row" in error) == (2, True)


def test_a_trial_keeps_no_official_row_from_the_figure_of_costs(tmp_path: Path) -> None:
    for record in made.suite(("ccpm", "c3"), ("lora",), ("b",), (1,)):
        made.store(tmp_path, record)
    wanted = points(make_board(read_folder(tmp_path)), "n_trainable")
    made.store(tmp_path, made.make_record("lcqmc", "b", "none", 1, sample=True))
    board = make_board(read_folder(tmp_path))
    assert points(board, "n_trainable") == wanted
    assert [point.name for point in wanted] == ["b / lora"]


def test_a_figure_that_cannot_be_drawn_is_named(cli: CLI, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    made.store(tmp_path / "r", made.make_record("ccpm", "b", "lora", 1))
    made.store(tmp_path / "r", made.make_record("c3", "b", "none", 1))
    code, out, error = cli("leaderboard", "plot", tmp_path / "r", "--out", tmp_path / "f")
    assert (code, "cost-quality" in out) == (0, False)
    (note,) = (line for line in error.splitlines() if "cost-quality" in line)
    assert "no row has a score in all of the columns" in note
    assert "ccpm, c3" in note
