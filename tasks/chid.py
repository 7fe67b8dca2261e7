"""ChID: which idiom was taken out of the passage? (Zheng et al., ACL 2019)"""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from cpm_tune.data.readers import Records, json_items, json_lines, starts_with
from cpm_tune.errors import UserError
from cpm_tune.task import STEMS, BadRow, Files, NamedRecipe, Options, Row, Source, Task, Template
from cpm_tune.task.answers import is_withheld

BLANK = re.compile(r"#idiom\d*#")
SHOWN = "____"  # how the other blanks of a passage are shown
# finetune_chid_*.sh of TsinghuaAI/CPM-1-Finetune, its batch size of all processes apart.
CPM_1 = {
    "lr": 1e-5,
    "schedule": "cpm-1",
    "warmup_share": 0.1,
    "epochs": 10,
    "eval_every": 1000,
    "patience": 0,
    "clip": 1.0,
    "max_length": 1024,
}
NUMERALS = ("一", "二", "三", "四", "五", "六", "七", "八", "九", "十")


def read(paths: tuple[Path, ...], split: str) -> Records:
    """Records, one per line or in an array. The competition's answers, if their file is given, are
    added to them as "answers"."""
    content, *separate = paths
    answers = _answers(separate[0]) if separate else {}
    for where, record in (
        json_items(content) if starts_with(content) == "[" else json_lines(content)
    ):
        if answers and isinstance(record, dict):
            tags = BLANK.findall(str(record.get("content")))
            absent = [tag for tag in tags if tag not in answers]
            if absent:
                fault = f"{where}: {absent[0]} is not in {separate[0].name} (task chid)."
                yield where, BadRow(fault)
                continue
            record = {**record, "answers": {tag: answers[tag] for tag in tags}}
        yield where, record


def _answers(path: Path) -> dict[str, int]:
    """The right candidate of every blank: {"#idiom000378#": 0, ...} or lines #idiom000378#,0."""
    try:
        text = path.read_text(encoding="utf-8-sig")
        if path.suffix == ".csv":
            pairs = [line.split(",") for line in text.split()]
        else:
            pairs = json.loads(text, object_pairs_hook=list)
        return {str(tag): int(number) for tag, number in pairs}
    except (ValueError, TypeError, OverflowError, RecursionError) as error:
        raise UserError(
            f'{path}: expected answers of the form {{"#idiom000378#": 0}} (.json) or '
            f"#idiom000378#,0, one per line (.csv): {error}."
        ) from error


def rows(record: Any) -> Iterator[Row]:
    """One row per blank, with the passage before and after it: other blanks are shown in `before`
    and `after`, and removed in `left` and `right`."""
    content = record["content"]
    passages = [content] if isinstance(content, str) else content
    if not isinstance(passages, list) or not all(isinstance(text, str) for text in passages):
        raise ValueError(f"'content' is {str(content)[:40]!r}, expected a text or a list of texts")
    blanks = [(text, blank) for text in passages for blank in BLANK.finditer(text)]
    if not blanks:
        raise ValueError("no blank such as #idiom# or #idiom000378# in the content")
    if len(blanks) > 1 and "answer" in record:
        raise ValueError(f"{len(blanks)} blanks, but one answer")
    for number, (text, blank) in enumerate(blanks):
        candidates = record["candidates"]
        if candidates and isinstance(candidates[0], list):  # the paper's files: one list per blank
            candidates = candidates[number]
        row = {
            "before": BLANK.sub(SHOWN, text[: blank.start()]),
            "after": BLANK.sub(SHOWN, text[blank.end() :]),
            "left": BLANK.sub("", text[: blank.start()]),
            "right": BLANK.sub("", text[blank.end() :]),
            "candidates": candidates,
            "answer": _right(record, number, blank.group(), candidates),
        }
        name = record.get("id", blank.group().strip("#").removeprefix("idiom"))
        yield {"id": name, **row} if name not in ("", None) else row


def _right(record: Any, number: int, tag: str, candidates: Any) -> Any:
    """The number of the right candidate in the record's form; None if it is withheld."""
    if "answers" in record:
        return record["answers"][tag]
    if "groundTruth" in record and not is_withheld(record["groundTruth"]):
        idiom = record["groundTruth"][number]
        if idiom not in candidates:
            raise ValueError(f"the answer {idiom!r} is not one of the candidates")
        return candidates.index(idiom)
    return record.get("answer")


TASK = Task(
    name="chid",
    version=1,
    capability="language understanding",
    kind="idiom cloze",
    suites=("cpm-1",),
    source=Source(
        title="ChID: A Large-scale Chinese IDiom Dataset for Cloze Test",
        paper="https://aclanthology.org/P19-1075",
        licence="not stated",
        obtain="github.com/chujiezheng/ChID-Dataset, CLUE or FewCLUE; keep the files' names",
        editions={"FewCLUE": (202, 202, 2_002)},
        checksums=dict.fromkeys(
            (
                "3c947439d7d6144093dac32da66c2d20baaeec02a4bc38388f72c286da6238bc",  # train_few_all
                "9a826d6173e032e5cf73b41be48b293dc553ad306a9c8b913ffb6829abc68a2f",  # dev_few_all
                "95ced0f30b80a964994ef3eff486ba7b2880e5e4f3aa5be571eb1e88066eed4b",  # test_public
            ),
            "FewCLUE",
        ),
    ),
    files=Files(
        columns=("before", "after", "left", "right", "candidates", "answer"),
        texts=("candidates",),
        blank=("before", "after", "left", "right"),
        names={
            "train": (
                ("train.json", "train_answer.json"),
                ("train.txt", "train_answer.csv"),
                "train",
                "train_few_all.json",
            ),
            "dev": (
                ("dev.json", "dev_answer.json"),
                ("dev.txt", "dev_answer.csv"),
                *STEMS["dev"],
                "dev_few_all.json",
            ),
            "test": (
                ("test.json", "test_answer.json"),
                ("test.txt", "test_answer.csv"),
                *STEMS["test"],
                "test1.0.json",
                "test1.1.json",
            ),
        },
        replaced=("test1.0.json",),
        rows=rows,
        read=read,
    ),
    answer=Options(options="candidates", column="answer", most=10),
    templates=(
        Template("cpm-ant", "{before}{option}{after}[是否正确]", keep_end=("before",)),
        Template("filled", "{before}{option}{after}", keep_end=("before",), scoring="mean-nll"),
        Template(
            "numbered",
            "选项：{candidates}文章：{before}[？]{after}答案：{answer}",
            NUMERALS,
            keep_end=("before",),
        ),
        Template(
            "cpm-1",
            "上下文:{|}{left:strip}{<mask>}{right:strip}{<eod>}{candidates}{<mask>}答案是:{answer}",
            tuple("0123456789"),
            keep_end=("left",),
            each="选项{number}:{|}{text:strip}{<sep>}",
        ),
        Template(
            "cpm-1-zero-shot",
            "{left}{option}{right}",
            keep_end=("left",),
            scoring="mean-nll",
            counts="text",
        ),
    ),
    metrics=("accuracy",),
    recipe={"lr": 5e-3, "batch_size": 16, "max_length": 256, "epochs": 10},
    sample_recipe={"lr": 2e-2, "batch_size": 32, "epochs": 10},
    recipes={
        "cpm-1": NamedRecipe({**CPM_1, "batch_size": 64}, "cpm-1"),
        "cpm-1-medium": NamedRecipe({**CPM_1, "batch_size": 32}, "cpm-1"),
        "cpm-1-zero-shot": NamedRecipe({"max_length": 1024}, "cpm-1-zero-shot"),
    },
    published={
        "CPM-1 large, fine-tuned": 80.4,
        "CPM-1 large, zero-shot": 68.5,
        "CPM-1 medium, fine-tuned": 69.5,
        "CPM-1 medium, zero-shot": 52.4,
        "CPM-1 small, fine-tuned": 65.7,
        "CPM-1 small, zero-shot": 43.3,
    },
    published_source="CPM: A Large-scale Generative Chinese Pre-trained Language Model (2020)",
    published_scoring={
        "CPM-1 large, fine-tuned": "verbaliser-sum",
        "CPM-1 large, zero-shot": "mean-nll",
        "CPM-1 medium, fine-tuned": "verbaliser-sum",
        "CPM-1 medium, zero-shot": "mean-nll",
        "CPM-1 small, fine-tuned": "verbaliser-sum",
        "CPM-1 small, zero-shot": "mean-nll",
    },
    protocol=(
        "There is one row per blank. The files of the competition and CLUE (with answers in a "
        "separate file), of FewCLUE and of the paper are read. Each candidate is placed in its "
        "blank, and the highest logit of 是 decides; other blanks of the same passage are shown "
        "as ____. Blanks that share their candidates are answered one by one, so a candidate may "
        "be chosen twice, and a passage that is too long loses the text farthest from the blank. "
        "Templates cpm-1 (ten options numbered, the answer a digit) and cpm-1-zero-shot (the "
        "passage with each idiom, by mean-nll) are the sequences of CPM-1's code, which removes "
        "other blanks. Accuracy is over blanks, as CPM-1 counts it; editions differ in the number "
        "of candidates (7 or 10), so their scores are not comparable."
    ),
)
