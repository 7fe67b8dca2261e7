"""The leaderboard: what is averaged, what is kept apart, what is left out and said so."""

from __future__ import annotations

import statistics
from pathlib import Path

import pytest
from test_record import SHA, record, spec

from cpm_tune.leaderboard.export import export
from cpm_tune.leaderboard.table import make_tables, read_results
from cpm_tune.schema.record import RunRecord, write_record
from cpm_tune.schema.spec import BackboneSpec, DataSpec, Recipe


def store(folder: Path, *records: RunRecord) -> None:
    for one in records:
        place = folder / one.run_id
        place.mkdir(parents=True)
        write_record(place, one)


def test_seeds_of_one_setting_are_averaged_with_their_standard_deviation() -> None:
    values = [0.70, 0.74, 0.81]
    (table,) = make_tables([record(v, of=spec(seed=s)) for s, v in enumerate(values)])
    (row,) = table.rows
    assert row.n_seeds == 3
    assert row.mean == pytest.approx(statistics.fmean(values))
    assert row.std == pytest.approx(statistics.stdev(values))
    assert row.low is None


def test_a_single_seed_shows_its_interval() -> None:
    (table,) = make_tables([record(0.7)])
    row = table.rows[0]
    assert (row.n_seeds, row.std) == (1, None)
    assert (row.low, row.high) == (pytest.approx(0.66), pytest.approx(0.74))


def test_rows_are_ordered_best_first_and_by_setting() -> None:
    other = spec(recipe=Recipe(lr=1e-4))
    third = spec(backbone=BackboneSpec(sha256="b" * 64))
    (table,) = make_tables([record(0.6), record(0.9, of=other), record(0.7, of=third)])
    assert [row.mean for row in table.rows] == [0.9, 0.7, 0.6]


def test_what_differs_between_rows_is_in_their_settings() -> None:
    wider = spec(delta={"delta_type": "lora", "lora_r": 16})
    random = spec(backbone=BackboneSpec(sha256=SHA, init="random"))
    (table,) = make_tables([record(0.6), record(0.9, of=wider), record(0.7, of=random)])
    assert ["lora_r=16" in row.settings for row in table.rows] == [True, False, False]
    assert [row.backbone for row in table.rows] == ["b", "b (random control)", "b"]


@pytest.mark.parametrize(
    "other",
    [
        spec(template_sha256="b" * 64),
        spec(task_version=2),
        spec(data=DataSpec(train=SHA, dev=SHA, test="b" * 64)),
        spec(data=DataSpec(train=SHA, dev="b" * 64, test=SHA)),
        spec(data=DataSpec(train=SHA, dev=SHA, test=SHA, limit=10)),
        spec(data=DataSpec(train=SHA, dev=SHA, test=SHA, sample=True)),
        spec(data=DataSpec(train=SHA, dev=SHA, test=SHA, skip_bad_rows=True)),
    ],
)
def test_runs_that_are_not_comparable_are_in_tables_of_their_own(other: object) -> None:
    assert len(make_tables([record(), record(of=other)])) == 2  # type: ignore[arg-type]


def test_what_keeps_tables_apart_is_said(tmp_path: Path) -> None:
    limited = spec(data=DataSpec(train=SHA, dev=SHA, test=SHA, limit=10, sample=True))
    store(tmp_path, record(), record(of=limited))
    text, warnings = export(tmp_path, "text")
    assert not warnings
    assert "limited to 10 rows" in text
    assert "sample data, not comparable" in text
    assert "majority class 0.5000" in text


def test_corrupt_foreign_failed_and_unfinished_files_are_named_and_left_out(tmp_path: Path) -> None:
    store(tmp_path, record())
    for name, content in (("corrupt", "{"), ("foreign", '{"accuracy": 1}'), ("empty", "")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "run.json").write_text(content, encoding="utf-8")
    failed = record(of=spec(seed=9), status="failed", scores={}, error="no memory")
    (tmp_path / "x.partial").mkdir()
    write_record(tmp_path / "x.partial", failed)
    (tmp_path / "half").mkdir()
    (tmp_path / "half" / "run.json.part").write_text('{"schema', encoding="utf-8")
    (tmp_path / "notes.json").write_text("[]", encoding="utf-8")
    records, warnings = read_results(tmp_path)
    assert len(records) == 1
    said = ("corrupt", "foreign", "empty", "x.partial: failed", "no memory", "half", "notes.json")
    for name in said:
        assert any(name in warning for warning in warnings), name
    assert len(warnings) == 6


def test_links_are_followed_once_and_a_link_to_nothing_is_named(tmp_path: Path) -> None:
    results, run = tmp_path / "results", tmp_path / "results" / "ccpm.x"
    run.mkdir(parents=True)
    (run / "run.json").symlink_to(tmp_path / "nowhere")
    (results / "circle").symlink_to(results, target_is_directory=True)
    (tmp_path / "elsewhere" / "ccpm.y").mkdir(parents=True)
    (tmp_path / "elsewhere" / "ccpm.y" / "run.json").write_text("")
    (results / "more").symlink_to(tmp_path / "elsewhere", target_is_directory=True)
    _, left_out = read_results(results)
    assert [line.split(":")[0] for line in left_out] == [
        str(run / "run.json"),
        str(results / "more" / "ccpm.y" / "run.json"),
    ]


def test_the_same_run_twice_counts_once(tmp_path: Path) -> None:
    store(tmp_path / "a", record())
    store(tmp_path / "b", record())
    records, warnings = read_results(tmp_path)
    assert len(records) == 1
    assert "there twice" in warnings[0]


def test_an_empty_folder_says_so(tmp_path: Path) -> None:
    assert export(tmp_path, "text")[0].endswith("no finished runs.")
