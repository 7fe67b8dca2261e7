"""The documentation's pictures, and the records that they are made from."""

from __future__ import annotations

import io
import random
import re
from pathlib import Path

import pytest
from conftest import REPOSITORY

from cpm_tune.leaderboard.aggregate import make_board
from cpm_tune.leaderboard.results import read_folder

PICTURES = sorted((REPOSITORY / "docs" / "pictures").iterdir())
WORDS = REPOSITORY / "examples" / "words"


@pytest.mark.parametrize("picture", PICTURES, ids=lambda path: path.name)
def test_a_picture_is_small_and_loads_nothing(picture: Path) -> None:
    content = picture.read_bytes()
    assert len(content) <= 150_000
    if picture.suffix == ".png":
        assert content.startswith(b"\x89PNG")
        return
    assert b"<script" not in content
    loaded = re.findall(rb'(?:href|src)="(?!#)([^"]*)"|url\((?!#)([^)]*)\)|@import', content)
    assert not loaded


def test_the_records_of_the_suite_are_whole_and_name_no_machine() -> None:
    results = read_folder(WORDS)
    assert (len(results.runs), results.left_out) == (20, ())
    board = make_board(results)
    assert {row.delta for row in board.rows} == {"lora", "adapter", "bitfit", "none"}
    for path in WORDS.glob("*/run.json"):
        assert not re.findall(r'"(/[^"]*|[A-Z]:\\[^"]*)"', path.read_text("utf-8"))


def test_the_terminals_picture_has_the_scores_of_the_records() -> None:
    text = (REPOSITORY / "docs" / "pictures" / "terminal.svg").read_text("utf-8")
    for row in make_board(read_folder(WORDS)).rows:
        for cell in row.cells.values():
            assert f"{cell.mean / 100:.4f}" in text


def test_the_page_of_the_results_folder_has_all_rows_and_the_published_ones() -> None:
    page = (REPOSITORY / "results" / "example.html").read_text("utf-8")
    for name in ("cpm-ant-tiny / adapter", "cpm-ant-tiny / none", "CPM-2"):
        assert name in page
    assert str(REPOSITORY) not in page


def test_a_picture_of_many_colours_is_made_small() -> None:
    image = pytest.importorskip("PIL.Image")
    from gallery import MOST, small

    noise = random.Random(1).randbytes(3 * 700 * 700)
    saved = io.BytesIO()
    image.frombytes("RGB", (700, 700), noise).save(saved, "PNG")
    assert len(saved.getvalue()) > MOST
    made = small(saved.getvalue())
    assert image.open(io.BytesIO(made)).size == (700, 700)
    assert len(made) < len(saved.getvalue()) / 4
