"""Precision, recall and F of labels, relations, spans, words and edits."""

from __future__ import annotations

from typing import Any

import pytest
import sklearn.metrics
from hypothesis import given, settings
from hypothesis import strategies as st

from cpm_tune.metrics import get_metric
from cpm_tune.metrics.edits import edits


def value(name: str, predictions: list[Any], targets: list[Any]) -> float:
    return get_metric(name).score(predictions, targets).value


def prf(prefix: str, predictions: list[Any], targets: list[Any]) -> tuple[float, float, float]:
    f = "f0.5" if prefix == "edit_" else "f1"
    p, r, f = (value(prefix + m, predictions, targets) for m in ("precision", "recall", f))
    return p, r, f


LABELS = st.lists(
    st.tuples(st.sampled_from([0, 1, 2]), st.sampled_from([0, 1, 2])), min_size=1, max_size=30
)


@settings(deadline=None)
@given(LABELS)
def test_labels_agree_with_scikit_learn(pairs: list[tuple[int, int]]) -> None:
    found, true = ([pair[i] for pair in pairs] for i in (0, 1))
    assert value("accuracy", found, true) == sklearn.metrics.accuracy_score(true, found)
    for prefix, positive in (("", [1]), ("relation_", [1, 2])):
        p, r, f, _ = sklearn.metrics.precision_recall_fscore_support(
            true, found, labels=positive, average="micro", zero_division=0
        )
        if not set(positive) & {*found, *true}:  # where we say 1: nothing to find, nothing found
            p = r = f = 1.0
        assert prf(prefix, found, true) == pytest.approx((p, r, f))


def test_a_label_is_the_same_as_number_truth_value_and_text() -> None:
    assert value("accuracy", ["1", 1, True, " 0"], [1, "1", 1, 0]) == 1.0
    assert prf("", ["1", True, "0"], [1, "1", 1]) == pytest.approx((1, 2 / 3, 0.8))


@pytest.mark.parametrize("nothing", [0, "0", "NA", "unknown", None])
def test_relation_scores_leave_no_relation_out(nothing: object) -> None:
    """Of three relations said two are right, of four to find; agreeing on none counts nothing."""
    found = ["注资", "拥有", "持股", nothing, nothing]
    true = ["注资", "拥有", "入股", "合作", "NA"]
    assert prf("relation_", found, true) == pytest.approx((2 / 3, 2 / 4, 4 / 7))


def test_spans_by_hand() -> None:
    found = [[(0, 3, "dis"), (5, 7, "bod"), (5, 7, "bod")], [], None, [(1, 2, "sym")]]
    true = [[[0, 3, "dis"], [5, 7, "sym"]], [], [[0, 1, "dru"]], [[1, 3, "sym"]]]
    assert prf("span_", found, true) == pytest.approx((1 / 3, 1 / 4, 2 / 7))


def test_words_by_hand() -> None:
    """共同|创造|美好|的 as 共同|创|造|美好的: only 共同 is a word of both."""
    found, true = [["共同", "创", "造", "美好的"]], [["共同", "创造", "美好", "的"]]
    assert prf("word_", found, true) == pytest.approx((1 / 4, 1 / 4, 1 / 4))


def test_a_word_with_other_characters_is_no_hit_and_space_is_no_word() -> None:
    assert prf("word_", [["共通", " ", "创 造", ""]], [["共同", "创造"]]) == pytest.approx(
        (0.5,) * 3
    )


CUTS = st.lists(st.booleans(), min_size=9, max_size=9)


@settings(deadline=None)
@given(CUTS, CUTS)
def test_words_agree_with_counting_cuts(found: list[bool], true: list[bool]) -> None:
    """A word is right if both its ends are cut in the gold and nothing between them is."""
    text = "共同创造美好的新世"

    def words(cuts: list[bool]) -> list[str]:
        marked = "".join(c + "|" * cut for c, cut in zip(text, cuts, strict=True))
        return marked.strip("|").split("|")

    cuts = [[-1, *(i for i, cut in enumerate(c[:-1]) if cut), 8] for c in (found, true)]
    right = sum(
        a in cuts[1] and b in cuts[1] and not any(a < c < b for c in cuts[1])
        for a, b in zip(cuts[0], cuts[0][1:], strict=False)
    )
    expected = right / (len(cuts[0]) - 1), right / (len(cuts[1]) - 1)
    assert prf("word_", [words(found)], [words(true)])[:2] == pytest.approx(expected)


def test_edits_by_hand_against_the_best_annotator() -> None:
    """First sentence: the second annotator (1 of 2 right, 1 to find) beats the first. Second:
    nothing to change by one annotator, nothing changed. Third: missed."""
    found = [[(1, 2, "在"), (4, 4, "了")], [], []]
    true = [
        [[[0, 1, "他"]], [[1, 2, "在"]]],
        [[[0, 1, "我"]], []],
        [[[2, 3, ""], [5, 5, "的"]]],
    ]
    p, r = 1 / 2, 1 / 3
    assert prf("edit_", found, true) == pytest.approx((p, r, 1.25 * p * r / (0.25 * p + r)))


def test_of_annotators_with_the_same_f_the_one_with_least_missed_counts() -> None:
    found, true = [[(0, 1, "天")]], [[[[5, 6, "a"], [7, 8, "b"]], [[5, 6, "a"]]]]
    both = ([*found, [(0, 1, "x")]], [*true, [[[0, 1, "x"]]]])
    assert prf("edit_", *both)[:2] == pytest.approx((1 / 2, 1 / 2))


@pytest.mark.parametrize(
    ("source", "corrected", "expected"),
    [
        ("我昨天去学校了", "我昨天去学校了", []),
        ("他做在椅子上", "他坐在椅子上", [(1, 2, "坐")]),
        ("他在吃饭饭", "他在吃饭", [(4, 5, "")]),
        ("我喜欢苹", "我喜欢苹果", [(4, 4, "果")]),
        ("", "天", [(0, 0, "天")]),
    ],
)
def test_edits_of_a_correction(
    source: str, corrected: str, expected: list[tuple[int, int, str]]
) -> None:
    assert edits(source, corrected) == expected


@settings(deadline=None)
@given(st.text("天地玄黄", max_size=15), st.text("天地玄黄", max_size=15))
def test_edits_turn_the_source_into_the_correction(source: str, corrected: str) -> None:
    made, end = "", 0
    for start, stop, replacement in edits(source, corrected):
        assert source[start:stop] != replacement
        assert start >= end
        made += source[end:start] + replacement
        end = stop
    assert made + source[end:] == corrected
