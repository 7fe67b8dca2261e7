"""STC: answer a short post. (Shang et al., ACL 2015)"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

from cpm_tune.data.readers import Records, json_items
from cpm_tune.task import Files, Generate, NamedRecipe, Row, Source, Task, Template
from cpm_tune.task.answers import is_withheld

ARRAYS = {"train": "train", "dev": "valid", "test": "test"}


def read(paths: tuple[Path, ...], split: str) -> Records:
    """Items [post, response, …] of a split's array.

    Training has one item per response; dev and test have one per post with all of its responses,
    and are small enough to fit in memory.
    """
    items = json_items(paths[0], ARRAYS[split])
    if split == "train":
        yield from ((where, one) for where, item in items for one in each_response(item))
        return
    posts: dict[str, tuple[str, list[Any]]] = {}
    for where, item in items:
        if split == "test" and isinstance(item, list) and is_withheld(item[1:]):
            item = item[:1]
        if not isinstance(item, list) or not item or not isinstance(item[0], str):
            yield where, item
        elif item[0] in posts:
            posts[item[0]][1].extend(item[1:])
        else:
            posts[item[0]] = where, list(item)
    yield from posts.values()


def each_response(item: Any) -> list[Any]:
    """[post, a, b] as [post, a] and [post, b]; anything else unchanged."""
    if not isinstance(item, list) or len(item) < 3:
        return [item]
    return [[item[0], response] for response in item[1:]]


def rows(record: Any) -> Iterator[Row]:
    """One post with its responses; the first one is learned."""
    if not isinstance(record, list) or not record:
        raise TypeError("expected a list of a post and its responses")
    if not all(isinstance(text, str) for text in record):
        raise ValueError("the post or a response is not a text")
    post, *responses = map(joined, record)
    if not all((post, *responses)):
        raise ValueError("the post or a response is empty")
    yield {
        "post": post,
        "response": responses[0] if responses else None,
        "references": responses or None,
    }


def joined(text: str) -> str:
    """A text without the spaces between its words or characters.

    A space stays between two words of ASCII letters or digits, unless both are single ones.
    """
    words = text.split()
    parts = words[:1]
    for before, word in pairwise(words):
        spelled = (before + word).isascii() and (before[-1] + word[0]).isalnum()
        parts.append(f" {word}" if spelled and len(before + word) > 2 else word)
    return "".join(parts)


TASK = Task(
    name="stc",
    version=1,
    capability="conversational interaction",
    kind="short-text conversation",
    suites=("cpm-1",),
    source=Source(
        title="Neural Responding Machine for Short-Text Conversation",
        paper="https://aclanthology.org/P15-1152",
        licence="research use",
        obtain="STC.json (train and valid) and STC_test.json in one folder",
    ),
    files=Files(
        columns=("post", "response", "references"),
        structures=("references",),
        names={
            "train": ("STC.json", "train.json"),
            "dev": ("STC.json", "valid.json"),
            "test": ("STC_test.json", "test.json"),
        },
        rows=rows,
        read=read,
    ),
    answer=Generate(column="response", gold="references", max_new_tokens=32),
    templates=(
        Template("cpm-ant", "{post}回复：{answer}"),
        Template("cpm-2", "对话上文:{post} 回复:{answer}"),
        Template(
            "cpm-1",
            "对话上文:{post} 回复:{answer}",
            end="\n",
            counts="text",
            metrics=("embedding_average",),
        ),
    ),
    metrics=("bleu_4", "distinct_1", "distinct_2", "perplexity"),
    recipe={"lr": 5e-3, "max_length": 128, "batch_size": 64, "epochs": 10, "eval_every": 200},
    sample_recipe={"lr": 2e-2, "batch_size": 32, "epochs": 20, "eval_every": 50},
    recipes={
        "cpm-1": NamedRecipe(  # finetune_lm_large.sh of TsinghuaAI/CPM-1-Finetune
            {
                "lr": 1e-5,
                "schedule": "cpm-1",
                "warmup_share": 0.1,
                "batch_size": 256,
                "epochs": 1,
                "rows_share": 0.1,
                "eval_every": 100,
                "patience": 0,
                "clip": 1.0,
                "max_length": 201,
            },
            "cpm-1",
        )
    },
    protocol=(
        "The files separate words or characters by spaces. They are joined; a space stays only "
        "between two words of Latin letters or digits, at least one of which has several "
        "characters. A post with several responses is one training row per response. In dev and "
        "test it is one row with all responses as references, wherever they are in the file. The "
        "metrics are BLEU-4 and Distinct over characters. Perplexity is that of the first "
        "response per token of the backbone's vocabulary, so it is comparable only between runs "
        "with one vocabulary. STC is not part of CUGE. Prompt cpm-2 is the wording of CPM-1 and "
        "CPM-2. Prompt cpm-1 is the line of CPM-1's code: post, response and newline are one text, "
        "all of which is learnt, and perplexity is over all of its tokens but the first. The "
        "embedding_average is what a table of BI-V100 runs calls accuracy: it is none. The "
        "recipe is this project's; recipe cpm-1 is CPM-1's, on the first tenth of train."
    ),
)
