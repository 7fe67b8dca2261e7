"""Scoring rules on CPM-Ant against brute force: one forward pass per option, in plain torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from scoring_tasks import (
    CASES,
    CPU,
    SEGMENT,
    TASKS,
    TOKENIZER,
    encoder_with,
)
from torch import Tensor

from cpm_tune.backbone.ant.checkpoint import load_weights
from cpm_tune.backbone.ant.folder import open_folder
from cpm_tune.backbone.ant.model import CPMAnt
from cpm_tune.backbone.example import Answer, Example
from cpm_tune.data.encode import Encoder
from cpm_tune.schema.options import Scoring
from cpm_tune.task import Choice, Row, Task
from cpm_tune.tuning.predict import Predictor, batch_loss, scored_targets
from cpm_tune.tuning.scoring import (
    candidate_scores,
    chosen_options,
    loss_count,
    option_scores,
    target_scores,
)

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def model(small_backbone: Path) -> CPMAnt:
    model = load_weights(open_folder(small_backbone), torch.float32)
    with torch.no_grad():
        model.position_bias.relative_attention_bias.mul_(25)
    return model


TEXTS = st.text("今天气不错猫怎么养北京大学好", max_size=12)


@st.composite
def some_rows(draw: st.DrawFn, name: str) -> list[Row]:
    rows: list[Row] = []
    for number in range(draw(st.integers(1, 4))):
        row: Row = {"id": f"{number}"}
        listed = draw(st.lists(TEXTS.filter(bool), min_size=2, max_size=4))
        if name in ("option", "answer"):
            row |= {"sentence1": draw(TEXTS), "sentence2": draw(TEXTS)}
            row["target"] = draw(st.integers(0, 2))
        elif name == "ranked":
            row |= {"query": draw(TEXTS), "documents": listed}
            row["target"] = list(range(len(listed)))
        else:
            row |= {"translation": draw(TEXTS), "choices": listed}
            row["target"] = draw(st.integers(0, len(listed) - 1))
        rows.append(row)
    return rows


# --- brute force: render, tokenise, one forward pass per option, plain torch ---


def logits_after(model: CPMAnt, encoder: Encoder, context: list[int], rest: list[int]) -> Tensor:
    """Logits (rest, vocabulary) at the positions that predict `rest`, run alone and unpacked."""
    start = list(encoder.layout.start)
    ids = torch.tensor([[*start, *context, *rest[:-1]]])
    segment = torch.full_like(ids, SEGMENT)
    segment[:, : encoder.layout.n_prompt] = 0
    n = len(start) + len(context)
    hidden = model(ids, segment, torch.arange(ids.shape[1])[None] < n)[0, n - 1 :]
    return hidden @ model.input_embedding.weight.T


def log_p(logits: Tensor, ids: list[int]) -> Tensor:
    probabilities = logits.exp() / logits.exp().sum(1, keepdim=True)
    return torch.stack([probabilities[i, token].log() for i, token in enumerate(ids)])


def options_of(task: Task, row: Row) -> Sequence[str]:
    template = task.templates[0]
    if isinstance(task.answer, Choice):
        return template.options
    own: Sequence[str] = row[task.answer.options]  # type: ignore[union-attr]
    return template.options[: len(own)] if template.options else own


def brute(
    model: CPMAnt, task: Task, encoder: Encoder, row: Row, rule: Scoring
) -> tuple[list[float], int | None]:
    """The options' scores and the number of the chosen one, from their definitions."""
    encode, template = TOKENIZER.encode, task.templates[0]
    empty: Row = {name: [] if name in task.files.texts else "" for name in template.fields}
    scores, top = [], None
    for option in options_of(task, row):
        before, text, after = map(encode, template.render(row, option))
        if rule == "yes-logit":
            logits = logits_after(model, encoder, [*before, *text, *after], [0])
            scores.append(float(logits[0, encode("是")[0]]))
        elif rule == "mean-nll":
            passage = [*before, *text, *after, TOKENIZER.eos]
            scores.append(float(log_p(logits_after(model, encoder, [], passage), passage).mean()))
        else:
            logits = logits_after(model, encoder, before, text)
            each = log_p(logits, text)
            top = int(logits[0].argmax())
            if rule == "verbaliser-sum":
                scores.append(float(each.sum()))
            elif rule == "verbaliser-mean":
                scores.append(float(each.mean()))
            elif rule == "argmax-vocabulary":
                scores.append(float(each[0]))
            else:
                alone = encode(template.render(empty, "")[0])
                without = log_p(logits_after(model, encoder, alone, text), text)
                scores.append(float(each.sum() - without.sum()))
    if rule == "argmax-vocabulary":
        firsts = [encode(option)[0] for option in options_of(task, row)]
        return scores, firsts.index(top) if top in firsts else None
    return scores, max(range(len(scores)), key=lambda k: scores[k])


@pytest.mark.parametrize(("rule", "name"), CASES)
@settings(deadline=None, max_examples=12)
@given(data=st.data())
def test_a_packed_batch_scores_and_chooses_as_brute_force_does(
    model: CPMAnt, rule: Scoring, name: str, data: st.DataObject
) -> None:
    task, rows = TASKS[name], data.draw(some_rows(name))
    encoder = encoder_with(task, rule)
    predictions = list(Predictor(model, task, encoder, CPU, 8192).predict(rows))
    with torch.no_grad():
        for row, prediction in zip(rows, predictions, strict=True):
            scores, chosen = brute(model, task, encoder, row, rule)
            assert prediction.scores == pytest.approx(scores, abs=1e-4)
            if name == "ranked":
                assert prediction.prediction == [round(score, 6) for score in prediction.scores]
            elif rule == "argmax-vocabulary":
                assert prediction.prediction == chosen
                assert prediction.unparsed == (chosen is None)
            else:
                best = prediction.prediction
                assert scores[best] == pytest.approx(max(scores), abs=1e-4)


def test_by_argmax_vocabulary_an_option_is_chosen_only_if_it_is_the_argmax(model: CPMAnt) -> None:
    """Pushes the logits of option 2's first token up until it is the most probable of all."""
    task = TASKS["answer"]
    encoder = encoder_with(task, "argmax-vocabulary")
    row: Row = {"id": "0", "sentence1": "猫", "sentence2": "今天", "target": 2}
    first = TOKENIZER.encode("矛盾无")[0]
    batch = encoder.layout.collate([encoder.encode(row)])
    with torch.no_grad():
        before = next(Predictor(model, task, encoder, CPU, 8192).predict([row]))
        assert before.prediction is None
        assert before.unparsed
        context = list(encoder.encode(row).contexts[0][len(encoder.layout.start) :])
        logits = logits_after(model, encoder, context, [0])
        for margin, chosen in ((-0.1, -1), (0.1, 2)):
            raised = logits.expand(3, -1).clone()
            raised[:, first] = logits.max() + margin
            scored = target_scores([raised], batch.target_token, "argmax-vocabulary")
            assert chosen_options(scored, batch).tolist() == [chosen]


# --- the loss of each rule ---


@pytest.mark.parametrize(("rule", "name"), CASES)
def test_the_loss_of_each_rule_is_that_of_the_docs(model: CPMAnt, rule: Scoring, name: str) -> None:
    task = TASKS[name]
    encoder = encoder_with(task, rule)
    one = {"sentence1": "猫怎么养", "sentence2": "今天", "query": "猫", "translation": "北京"}
    listed = {"choices": ["好", "大学", "天气"], "documents": ["猫", "今天气", "好"]}
    target: Any = [0, 1, 0] if name == "ranked" else 1
    rows: list[Row] = [{**one, **listed, "id": "0", "target": target}]
    rows.append({**rows[0], "id": "1", "sentence1": "好", "query": "好", "translation": "大"})
    examples = [encoder.encode(row, train=True) for row in rows]
    batch = encoder.layout.collate(examples)
    with torch.no_grad():
        loss = batch_loss(model, batch, rule)
        terms = []
        for row in rows:
            before, text, after = map(
                TOKENIZER.encode, task.templates[0].render(row, options_of(task, row)[1])
            )
            if rule == "yes-logit":
                scores, _ = brute(model, task, encoder, row, rule)
                terms.append(F.cross_entropy(torch.tensor([scores]), torch.tensor([1])))
                continue
            whole = [*before, *text, *after, TOKENIZER.eos]
            context, ids = ([], whole) if rule == "mean-nll" else (before, text)
            terms += list(-log_p(logits_after(model, encoder, context, ids), ids))
    torch.testing.assert_close(loss, torch.stack(terms).sum(), rtol=1e-5, atol=1e-4)
    assert loss_count(batch, rule) == len(terms)


# --- the module by itself, on logits of nothing ---


class Made:
    """Targets of candidates with these numbers of tokens, `n` options per example."""

    def __init__(self, sizes: list[list[int]], vocabulary: int, seed: int) -> None:
        draw = torch.Generator().manual_seed(seed)
        flat = [size for example in sizes for size in example]
        self.target_token = torch.randint(vocabulary, (sum(flat),), generator=draw)
        self.target_candidate = torch.repeat_interleave(torch.tensor(flat))
        self.candidates = torch.full((len(sizes), max(map(len, sizes))), -1)
        number = iter(range(len(flat)))
        for e, example in enumerate(sizes):
            for k in range(len(example)):
                self.candidates[e, k] = next(number)
        self.in_score = torch.ones(sum(flat), dtype=torch.bool)
        self.gold = torch.zeros(len(sizes), dtype=torch.long)
        self.n_candidates = len(flat)
        self.logits = torch.randn(sum(flat), vocabulary, generator=draw)


@given(
    st.lists(st.lists(st.integers(1, 4), min_size=1, max_size=4), min_size=1, max_size=5),
    st.integers(0, 99),
    st.integers(1, 7),
)
def test_scores_are_sums_means_and_differences_whatever_the_slices(
    sizes: list[list[int]], seed: int, step: int
) -> None:
    doubled = [[*example, *example] for example in sizes]
    for rule in ("verbaliser-sum", "verbaliser-mean", "mean-nll", "verbaliser-relative"):
        relative = rule == "verbaliser-relative"
        made = Made(doubled if relative else sizes, 11, seed)
        slices = [made.logits[i : i + step] for i in range(0, len(made.logits), step)]
        scored = target_scores(slices, made.target_token, rule)
        table = option_scores(scored, made, rule)
        assert table.shape == (len(sizes), max(map(len, sizes)))
        each = candidate_loop(made)
        for e, example in enumerate(sizes):
            for k in range(table.shape[1]):
                if k >= len(example):
                    assert table[e, k] == float("-inf")
                    continue
                terms = each[int(made.candidates[e, k])]
                expected = sum(terms) if rule[-3:] in ("sum", "ive") else sum(terms) / len(terms)
                if relative:
                    expected -= sum(each[int(made.candidates[e, len(example) + k])])
                assert float(table[e, k]) == pytest.approx(expected, abs=1e-4)


def candidate_loop(made: Made) -> list[list[float]]:
    each: list[list[float]] = [[] for _ in range(made.n_candidates)]
    for logits, token, owner in zip(
        made.logits, made.target_token.tolist(), made.target_candidate.tolist(), strict=True
    ):
        each[owner].append(float(logits[token] - logits.exp().sum().log()))
    return each


@given(st.lists(st.integers(1, 4), min_size=1, max_size=5), st.integers(0, 99))
def test_the_logits_of_single_tokens_are_the_scores_by_yes_logit(n: list[int], seed: int) -> None:
    made = Made([[1] * k for k in n], 11, seed)
    own = made.logits.gather(1, made.target_token[:, None])
    scored = target_scores([own], made.target_token, "yes-logit")
    assert torch.equal(candidate_scores(scored, made, "yes-logit"), own[:, 0])


@pytest.mark.parametrize("rule", ["verbaliser-sum", "verbaliser-mean", "argmax-vocabulary"])
def test_a_mark_before_the_answer_is_in_the_loss_and_not_in_the_score(
    model: CPMAnt, rule: Scoring
) -> None:
    """As CPM-2's <s_0>: the answer's tokens are scored after it."""
    task = TASKS["answer"]
    encoder = encoder_with(task, rule)
    mark = TOKENIZER.encode("好")[0]
    row: Row = {"id": "0", "sentence1": "猫怎么养", "sentence2": "今天", "target": 1}
    plain, train = encoder.encode(row), encoder.encode(row, train=True)

    def marked(example: Example, lead: int) -> Example:
        answers = [Answer(a.context, (mark, *a.ids), lead) for a in example.candidates]
        return replace(example, candidates=tuple(answers))

    context = list(plain.contexts[0][len(encoder.layout.start) :])
    with torch.no_grad():
        batch = encoder.layout.collate([marked(plain, 1)])
        scored = scored_targets(model, batch, rule)
        expected, top = [], None
        for answer in plain.candidates:
            logits = logits_after(model, encoder, context, [mark, *answer.ids])[1:]
            each, top = log_p(logits, list(answer.ids)), int(logits[0].argmax())
            expected.append(float(each.mean() if rule == "verbaliser-mean" else each.sum()))
        assert option_scores(scored, batch, rule)[0].tolist() == pytest.approx(expected, abs=1e-4)
        if rule == "argmax-vocabulary":
            firsts = [answer.ids[0] for answer in plain.candidates]
            chosen = firsts.index(top) if top in firsts else -1
            assert chosen_options(scored, batch).tolist() == [chosen]
        whole = [mark, *train.candidates[0].ids]
        loss = batch_loss(model, encoder.layout.collate([marked(train, 1)]), rule)
        terms = -log_p(logits_after(model, encoder, context, whole), whole)
        torch.testing.assert_close(loss, terms.sum(), rtol=1e-5, atol=1e-4)
        same = batch_loss(model, encoder.layout.collate([marked(train, 0)]), rule)
        assert torch.equal(loss, same)
