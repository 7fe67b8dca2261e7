"""E-Reviews / AdvertiseGen: write an advertisement from a garment's features.
(Shao et al., EMNLP 2019)"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from cpm_tune.task import Files, Generate, NamedRecipe, Row, Source, Submission, Task, Template


def rows(record: Any) -> Iterator[Row]:
    """One advertisement in CUGE's fields (feature, desc) or AdvertiseGen's (content, summary)."""
    if "content" in record:
        parts = str(record["content"]).split("*")
        pairs = [tuple(part.split("#", 1)) for part in parts if part]
        text = record.get("summary")
    else:
        pairs, text = record["feature"], record.get("desc")
    if not isinstance(pairs, list):
        raise TypeError(f"'feature' is {type(pairs).__name__}, expected a list of names and values")
    for pair in pairs:
        whole = isinstance(pair, list | tuple) and len(pair) == 2
        if not whole or not all(isinstance(part, str) for part in pair):
            raise ValueError(f"the feature {str(pair)[:60]} is not a name and a value")
    if not pairs:
        raise ValueError("the list of features is empty")
    title, tags = record.get("title") or "", record.get("tags") or []
    if not isinstance(title, str) or not all(isinstance(tag, str) for tag in tags):
        raise TypeError("'title' is not a text, or 'tags' not a list of texts")
    shown = [f"{name}：{value}" for name, value in pairs]
    parts = [part for part in (title, "，".join(tags), "，".join(shown)) if part]
    yield {"features": "，".join(shown), "source": "".join(f"{p}；" for p in parts), "text": text}


def fill(record: dict[str, Any], predictions: Sequence[str | None]) -> dict[str, Any]:
    """The official record with the generated advertisement."""
    return {**record, "summary" if "content" in record else "desc": predictions[0] or ""}


# finetune_cpm2_adgen.sh of TsinghuaAI/CPM-2-Finetune; the batch size is that of all processes.
CPM_2 = {
    "schedule": "constant",
    "warmup": 1,
    "patience": 0,
    "clip": 1.0,
    "batch_size": 128,
    "max_length": 512,
    "beams": 1,
}

TASK = Task(
    name="adgen",
    version=1,
    capability="language generation",
    kind="data to text",
    suites=("cuge", "cpm-2"),
    source=Source(
        title="E-Reviews (AdvertiseGen): Long and Diverse Text Generation with Planning-based "
        "Hierarchical Variational Model",
        paper="https://aclanthology.org/D19-1321",
        licence="not stated",
        obtain="cuge.baai.ac.cn provides E-Reviews as train.jsonl, valid.jsonl and "
        "test_public.jsonl; AdvertiseGen is train.json and dev.json",
        sizes=(115_000, 1_000, 3_000),
        editions={"AdvertiseGen": (114_599, 1_070, None), "E-Reviews": (None, 1_070, None)},
        checksums={
            "8a4f00fba7cb619360f59d8c01dcb0a77b58704abc7c759d8c66a474551002ba": "E-Reviews"  # dev
        },
    ),
    files=Files(
        columns=("features", "source", "text"),
        aliases={"desc": "text", "summary": "text"},
        rows=rows,
    ),
    answer=Generate(column="text", max_new_tokens=160),
    templates=(
        Template("cpm-ant", "{features}。广告：{answer}"),
        Template("cpm-2", "{source}{answer}"),
    ),
    metrics=(
        "bleu_4_cpm2",
        "distinct_4",
        "distinct_3",
        "rouge_l_char_f",
        "rouge_l_char_p",
        "rouge_l_char_r",
    ),
    recipe={"lr": 5e-3, "max_length": 384, "batch_size": 32, "epochs": 20, "patience": 20},
    sample_recipe={"lr": 2e-2, "batch_size": 32, "epochs": 20},
    recipes={
        "cpm-2": NamedRecipe(
            {**CPM_2, "lr": 3e-6, "epochs": 10},
            "cpm-2",
        ),
        "cpm-2-prompt": NamedRecipe(
            {**CPM_2, "lr": 5e-3, "epochs": 20},
            "cpm-2",
        ),
    },
    published={"CPM-2, full": 10.60, "CPM-2, prompt": 8.63},
    published_source="CPM-2: Large-scale Cost-effective Pre-trained Language Models (2021)",
    protocol=(
        "A row is a list of features, written as 名：值，名：值, and the advertisement. CUGE's "
        "report scores BLEU and Distinct, and the README in its archive scores ROUGE (F1, "
        "precision, recall), so both are computed. BLEU is CPM-2's (characters, nltk's method 3), "
        "as in the published results. Their Distinct (70.22 full, 72.02 prompt, per cent) does "
        "not state whether it counts 3 or 4 characters, so both are computed, over every n-gram. "
        "ROUGE-L over characters is this project's reading of ROUGE. Prompt and recipe are this "
        "project's too; none have been published for CPM-Ant. Template cpm-2 is CPM-2's: title, "
        "tags and features (E-Reviews has neither title nor tags)."
    ),
    submission=Submission("EReviews.jsonl", fill),
)
