"""KdConv: the next message of a dialogue about films, music or travel, from the knowledge given
for it. (Zhou et al., ACL 2020)"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from cpm_tune.data.readers import Layout, Records, records_of
from cpm_tune.task import (
    STEMS,
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

TRIPLE = ("name", "attrname", "attrvalue")
DOMAINS = ("film", "music", "travel")


def read(paths: tuple[Path, ...], split: str, layout: Layout) -> Records:
    """The dialogues. If every dialogue of a test split has blank messages after the first (or -1),
    these are withheld, as those without text are."""
    dialogues = records_of(paths, (), {}, (), layout)
    if split != "test" or not all(
        any(map(_blank, _later(d))) for _, d in records_of(paths, (), {})
    ):
        yield from dialogues
        return
    for where, dialogue in dialogues:
        first, *later = dialogue["messages"]
        messages = [{**m, "message": None} if _blank(m) else m for m in later]
        yield where, {**dialogue, "messages": [first, *messages]}


def _later(dialogue: Any) -> list[Any]:
    messages = dialogue.get("messages") if isinstance(dialogue, dict) else None
    return messages[1:] if isinstance(messages, list) else []


def _blank(message: Any) -> bool:
    return isinstance(message, dict) and is_withheld(message.get("message"))


def rows(record: Any) -> Iterator[Row]:
    """One row per message to generate, with the earlier messages and the message's triples."""
    messages = record["messages"]
    if not isinstance(messages, list) or len(messages) < 2:
        raise ValueError("'messages' is not a list of at least two")
    for number in to_write(messages):
        before = [message["message"] for message in messages[:number] if has_text(message)]
        yield {
            "history": "\n".join(before),
            "knowledge": knowledge(messages[number]),
            "reply": messages[number].get("message"),
        }


def has_text(message: dict[str, Any]) -> bool:
    """Whether the message has its text; a test split may withhold it."""
    return message.get("message") is not None


def to_write(messages: list[dict[str, Any]]) -> list[int]:
    """The messages that are rows: the withheld ones, or all but the first."""
    if not all(isinstance(message, dict) for message in messages):
        raise TypeError("a message is not an object")
    if not has_text(messages[0]):
        raise ValueError("the first message has no text")
    hidden = [number for number, message in enumerate(messages) if number and not has_text(message)]
    return hidden or list(range(1, len(messages)))


def knowledge(message: dict[str, Any]) -> str:
    """A message's triples as "head，relation，tail；…"."""
    triples = message.get("attrs") or []
    for triple in triples:
        for key in TRIPLE:
            if not isinstance(triple[key], str | int | float):
                raise TypeError(f"'{key}' of a triple is {triple[key]!r}, expected text")
    return "；".join("，".join(str(triple[key]) for key in TRIPLE) for triple in triples)


def fill(record: dict[str, Any], predictions: Sequence[str | None]) -> dict[str, Any]:
    """The official dialogue with the generated messages."""
    messages = [dict(message) for message in record["messages"]]
    for number, text in zip(to_write(messages), predictions, strict=True):
        messages[number]["message"] = text or ""
    return {**record, "messages": messages}


def read_replies(record: Any, official: Any, rows: Sequence[Row]) -> list[str | None]:
    """The submitted messages of a dialogue, whose history is the official one."""
    messages, ours = record["messages"], official["messages"]
    for given, official_message in zip(messages, ours, strict=True):
        if knowledge(given) != knowledge(official_message):
            raise ValueError("the dialogue's triples differ from the official ones")
    if messages[0]["message"] != ours[0]["message"]:
        raise ValueError(
            f"the dialogue begins with another message: {str(messages[0]['message'])[:40]!r}"
        )
    return [messages[number].get("message") for number in to_write(ours)]


# finetune_cpm2_kdconv.sh of TsinghuaAI/CPM-2-Finetune; the batch size is that of all processes.
CPM_2 = {
    "schedule": "constant",
    "warmup": 1,
    "patience": 0,
    "clip": 1.0,
    "batch_size": 128,
    "epochs": 5,
    "max_length": 768,
    "beams": 1,
}

TASK = Task(
    name="kdconv",
    version=1,
    capability="conversational interaction",
    kind="knowledge-driven dialogue",
    suites=("cuge", "cuge-lite", "cpm-2"),
    source=Source(
        title="KdConv: A Chinese Multi-domain Dialogue Dataset Towards Multi-turn "
        "Knowledge-driven Conversation",
        paper="https://aclanthology.org/2020.acl-main.635",
        licence="Apache-2.0",
        obtain="github.com/thu-coai/KdConv, folder data (film, music and travel side by side); "
        "cuge.baai.ac.cn provides train.jsonl, valid.jsonl and test_public.jsonl",
        sizes=(62_900, 9_000, 9_100),
    ),
    files=Files(
        columns=("history", "knowledge", "reply"),
        blank=("knowledge",),
        names={
            "train": ("train", "*/train.json"),
            "dev": (*STEMS["dev"], "*/dev.json"),
            "test": (*STEMS["test"], "*/test.json"),
        },
        parts=DOMAINS,
        read=read,
        rows=rows,
    ),
    answer=Generate(column="reply", max_new_tokens=50),
    templates=(
        Template("cpm-ant", "{knowledge}对话：{history}回复：{answer}", keep_end=("history",)),
        Template("cpm-2", "历史：{history} 图谱：{knowledge}{answer}", keep_end=("history",)),
    ),
    metrics=(
        *("bleu_4", "bleu_1", "bleu_2", "bleu_3", "bleu_4_cpm2"),
        *("distinct_1", "distinct_2", "distinct_3", "distinct_4"),
    ),
    recipe={"lr": 5e-3, "max_length": 1500, "batch_size": 12, "epochs": 100},
    sample_recipe={"lr": 2e-2, "batch_size": 32, "epochs": 20},
    recipes={
        "cpm-2": NamedRecipe(
            {**CPM_2, "lr": 5e-6},
            "cpm-2",
        ),
    },
    published={
        "CPM-2": 13.12,
        "mT5-XXL": 12.68,
        "mT5-large": 9.76,
        "mT5-small": 8.76,
    },
    published_source="CUGE lite board",
    protocol=(
        "Every message of a dialogue except the first is a row (apart from messages that a test "
        "split withholds, if any). Its prompt has all earlier messages, one per line, and the "
        "triples annotated on that very message, the gold knowledge. The dataset's own memory "
        "models see the triples of the whole dialogue and learn to choose among them, so the "
        "setting here is easier. A history that is too long loses its beginning. The metrics are "
        "BLEU-1 to -4 and Distinct-1 to -4 over characters, for the three domains together; a run "
        "lists missing domains. CUGE's board does not state which BLEU it shows; CPM-2's scorer "
        "computes bleu_4_cpm2."
    ),
    submission=Submission("KdConv.jsonl", fill, read=read_replies),
)
