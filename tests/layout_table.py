"""Folders of datasets as they are downloaded, with invented text."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from cpm_tune.data.splits import DEV_AS_TEST
from cpm_tune.task import SPLITS

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
