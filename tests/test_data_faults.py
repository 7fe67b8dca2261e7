"""Official files that are not quite what they should be: nothing is lost, or read twice, in
silence."""

from __future__ import annotations

import gzip
import json
import shutil
from pathlib import Path

import pytest
from conftest import CLI, write_jsonl

from cpm_tune.data.splits import find_splits, sample_folder
from cpm_tune.data.store import Split, read_split
from cpm_tune.errors import UserError
from cpm_tune.task import SPLITS
from cpm_tune.task.registry import load_task


def copied(task: str, folder: Path) -> Path:
    """The sample data of a task, to be changed."""
    return Path(shutil.copytree(sample_folder(load_task(task)), folder / task))


def read(task: str, folder: Path, split: str) -> Split:
    return read_split(load_task(task), find_splits(load_task(task), folder, (split,))[split])


def unlabelled(file: Path, **changes: object) -> None:
    """Take the answers out of a file of lines, and change its first row."""
    rows = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
    for row in rows:
        row.pop("answer", None)
    write_jsonl(file, [{**rows[0], **changes}, *rows[1:]])


@pytest.mark.parametrize(("options", "said"), [(0, "0 options"), (1, "1 option"), (5, "5 options")])
def test_options_are_counted_where_there_is_no_answer_too(
    tmp_path: Path, options: int, said: str
) -> None:
    folder = copied("ccpm", tmp_path)
    (test,) = folder.glob("test*.jsonl")
    unlabelled(test, choices=[f"第{i}句" for i in range(options)])
    with pytest.raises(UserError, match=f"{test.name}:1: {said}, expected 2 to 4"):
        read("ccpm", folder, "test")


def test_a_definition_that_is_empty_is_passed_over_in_a_submission_too(
    cli: CLI, tmp_path: Path, small_backbone: Path
) -> None:
    data = tmp_path / "data"
    data.mkdir()
    rows = [{"definitions": "天上的水", "word": "雨"}, {"definitions": "白色的水", "word": "雪"}]
    for split in ("train", "dev"):
        write_jsonl(data / f"{split}.jsonl", rows)
    asked = [{"definitions": " "}, {"definitions": "天上的水"}]
    write_jsonl(data / "test.jsonl", asked)
    words = ("--task", "wantwords", "--data", data, "--delta", "lora", "--control", "none")
    limits = ("--set", "train.max_steps=1", "--set", "decode.beams=1", "--set", "decode.n_best=1")
    code, _, error = cli(*words, *limits, "--backbone", small_backbone, "--out", tmp_path / "out")
    assert code == 0, error
    (made,) = (tmp_path / "out").glob("wantwords*/WantWords.jsonl")
    written = [json.loads(line) for line in made.read_text(encoding="utf-8").splitlines()]
    assert written[0] == {"definitions": " ", "word": ""}
    assert len(written) == 2


def test_a_part_of_a_split_that_is_empty_is_an_error(tmp_path: Path) -> None:
    folder = copied("kdconv", tmp_path)
    emptied = folder / "film" / "train.json"
    assert emptied.is_file()
    emptied.write_text("")
    with pytest.raises(UserError, match=r"film/train\.json: the file is empty"):
        read("kdconv", folder, "train")


def test_only_the_tasks_own_parts_are_read(tmp_path: Path) -> None:
    folder = copied("kdconv", tmp_path)
    before = len(read("kdconv", folder, "train"))
    shutil.copytree(folder / "music", folder / "music (copy)")
    assert len(read("kdconv", folder, "train")) == before
    alone = tmp_path / "alone"
    shutil.copytree(folder / "music", alone / "music (copy)")
    with pytest.raises(UserError, match="no file for train"):
        read("kdconv", alone, "train")


def test_two_files_of_one_pattern_are_not_joined(tmp_path: Path) -> None:
    folder = copied("kbqa", tmp_path)
    (train,) = folder.glob("*kbqa*train*")
    shutil.copy(train, folder / f"{train.name}.bak")
    with pytest.raises(UserError, match=r"\.bak could both be the train split; keep one"):
        find_splits(load_task("kbqa"), folder)


@pytest.mark.parametrize(
    ("task", "file", "text", "said"),
    [
        ("c3", "train.json", '{"data": []}', "expected an array, found none"),
        ("stc", "stc.json", '{"x": []}', 'expected an object with an array "train"'),
        ("gcrc", "train.json", '{"Data": []}', 'expected an object with an array "data"'),
    ],
)
def test_a_document_without_the_array_says_which(
    tmp_path: Path, task: str, file: str, text: str, said: str
) -> None:
    folder = copied(task, tmp_path)
    files = find_splits(load_task(task), folder)["train"].paths
    files[-1].write_text(text)
    with pytest.raises(UserError, match=said):
        read(task, folder, "train")


@pytest.mark.parametrize(
    "text",
    [
        "text_a\ttext_b\n一\t二\n三\t四\n",
        "一\t二\n三\t四\n",
        "text_a\ttext_b\tlabel\n一\t二\t\n三\t四\t\n",
        "一\t二\t\n三\t四\t \n",
    ],
    ids=["header", "no header", "empty cells", "empty cells, no header"],
)
def test_a_test_table_without_answers_is_read_and_training_needs_them(
    tmp_path: Path, text: str
) -> None:
    for split in SPLITS:
        (tmp_path / f"{split}.tsv").write_text(text, encoding="utf-8")
    split = read("lcqmc", tmp_path, "test")
    assert not split.labelled
    assert [(row["sentence1"], row["target"]) for row in split.rows] == [("一", None), ("三", None)]
    with pytest.raises(UserError, match=r"label"):
        read("lcqmc", tmp_path, "train")


@pytest.mark.parametrize(
    ("task", "field"),
    [
        ("finre", "label"),
        ("yaclc", "sentence_annos"),
        ("pku_segpos", "span_list"),
        ("cepsum", "targets"),
        ("adgen", "desc"),
    ],
)
def test_what_is_missing_has_its_official_name(tmp_path: Path, task: str, field: str) -> None:
    folder = copied(task, tmp_path)
    (train,) = find_splits(load_task(task), folder)["train"].paths
    lines = train.read_text(encoding="utf-8").splitlines()
    first = json.loads(lines[0])
    for name in (field, "label_desc"):
        first.pop(name, None)
    train.write_text("\n".join([json.dumps(first), *lines[1:]]) + "\n", encoding="utf-8")
    with pytest.raises(UserError, match=f"no field '{field}'"):
        read(task, folder, "train")


def test_the_first_row_without_an_answer_is_named(tmp_path: Path) -> None:
    rows = [{"text_a": "一", "text_b": "二", "label": i % 2} for i in range(6)]
    del rows[4]["label"]
    write_jsonl(tmp_path / "test.jsonl", rows)
    with pytest.raises(UserError, match="1 of 6 rows have no 'label', the first of them with id 4"):
        read("lcqmc", tmp_path, "test")


def test_a_file_instead_of_a_folder_and_a_packed_file_are_told(tmp_path: Path) -> None:
    file = write_jsonl(tmp_path / "train.jsonl", [{"text_a": "一", "text_b": "二", "label": 1}])
    with pytest.raises(UserError, match="this is a file, expected its folder"):
        find_splits(load_task("lcqmc"), file)
    file.write_bytes(gzip.compress(file.read_bytes()))
    with pytest.raises(UserError, match="gzip-compressed; unpack it"):
        read("lcqmc", tmp_path, "train")
