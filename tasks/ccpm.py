"""CCPM: which line of classical verse does a modern translation render? (Li et al., 2021)"""

from collections.abc import Sequence
from typing import Any

from cpm_tune.task import Files, NamedRecipe, Options, Source, Submission, Task, Template


def fill(record: Any, predictions: Sequence[Any]) -> Any:
    """The official record with the number of the chosen line."""
    return {**record, "answer": predictions[0]}


# finetune_cpm2_ccpm.sh of TsinghuaAI/CPM-2-Finetune; the batch size is that of all processes.
CPM_2 = {
    "schedule": "constant",
    "warmup": 1,
    "patience": 0,
    "clip": 1.0,
    "max_length": 512,
}

TASK = Task(
    name="ccpm",
    version=1,
    capability="word-sentence",
    kind="classical poetry matching",
    suites=("cuge", "cuge-lite", "cpm-2"),
    source=Source(
        title="CCPM: A Chinese Classical Poetry Matching Dataset",
        paper="https://arxiv.org/abs/2106.01979",
        licence="not stated",
        obtain="CUGE's CCPM.zip, or github.com/THUNLP-AIPoet/CCPM; keep the files' names",
        sizes=(21_800, 2_720, 2_700),
        editions={"CCPM": (21_778, 2_720, 2_720)},
        checksums={
            "65e686c64b77635832e826d68b0d78300752c8c4d7fe7a830ddb0a6ae85bf784": "CCPM"  # valid
        },
    ),
    files=Files(columns=("translation", "choices", "answer"), texts=("choices",)),
    answer=Options(options="choices", column="answer", most=4),
    templates=(
        Template("cpm-ant", "译文：{translation}原句：{option}[是否正确]"),
        Template(
            "cpm-2",
            "选项：{choices}文章：{translation}{answer}",
            ("一", "二", "三", "四"),
            version=2,
            each="{numeral}、{text}；",
        ),
        Template(
            "cpm-2-prompt",
            "{choices}；{translation}{answer}",
            ("一", "二", "三", "四"),
            each="{numeral}、{text}；",
        ),
    ),
    earlier_templates=(
        Template(
            "cpm-2",
            "选项：{choices}文章：{translation}答案：{answer}",
            ("一", "二", "三", "四"),
        ),
    ),
    metrics=("accuracy",),
    recipe={"lr": 5e-3, "batch_size": 32, "max_length": 256, "epochs": 20},
    sample_recipe={"lr": 2e-2, "batch_size": 16, "epochs": 10},
    recipes={
        "cpm-2": NamedRecipe(
            {**CPM_2, "lr": 3e-6, "batch_size": 64, "epochs": 10},
            "cpm-2",
            "argmax-vocabulary",
        ),
        "cpm-2-prompt": NamedRecipe(
            {**CPM_2, "lr": 0.05, "batch_size": 128, "epochs": 40},
            "cpm-2-prompt",
            "argmax-vocabulary",
        ),
    },
    published={
        "CPM-2, full": 91.6,
        "CPM-2, prompt": 90.85,
        "mT5-XXL, full": 90.6,
        "mT5-large, full": 89.9,
        "mT5-small, full": 87.7,
    },
    published_source="CUGE lite leaderboard; CPM-2 (2021) for prompt tuning",
    published_scoring={"CPM-2, full": "argmax-vocabulary", "CPM-2, prompt": "argmax-vocabulary"},
    protocol=(
        "A row is a translation and four lines of verse. By default, each line is placed after "
        "the translation, and the line with the highest logit of 是 is chosen. Template cpm-2 is "
        "CPM-2's: it lists the lines and chooses among 一, 二, 三, 四. CUGE's report names F1 for "
        "this dataset, but its own eval.py computes accuracy, and so does this task."
    ),
    submission=Submission("CCPM.jsonl", fill),
)
