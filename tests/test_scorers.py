"""Metrics that equal a public scorer: what the scorer gave once for seeded cases, frozen here."""

from __future__ import annotations

import hashlib
import json
import random
import time
from pathlib import Path
from typing import Any

import pytest
from conftest import CLI
from scorer_cases import corrections, segmentations, spaced_texts

from cpm_tune.data.splits import SplitFile
from cpm_tune.data.store import read_split
from cpm_tune.errors import UserError
from cpm_tune.leaderboard.rescore import rescore_results
from cpm_tune.leaderboard.verify import verify_results
from cpm_tune.metrics import get_metric, metric_names
from cpm_tune.metrics.m2 import annotator_counts
from cpm_tune.schema.record import read_any_record, write_record
from cpm_tune.systems.predictions import read_predictions, score_predictions
from cpm_tune.systems.submission import read_answers, write_submission
from cpm_tune.task.registry import load_task

# Corrections, by the scorer in the corpus' repository (blcuicall/YACLC, eval_scripts/m2scorer.py,
# Python 2.7.18) with every character as a word: correct, proposed and gold edits of all sentences.
M2 = [(1000, 1, 0.12, (971, 1681, 1298)), (300, 2, 0.25, (518, 887, 769))]
M2 += [(200, 3, 0.45, (465, 850, 818))]


@pytest.mark.parametrize(("n", "seed", "rate", "expected"), M2)
def test_corrections_are_counted_as_the_m2_scorer_does(
    n: int, seed: int, rate: float, expected: tuple[int, int, int]
) -> None:
    predictions, targets = zip(*corrections(n, seed, rate), strict=True)
    correct, proposed, gold = expected
    values = [
        get_metric(f"m2_{m}").score(predictions, targets).value
        for m in ("precision", "recall", "f0.5")
    ]
    p, r = correct / proposed, correct / gold
    assert values == pytest.approx([p, r, 1.25 * p * r / (0.25 * p + r)], rel=1e-12)


def test_every_annotator_of_every_sentence_is_counted_as_the_m2_scorer_does() -> None:
    """The digest is that of the scorer's own output with -v."""
    began, counts = time.monotonic(), []
    for predicted, target in corrections(1000, 1, 0.12):
        golds = tuple(tuple((a, b, text) for a, b, text in edits) for edits in target["edits"])
        counts.append(annotator_counts(target["source"], predicted, golds))
    assert time.monotonic() - began < 60  # 2 seconds on an idle core
    digest = hashlib.sha256(json.dumps(counts).encode()).hexdigest()
    assert digest.startswith("d4c29515ad7e9952")


def m2(predicted: str | None, source: str, *golds: list[Any]) -> list[float]:
    target = {"source": source, "edits": golds}
    return [
        get_metric(f"m2_{m}").score([predicted], [target]).value for m in ("precision", "recall")
    ]


@pytest.mark.parametrize(
    ("source", "predicted", "golds", "expected"),
    [
        # Two changes with two characters between them are one edit, if gold has it so, or two.
        ("他做在那儿", "她做在这儿", [[[0, 1, "她"], [3, 4, "这"]]], (1, 1)),
        ("他做在那儿", "她做在这儿", [[[0, 4, "她做在这"]]], (1, 1)),
        ("他做在那儿", "她做在这儿", [[[0, 1, "它"]]], (0, 0)),
        # 吃了饭了: which of the two 了 was inserted follows gold.
        ("吃了饭", "吃了了饭", [[[1, 1, "了"]]], (1, 1)),
        ("吃了饭", "吃了了饭", [[[2, 2, "了"]]], (1, 1)),
        # The second annotator agrees better.
        ("我去了昨天", "我昨天去了", [[[0, 1, "他"]], [[1, 1, "昨天"], [3, 5, ""]]], (1, 1)),
        # Whitespace is not compared, and moves no edit.
        ("我 做 在", "我坐 在", [[[2, 3, "坐"]]], (1, 1)),
        ("我做在", None, [[[1, 2, "坐"]]], (0, 0)),
        ("我来了", None, [[]], (1, 1)),
    ],
)
def test_corrections_by_hand(
    source: str, predicted: str | None, golds: list[Any], expected: tuple[float, float]
) -> None:
    assert m2(predicted, source, *golds) == list(expected)


def test_which_annotator_counts_depends_on_the_sentences_before() -> None:
    """A miss of one edit and a miss of two are the same to the first sentence; the fewest count."""
    miss = {"source": "我来了", "edits": [[[0, 1, "他"], [2, 2, "过"]], [[0, 1, "你"]]]}
    right = {"source": "他做", "edits": [[[1, 2, "坐"]]]}
    recall = get_metric("m2_recall").score
    assert recall(["我来了", "他坐"], [miss, right]).value == 1 / 2


@pytest.mark.parametrize("n", [1_500, 100_000])
def test_a_long_text_is_compared_in_bounded_time(n: int) -> None:
    began = time.monotonic()
    assert m2("的" * n + "了" + "是" * n, "的" * n + "过" + "是" * n, [[n, n + 1, "了"]]) == [1, 1]
    m2("我" * n, "的" * n, [[0, 1, "了"]])
    assert time.monotonic() - began < 20


# Segmentations, by icwb2's script (icwb2-data/scripts/score with GNU diff): words that are right,
# and words of the test file; the gold file has 21,811. Where much is wrong, diff finds some equal
# words at other places of the line.
ICWB2 = [(0.03, 20_184, 21_733, 1e-12), (0.07, 18_025, 21_545, 1e-4), (0.2, 12_218, 20_907, 2e-4)]


@pytest.mark.parametrize(("rate", "right", "given", "apart"), ICWB2)
def test_words_are_counted_as_icwb2s_script_does_on_whole_lines(
    rate: float, right: int, given: int, apart: float, tmp_path: Path
) -> None:
    gold, test = zip(*segmentations(1000, 1, rate), strict=True)
    official, submitted = tmp_path / "pku_test_gold.utf8", tmp_path / "mine.txt"
    for path, content in ((official, gold), (submitted, test)):
        path.write_text("".join("  ".join(words) + "\n" for words in content), encoding="utf-8")
    answers, form = read_answers(
        load_task("pku_seg"), submitted, SplitFile("test", (official,), "")
    )
    assert form == "submission"
    assert len(answers) > 2_000  # sentences
    values = [
        get_metric(f"word_{m}")
        .score([a.prediction for a in answers], [a.target for a in answers])
        .value
        for m in ("precision", "recall")
    ]
    assert values == pytest.approx([right / given, right / 21_811], abs=apart)


def test_a_word_over_a_sentences_end_is_one_word_and_wrong(tmp_path: Path) -> None:
    """icwb2's script counts 3 of 5 and 3 of 4."""
    official, submitted = tmp_path / "test.txt", tmp_path / "mine.txt"
    official.write_text("很  好  。  走  吧\n", encoding="utf-8")
    submitted.write_text("很  好  。走  吧\n", encoding="utf-8")
    task, data = load_task("pku_seg"), SplitFile("test", (official,), "")
    answers, _ = read_answers(task, submitted, data)
    assert [a.prediction for a in answers] == [["很", "好", "。走"], [1, "吧"]]
    scores = [
        get_metric(f"word_{m}")
        .score([a.prediction for a in answers], [a.target for a in answers])
        .value
        for m in ("precision", "recall", "f1")
    ]
    assert scores == pytest.approx([3 / 4, 3 / 5, 2 / 3])
    listed = tmp_path / "mine.jsonl"  # the same as predictions.jsonl
    lines = ({"id": a.id, "prediction": a.prediction} for a in answers)
    listed.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    assert read_answers(task, listed, data) == (answers, "predictions.jsonl")


@pytest.mark.parametrize(
    ("given", "counts"),
    [
        ("好。走吧。来。", (0, 1)),
        ("好  。走吧。来  。", (2, 3)),
        ("好  。  走吧。  来  。", (4, 5)),
    ],
)
def test_a_word_may_hold_a_whole_sentence(
    given: str, counts: tuple[int, int], tmp_path: Path
) -> None:
    official, submitted = tmp_path / "test.txt", tmp_path / "mine.txt"
    official.write_text("好  。  走  吧  。  来  。\n", encoding="utf-8")
    submitted.write_text(given + "\n" + given, encoding="utf-8")
    official.write_text(official.read_text(encoding="utf-8") * 2, encoding="utf-8")
    answers, _ = read_answers(load_task("pku_seg"), submitted, SplitFile("test", (official,), ""))
    score = get_metric("word_precision").score
    right, words = counts
    value = score([a.prediction for a in answers], [a.target for a in answers]).value
    assert value == pytest.approx(right / words)


def test_a_sentence_that_could_not_be_parsed_is_one_word_as_in_the_submission() -> None:
    gold = [["很", "好"], ["走"]]
    whole = get_metric("word_precision").score([["很好"], ["走"]], gold).value
    assert get_metric("word_precision").score([None, None], gold).value == whole == 1 / 2


# YACLC's own submission: a text file, a line per sentence, in words of THULAC


def yaclc(folder: Path) -> SplitFile:
    """Three sentences as in the corpus' test file, with answers."""
    path = folder / "test.jsonl"
    texts = {"他比我很高。": "他比我高。", "我来了。": "我来了。", "你做在哪儿？": "你坐在哪儿？"}
    path.write_text(
        "".join(
            json.dumps(
                {
                    "sentence_text": text,
                    "sentence_annos": [{"is_grammatical": 1, "correction": correction}],
                }
            )
            + "\n"
            for text, correction in texts.items()
        ),
        encoding="utf-8",
    )
    return SplitFile("test", (path,), "")


def test_a_text_file_of_corrections_is_read_segmented_or_not(tmp_path: Path) -> None:
    data, path = yaclc(tmp_path), tmp_path / "mine.txt"
    path.write_text("他 比 我 高 。\n我来了。\n你\u3000坐 在 哪儿 ？\n\n", encoding="utf-8")
    answers, form = read_answers(load_task("yaclc"), path, data)
    assert form == "submission"
    assert [a.prediction for a in answers] == ["他比我高。", "我来了。", "你坐在哪儿？"]
    score = get_metric("m2_f0.5").score
    assert score([a.prediction for a in answers], [a.target for a in answers]).value == 1


def test_a_text_file_with_a_line_too_few_is_refused(tmp_path: Path) -> None:
    data, path = yaclc(tmp_path), tmp_path / "mine.txt"
    path.write_text("他比我高。\n\n", encoding="utf-8")
    with pytest.raises(UserError, match=r"mine\.txt: 1 records, but test\.jsonl has 3"):
        read_answers(load_task("yaclc"), path, data)


def test_records_in_another_order_are_refused(tmp_path: Path) -> None:
    data, path = yaclc(tmp_path), tmp_path / "mine.jsonl"
    lines = data.path.read_text(encoding="utf-8").splitlines()
    path.write_text("\n".join(lines[::-1]), encoding="utf-8")
    with pytest.raises(UserError, match="'你做在哪儿？', in the data '他比我很高。'; keep the"):
        read_answers(load_task("yaclc"), path, data)


def test_both_forms_of_a_submission_are_written_and_say_the_same(tmp_path: Path) -> None:
    task, data = load_task("yaclc"), yaclc(tmp_path)
    made = tmp_path / "out" / "YACLC.jsonl"
    made.parent.mkdir()
    predictions = ["他比我高。", None, "你坐哪儿？"]
    assert write_submission(task, read_split(task, data), predictions, made) == []
    text = made.with_name("YACLC.txt")
    assert text.read_text(encoding="utf-8") == "他比我高。\n我来了。\n你坐哪儿？\n"
    assert read_answers(task, made, data)[0] == read_answers(task, text, data)[0]


# Versions of a metric


def test_a_record_is_verified_by_the_version_of_the_metric_that_it_names(
    cli: CLI, tmp_path: Path
) -> None:
    """The versions of before counted no word for a sentence that could not be parsed."""
    (tmp_path / "pku_seg").mkdir()
    gold = ["很  好  。", "走  吧  。", "来  。"] * 4
    for split in ("train", "dev", "test"):
        text = "\n".join(gold) + "\n"
        (tmp_path / "pku_seg" / f"{split}.txt").write_text(text, encoding="utf-8")
    given, out = tmp_path / "mine.jsonl", tmp_path / "out"
    lines = [
        {"id": str(i), "prediction": None if i % 3 else line.split()} for i, line in enumerate(gold)
    ]
    given.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    command = ("score", "--task", "pku_seg", "--predictions", given, "--data", tmp_path)
    assert cli(*command, "--out", out, "--name", "x")[0] == 0
    (file,) = out.glob("pku_seg.*/run.json")
    record = read_any_record(file)
    assert record.test.value == pytest.approx(24 / (20 + 32))
    predictions = read_predictions(file.with_name("predictions.test.jsonl"))
    old = {}
    for name in record.spec.metrics:
        (earlier,) = get_metric(name).earlier
        old[name] = score_predictions(name, predictions, earlier.signature)
        assert old[name].signature == earlier.signature != get_metric(name).signature
    assert old["word_precision"].value == 1
    write_record(file.parent, record.model_copy(update={"scores": {"test": old}}))
    assert verify_results(out) == (1, [])
    assert len(rescore_results(out, write=True).changes) == 3
    assert read_any_record(file).scores == record.scores
    assert verify_results(out) == (1, [])


def test_every_earlier_version_has_its_own_signature() -> None:
    metrics = [get_metric(name) for name in metric_names()]
    earlier = [(metric.name, each) for metric in metrics for each in metric.earlier]
    assert {name for name, _ in earlier} == {
        *("word_f1", "word_precision", "word_recall"),
        *("bleu_4_cpm2", "rouge_l_cpm2", "distinct_3_cpm2", "distinct_4_cpm2"),
    }
    signatures = [m.signature for m in metrics] + [each.signature for _, each in earlier]
    assert len(set(signatures)) == len(signatures)
    assert all(each.name == name for name, each in earlier)


@pytest.mark.parametrize("name", ["bleu_4_cpm2", "rouge_l_cpm2", "distinct_3_cpm2"])
def test_cpm_2s_metrics_strip_nothing_and_did_before(name: str) -> None:
    metric = get_metric(name)
    (earlier,) = metric.earlier
    predictions, targets = ["哈哈哈哈哈 ", " 我来了吧"], ["哈哈哈哈", "我来了吧吗"]
    bare = [text.strip() for text in predictions]
    assert metric.score(predictions, targets).value != metric.score(bare, targets).value
    assert earlier.score(predictions, targets) == metric.score(bare, targets)


# Texts, by the code of CPM-2 (TsinghuaAI/CPM-2-Finetune, generation_metrics.py, class Metric).
CPM2 = [
    (0.12, 64.34400526443534, 0.8457985094904459, 0.6903494176372712, 0.9785843920145191),
    (0.45, 27.18407423784782, 0.6229082962330867, 0.6790993336907406, 0.9792685960693258),
]


@pytest.mark.parametrize(("rate", "bleu", "rouge", "distinct_3", "distinct_4"), CPM2)
def test_texts_are_scored_as_by_cpm_2(
    rate: float, bleu: float, rouge: float, distinct_3: float, distinct_4: float
) -> None:
    predictions, references = spaced_texts(1000, 4, rate)
    names = ("bleu_4_cpm2", "rouge_l_cpm2", "distinct_3_cpm2", "distinct_4_cpm2")
    values = [get_metric(name).score(predictions, references).value for name in names]
    assert values == pytest.approx([bleu, rouge, distinct_3, distinct_4], rel=1e-12)


# Ranks, by the code of MultiRD (thunlp/MultiRD, ChineseReverseDictionary/code/evaluate.py), which
# counts ranks from 0: accuracies in percent, and the median.


def test_ranks_are_scored_as_by_multird() -> None:
    source = random.Random(3)
    words = [f"词{i}" for i in range(1500)]
    for expected in ((1.75, 7.0, 23.25, 921.5), (0.75, 7.75, 23.25, 958.5)):
        predictions = [source.sample(words, source.choice([5, 50, 1000])) for _ in range(400)]
        targets = [source.choice(found + words[:60]) for found in predictions]
        values = [
            get_metric(name).score(predictions, targets).value
            for name in ("accuracy_at_1", "accuracy_at_10", "accuracy_at_100", "median_rank")
        ]
        assert values == pytest.approx([*(x / 100 for x in expected[:3]), expected[3] + 1])
