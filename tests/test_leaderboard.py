"""The terminal's tables: what is averaged, what is kept apart, what is left out and reported."""

from __future__ import annotations

import re
import statistics
from pathlib import Path

import pytest
from test_record import SHA, record, spec

from cpm_tune.leaderboard.aggregate import make_board
from cpm_tune.leaderboard.export import export
from cpm_tune.leaderboard.results import Results, StoredRecord, read_folder
from cpm_tune.leaderboard.tables_text import as_text
from cpm_tune.schema.record import RunRecord, write_record
from cpm_tune.schema.spec import BackboneSpec, DataSpec, Recipe


def store(folder: Path, *records: RunRecord) -> None:
    for one in records:
        place = folder / one.run_id
        place.mkdir(parents=True)
        write_record(place, one)


def tables(*records: RunRecord) -> list[list[dict[str, str]]]:
    """The rows of each printed table, by heading."""
    runs = tuple(StoredRecord(one, Path()) for one in records)
    parsed = []
    for text in as_text(make_board(Results(runs, (), ()))).split("\n\n"):
        lines = [re.split(r" {2,}", line) for line in text.splitlines() if line[0] != " "]
        parsed.append([dict(zip(lines[1], line, strict=True)) for line in lines[2:]])
    return parsed


def test_seeds_of_one_setting_are_averaged_with_their_standard_deviation() -> None:
    values = [0.70, 0.74, 0.81]
    ((row,),) = tables(*(record(v, of=spec(seed=s)) for s, v in enumerate(values)))
    assert row["seeds"] == "3"
    assert row["score"] == f"{statistics.fmean(values):.4f}"
    assert row["± / 95%"] == f"± {statistics.stdev(values):.4f}"


def test_a_single_seed_shows_its_interval() -> None:
    ((row,),) = tables(record(0.7))
    assert (row["seeds"], row["± / 95%"]) == ("1", "[0.6600, 0.7400]")


def test_a_row_shows_what_was_trained_how_fast_and_with_how_much_memory() -> None:
    one = record(0.7)
    ((row,),) = tables(one)
    assert row["trained"] == f"{one.delta.n_trainable:,}"
    assert one.training is None
    assert row["samples/s"] == "-"


def test_rows_are_ordered_best_first_and_by_setting() -> None:
    other = spec(recipe=Recipe(lr=1e-4))
    third = spec(backbone=BackboneSpec(sha256="b" * 64))
    (rows,) = tables(record(0.6), record(0.9, of=other), record(0.7, of=third))
    assert [row["score"] for row in rows] == ["0.9000", "0.7000", "0.6000"]


def test_what_differs_between_rows_is_in_their_settings() -> None:
    wider = spec(delta={"delta_type": "lora", "lora_r": 16})
    random = spec(backbone=BackboneSpec(sha256=SHA, init="random"))
    (rows,) = tables(record(0.6), record(0.9, of=wider), record(0.7, of=random))
    assert ["lora_r=16" in row["settings"] for row in rows] == [True, False, False]
    assert [row["backbone"] for row in rows] == ["b", "b (random control)", "b"]


def test_an_int8_backbone_has_a_row_of_its_own() -> None:
    quantized = spec(backbone=BackboneSpec(sha256=SHA, quantize="int8"))
    (rows,) = tables(record(0.6), record(0.9, of=quantized))
    assert ["precision=fp32+int8" in row["settings"] for row in rows] == [True, False]


def test_settings_that_differ_between_deltas_are_shown() -> None:
    longer = spec(delta={"delta_type": "adapter"}, recipe=Recipe(epochs=99))
    adapter = record(0.9, of=longer, delta={**record().delta.model_dump(), "name": "adapter"})
    (rows,) = tables(record(0.6), adapter)
    assert ["epochs=99" in row["settings"] for row in rows] == [True, False]
    assert all("lr=" in row["settings"] for row in rows)


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
    assert len(tables(record(), record(of=other))) == 2  # type: ignore[arg-type]


def test_what_keeps_tables_apart_is_printed(tmp_path: Path) -> None:
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
    results = read_folder(tmp_path)
    assert len(results.runs) == 1
    said = ("corrupt", "foreign", "empty", "x.partial: failed", "no memory", "half", "notes.json")
    for name in said:
        assert any(name in warning for warning in results.left_out), name
    assert len(results.left_out) == 6


def test_links_are_followed_once_and_a_link_to_nothing_is_named(tmp_path: Path) -> None:
    results, run = tmp_path / "results", tmp_path / "results" / "ccpm.x"
    run.mkdir(parents=True)
    (run / "run.json").symlink_to(tmp_path / "nowhere")
    (results / "circle").symlink_to(results, target_is_directory=True)
    (tmp_path / "elsewhere" / "ccpm.y").mkdir(parents=True)
    (tmp_path / "elsewhere" / "ccpm.y" / "run.json").write_text("")
    (results / "more").symlink_to(tmp_path / "elsewhere", target_is_directory=True)
    assert [line.split(":")[0] for line in read_folder(results).left_out] == [
        str(run / "run.json"),
        str(results / "more" / "ccpm.y" / "run.json"),
    ]


def test_the_same_run_twice_counts_once(tmp_path: Path) -> None:
    store(tmp_path / "a", record())
    store(tmp_path / "b", record())
    results = read_folder(tmp_path)
    assert len(results.runs) == 1
    assert "counted once" in results.left_out[0]


def test_an_empty_folder_says_so(tmp_path: Path) -> None:
    assert export(tmp_path, "text")[0].endswith("no finished runs.")
