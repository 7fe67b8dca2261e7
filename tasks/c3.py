"""C3: multiple-choice questions on dialogues and mixed-genre texts (Sun et al., TACL 2020)"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from cpm_tune.data.readers import Records, in_turn, json_items, json_lines
from cpm_tune.task import (
    STEMS,
    Files,
    NamedRecipe,
    Options,
    Row,
    Source,
    Submission,
    Task,
    Template,
)
from cpm_tune.task.answers import is_withheld


def read(paths: tuple[Path, ...], split: str) -> Records:
    """Records are arrays: the items of one array, or one per line of a .jsonl file."""
    return in_turn(paths, lambda p: json_lines(p) if p.suffix == ".jsonl" else json_items(p))


def rows(record: Any) -> Iterator[Row]:
    """One row per question of [[line, ...], [question, ...], id]."""
    if not isinstance(record, list) or len(record) != 3:
        raise ValueError("expected an array of lines, questions and id")
    lines, questions, name = record
    if not isinstance(lines, list) or not all(isinstance(line, str) for line in lines):
        raise ValueError(f"the text is {_short(lines)}, expected an array of lines")
    if not isinstance(questions, list):
        raise TypeError(f"the questions are {_short(questions)}, expected an array of objects")
    for number, asked in enumerate(questions, start=1):
        choices, answer = asked["choice"], asked.get("answer")
        if is_withheld(answer) and answer not in choices:
            answer = None
        if answer is not None and answer not in choices:
            raise ValueError(f"question {number}: the answer {answer!r} is not one of the choices")
        yield {
            "id": f"{name}-{number}" if name not in (None, "") else None,
            "passage": "\n".join(lines),
            "question": asked["question"],
            "choices": choices,
            "answer": None if answer is None else choices.index(answer),
        }


def _short(value: Any) -> str:
    short = repr(value)
    return short if len(short) <= 40 else short[:37] + "..."


def fill(record: Any, predictions: Sequence[Any]) -> Any:
    """The official record with the chosen texts as answers."""
    lines, questions, name = record
    answered = [
        {**asked, "answer": asked["choice"][choice]}
        for asked, choice in zip(questions, predictions, strict=True)
    ]
    return [lines, answered, name]


# finetune_cpm2_c3.sh of TsinghuaAI/CPM-2-Finetune; the batch size is that of all processes.
CPM_2 = {
    "schedule": "constant",
    "warmup": 1,
    "patience": 0,
    "clip": 1.0,
    "batch_size": 128,
    "max_length": 772,
}

TASK = Task(
    name="c3",
    version=1,
    capability="discourse",
    kind="reading comprehension",
    suites=("cuge", "cuge-lite", "cpm-2"),
    source=Source(
        title="Investigating Prior Knowledge for Challenging Chinese Machine Reading Comprehension",
        paper="https://arxiv.org/abs/1904.09679",
        licence="non-commercial research only",
        obtain="CUGE's C3.zip, or github.com/nlpdata/c3; keep the files' names",
        sizes=(11_900, 3_816, 3_900),
        editions={"C3 1.0": (11_869, 3_816, 3_892)},
        checksums=dict.fromkeys(
            (
                "baf81f327dee84c6f451c9a4dd662e6193c67473b8791ffb72cce75cdb528f20",  # d-train
                "4c84a534f1eec2c72e5f60f0c044cc39e2e42a88df01134e677e03217472d6af",  # m-train
                "8c7054930a40aeb288ad7c51c42fa93d54aef678ccab29c75d46a7432f4f6278",  # d-dev
                "357d0d8d2a29bc845cbe50e048c263629f5e527b70f24c3e0838c387c8d3cb54",  # m-dev
                "e9920491b31f9d00ecf31e51727b495dd6b0d05f4a96f273a343e81b6775a8f0",  # d-test
                "7d8074be56cf574536a3284bc2d6b04d137694d5e5f5b1368143c0cf3e336822",  # m-test
            ),
            "C3 1.0",
        ),
    ),
    files=Files(
        columns=("passage", "question", "choices", "answer"),
        texts=("choices",),
        names={
            "train": (
                ("c3-d-train.json", "c3-m-train.json"),
                ("d-train.json", "m-train.json"),
                "train",
            ),
            "dev": (
                ("c3-d-dev.json", "c3-m-dev.json"),
                ("d-dev.json", "m-dev.json"),
                *STEMS["dev"],
            ),
            "test": (
                ("c3-d-test.json", "c3-m-test.json"),
                ("d-test.json", "m-test.json"),
                *STEMS["test"],
                "test1.0.json",
                "test1.1.json",
            ),
        },
        replaced=("test1.0.json",),
        rows=rows,
        read=read,
    ),
    answer=Options(options="choices", column="answer", most=4),
    templates=(
        Template("cpm-ant", "{passage}问题：{question}答案：{option}[是否正确]"),
        Template(
            "cpm-2",
            "问题：{question}{|}选项：{choices}文章：{passage}{answer}",
            ("一", "二", "三", "四"),
            version=2,
            each="{numeral}、{text}；",
        ),
        Template(
            "cpm-2-prompt",
            "{question}{|}{choices}{passage}{answer}",
            ("一", "二", "三", "四"),
            each="{numeral}、{text}；",
        ),
    ),
    earlier_templates=(
        Template(
            "cpm-2",
            "问题：{question}选项：{choices}文章：{passage}答案：{answer}",
            ("一", "二", "三", "四"),
        ),
    ),
    metrics=("accuracy",),
    recipe={"lr": 1e-3, "batch_size": 6, "max_length": 1024, "epochs": 20},
    sample_recipe={"lr": 2e-2, "batch_size": 32, "max_length": 384, "epochs": 10},
    recipes={
        "cpm-2": NamedRecipe(
            {**CPM_2, "lr": 5e-6, "epochs": 10},
            "cpm-2",
            "argmax-vocabulary",
        ),
        "cpm-2-prompt": NamedRecipe(
            {**CPM_2, "lr": 0.1, "epochs": 40},
            "cpm-2-prompt",
            "argmax-vocabulary",
        ),
    },
    published={
        "mT5-XXL, full": 86.4,
        "CPM-2, full": 86.1,
        "CPM-2, prompt": 85.33,
        "mT5-large, full": 56.3,
        "mT5-small, full": 41.5,
    },
    published_source="CUGE lite leaderboard; CPM-2 (2021) for prompt tuning",
    published_scoring={"CPM-2, full": "argmax-vocabulary", "CPM-2, prompt": "argmax-vocabulary"},
    protocol=(
        "The dialogue part and the mixed part are read together, with one row per question. By "
        "default, each choice is placed after text and question, and the highest logit of 是 "
        "decides. Template cpm-2 is CPM-2's: it lists the choices and chooses among 一 to 四, as "
        "many as the question has. All lines of a text are shown, separated by newlines (CPM-2's "
        "code takes the first line only). A text that is too long loses its end. Accuracy is over "
        "questions."
    ),
    # Lines of records; the organisers' file is the array of them.
    submission=Submission("C3.jsonl", fill),
)
