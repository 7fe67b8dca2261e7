"""The runs of a folder as a table."""

from __future__ import annotations

from pathlib import Path

import pytest
from test_record import record, spec

import cpm_tune as ct
from cpm_tune.schema.record import write_record


def test_a_row_has_the_scores_controls_and_settings_of_a_run(tmp_path: Path) -> None:
    values = {1: 0.7, 2: 0.8}
    for seed, value in values.items():
        made = record(value, of=spec(seed=seed))
        (tmp_path / made.run_id).mkdir()
        write_record(tmp_path / made.run_id, made)
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "run.json").write_text("{")
    table = ct.as_dataframe(tmp_path)
    assert dict(zip(table["seed"], table["test"], strict=True)) == values
    assert set(table["control.majority"]) == {0.5}
    assert set(table["spec.recipe.lr"]) == {spec().recipe.lr}  # type: ignore[union-attr]
    assert set(table["better"]) == {"higher"}
    assert list(table["folder"]) == sorted(table["folder"])


def test_an_empty_folder_and_none(tmp_path: Path) -> None:
    assert len(ct.as_dataframe(tmp_path)) == 0
    with pytest.raises(ct.UserError, match="no such results folder"):
        ct.as_dataframe(tmp_path / "none")
