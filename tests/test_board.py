"""The board: hierarchy, means with intervals, both indices, cost, quoted rows kept apart."""

from __future__ import annotations

import json
import statistics
from pathlib import Path

import board_records as made
import jsonschema
import pytest
from scipy import stats

from cpm_tune.errors import UserError
from cpm_tune.leaderboard.aggregate import make_board
from cpm_tune.leaderboard.board import SCHEMA, Board, as_json, json_schema
from cpm_tune.leaderboard.hierarchy import CAPABILITIES, Dataset
from cpm_tune.leaderboard.indices import (
    BASELINE,
    NORMALISED_MEAN,
    RATIO_OF_SUMS,
    normalised_mean,
    ratio_of_sums,
)
from cpm_tune.leaderboard.published import baseline, read_published
from cpm_tune.leaderboard.results import Results, StoredRecord
from cpm_tune.schema.record import RunRecord
from cpm_tune.task.registry import load_tasks


def board(
    *records: RunRecord, repeats: tuple[RunRecord, ...] = (), published: bool = False
) -> Board:
    runs, again = (tuple(StoredRecord(r, Path()) for r in some) for some in (records, repeats))
    return make_board(Results(runs, again, ()), published=published)


@pytest.fixture(scope="module")
def whole() -> Board:
    return board(*made.suite(), published=True)


def test_a_mean_over_seeds_has_the_interval_of_rows_and_of_seeds() -> None:
    records = [made.make_record("ccpm", "b", "lora", seed) for seed in (1, 2, 3, 4)]
    values = [100 * r.test.value for r in records]
    (row,) = board(*records).rows
    cell = row.cells["ccpm"]
    middle = statistics.fmean(values)
    assert cell.mean == pytest.approx(middle)
    assert cell.std == pytest.approx(statistics.stdev(values))
    seeds = stats.t.interval(0.95, 3, 0, stats.sem(values))[1]
    rows = [
        statistics.fmean(abs(100 * end - v) for end, v in zip(ends, values, strict=True))
        for ends in ([r.test.low for r in records], [r.test.high for r in records])
    ]
    expected = middle - (seeds**2 + rows[0] ** 2) ** 0.5, middle + (seeds**2 + rows[1] ** 2) ** 0.5
    assert (cell.low, cell.high) == pytest.approx(expected)
    assert cell.interval == (
        "of the runs (Wilson) and Student's t over 4 seeds (3 degrees of freedom)"
    )


def test_one_seed_has_the_interval_of_its_record_by_name() -> None:
    record = made.make_record("ccpm", "b", "lora", 1)
    cell = board(record).rows[0].cells["ccpm"]
    assert cell.std is None
    assert (cell.low, cell.high) == pytest.approx((100 * record.test.low, 100 * record.test.high))
    assert cell.interval == "one run: Wilson"


def test_seeds_with_one_score_are_no_certainty() -> None:
    """Student's interval over equal values has no width; the runs' own have."""
    records = [made.make_record("ccpm", "b", "lora", seed) for seed in (1, 2)]
    scores = [
        r.test.model_copy(update={"value": 0.5, "low": low})
        for r, low in zip(records, (0.3, 0.4), strict=True)
    ]
    same = [
        r.model_copy(update={"scores": {**r.scores, "test": {r.ranks_by: score}}})
        for r, score in zip(records, scores, strict=True)
    ]
    cell = board(*same).rows[0].cells["ccpm"]
    assert cell.std == 0
    assert cell.low == pytest.approx(35)
    assert cell.high == pytest.approx(statistics.fmean(100 * r.test.high for r in same))


def test_bleu_is_in_points_already_and_a_fraction_becomes_points() -> None:
    bleu, accuracy = (made.make_record(task, "b", "lora", 1) for task in ("kdconv", "ccpm"))
    (row,) = board(bleu, accuracy).rows
    assert row.cells["kdconv"].mean == pytest.approx(bleu.test.value)
    assert row.cells["ccpm"].mean == pytest.approx(100 * accuracy.test.value)


def test_columns_follow_the_hierarchy_of_cuge(whole: Board) -> None:
    order = list(dict.fromkeys(column.capability for column in whole.columns))
    assert order == [*CAPABILITIES, "language understanding"]


def test_a_row_is_a_backbone_and_a_delta_over_datasets_with_their_own_settings() -> None:
    records = [
        made.make_record("ccpm", "b", "lora", 1, lr=5e-3),
        made.make_record("c3", "b", "lora", 1, lr=1e-3),
    ]
    (row,) = board(*records).rows
    assert row.id == "b / lora"
    assert set(row.cells) == {"ccpm", "c3"}
    assert row.cells["c3"].settings["train.lr"] == "0.001"


def test_settings_that_differ_in_a_column_make_rows_of_their_own() -> None:
    records = [
        made.make_record(task, "b", "lora", seed, lr=lr)
        for task in ("ccpm", "c3")
        for lr in (5e-3, 1e-3)
        for seed in (1, 2)
    ]
    rows = board(*records).rows
    assert {row.id for row in rows} == {"b / lora / train.lr=0.005", "b / lora / train.lr=0.001"}
    assert all(row.coverage == 2 for row in rows)
    assert all(len(cell.runs) == 2 for row in rows for cell in row.cells.values())


def test_runs_that_are_not_comparable_have_columns_of_their_own_that_say_why() -> None:
    records = [
        made.make_record("ccpm", "b", "lora", 1),
        made.make_record("ccpm", "b", "lora", 1, template="cpm-2"),
        made.make_record("ccpm", "b", "lora", 1, sample=True),
    ]
    columns = board(*records).columns
    assert [c.id for c in columns] == ["ccpm", "ccpm#2", "ccpm#3"]
    assert any("template cpm-2" in said for c in columns for said in c.apart)
    assert any("sample data" in said for said in columns[2].apart)
    assert not columns[2].official


def test_the_published_indices_follow_from_the_published_scores() -> None:
    """The report's rule gives 124.3 / 183.3 / 194.0, the board's 117 / 152 / 157, as printed."""
    published = read_published()
    base = {task: figure.value for task, figure in baseline(published, BASELINE).items()}
    places = {t.name: Dataset(t.capability, t.kind) for t in load_tasks()}
    found = {}
    for row in published["cuge-lite-board"].rows:
        scores = {task: figure.value for task, figure in row.scores.items()}
        report, ratio = normalised_mean(scores, base, places), ratio_of_sums(scores, base)
        assert ratio == pytest.approx(row.printed_index, abs=0.5)
        assert report is not None
        found[row.name] = round(report, 1)
    assert found == {"mT5-small": 100, "mT5-large": 124.3, "mT5-XXL": 183.3, "CPM-2": 194.0}


def test_the_normalised_mean_weighs_capabilities_equally() -> None:
    places = {
        "a": Dataset("x", "k"),
        "b": Dataset("x", "k"),
        "c": Dataset("x", "l"),
        "d": Dataset("y", "m"),
    }
    base = dict.fromkeys(places, 1.0)
    scores = {"a": 1.0, "b": 3.0, "c": 4.0, "d": 10.0}
    assert normalised_mean(scores, base, places) == pytest.approx(
        100 * (((1 + 3) / 2 + 4) / 2 + 10) / 2
    )
    assert ratio_of_sums(scores, base) == pytest.approx(100 * 18 / 4)


def test_a_missing_dataset_makes_an_index_blank(whole: Board) -> None:
    rows = {row.id: row for row in whole.rows}
    full, lacking = rows["cpm-ant-10b / lora"], rows["cpm-ant-10b / soft_prompt"]
    for name in (NORMALISED_MEAN, RATIO_OF_SUMS):
        assert full.indices[name].value is not None
        assert lacking.indices[name].value is None
        assert lacking.indices[name].missing == ["wmt20_enzh"]


def test_an_index_takes_the_metric_that_was_published(whole: Board) -> None:
    row = whole.rows[0]
    base = {task: figure.value for task, figure in baseline(read_published(), BASELINE).items()}
    scores = {task: row.cells[task].mean for task in base}
    scores |= {task: row.cells[task].others[name] for task, name in made.SECONDARY.items()}
    assert row.indices[RATIO_OF_SUMS].value == pytest.approx(ratio_of_sums(scores, base))


def test_sample_data_is_in_no_index() -> None:
    records = [made.make_record(task, "b", "lora", 1, sample=True) for task in made.LITE]
    (row,) = board(*records).rows
    assert row.coverage == 7
    assert row.indices[NORMALISED_MEAN].value is None


def test_quoted_rows_stay_apart_and_enter_no_column_of_other_data() -> None:
    official = board(made.make_record("math23k", "b", "lora", 1, template="cpm-2"), published=True)
    sample = board(
        made.make_record("math23k", "b", "lora", 1, template="cpm-2", sample=True), published=True
    )
    assert len(official.rows) == len(sample.rows) == 1
    for one, column in ((official, "math23k"), (sample, "math23k#quoted")):
        quoted = {row.id: row for row in one.quoted}
        assert quoted["quoted: CPM-2, full fine-tuning"].cells[column].value == 69.4
        assert column in {c.id for c in one.columns}
    assert not any("math23k" in row.cells for row in sample.quoted)
    assert all(
        figure.source in official.sources for r in official.quoted for figure in r.cells.values()
    )
    assert not board(made.make_record("ccpm", "b", "lora", 1)).quoted


def test_task_files_and_published_figures_agree() -> None:
    rows = [row for file in read_published().values() for row in file.rows]
    for task in load_tasks():
        known = {row.scores[task.name].value for row in rows if task.name in row.scores}
        assert set(task.published.values()) == known, task.name
    named = {(task, f.metric) for row in rows for task, f in row.scores.items()}
    metrics = {task.name: task.metrics for task in load_tasks()}
    assert all(metric in metrics[task] for task, metric in named)


def test_cost_stands_beside_quality_and_scaling_comes_from_repeats() -> None:
    record = made.make_record("ccpm", "b", "lora", 1)
    again = made.make_record("ccpm", "b", "lora", 1, world_size=2)
    assert record.run_id == again.run_id
    (row,) = board(record, repeats=(again,)).rows
    cost = row.cells["ccpm"].cost
    assert record.training is not None
    assert again.training is not None
    speeds = record.training.samples_per_second, again.training.samples_per_second
    assert cost.samples_per_second == pytest.approx(speeds[0])
    assert cost.n_trainable == record.delta.n_trainable
    assert [part.world_size for part in cost.scaling] == [1, 2]
    assert cost.scaling[1].efficiency == pytest.approx(speeds[1] / (2 * speeds[0]))
    assert len(row.cells["ccpm"].runs) == 1


def test_the_shipped_schema_is_that_of_the_code_and_accepts_a_board(whole: Board) -> None:
    shipped = json.loads(SCHEMA.read_text(encoding="utf-8"))
    assert shipped == json_schema()
    said = json.loads(as_json(whole))
    jsonschema.validate(said, shipped)
    said["rows"][0]["cells"]["ccpm"]["mean"] = "high"
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(said, shipped)


def test_a_task_without_a_task_file_is_named_and_stays_in() -> None:
    record = made.make_record("ccpm", "b", "lora", 1)
    spec = record.spec.model_copy(update={"task": "nowhere"})
    one = board(record.model_copy(update={"spec": spec, "run_id": "x"}))
    assert one.columns[0].capability == "not known"
    assert "nowhere" in one.left_out[0]


def test_a_faulty_published_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "x.json").write_text('{"schema_version": 1}', encoding="utf-8")
    with pytest.raises(UserError, match=r"x\.json: not published results: 'source'"):
        read_published(tmp_path)
