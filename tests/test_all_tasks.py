"""Every shipped task, from its sample data to a record, in one command."""

from __future__ import annotations

from pathlib import Path

import pytest
from conftest import CLI

from cpm_tune.data.splits import find_splits, sample_folder
from cpm_tune.data.store import read_split
from cpm_tune.schema.record import read_record
from cpm_tune.task import Generate
from cpm_tune.task.registry import expand, load_task, load_tasks

SHORT = ("--limit", 4, "--set", "train.max_steps=1", "--set", "decode.max_new_tokens=6")


@pytest.mark.slow
def test_all_tasks_run_on_their_sample_data_in_one_command(
    cli: CLI, small_backbone: Path, tmp_path: Path
) -> None:
    backbone = ("--backbone", small_backbone, "--out", tmp_path)
    code, said, error = cli(
        "--task", "all", "--delta", "lora", "--control", "none", *SHORT, *backbone
    )
    assert code == 0, error
    records = [read_record(path / "run.json") for path in tmp_path.glob("*.lora.*")]
    assert {record.spec.task for record in records} == set(expand("all"))
    for record in records:
        assert record.status == "finished"
        assert set(record.scores["test"]) == set(load_task(record.spec.task).metrics)
        assert record.spec.data.sample
    assert f"[{len(records)}/{len(records)}]" in said


def test_the_suites_have_their_members() -> None:
    assert len(expand("cuge")) == 21
    assert set(expand("cuge-lite")) == {
        *("ccpm", "c3", "sogou_log", "lcsts", "kdconv", "wmt20_enzh", "math23k"),
    }
    assert set(expand("cpm-2,lcqmc")) == {
        *("lcqmc", "c3", "ccpm", "adgen", "kdconv", "sogou_log", "lcsts", "math23k", "wmt20_enzh"),
    }
    assert set(expand("cpm-1")) == {"chid", "stc"}
    assert {*expand("cuge"), "lcqmc", "chid", "stc"} <= set(expand("all"))


@pytest.mark.parametrize("task", load_tasks(), ids=lambda task: task.name)
def test_sample_data_has_its_sizes_and_no_row_in_two_splits(task: object) -> None:
    from cpm_tune.task import Task

    assert isinstance(task, Task)
    found = find_splits(task, sample_folder(task))
    rows = {name: list(read_split(task, file).rows) for name, file in found.items()}
    assert len(rows["train"]) >= 400
    assert len(rows["dev"]) >= 100
    assert len(rows["test"]) >= 100
    seen = [
        {repr({k: v for k, v in row.items() if k != "id"}) for row in part}
        for part in rows.values()
    ]
    assert len(set.union(*seen)) == sum(map(len, seen))


def test_every_task_of_cuge_has_a_submission_file_of_its_own() -> None:
    submitted = {name: load_task(name).submission for name in expand("cuge")}
    assert None not in submitted.values()
    assert len({made.file for made in submitted.values() if made}) == 21


def test_what_is_generated_has_room_in_every_tasks_recipe() -> None:
    for task in load_tasks():
        if isinstance(task.answer, Generate):
            assert task.recipe.get("max_length", 256) > task.answer.max_new_tokens + 40, task.name
