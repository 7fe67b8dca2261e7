"""ROUGE, BLEU, Distinct, character F1 and exact match against independent computations."""

from __future__ import annotations

import random
from collections import Counter
from functools import cache
from importlib.metadata import version

import pytest
import sacrebleu
from hypothesis import given, settings
from hypothesis import strategies as st
from nltk.translate.bleu_score import SmoothingFunction, corpus_bleu

from cpm_tune.metrics import get_metric

TEXT = st.text("天地玄黄a 1", max_size=12)


def value(name: str, predictions: list[str | None], targets: list[object]) -> float:
    return get_metric(name).score(predictions, targets).value


def corpus(n: int, seed: int = 0) -> tuple[list[str], list[str], list[str]]:
    """Hypotheses that share much with two references each."""
    source = random.Random(seed)
    marks = "天地玄黄宇宙洪荒日月盈昃辰宿列张，。"
    firsts = ["".join(source.choices(marks, k=source.randint(5, 25))) for _ in range(n)]

    def changed(text: str) -> str:
        return "".join(c for c in text if source.random() > 0.1) + source.choice(marks)

    return [changed(t) for t in firsts], firsts, [changed(t) for t in firsts]


def lcs(a: str, b: str) -> int:
    @cache
    def longest(i: int, j: int) -> int:
        if i == len(a) or j == len(b):
            return 0
        if a[i] == b[j]:
            return 1 + longest(i + 1, j + 1)
        return max(longest(i + 1, j), longest(i, j + 1))

    return longest(0, 0)


def overlap(a: str, b: str, n: int) -> int:
    grams = [Counter(t[i : i + n] for i in range(len(t) - n + 1)) for t in (a, b)]
    return sum((grams[0] & grams[1]).values())


def prf(hits: int, found: int, gold: int) -> dict[str, float]:
    p, r = hits / max(1, found), hits / max(1, gold)
    return {"p": p, "r": r, "f": 2 * p * r / (p + r) if hits else 0.0}


@settings(max_examples=50, deadline=None)
@given(TEXT, TEXT)
def test_rouge_of_characters_by_brute_force(found: str, gold: str) -> None:
    a, b = found.replace(" ", ""), gold.replace(" ", "")
    for part in "prf":
        rouge_l = prf(lcs(a, b), len(a), len(b))[part]
        assert value(f"rouge_l_char_{part}", [found], [gold]) == pytest.approx(rouge_l)
        for n in (1, 2):
            rouge_n = prf(overlap(a, b, n), len(a) - n + 1, len(b) - n + 1)[part]
            assert value(f"rouge_{n}_char_{part}", [found], [gold]) == pytest.approx(rouge_n)


def test_rouge_takes_the_reference_of_best_f1_and_averages_over_examples() -> None:
    """天地 against 天地玄黄 (p 1, r 1/2, F 2/3) and 天玄 (1/2, 1/2, 1/2); then nothing."""
    predictions, targets = ["天地", None], [["天玄", "天地玄黄"], "天"]
    found = [value(f"rouge_1_char_{part}", predictions, targets) for part in "prf"]
    assert found == pytest.approx([1 / 2, 1 / 4, 1 / 3])


def test_rouge_of_words() -> None:
    """jieba cuts 我们 | 喜欢 | 北京 and 我们 | 喜欢 | 上海."""
    predictions, targets = ["我们喜欢北京"], ["我们 喜欢上海"]
    assert value("rouge_1_jieba_f", predictions, targets) == pytest.approx(2 / 3)
    assert value("rouge_2_jieba_f", predictions, targets) == pytest.approx(1 / 2)
    assert value("rouge_l_jieba_f", predictions, targets) == pytest.approx(2 / 3)


@settings(max_examples=50, deadline=None)
@given(TEXT, st.lists(TEXT.filter(str.strip), min_size=1, max_size=3))
def test_rouge_l_of_cpm_2(found: str, golds: list[str]) -> None:
    p = max(lcs(found, g) / max(1, len(found)) for g in golds)
    r = max(lcs(found, g) / len(g) for g in golds)
    expected = 2.44 * p * r / (r + 1.44 * p) if p and r else 0.0
    assert value("rouge_l_cpm2", [found], [golds]) == pytest.approx(expected)


@pytest.mark.parametrize("references", [1, 2])
@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("bleu_zh", {"tokenize": "zh"}),
        ("bleu_13a", {"tokenize": "13a"}),
        *((f"bleu_{n}", {"tokenize": "char", "max_ngram_order": n}) for n in range(1, 5)),
    ],
)
def test_bleu_is_sacrebleus(name: str, options: dict[str, object], references: int) -> None:
    found, *golds = corpus(60)
    found[7] = ""
    if name == "bleu_13a":  # a language with spaces
        found, *golds = ([" ".join(text) for text in texts] for texts in (found, *golds))
    golds = golds[:references]
    theirs = sacrebleu.BLEU(**options)
    expected = theirs.corpus_score(found, golds).score
    targets: list[object] = [list(g) if references > 1 else g[0] for g in zip(*golds, strict=True)]
    assert value(name, found, targets) == pytest.approx(expected, rel=1e-12)
    assert 0 < expected < 100
    signature = str(theirs.get_signature()).replace(f"nrefs:{references}", "nrefs:var")
    assert f"|{signature}|n-grams up to {options.get('max_ngram_order', 4)}|" in (
        get_metric(name).signature
    )


@settings(max_examples=30, deadline=None)
@given(st.lists(st.tuples(TEXT, TEXT), min_size=1, max_size=4), st.integers(1, 4))
def test_bleu_is_sacrebleus_where_it_smooths(examples: list[tuple[str, str]], n: int) -> None:
    found, gold = ([pair[i] for pair in examples] for i in (0, 1))
    theirs = sacrebleu.BLEU(tokenize="char", max_ngram_order=n).corpus_score(found, [gold])
    assert value(f"bleu_{n}", [*found], [*gold]) == pytest.approx(theirs.score, rel=1e-12)


def test_the_interval_of_bleu_agrees_with_sacrebleus_own_bootstrap() -> None:
    found, gold, _ = corpus(300)
    score = get_metric("bleu_zh").score(found, gold)
    theirs = sacrebleu.BLEU(tokenize="zh").corpus_score(found, [gold], n_bootstrap=1000)
    assert (score.high - score.low) / 2 == pytest.approx(theirs._ci, rel=0.1)


@settings(max_examples=30, deadline=None)
@given(st.lists(st.tuples(TEXT, st.lists(TEXT, min_size=1, max_size=2)), min_size=1, max_size=4))
def test_bleu_of_cpm_2_is_nltks(examples: list[tuple[str, list[str]]]) -> None:
    expected = 100 * corpus_bleu(
        [[list(g) for g in golds] for _, golds in examples],
        [list(found) for found, _ in examples],
        weights=[0.25] * 4,
        smoothing_function=SmoothingFunction().method3,
    )
    found = value("bleu_4_cpm2", [f for f, _ in examples], [g for _, g in examples])
    assert found == pytest.approx(expected)


@settings(deadline=None)
@given(st.lists(TEXT, min_size=1, max_size=5), st.integers(1, 4))
def test_distinct_counts_a_set_over_all_predictions(texts: list[str], n: int) -> None:
    tight = [text.replace(" ", "") for text in texts]
    grams = [t[i : i + n] for t in tight for i in range(len(t)) if i + n <= len(t)]
    expected = len(set(grams)) / len(grams) if grams else 0.0
    assert value(f"distinct_{n}", [*texts], ["", *texts][1:]) == pytest.approx(expected)


@settings(deadline=None)
@given(st.lists(TEXT, min_size=1, max_size=5), st.sampled_from([3, 4]))
def test_distinct_of_cpm_2_stops_one_short(texts: list[str], n: int) -> None:
    seen, total = set(), 0
    for text in texts:
        for i in range(0, len(text) - n):  # their bound
            seen.add(text[i : i + n])
            total += 1
    expected = len(seen) / total if total else 0.0
    assert value(f"distinct_{n}_cpm2", [*texts], [*texts]) == pytest.approx(expected)


def test_the_distinct_interval_is_about_its_value() -> None:
    found, _, _ = corpus(200)
    score = get_metric("distinct_3").score(found, found)
    assert score.low < score.value < score.high
    assert score.high - score.value == pytest.approx(score.value - score.low)


def test_character_f1_by_hand() -> None:
    """天天地 against 天地玄黄: 2 in common of 3 and 4. Best of references; both empty: 1."""
    assert value("char_f1", ["天天 地"], [["天地玄黄", "玄"]]) == pytest.approx(4 / 7)
    assert value("char_f1", ["", "天"], [" ", ""]) == 0.5


def test_exact_match_drops_outer_whitespace_only() -> None:
    predictions = ["机械工业出版社\n", "2004 年", "ａ", "秦婉"]
    targets: list[object] = ["机械工业出版社", "2004年", "a", ["王蓉", "秦婉"]]
    assert value("exact_match", [*predictions], targets) == 0.5
    assert value("exact_match", [None], [""]) == 0.0


@pytest.mark.parametrize(
    ("name", "package"),
    [("rouge_1_char_f", "rouge-score"), ("rouge_l_jieba_p", "jieba"), ("bleu_4_cpm2", "nltk")],
)
def test_signatures_name_the_library_with_its_version(name: str, package: str) -> None:
    assert f"{package} {version(package)}" in get_metric(name).signature
