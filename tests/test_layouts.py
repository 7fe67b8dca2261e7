"""Official and third-party layouts as they are downloaded, with invented text: every folder has its
splits without renaming, and every command that describes a folder agrees with `tune`."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from conftest import CLI

from cpm_tune.data.splits import DEV_AS_TEST, data_folder, find_splits, sample_folder
from cpm_tune.data.store import Split, read_split
from cpm_tune.errors import UserError
from cpm_tune.task import SPLITS
from cpm_tune.task.registry import load_task

Files = dict[str, str]


def lines(record: Callable[[int], Any], n: int) -> str:
    return "\n".join(json.dumps(record(i), ensure_ascii=False) for i in range(n)) + "\n"


def array(record: Callable[[int], Any], n: int, indent: int | None = None) -> str:
    return json.dumps([record(i) for i in range(n)], ensure_ascii=False, indent=indent)


def csv(header: str, row: Callable[[int], str], n: int, mark: str = ",") -> str:
    return "\n".join([header, *(row(i) for i in range(n))]).replace(",", mark) + "\n"


def entity(i: int) -> dict[str, Any]:
    marked = {"start_idx": 0, "end_idx": 1, "type": "sym", "entity": "咳嗽"}
    return {"text": f"咳嗽{i + 1}天。", "entities": [marked]}


def utterance(label: bool) -> Callable[[int], str]:
    return lambda i: f"{i},{i // 4},{i % 4},甲,第{i}句台词" + (f",{i % 2}" if label else "")


SPR = "ID,Dialogue_id,Utterance_id,Speaker,Sentence"


def idiom(answer: bool) -> Callable[[int], dict[str, Any]]:
    def record(i: int) -> dict[str, Any]:
        row = {
            "id": i,
            "candidates": ["一心一意", "三心二意"],
            "content": f"他做第{i}件事#idiom#。",
        }
        return {**row, "answer": i % 2} if answer else row

    return record


def cloze(i: int) -> dict[str, Any]:
    content = [f"他做第{i}件事#idiom{i:06d}#。"]
    return {"content": content, "candidates": [f"成语{k}" for k in range(10)]}


def dialogue(answer: bool, part: str = "") -> Callable[[int], Any]:
    def record(i: int) -> Any:
        asked = {"question": "谁来了？", "choice": ["甲", "乙", "丙"]}
        return [
            [f"女：第{i}次来。", "男：好。"],
            [{**asked, "answer": "乙"} if answer else asked],
            f"{part}{i}",
        ]

    return record


def problem(i: int) -> str:
    fields = {
        "id": str(i),
        "original_text": f"每筐{i + 1}个，2筐几个？",
        "segmented_text": f"每筐 {i + 1} 个 ， 2 筐 几 个 ？",
        "equation": f"x={i + 1}*2",
        "ans": str(2 * i + 2),
    }
    return json.dumps(fields, ensure_ascii=False, indent=2)


def doc(i: int, score: int | None = None) -> str:
    label = "" if score is None else f"    <human_label>{score}</human_label>\n"
    return (
        f"<doc id={i}>\n{label}    <summary>\n        {i}号线开通\n    </summary>\n"
        f"    <short_text>\n        昨日，{i}号线 A&B 段开通，票价 < 3 元。\n    </short_text>\n"
        "</doc>\n"
    )


def advertisement(i: int) -> dict[str, Any]:
    return {"content": f"类型#裤*颜色#第{i}色", "summary": f"这条裤子是第{i}色的。"}


def talk(reply: Any, n: int = 4) -> Callable[[int], Any]:
    def record(i: int) -> Any:
        texts = [f"你知道第{i}首歌吗？", "知道。", "谁唱的？", "他唱的。"][:n]
        messages = [{"message": text} for text in texts]
        for at in (1, 3):
            if reply is not None and at < n:
                messages[at] = {"message": reply}
        return {"messages": messages, "name": f"歌{i}"}

    return record


PAIR = "sentence1,sentence2,label"


def pair(label: bool | int = True) -> Callable[[int], str]:
    return lambda i: f"第{i}句是什么,第{i}句怎么说" + (f",{i % 2}" if label is True else "")


@dataclass(frozen=True)
class Layout:
    """A folder, the sizes of its splits, which splits have no answers, notes and warnings."""

    task: str
    files: Files
    sizes: tuple[int, int, int]
    unlabelled: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()


LAYOUTS = {
    "CMeEE-V2": Layout(
        "cmeee",
        {
            "CMeEE-V2_train.json": array(entity, 6, 2),
            "CMeEE-V2_dev.json": array(entity, 4, 2),
            "CMeEE-V2_test.json": array(lambda i: {**entity(i), "entities": []}, 3, 2),
            "example_pred.json": array(entity, 1, 2),
            "README.txt": "说明\n",
        },
        (6, 4, 3),
        ("test",),
    ),
    "SPR of CCL 2020, dev without labels": Layout(
        "spr",
        {
            "cn_train.csv": csv(SPR + ",Label", utterance(True), 40),
            "cn_dev.csv": csv(SPR, utterance(False), 7),
            "cn_test.csv": csv(SPR, utterance(False), 6),
        },
        (36, 4, 6),
        ("test",),
        ("the dev split has no answers: every tenth record of train is dev",),
    ),
    "SPR, labels of dev and test as blanks and -1": Layout(
        "spr",
        {
            "cn_train.csv": csv(SPR + ",Label", utterance(True), 20),
            "cn_dev.csv": csv(SPR + ",Label", lambda i: utterance(False)(i) + ",", 5),
            "cn_test.csv": csv(SPR + ",Label", lambda i: utterance(False)(i) + ",-1", 5),
        },
        (18, 2, 5),
        ("test",),
        ("the dev split has no answers: every tenth record of train is dev",),
    ),
    "ChID of FewCLUE": Layout(
        "chid",
        {
            **{
                f"{split}_{n}.json": lines(idiom(True), 2)
                for split in ("train", "dev")
                for n in "01"
            },
            "train_few_all.json": lines(idiom(True), 5),
            "dev_few_all.json": lines(idiom(True), 4),
            "test.json": lines(idiom(False), 7),
            "test_public.json": lines(idiom(True), 6),
            "unlabeled.json": lines(idiom(False), 9),
        },
        (5, 4, 6),
        warnings=("test: test_public.json is scored; test.json has no answers",),
    ),
    "ChID of CLUE": Layout(
        "chid",
        {
            "train.json": lines(cloze, 5),
            "train_answer.json": json.dumps({f"#idiom{i:06d}#": i for i in range(5)}),
            "dev.json": lines(cloze, 4),
            "dev_answer.json": json.dumps({f"#idiom{i:06d}#": i for i in range(4)}),
            "test1.0.json": lines(cloze, 3),
            "test1.1.json": lines(cloze, 2),
        },
        (5, 4, 2),
        ("test",),
    ),
    "C3 of CLUE": Layout(
        "c3",
        {
            **{f"{kind}-train.json": array(dialogue(True, kind), 3) for kind in "dm"},
            **{f"{kind}-dev.json": array(dialogue(True, kind), 2) for kind in "dm"},
            "test1.0.json": array(dialogue(False), 5),
            "README.md": "C3\n",
        },
        (6, 4, 5),
        ("test",),
    ),
    "C3 of CLUE with both tests": Layout(
        "c3",
        {
            **{f"{kind}-train.json": array(dialogue(True, kind), 3) for kind in "dm"},
            **{f"{kind}-dev.json": array(dialogue(True, kind), 2) for kind in "dm"},
            "test1.0.json": array(dialogue(False), 5),
            "test1.1.json": array(dialogue(False), 6),
        },
        (6, 4, 6),
        ("test",),
    ),
    "C3 of its authors": Layout(
        "c3",
        {
            f"c3-{kind}-{split}.json": array(dialogue(True, kind), 3)
            for kind in "dm"
            for split in ("train", "dev", "test")
        },
        (6, 6, 6),
    ),
    "Math23K's one file": Layout(
        "math23k",
        {"Math_23K.json": "\n".join(map(problem, range(40))) + "\n"},
        (32, 4, 4),
        notes=(
            "of ten records of Math_23K.json one is dev",
            "of ten records of Math_23K.json one is test",
        ),
    ),
    "LCSTS' parts": Layout(
        "lcsts",
        {
            "PART_I.txt": "".join(map(doc, range(8))),
            "PART_II.txt": "".join(doc(i, i % 5 + 1) for i in range(10)),
            "PART_III.txt": "".join(doc(i, i % 5 + 1) for i in range(5)),
        },
        (8, 6, 3),
        warnings=(
            "dev: PART_II.txt: 4 pairs with a score below 3 are left out",
            "test: PART_III.txt: 2 pairs with a score below 3 are left out",
        ),
    ),
    "LCSTS in its folder DATA": Layout(
        "lcsts",
        {
            f"DATA/PART_{part}.txt": "".join(doc(i, 5) for i in range(n))
            for part, n in (("I", 4), ("II", 3), ("III", 2))
        },
        (4, 3, 2),
    ),
    "LCQMC as csv": Layout(
        "lcqmc",
        {
            f"LCQMC_{split}.csv": csv(PAIR, pair(), n)
            for split, n in zip(SPLITS, (6, 5, 4), strict=True)
        },
        (6, 5, 4),
    ),
    "LCQMC with val.tsv": Layout(
        "lcqmc",
        {
            "train.tsv": csv("text_a,text_b,label", pair(), 6, "\t"),
            "val.tsv": csv("text_a,text_b,label", pair(), 5, "\t"),
            "test.tsv": csv("text_a,text_b", pair(False), 4, "\t"),
        },
        (6, 5, 4),
        ("test",),
    ),
    "LCQMC without header": Layout(
        "lcqmc",
        {
            f"{split}.txt": "".join(pair()(i) + "\n" for i in range(9)).replace(",", "\t")
            for split in ("train", "validation", "test")
        },
        (9, 9, 9),
    ),
    "AdvertiseGen": Layout(
        "adgen",
        {"train.json": lines(advertisement, 8), "dev.json": lines(advertisement, 5)},
        (8, 5, 5),
        notes=(DEV_AS_TEST,),
    ),
    "KBQA without a dev split": Layout(
        "kbqa",
        {
            f"nlpcc-iccpol-2016.kbqa.{name}-data": "".join(
                f"<question id={i}>\t谁写了第{i}本书？\n<triple id={i}>\t书{i} ||| 作者 ||| 人{i}\n"
                f"<answer id={i}>\t人{i}\n==================================================\n"
                for i in range(n)
            )
            for name, n in (("training", 20), ("testing", 7))
        },
        (18, 2, 7),
        notes=("the official data has no dev split: every tenth record of train is dev",),
    ),
    **{
        f"KdConv, withheld as {reply!r}": Layout(
            "kdconv",
            {
                f"{domain}/{split}.json": array(talk(reply if split == "test" else None), 3)
                for domain in ("film", "music", "travel")
                for split in SPLITS
            },
            (27, 27, 18),
            ("test",),
        )
        for reply in ("", -1, "-1")
    },
}


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
