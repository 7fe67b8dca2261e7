"""CPM-2's sequences, token by token: what CPM2Datasets.py of its code puts before the encoder.

Expected ids are written piece by piece, as that code does, over a small vocabulary of its form.
"""

from __future__ import annotations

from typing import Any

import pytest
from cpm2_vocabulary import WORDS, vocabulary

from cpm_tune.backbone.encdec.cpm2_tokenizer import CPM2Tokenizer
from cpm_tune.backbone.encdec.layout import EncDecLayout
from cpm_tune.backbone.example import Answer, Ids
from cpm_tune.data.encode import Encoder
from cpm_tune.planning.plan import Request, make_plan
from cpm_tune.task import Row
from cpm_tune.task.registry import load_task

TEXT = "今天北京的天气是好日子，中国人民大学生爱上海与问题"
TOKENIZER = CPM2Tokenizer(vocabulary(words=(*WORDS, *TEXT, "选项", "文章", "问题", "意思", "标题")))
IDS = {entry: index for index, entry in TOKENIZER.entries.items()}
S0 = IDS["<s_0>"]
LAYOUT = EncDecLayout(TOKENIZER, len(TOKENIZER), TOKENIZER.bos, S0, form="sentinel")


def encode(*pieces: str | int) -> Ids:
    """Pieces encoded one by one, ids as they are, as CPM-2's code does."""
    parts = ((piece,) if isinstance(piece, int) else TOKENIZER.encode(piece) for piece in pieces)
    return tuple(index for part in parts for index in part)


def contexts(name: str, template: str, row: Row, scoring: Any = None) -> tuple[Ids, ...]:
    task = load_task(name)
    chosen = task.template(template)
    assert chosen is not None
    encoder = Encoder(task, chosen, LAYOUT, TOKENIZER, 400, 20, scoring=scoring)
    return encoder.encode({"id": "1", "target": None, **row}).contexts


CHOICES = ["今天天气", "北京大学", "爱"]
LISTED = [
    part
    for numeral, choice in zip("一二三", CHOICES, strict=True)
    for part in (numeral, "、", choice, "；")
]
PAIR = {"sentence1": "天气好", "sentence2": "今天是"}
ASKED = {"question": "中国人爱问题", "passage": TEXT, "choices": CHOICES}
VERSE = {"translation": TEXT, "choices": [*CHOICES, "上海"]}


@pytest.mark.parametrize(
    ("task", "template", "row", "pieces"),
    [
        (
            *("lcqmc", "cpm-2", PAIR),
            ["“", "天气好", "”", "与", "“", "今天是", "”", "的", "意思", S0],
        ),
        ("lcqmc", "cpm-2-prompt", PAIR, ["天气好", "今天是"]),
        (
            *("c3", "cpm-2", ASKED),
            ["问题：", "中国人爱问题", "选项：", *LISTED, "文章：", TEXT],
        ),
        ("c3", "cpm-2-prompt", ASKED, ["中国人爱问题", *LISTED, TEXT]),
        (
            *("ccpm", "cpm-2", VERSE),
            ["选项：", *LISTED, "四", "、", "上海", "；", "文章：", TEXT],
        ),
        (
            *("ccpm", "cpm-2-prompt", VERSE),
            [*LISTED, "四", "、", "上海", "；", "；", TEXT],
        ),
        (
            *("kdconv", "cpm-2", {"history": "今天", "knowledge": "北京，是"}),
            ["历史：今天 图谱：北京，是"],
        ),
        ("lcsts", "cpm-2", {"text": TEXT}, [TEXT]),
        ("math23k", "cpm-2", {"problem": TEXT}, [TEXT]),
        ("wmt20_enzh", "cpm-2", {"english": "hello abc"}, ["hello abc"]),
    ],
)
def test_contexts_are_those_of_cpm_2s_code(
    task: str, template: str, row: Row, pieces: list[str | int]
) -> None:
    assert contexts(task, template, row) == (encode(*pieces),)


def test_documents_are_ranked_by_one_word_after_the_title() -> None:
    task = load_task("sogou_log")
    template = task.template("cpm-2")
    assert template is not None
    encoder = Encoder(task, template, LAYOUT, TOKENIZER, 200)
    row: Row = {"id": "1", "query": "北京大", "documents": ["今天", "上海"], "target": [1, 0]}
    example = encoder.encode(row)
    assert example.contexts == tuple(
        encode("查询：", "北京大", "标题：", title) for title in ("今天", "上海")
    )
    answer = (S0, IDS["相关"])
    assert example.candidates == (Answer(0, answer, 1), Answer(1, answer, 1))


def test_an_advertisement_follows_title_tags_and_features() -> None:
    task = load_task("adgen")
    assert task.files.rows is not None
    pairs = [["今天", "北京"], ["天气", "好"]]
    listed = ["今天", "：", "北京", "，", "天气", "：", "好", "；"]
    titled = {"title": "大学", "tags": ["爱", "上海"], "feature": pairs, "desc": "好"}
    for record, before in (
        ({"feature": pairs, "desc": "好"}, []),
        ({**titled, "tags": []}, ["大学", "；"]),
        (titled, ["大学", "；", "爱", "，", "上海", "；"]),
    ):
        (row,) = task.files.rows(record)
        assert contexts("adgen", "cpm-2", row) == (encode(*before, *listed),)


PUBLISHED = {
    # task: lr, batch, epochs of full fine-tuning; the same of prompt tuning
    "lcqmc": ((2e-6, 128, 10), (5e-3, 128, 10)),
    "c3": ((5e-6, 128, 10), (0.1, 128, 40)),
    "ccpm": ((3e-6, 64, 10), (0.05, 128, 40)),
    "sogou_log": ((5e-6, 256, 10), None),
    "kdconv": ((5e-6, 128, 5), None),
    "lcsts": ((3e-6, 128, 10), (0.1, 128, 20)),
    "math23k": ((5e-6, 256, 20), (0.1, 128, 40)),
    "wmt20_enzh": ((5e-6, 128, 1), (0.02, 128, 5)),
    "adgen": ((3e-6, 128, 10), (5e-3, 128, 20)),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_recipes_are_cpm_2s(name: str) -> None:
    for recipe, expected in zip(("cpm-2", "cpm-2-prompt"), PUBLISHED[name], strict=True):
        if expected is None:
            assert recipe not in load_task(name).recipes
            continue
        plan = make_plan(Request(task=name, recipe=recipe, delta="bitfit"))
        train = plan.spec.recipe
        assert train is not None
        assert (train.lr, train.batch_size, train.epochs) == expected
        assert {train.learning_rate(step, 100) for step in (1, 50, 100)} == {train.lr}
        assert (train.clip, train.weight_decay) == (1.0, 0.01)
        chosen = "argmax-vocabulary" if name in ("lcqmc", "c3", "ccpm") else None
        assert plan.spec.scoring == chosen
        if plan.spec.decoding is not None:
            beams = (4, 1.0) if name == "wmt20_enzh" else (1, 0.0)
            assert (plan.spec.decoding.beams, plan.spec.decoding.length_penalty) == beams
