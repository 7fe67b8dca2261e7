"""Official and third-party layouts as they are downloaded, with invented text: every folder has its
splits without renaming, and every command that describes a folder agrees with `tune`."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from conftest import CLI
from layout_table import (
    LAYOUTS,
    SPR,
    Layout,
    advertisement,
    csv,
    doc,
    lines,
    talk,
    utterance,
)

from cpm_tune.data.splits import DEV_AS_TEST, data_folder, find_splits, sample_folder
from cpm_tune.data.store import Split, read_split
from cpm_tune.errors import UserError
from cpm_tune.task import SPLITS
from cpm_tune.task.registry import load_task


def in_folder(root: Path, layout: Layout) -> Path:
    folder = root / layout.task
    for name, text in layout.files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text, encoding="utf-8")
    return folder


def read(task: str, folder: Path) -> dict[str, Split]:
    found = find_splits(load_task(task), folder)
    return {name: read_split(load_task(task), file) for name, file in found.items()}


@pytest.mark.parametrize("name", LAYOUTS)
def test_a_folder_as_it_was_downloaded_has_its_splits(tmp_path: Path, name: str) -> None:
    layout = LAYOUTS[name]
    splits = read(layout.task, in_folder(tmp_path, layout))
    assert tuple(map(len, splits.values())) == layout.sizes
    assert tuple(name for name, split in splits.items() if not split.labelled) == layout.unlabelled
    assert tuple(split.file.note for split in splits.values() if split.file.note) == layout.notes
    warnings = [w for split in splits.values() for w in (split.file.warning, *split.warnings) if w]
    assert tuple(warnings) == layout.warnings
    shares = [split.file.sha256 for split in splits.values() if split.file.digits]
    assert len(set(shares)) == len(shares)  # the parts of one file are different data


@pytest.mark.parametrize("name", LAYOUTS)
def test_every_command_that_describes_a_folder_agrees_with_tune(
    tmp_path: Path, cli: CLI, name: str
) -> None:
    layout = LAYOUTS[name]
    in_folder(tmp_path, layout)
    listed = cli("list", "tasks", "--data", tmp_path)[1]
    (line,) = [line for line in listed.splitlines() if line.startswith(f"{layout.task} ")]
    assert line.endswith("yes")
    for split, size in zip(SPLITS, layout.sizes, strict=True):
        code, shown, error = cli(
            "show", layout.task, "--data", tmp_path, "--split", split, "--rows", size + 9, "--text"
        )
        assert code == 0, error
        assert f"first {size} row" in shown
    for note in layout.notes:
        assert note in listed
        split = "test" if "test" in note else "dev"
        assert note in cli("show", layout.task, "--data", tmp_path, "--split", split, "--text")[1]
    code, checked, _ = cli("doctor", "--data", tmp_path)
    (line,) = [line for line in checked.splitlines() if f" {layout.task}: " in line]
    assert line.startswith("ok")
    assert all(note in line for note in layout.notes)


def test_a_folder_that_tune_refuses_is_not_listed_as_there(tmp_path: Path, cli: CLI) -> None:
    for task, name, text in (
        ("adgen", "train.json", lines(advertisement, 3)),  # no dev to score
        ("lcsts", "train.csv", "foo,bar\n" + "一,二\n" * 9),
        ("math23k", "Math_23K.json", "nonsense"),
    ):
        in_folder(tmp_path, Layout(task, {name: text}, (0, 0, 0)))
    listed = cli("list", "tasks", "--data", tmp_path)[1].splitlines()
    cells = {line.split()[0]: line.split("  ")[-1].strip() for line in listed if "  " in line}
    assert {k: v for k, v in cells.items() if v != "no"} == {"task": "data", "adgen": "only train"}
    for task in ("adgen", "lcsts", "math23k"):
        code, _, error = cli("--task", task, "--delta", "lora", "--data", tmp_path, "--dry-run")
        assert code == 2
        (remark,) = [line for line in listed if line.startswith(f"{task}: ")]
        assert remark.removeprefix(f"{task}: ") in error


def test_dev_without_answers_needs_train_and_labelled_dev_is_kept(tmp_path: Path) -> None:
    spr = load_task("spr")
    folder = in_folder(
        tmp_path, Layout("spr", {"cn_dev.csv": csv(SPR, utterance(False), 7)}, (0, 0, 0))
    )
    with pytest.raises(UserError, match="no file for train"):
        find_splits(spr, folder)
    (folder / "cn_train.csv").write_text(csv(SPR + ",Label", utterance(True), 20), encoding="utf-8")
    with pytest.raises(UserError, match="no file for test"):  # a dev without answers tests nothing
        find_splits(spr, folder)
    (folder / "cn_dev.csv").write_text(csv(SPR + ",Label", utterance(True), 7), encoding="utf-8")
    splits = read("spr", folder)
    assert {name: len(split) for name, split in splits.items()} == {
        "train": 20,
        "dev": 7,
        "test": 7,
    }


def test_shares_of_one_file_have_every_record_once(tmp_path: Path) -> None:
    splits = read("math23k", in_folder(tmp_path, LAYOUTS["Math23K's one file"]))
    problems = [row["problem"] for split in splits.values() for row in split.rows]
    assert len(problems) == len(set(problems)) == 40
    assert [row["problem"] for row in splits["test"].rows.at([0])] == ["每筐10个，2筐几个？"]


def test_texts_of_lcsts_are_as_in_the_file(tmp_path: Path) -> None:
    row = read("lcsts", in_folder(tmp_path, LAYOUTS["LCSTS' parts"]))["train"].rows.at([3])[0]
    assert row == {
        "id": "3",
        "text": "昨日，3号线 A&B 段开通，票价 < 3 元。",
        "target": "3号线开通",
    }


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        (
            doc(1).replace("<short_text>", "").replace("</short_text>", ""),
            r":6: text outside <summary>",
        ),
        (doc(1).replace("1号线开通", ""), r":1: no <summary> in this <doc>, or an empty one"),
        (doc(1).replace("</doc>\n", "") + doc(2), r":1: no </doc> before the next <doc>"),
        (doc(1) + "<doc id=2>\n", r":9: no </doc> to the end of the file"),
    ],
)
def test_faults_of_lcsts_files_are_told_with_the_line(
    tmp_path: Path, text: str, fault: str
) -> None:
    files = {f"PART_{part}.txt": text for part in ("I", "II", "III")}
    folder = in_folder(tmp_path, Layout("lcsts", files, (0, 0, 0)))
    with pytest.raises(UserError, match=fault):
        read("lcsts", folder)


def test_a_kdconv_test_with_one_blank_message_is_labelled(tmp_path: Path) -> None:
    talks = [talk(None)(0), talk(None)(1)]
    talks[0]["messages"][2]["message"] = ""
    files = {f"film/{split}.json": json.dumps(talks) for split in SPLITS}
    splits = read("kdconv", in_folder(tmp_path, Layout("kdconv", files, (6, 6, 6))))
    assert (len(splits["test"]), splits["test"].labelled) == (6, True)


def test_folders_of_tasks_are_known_whatever_their_case(tmp_path: Path) -> None:
    for name, task in (("WMT20-EnZh", "wmt20_enzh"), ("KdConv", "kdconv"), ("CCPM", "ccpm")):
        (tmp_path / name).mkdir()
        assert data_folder(load_task(task), tmp_path) == tmp_path / name
    assert data_folder(load_task("c3"), tmp_path) == tmp_path
    (tmp_path / "ccpm").mkdir()
    assert data_folder(load_task("ccpm"), tmp_path) == tmp_path / "ccpm"


def test_dev_scored_as_test_is_said_by_run_record_and_board(
    tmp_path: Path, cli: CLI, small_backbone: Path
) -> None:
    in_folder(tmp_path, LAYOUTS["AdvertiseGen"])
    out = tmp_path / "results"
    code, told, error = cli(
        *("--task", "adgen", "--delta", "lora", "--data", tmp_path, "--out", out),
        *("--backbone", small_backbone, "--set", "train.max_steps=1"),
        *("--set", "decode.max_new_tokens=4", "--set", "decode.beams=1", "--control", "none"),
    )
    assert code == 0, error
    assert f"note       {DEV_AS_TEST}" in told
    (record,) = [json.loads(path.read_text()) for path in out.glob("*/run.json")]
    assert record["note"].startswith(DEV_AS_TEST)
    assert not record["comparable"]
    assert record["data"]["test"]["path"].endswith("dev.json")
    for style in ("text", "md", "html"):
        assert "dev is scored as test" in cli("leaderboard", out, "--format", style)[1]
    (run,) = [path for path in out.iterdir() if (path / "run.json").is_file()]
    code, told, _ = cli("predict", run, "--data", tmp_path, "--out", tmp_path / "predicted")
    assert code == 0
    assert DEV_AS_TEST in told


@pytest.mark.parametrize("name", ["c3-d-dev.json", "c3-m-dev.json"])
def test_one_of_several_files_may_not_be_empty(cli: CLI, tmp_path: Path, name: str) -> None:
    folder = tmp_path / "c3"
    shutil.copytree(sample_folder(load_task("c3")), folder)
    for path in folder.glob("*dev*"):
        path.unlink()
    item = [["一行话。"], [{"question": "问？", "choice": ["甲", "乙"], "answer": "甲"}], "1"]
    for part in ("c3-d-dev.json", "c3-m-dev.json"):
        (folder / part).write_text(json.dumps([] if part == name else [item]), encoding="utf-8")
    code, _, error = cli("--task", "c3", "--data", tmp_path, "--dry-run")
    assert (code, f"{name}: the file is empty" in error) == (2, True), error


def test_a_test_split_without_answers_is_told_before_anything_runs(
    cli: CLI, data: Path, small_backbone: Path, tmp_path: Path
) -> None:
    rows = [json.loads(line) for line in (data / "test.jsonl").read_text().splitlines()]
    bare = [{**row, "label": -1} for row in rows]
    (data / "test.jsonl").write_text("".join(json.dumps(row) + "\n" for row in bare))
    given = ("--task", "lcqmc", "--data", data, "--backbone", small_backbone, "--out", tmp_path)
    code, out, _ = cli(*given, "--dry-run")
    assert (code, "no answers, so test will be predicted and not scored" in out) == (0, True)
