"""Gold of real data fed back to its metrics gives the maximum."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jieba
import pytest
from conftest import REAL_DATA

from cpm_tune.metrics import get_metric, metric_names

pytestmark = pytest.mark.skipif(not REAL_DATA.is_dir(), reason="the real data is not here")

# ROUGE-2 of a text of one word is 0 by definition: one real summary is such a text.
ROUGE = tuple(n for n in metric_names() if n.startswith("rouge_") and "2_jieba" not in n)
TEXT = ("exact_match", "char_f1")


def _lines(file: str, field: str) -> Callable[[], list[Any]]:
    def read() -> list[Any]:
        text = (REAL_DATA / file).read_text(encoding="utf-8")
        return [json.loads(line)[field] for line in text.splitlines()]

    return read


def _replies() -> list[str]:
    dialogues = json.loads((REAL_DATA / "kdconv/music/dev.json").read_text(encoding="utf-8"))
    return [said["message"] for d in dialogues for said in d["messages"][1:]]


def _words() -> list[list[str]]:
    text = (REAL_DATA / "pku_seg/pku_test_gold.head.utf8").read_text(encoding="utf-8")
    return [line.split() for line in text.splitlines()]


def _entities() -> list[list[tuple[int, int, str]]]:
    rows = json.loads(Path(REAL_DATA / "cmeee/select_dev.json").read_text(encoding="utf-8"))
    return [[(e["start_idx"], e["end_idx"], e["type"]) for e in row["entities"]] for row in rows]


DATA = {
    "adgen": (
        _lines("adgen/dev.cuge.jsonl", "desc"),
        ("bleu_4_cpm2", "bleu_4", *TEXT, "rouge_1_char_f", "rouge_2_jieba_r"),
    ),
    "lcsts": (_lines("lcsts/valid.jsonl", "summary"), ROUGE),
    "kdconv": (_replies, ("bleu_1", "bleu_2", "bleu_3", "bleu_4", *TEXT)),
    "wmt20, Chinese": (_lines("wmt20_enzh/newstest2019_enzh.jsonl", "source"), ("bleu_zh",)),
    "wmt20, English": (_lines("wmt20_enzh/newstest2019_enzh.jsonl", "target"), ("bleu_13a",)),
    "pku": (_words, ("word_f1", "word_precision", "word_recall")),
    "cmeee": (_entities, ("span_f1", "span_precision", "span_recall")),
}


@pytest.mark.parametrize("name", DATA)
def test_gold_fed_back_is_the_maximum(name: str) -> None:
    read, metrics = DATA[name]
    gold = read()
    assert len(gold) >= 400
    for metric in metrics:
        score = get_metric(metric).score(gold, gold)
        top = 100 if metric.startswith("bleu") else 1
        assert (metric, score.value) == (metric, pytest.approx(top))
        assert score.n == len(gold)


def test_rouge_2_of_a_text_of_one_word_is_0() -> None:
    gold = _lines("lcsts/valid.jsonl", "summary")()
    short = sum(len(jieba.lcut(summary)) < 2 for summary in gold)
    assert short == 1
    assert get_metric("rouge_2_jieba_f").score(gold, gold).value == 1 - short / len(gold)


def test_a_wrong_segmentation_of_real_text_is_not() -> None:
    gold = _words()
    score = get_metric("word_f1").score([list("".join(words)) for words in gold], gold)
    assert 0.2 < score.low < score.value < score.high < 0.5
