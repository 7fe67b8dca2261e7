"""WMT20-EnZh: translate news from English into Chinese. (Barrault et al., WMT 2020)"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import zip_longest
from pathlib import Path
from typing import Any

from cpm_tune.data.readers import Layout, Records, lines, records
from cpm_tune.errors import UserError
from cpm_tune.task import (
    STEMS,
    BadRow,
    Files,
    Generate,
    NamedRecipe,
    Row,
    Source,
    Submission,
    Task,
    Template,
)
from cpm_tune.task.answers import is_withheld


def read(paths: tuple[Path, ...], split: str, layout: Layout) -> Records:
    """Records {"source": Chinese, "target": English} of a JSON file or of parallel text files.

    Raises UserError if one of two text files is longer.
    """
    if paths[0].suffix != ".en":
        for where, record in records(paths[0], ("source", "target"), {}, (), layout):
            hidden = split == "test" and isinstance(record, dict) and "source" in record
            if hidden and is_withheld(record["source"]):
                record = {**record, "source": None}
            yield where, record
        return
    if len(paths) == 1:
        for where, english in lines(paths[0]):
            yield where, english if isinstance(english, BadRow) else {"target": english}
        return
    for one, other in zip_longest(lines(paths[0]), lines(paths[1])):
        if one is None or other is None:
            short, long = paths if one is None else reversed(paths)
            raise UserError(
                f"{short}: ends before {long.name}, expected as many lines. Use the two files of "
                "one download."
            )
        where, english = one
        bad = next((side for _, side in (one, other) if isinstance(side, BadRow)), None)
        yield where, bad or {"source": other[1], "target": english}


def rows(record: Any) -> Iterator[Row]:
    """One sentence: CUGE calls the Chinese side source although it is the one to generate."""
    english, chinese = record["target"], record.get("source")
    for name, text in (("English", english), ("Chinese", chinese)):
        if isinstance(text, str) and not text.strip():
            raise ValueError(f"the {name} side is empty")
    yield {"english": english, "chinese": chinese}


def fill(record: dict[str, Any], predictions: Sequence[str | None]) -> dict[str, Any]:
    """The official record with the generated Chinese."""
    return {**record, "source": predictions[0] or ""}


# finetune_cpm2_wmt_cn.sh of TsinghuaAI/CPM-2-Finetune; the batch size is that of all processes.
CPM_2 = {
    "schedule": "constant",
    "warmup": 1,
    "patience": 0,
    "clip": 1.0,
    "batch_size": 128,
    "eval_every": 500,
    "max_length": 512,
    "beams": 4,
    "length_penalty": 1.0,
}

TASK = Task(
    name="wmt20_enzh",
    version=1,
    capability="multilingual",
    kind="translation",
    suites=("cuge", "cuge-lite", "cpm-2"),
    source=Source(
        title="Findings of the 2020 Conference on Machine Translation (news, English-Chinese)",
        paper="https://aclanthology.org/2020.wmt-1.1",
        licence="research use; every corpus in it has its own terms",
        obtain="cuge.baai.ac.cn provides train.jsonl, valid.jsonl and test_public.jsonl; parallel "
        "text is train.en with train.zh and so on",
        sizes=(21_000_000, 4_000, 4_000),
        editions={"newstest": (None, 1_997, 1_418)},
    ),
    files=Files(
        columns=("english", "chinese"),
        names={
            "train": ("train", ("train.en", "train.zh")),
            "dev": (*STEMS["dev"], ("dev.en", "dev.zh"), ("valid.en", "valid.zh")),
            "test": (*STEMS["test"], "test.en", ("test.en", "test.zh")),
        },
        rows=rows,
        read=read,
    ),
    answer=Generate(column="chinese", max_new_tokens=128),
    templates=(
        Template("cpm-ant", "英文：{english} 中文：{answer}"),
        Template("cpm-2", "{english}{answer}"),
    ),
    metrics=("bleu_zh",),
    recipe={"lr": 5e-3, "max_length": 384, "batch_size": 32, "epochs": 1, "eval_every": 500},
    sample_recipe={"lr": 2e-2, "epochs": 20, "eval_every": 50},
    recipes={
        "cpm-2": NamedRecipe(
            {**CPM_2, "lr": 5e-6, "epochs": 1},
            "cpm-2",
        ),
        "cpm-2-prompt": NamedRecipe(
            {**CPM_2, "lr": 0.02, "epochs": 5},
            "cpm-2",
        ),
    },
    published={
        "CPM-2": 26.2,
        "CPM-2, prompt": 24.13,
        "mT5-XXL": 24.0,
        "mT5-large": 11.1,
        "mT5-small": 9.1,
    },
    published_source="CUGE lite board; prompt tuning: CPM-2 report (2021)",
    protocol=(
        "The task translates English to Chinese. CUGE's files call the Chinese side source and "
        "the English one target. The direction follows from the name (En-Zh), from the scorer "
        "(BLEU with sacrebleu's Chinese tokeniser) and from CPM-2's released code, which reads "
        "target and generates source. The published results are of this direction. A row with an "
        "empty side is an error. Prompt and recipe are this project's (one epoch, as in CPM-2's "
        "full fine-tuning); none have been published for CPM-Ant, whose vocabulary has little "
        "English."
    ),
    submission=Submission("WMT20EnZh.jsonl", fill),
)
