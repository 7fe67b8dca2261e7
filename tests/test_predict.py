"""Scores, losses and choices of packed batches against every sequence run alone, unpadded."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from conftest import encoder_of, small_config, vocabulary
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from cpm_tune.backbone.ant.checkpoint import load_weights
from cpm_tune.backbone.ant.folder import open_folder
from cpm_tune.backbone.ant.model import CPMAnt
from cpm_tune.backbone.ant.tokenizer import Tokenizer
from cpm_tune.backbone.base import Batch
from cpm_tune.backbone.example import Example
from cpm_tune.backbone.opening import random_backbone
from cpm_tune.data.encode import Encoder
from cpm_tune.engine.engine import make_engine
from cpm_tune.schema.spec import Encoding, Execution
from cpm_tune.task import Choice, Row, Template
from cpm_tune.task.registry import load_task
from cpm_tune.tuning.predict import Prediction, Predictor, batch_loss, scored_targets
from cpm_tune.tuning.scoring import loss_count, option_scores

LCQMC = load_task("lcqmc")
CPM_ANT, CPM_2 = (next(t for t in LCQMC.templates if t.name == n) for n in ("cpm-ant", "cpm-2"))
ONE = Template("one", "{sentence1}对{sentence2}吗？{answer}", ("是", "否", "无"))
MIXED = Template("mixed", "{sentence2}，{sentence1}：{answer}", ("是", "不是", "说不好"))
TEMPLATES = {t.name: t for t in (CPM_ANT, CPM_2, ONE, MIXED)}
SEGMENT = 3
TOLERANCE = 1e-5
CPU = make_engine(Execution(device="cpu"), "fp32")

# From nothing to longer than a packed row's usual width, and one that has to be cut.
SENTENCES = ("", "猫", "猫怎么养", "如何养一只 cat？", "山水" * 30, "天地玄黄" * 33, "长" * 400)
ROWS: list[Row] = [
    {"id": f"r{i}", "sentence1": s, "sentence2": SENTENCES[(i * 3 + 1) % 7], "target": i % 2}
    for i, s in enumerate(SENTENCES)
]


pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def model(small_backbone: Path) -> CPMAnt:
    """The small backbone with a position bias that matters."""
    model = load_weights(open_folder(small_backbone), torch.float32)
    with torch.no_grad():
        model.position_bias.relative_attention_bias.mul_(25)
    return model


def make_encoder(template: Template, kind: type[Encoder] = Encoder) -> Encoder:
    labels = Choice(tuple(range(len(template.options))))
    task = replace(LCQMC, templates=(template,), answer=labels)
    encoding = Encoding(max_length=320, segment=SEGMENT)
    tokenizer = Tokenizer(vocabulary())
    return encoder_of(task, template, encoding, small_config(), tokenizer, kind=kind)


def table_of(model: CPMAnt, batch: Batch, encoder: Encoder) -> Tensor:
    """Option scores (examples, options)."""
    return option_scores(scored_targets(model, batch, encoder.rule), batch, encoder.rule)


def choose(
    model: CPMAnt, rows: Iterable[Row], encoder: Encoder, micro_tokens: int
) -> Iterator[Prediction]:
    """Predictions whose labels are the options' numbers."""
    answer = Choice(tuple(range(len(encoder.template.options))))
    task = replace(LCQMC, templates=(encoder.template,), answer=answer)
    return Predictor(model, task, encoder, CPU, micro_tokens).predict(rows)


ENCODERS = {name: make_encoder(template) for name, template in TEMPLATES.items()}
every_template = pytest.mark.parametrize("encoder", ENCODERS.values(), ids=ENCODERS)


def targets_alone(
    model: CPMAnt, example: Example, encoder: Encoder
) -> list[list[tuple[Tensor, int]]]:
    """For every token of every candidate: logits (vocabulary,), of the candidate after its context
    run in a batch of its own, and the token."""
    weight, alone = model.input_embedding.weight, []
    for answer in example.candidates:
        n_context = len(example.contexts[answer.context])
        ids = torch.tensor([example.contexts[answer.context] + answer.ids[:-1]])
        segment = torch.full_like(ids, SEGMENT)
        segment[:, : encoder.layout.n_prompt] = 0
        context = torch.arange(ids.shape[1])[None] < n_context
        hidden = model(ids, segment, context)[0, n_context - 1 :]
        alone.append([(weight @ h, i) for h, i in zip(hidden, answer.ids, strict=True)])
    return alone


def scores_alone(model: CPMAnt, example: Example, encoder: Encoder) -> Tensor:
    """The score of each candidate: a logit, or the sum of logits less their log-sum-exp."""
    scores = []
    for targets in targets_alone(model, example, encoder):
        if encoder.rule == "yes-logit":
            ((logits, token),) = targets
            scores.append(logits[token])
        else:
            terms = [logits[token] - logits.exp().sum().log() for logits, token in targets]
            scores.append(torch.stack(terms).sum())
    return torch.stack(scores)


def loss_alone(model: CPMAnt, example: Example, encoder: Encoder) -> Tensor:
    """Cross-entropy of the right option, or summed over the tokens of the right answer."""
    if encoder.rule == "yes-logit":
        scores = scores_alone(model, example, encoder)
        return F.cross_entropy(scores[None], torch.tensor([example.gold]))
    (targets,) = targets_alone(model, example, encoder)
    logits, tokens = zip(*targets, strict=True)
    return F.cross_entropy(torch.stack(logits), torch.tensor(tokens), reduction="sum")


@pytest.fixture(scope="module")
def alone(model: CPMAnt) -> Callable[[Encoder, int], Tensor]:
    """Scores of one of `ROWS` by itself, worked out once."""
    known: dict[tuple[str, int], Tensor] = {}

    def scores(encoder: Encoder, row: int) -> Tensor:
        key = (encoder.template.name, row)
        if key not in known:
            with torch.no_grad():
                known[key] = scores_alone(model, encoder.encode(ROWS[row]), encoder)
        return known[key]

    return scores


def without_last_option(example: Example) -> Example:
    return replace(example, candidates=example.candidates[:-1], gold=0)


# --- scores ---


@every_template
def test_the_rows_tell_wrong_scores_apart(
    encoder: Encoder, alone: Callable[[Encoder, int], Tensor]
) -> None:
    """Guards the other tests: scores differ between rows and options, long rows are there."""
    examples = [encoder.encode(row) for row in ROWS]
    assert [example.truncated for example in examples].count(True) >= 2
    assert max(len(context) for example in examples for context in example.contexts) > 256
    scores = torch.cat([alone(encoder, row) for row in range(len(ROWS))])
    assert torch.pdist(scores[:, None]).min() > 10 * TOLERANCE


@every_template
@settings(deadline=None, max_examples=10)
@given(order=st.lists(st.integers(0, len(ROWS) - 1), min_size=1, max_size=8))
def test_scores_in_any_company_are_those_of_each_sequence_alone(
    model: CPMAnt,
    alone: Callable[[Encoder, int], Tensor],
    encoder: Encoder,
    order: list[int],
) -> None:
    batch = encoder.layout.collate([encoder.encode(ROWS[row]) for row in order])
    with torch.no_grad():
        table = table_of(model, batch, encoder)
    expected = torch.stack([alone(encoder, row) for row in order])
    assert table.dtype == torch.float32
    torch.testing.assert_close(table, expected, rtol=0, atol=TOLERANCE)


@every_template
def test_an_option_that_an_example_lacks_scores_minus_infinity(
    model: CPMAnt, alone: Callable[[Encoder, int], Tensor], encoder: Encoder
) -> None:
    examples = [encoder.encode(row) for row in ROWS[1:4]]
    batch = encoder.layout.collate([examples[0], without_last_option(examples[1]), examples[2]])
    with torch.no_grad():
        table = table_of(model, batch, encoder)
    expected = torch.stack([alone(encoder, row) for row in (1, 2, 3)])
    expected[1, -1] = float("-inf")
    torch.testing.assert_close(table, expected, rtol=0, atol=TOLERANCE)


def test_scores_of_a_bfloat16_model_are_fp32_and_near(
    model: CPMAnt, alone: Callable[[Encoder, int], Tensor], small_backbone: Path
) -> None:
    half = load_weights(open_folder(small_backbone), torch.bfloat16)
    half.load_state_dict(model.state_dict())
    for encoder in ENCODERS.values():
        batch = encoder.layout.collate([encoder.encode(row) for row in ROWS])
        with torch.no_grad():
            table = table_of(half, batch, encoder)
        assert table.dtype == torch.float32
        expected = torch.stack([alone(encoder, row) for row in range(len(ROWS))])
        torch.testing.assert_close(table, expected, rtol=0, atol=0.3)


# --- losses ---


def training_examples(encoder: Encoder) -> list[Example]:
    rows = [{**row, "target": i % len(encoder.template.options)} for i, row in enumerate(ROWS[:4])]
    return [encoder.encode(row, train=True) for row in rows]


@every_template
def test_the_loss_of_a_batch_is_the_sum_of_cross_entropies_alone(
    model: CPMAnt, encoder: Encoder
) -> None:
    examples = training_examples(encoder)
    batch = encoder.layout.collate(examples)
    with torch.no_grad():
        ours = batch_loss(model, batch, encoder.rule)
        expected = sum(loss_alone(model, example, encoder) for example in examples)
    torch.testing.assert_close(ours, expected, rtol=1e-6, atol=TOLERANCE)
    tokens = [len(example.candidates[example.gold].ids) for example in examples]
    assert loss_count(batch, encoder.rule) == (
        len(examples) if encoder.rule == "yes-logit" else sum(tokens)
    )


def test_an_option_that_an_example_lacks_has_no_part_in_its_loss(model: CPMAnt) -> None:
    encoder = make_encoder(replace(CPM_ANT, options=("不同", "相同", "相反")))
    examples = [encoder.encode(row) for row in ROWS[1:4]]
    examples[1] = without_last_option(examples[1])
    with torch.no_grad():
        ours = batch_loss(model, encoder.layout.collate(examples), "yes-logit")
        expected = sum(loss_alone(model, example, encoder) for example in examples)
    torch.testing.assert_close(ours, expected, rtol=1e-6, atol=TOLERANCE)


@every_template
def test_gradients_of_a_packed_batch_are_those_of_its_examples_one_by_one(
    model: CPMAnt, encoder: Encoder
) -> None:
    examples = training_examples(encoder)

    def gradients(losses: list[Callable[[], Tensor]]) -> dict[str, Tensor]:
        model.zero_grad(set_to_none=True)
        for loss in losses:
            loss().backward()
        return {name: weight.grad.clone() for name, weight in model.named_parameters()}  # type: ignore[union-attr]

    packed = gradients([lambda: batch_loss(model, encoder.layout.collate(examples), encoder.rule)])
    single = gradients([lambda e=e: loss_alone(model, e, encoder) for e in examples])  # type: ignore[misc]
    model.zero_grad(set_to_none=True)
    for name, gradient in single.items():
        scale = gradient.abs().max().item()
        assert scale > 1e-4, f"{name} has no gradient to compare"
        torch.testing.assert_close(packed[name], gradient, rtol=0, atol=TOLERANCE * max(scale, 1))


# --- choices ---


@every_template
@pytest.mark.parametrize("micro_tokens", [1, 500, 10**6])
def test_predictions_come_in_row_order_however_they_are_batched(
    model: CPMAnt,
    alone: Callable[[Encoder, int], Tensor],
    encoder: Encoder,
    micro_tokens: int,
) -> None:
    made = list(choose(model, iter(ROWS), encoder, micro_tokens))
    assert [p.id for p in made] == [row["id"] for row in ROWS]
    assert [p.gold for p in made] == [row["target"] for row in ROWS]
    assert [p.truncated for p in made] == [encoder.encode(row).truncated for row in ROWS]
    for number, prediction in enumerate(made):
        expected = alone(encoder, number).tolist()
        assert prediction.scores == pytest.approx(expected, rel=0, abs=TOLERANCE)
        assert prediction.prediction == expected.index(max(expected))


@pytest.mark.parametrize("equal", [("是", "否"), ("否", "无")])
def test_the_first_of_equally_good_options_wins(small_backbone: Path, equal: tuple) -> None:
    model = load_weights(open_folder(small_backbone), torch.float32)
    encoder = ENCODERS["one"]
    first, second = (encoder.tokenizer.ids[option] for option in equal)
    with torch.no_grad():
        model.input_embedding.weight[second] = model.input_embedding.weight[first]
    made = list(choose(model, ROWS, encoder, 500))
    a, b = (ONE.options.index(option) for option in equal)
    assert all(prediction.scores[a] == prediction.scores[b] for prediction in made)
    won = [prediction.prediction for prediction in made]
    assert a in won
    assert b not in won


class TwoOptions(Encoder):
    """Leaves the last option out of every other row."""

    def encode(self, row: Row, *, train: bool = False) -> Example:
        example = super().encode(row, train=train)
        return without_last_option(example) if row["target"] else example


def test_a_missing_option_is_neither_chosen_nor_reported(
    model: CPMAnt, alone: Callable[[Encoder, int], Tensor]
) -> None:
    made = list(choose(model, ROWS, make_encoder(ONE, TwoOptions), 10**6))
    for number, prediction in enumerate(made):
        there = alone(ENCODERS["one"], number).tolist()[: 2 if ROWS[number]["target"] else 3]
        assert prediction.scores == pytest.approx(there, rel=0, abs=TOLERANCE)
        assert prediction.prediction == there.index(max(there))


def test_choosing_is_without_dropout_or_gradient_and_puts_the_model_back_to_training() -> None:
    model = random_backbone(small_config(dropout_p=0.5), 1, torch.float32).train()
    encoder = ENCODERS["cpm-ant"]
    first, again = (list(choose(model, ROWS[:3], encoder, 500)) for _ in range(2))
    assert first == again
    assert model.training
    assert all(weight.grad is None for weight in model.parameters())
    interrupted = choose(model, ROWS, encoder, 1)
    assert next(interrupted).scores == pytest.approx(first[0].scores, abs=1e-6)  # alone in a batch
    interrupted.close()
    assert model.training
    assert not list(choose(model.eval(), [], encoder, 500))
    assert not model.training


def test_the_line_of_a_prediction_speaks_in_labels_and_six_decimals() -> None:
    prediction = Prediction("a", "相似", "矛盾", truncated=True, scores=(-1.23456789, 0.5))
    assert prediction.to_json() == {
        "id": "a",
        "scores": [-1.234568, 0.5],
        "prediction": "相似",
        "target": "矛盾",
    }
