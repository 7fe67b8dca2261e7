"""Editions of datasets: known by their files or their exact sizes; a rounded number is none."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import board_records as made
import pytest
from conftest import REAL_DATA

from cpm_tune.common.paths import input_sha256
from cpm_tune.data.splits import SplitFile
from cpm_tune.data.splits import edition as edition_of
from cpm_tune.data.store import read_split
from cpm_tune.leaderboard.aggregate import make_board
from cpm_tune.leaderboard.results import read_folder
from cpm_tune.schema.record import write_record
from cpm_tune.task import SPLITS, Source
from cpm_tune.task.registry import load_task, load_tasks

SOURCE = Source(
    title="T",
    paper="",
    licence="",
    obtain="",
    sizes=(12_000, 1_000, None),
    editions={"first": (11_870, 816, None), "second": (12_004, 1_070, 90)},
    checksums={"a" * 64: "second", "b" * 64: "second", "c" * 64: "first"},
)


@pytest.mark.parametrize(
    ("split", "n", "files", "edition"),
    [
        ("dev", 816, "x", "first (by its number of rows)"),
        ("dev", 1_070, "x", "second (by its number of rows)"),
        ("dev", 1_070, "a", "second (official files)"),
        ("dev", 800, "ab", "second (official files)"),
        ("dev", 1_070, "ac", "second (by its number of rows)"),
        ("dev", 1_070, "ax", "second (by its number of rows)"),
        ("dev", 1_000, "x", ""),  # a rounded number is no edition
        ("test", 90, "x", "second (by its number of rows)"),
        ("test", 816, "x", ""),
    ],
)
def test_an_edition_is_known_by_its_files_or_its_size(
    split: str, n: int, files: str, edition: str
) -> None:
    assert SOURCE.edition(split, n, [64 * file for file in files]) == edition


def test_every_edition_is_known_by_its_sizes_and_checksums_name_editions() -> None:
    for task in load_tasks():
        source = task.source
        for sha256, name in source.checksums.items():
            assert len(sha256) == 64
            assert set(sha256) <= set("0123456789abcdef")
            assert name in source.editions
        for split, sizes in zip(SPLITS, zip(*source.editions.values(), strict=True), strict=False):
            for n in filter(None, sizes):
                assert source.size_note(split, n) == ""
                assert source.edition(split, n, ["x"]) != ""


@pytest.mark.parametrize(
    ("task", "names", "edition"),
    [
        ("c3", ("c3/c3-d-dev.json", "c3/c3-m-dev.json"), "C3 1.0"),
        ("ccpm", ("ccpm/valid.jsonl",), "CCPM"),
        ("lcqmc", ("lcqmc/dev.tsv",), "LCQMC"),
        ("finre", ("finre/valid.txt",), "FinRE"),
        ("adgen", ("adgen/dev.cuge.jsonl",), "E-Reviews"),
        ("chid", ("chid/fewclue_dev_few_all.json",), "FewCLUE"),
        ("wordseg_weibo", ("wordseg_weibo/nlpcc2016-wordseg-dev.dat",), "NLPCC 2016"),
    ],
)
def test_official_files_are_known(task: str, names: tuple[str, ...], edition: str) -> None:
    paths = tuple(REAL_DATA / name for name in names)
    if not paths[0].is_file():
        pytest.skip("the official files are not here")
    file = SplitFile("dev", paths, "".join(map(input_sha256, paths))[:64])
    n = len(read_split(load_task(task), file))
    assert edition_of(load_task(task), file, n) == f"{edition} (official files)"
    assert edition in edition_of(load_task(task), replace(file, paths=()), n)


@pytest.mark.parametrize(
    ("note", "holds"),
    [
        ("test has 2,720 rows, officially 2,700", False),  # CCPM's real size
        ("dev has 2,720 rows, officially 2,000; test has 2,720 rows, officially 2,700", False),
        ("test has 300 rows, officially 2,700", True),
        ("there is no test split: dev is scored as test", True),
    ],
)
def test_the_board_judges_sizes_of_old_records_by_the_editions_known_now(
    tmp_path: Path, note: str, holds: bool
) -> None:
    record = made.make_record("ccpm", *list(made.BACKBONES)[:1], next(iter(made.DELTAS)), 1)
    (tmp_path / record.run_id).mkdir()
    write_record(
        tmp_path / record.run_id, record.model_copy(update={"note": note, "comparable": False})
    )
    (column,) = make_board(read_folder(tmp_path)).columns
    assert (column.notes, column.official) == ([note] if holds else [], not holds)
