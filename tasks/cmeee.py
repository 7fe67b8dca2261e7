"""CMeEE: named entities in medical text (Zhang et al., CBLUE, ACL 2022)"""

import re
from collections.abc import Collection, Sequence
from typing import Any

from cpm_tune.task import STEMS, Files, Generate, Row, Source, Submission, Task, Template

TYPES = {
    "dis": "疾病",
    "sym": "症状",
    "dru": "药物",
    "equ": "设备",
    "pro": "操作",
    "bod": "身体",
    "ite": "检验",
    "mic": "微生物",
    "dep": "科室",
}
CODES = {name: code for code, name in TYPES.items()}
NOTHING = "无"
_NAMES = "|".join(CODES)
_BETWEEN = re.compile(f"[；;\n](?=(?:{_NAMES})[：:])")
_ITEM = re.compile(f"(?P<type>{_NAMES})[：:](?P<mention>.+?)(?:（第(?P<n>[0-9]{{1,3}})处）)?", re.S)

Span = tuple[int, int, str]  # first and last character, type


def rows(record: Any) -> list[Row]:
    """The text with its entities in generation order; no answers if `entities` is missing."""
    text, entities = record["text"], record.get("entities")
    if entities is None:
        return [{"text": text}]
    if not isinstance(entities, list):
        raise TypeError(f"'entities' is {type(entities).__name__}, expected a list")
    spans = set()
    for number, entity in enumerate(entities, start=1):
        first, last, code = entity["start_idx"], entity["end_idx"], entity["type"]
        if code not in TYPES:
            raise ValueError(
                f"entity {number}: the type is '{code}', expected one of {', '.join(TYPES)}"
            )
        if not 0 <= first <= last < len(text):
            raise ValueError(f"entity {number}: {first} to {last} is not within the text")
        if entity.get("entity", text[first : last + 1]) != text[first : last + 1]:
            raise ValueError(f"entity {number}: '{entity['entity']}' is not at {first} to {last}")
        spans.add((first, last, code))
    ordered = sorted(spans, key=lambda s: (s[0], -s[1], list(TYPES).index(s[2])))
    return [{"text": text, "entities": [list(s) for s in ordered], "listed": _list(text, ordered)}]


def _list(text: str, spans: Sequence[Span]) -> str:
    """type：mention；type：mention, numbered if the occurrence is not the expected one."""
    items, before = [], list[Span]()
    for span in spans:
        first, last, code = span
        mention = text[first : last + 1]
        item = f"{TYPES[code]}：{mention}"
        if _expected(text, mention, code, before) != first:
            item += f"（第{_occurrences(text, mention).index(first) + 1}处）"
        items.append(item)
        before.append(span)
    return "；".join(items) or NOTHING


def _occurrences(text: str, mention: str) -> list[int]:
    return [at for at in range(len(text)) if text.startswith(mention, at)]


def _expected(text: str, mention: str, code: str, before: Sequence[Span]) -> int | None:
    """Where a mention without a number is: its first unused occurrence at or after the previous
    mention, else its first unused occurrence."""
    taken: Collection[Span] = set(before)
    last = len(mention) - 1
    free = [a for a in _occurrences(text, mention) if (a, a + last, code) not in taken]
    since = before[-1][0] if before else 0
    return next((at for at in free if at >= since), free[0] if free else None)


def parse(text: str, row: Row) -> list[list[Any]] | None:
    """The listed mentions as spans, without those that are not in the text."""
    if text.strip() == NOTHING:
        return []
    items = [match for item in _BETWEEN.split(text.lstrip()) if (match := _ITEM.fullmatch(item))]
    if not items:
        return None
    spans: list[Span] = []
    for item in items:
        mention, code = item["mention"], CODES[item["type"]]
        at = _expected(row["text"], mention, code, spans)
        if item["n"]:
            at = dict(enumerate(_occurrences(row["text"], mention), start=1)).get(int(item["n"]))
        if at is not None and (span := (at, at + len(mention) - 1, code)) not in spans:
            spans.append(span)
    return [list(span) for span in spans]


def fill(record: Any, predictions: Sequence[Any]) -> Any:
    """The record with the predicted entities."""
    entities = [
        {
            "start_idx": first,
            "end_idx": last,
            "type": code,
            "entity": record["text"][first : last + 1],
        }
        for first, last, code in predictions[0] or ()
    ]
    return {**record, "entities": entities}


TASK = Task(
    name="cmeee",
    version=1,
    capability="word-sentence",
    kind="named entity recognition",
    suites=("cuge",),
    source=Source(
        title="CMeEE of CBLUE: A Chinese Biomedical Language Understanding Evaluation Benchmark",
        paper="https://aclanthology.org/2022.acl-long.544",
        licence="research use, on registration",
        obtain="CBLUE on Tianchi (CMeEE_train.json and so on) or CUGE's download page",
        sizes=(15_000, 5_000, 3_000),
        editions=dict.fromkeys(("CMeEE", "CMeEE-V2"), (15_000, 5_000, 3_000)),
        checksums=dict.fromkeys(
            (
                "79352890edd0223ac42288bdf3e7c2862c8227d65b532e760457620ef5b23acc",  # dev
                "dca7d9b7cf820947bba68e14557908fdc63e9286add1b4bc34f78f245e0c7ecf",  # test
            ),
            "CMeEE-V2",
        ),
    ),
    files=Files(
        columns=("text", "entities", "listed"),
        structures=("entities",),
        names={
            "train": ("train", "CMeEE_train", "CMeEE-V2_train"),
            "dev": (*STEMS["dev"], "CMeEE_dev", "CMeEE-V2_dev"),
            "test": (*STEMS["test"], "CMeEE_test", "CMeEE-V2_test"),
        },
        rows=rows,
    ),
    answer=Generate(column="listed", gold="entities", parse=parse, max_new_tokens=320),
    templates=(Template("cpm-ant", "{text}文中的医学实体：{answer}"),),
    metrics=("span_f1", "span_precision", "span_recall"),
    recipe={"lr": 5e-3, "max_length": 1024, "batch_size": 16, "epochs": 20, "patience": 10},
    sample_recipe={"lr": 2e-2, "max_length": 384, "max_new_tokens": 160},
    protocol=(
        "The entities are generated as 类型：实体 separated by ；, in the order in which they "
        "begin in the text. Of two with the same beginning the longer comes first, so nested "
        "entities follow the one that contains them. 无 stands for no entities. A mention is "
        "mapped to its first unused occurrence at or after the previous mention, or else to its "
        "first unused occurrence (unused: not yet listed with this type). If that would be wrong, "
        "because an earlier occurrence is not an entity, the mention carries its number among all "
        "its occurrences: （第2处）. Generating and parsing share this rule, so every official "
        "row survives a round trip. Mentions that are not in the text are dropped; an answer "
        "without any item of this form is unparsed. Spans have the official inclusive ends. Micro "
        "F1 requires exact start, end and type. No recipe has been published for CPM-Ant."
    ),
    submission=Submission("CMeEE.jsonl", fill),
)
