"""Generation with a cache against no cache, against training's scores and against transformers'."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from backbone_oracle import CONFIG, VOCAB, load, talkative_hugging_face, write_hugging_face
from conftest import encoder_of, small_config, vocabulary
from decode_oracle import (
    N_PROMPT,
    assert_same,
    backbone,
    generate,
    lively,
    log_prob,
    make,
    naive_search,
    random_prefixes,
    request,
)

from cpm_tune import decode
from cpm_tune.backbone.ant.model import CPMAnt
from cpm_tune.backbone.ant.tokenizer import Tokenizer
from cpm_tune.backbone.example import Answer
from cpm_tune.errors import UserError
from cpm_tune.schema.spec import Decoding, Encoding
from cpm_tune.task import Template
from cpm_tune.task.registry import load_task
from cpm_tune.tuning.predict import scored_targets
from cpm_tune.tuning.scoring import candidate_scores

LENGTHS = (3, 9, 14, 1, 20, 6, 0, 35)
TOLERANCE = 1e-5


pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def model() -> CPMAnt:
    return backbone()


# --- the cache ---


@pytest.mark.parametrize("kind", ["plain", "lora", "absent sub-blocks", "all absent"])
@pytest.mark.parametrize("settings", [{}, {"beams": 3, "n_best": 3, "length_penalty": 0.7}])
def test_generation_equals_running_the_whole_sequence_at_every_step(
    kind: str, settings: dict[str, Any]
) -> None:
    model = make(kind)
    prefixes = random_prefixes(LENGTHS)
    made = generate(model, prefixes, max_new_tokens=8, **settings)
    for prefix, ours in zip(prefixes, made, strict=True):
        assert_same(ours, naive_search(model, prefix, Decoding(max_new_tokens=8, **settings)))


def test_the_texts_of_these_tests_tell_mistakes_apart(model: CPMAnt) -> None:
    """Guards the others: texts depend on their prefixes, some end early and some do not."""
    made = [h for (h,) in generate(model, random_prefixes(LENGTHS), max_new_tokens=8)]
    assert len({h.ids for h in made}) >= 6
    assert max(len(set(h.ids)) for h in made) >= 4
    assert {h.finished for h in made} == {True, False}
    assert len({len(h.ids) for h in made if h.finished}) >= 2
    lora = [h for (h,) in generate(make("lora"), random_prefixes(LENGTHS), max_new_tokens=8)]
    assert lora != made


@pytest.mark.parametrize("folder", ["native", "hugging_face", "reference"], indirect=True)
def test_every_layout_generates_with_the_cache_what_it_does_without(folder: Path) -> None:
    model = lively(load(folder), attention=1, ffn=2).eval()
    for prefix in random_prefixes((4, 11)):
        ours = generate(model, [prefix], max_new_tokens=6, beams=2, n_best=2)[0]
        assert_same(
            ours, naive_search(model, prefix, Decoding(max_new_tokens=6, beams=2, n_best=2))
        )


def test_prompt_and_text_may_have_one_segment(model: CPMAnt) -> None:
    prefixes = random_prefixes(LENGTHS[:4])
    made = generate(model, prefixes, max_new_tokens=5, beams=2, n_prompt=0)
    for prefix, ours in zip(prefixes, made, strict=True):
        settings = Decoding(max_new_tokens=5, beams=2)
        assert_same(ours, naive_search(model, prefix, settings, n_prompt=0))


def test_log_probs_are_the_models_own_whatever_ranks_or_draws(model: CPMAnt) -> None:
    (prefix,) = random_prefixes((5,))
    for settings in (
        {"repetition_penalty": 1.7, "beams": 3, "n_best": 3},
        {"sample": True, "temperature": 2.0, "top_k": 9, "top_p": 0.9},
    ):
        made = generate(model, [prefix], max_new_tokens=9, stop=(3,), banned=(0, 5), **settings)[0]
        for hypothesis in made:
            expected = log_prob(model, prefix, hypothesis, 3)
            assert hypothesis.log_prob == pytest.approx(expected, abs=TOLERANCE)


def test_log_probs_are_the_scores_of_training() -> None:
    """A generated text as the gold answer of an encoded example: `candidate_scores` agrees."""
    model = backbone(config=small_config(), sharpness=1)
    template = Template("made", "{sentence1}对{sentence2}吗？{answer}", ("是", "不是"))
    task = replace(load_task("lcqmc"), templates=(template,))
    tokenizer = Tokenizer(vocabulary())
    encoding = Encoding(max_length=200, segment=3)
    encoder = encoder_of(task, template, encoding, model.config, tokenizer)
    rows = [
        {"id": str(n), "sentence1": "猫" * n, "sentence2": "狗怎么养？", "target": 1}
        for n in (1, 30, 4)
    ]
    examples = [encoder.encode(row, train=True) for row in rows]
    prefixes = [example.contexts[0] for example in examples]
    made = generate(
        model,
        prefixes,
        stop=(),
        segment=encoder.layout.segment,
        n_prompt=encoder.layout.n_prompt,
        max_new_tokens=7,
        beams=2,
    )
    as_gold = [
        replace(example, candidates=(Answer(0, hypothesis.ids),))
        for example, (hypothesis,) in zip(examples, made, strict=True)
    ]
    with torch.no_grad():
        batch = encoder.layout.collate(as_gold)
        scored = scored_targets(model, batch, "generation")
        scores = candidate_scores(scored, batch, "generation")
    assert [h.log_prob for (h,) in made] == pytest.approx(scores.tolist(), abs=TOLERANCE)


# --- batches ---


@pytest.mark.parametrize(
    "settings",
    [
        {"beams": 3, "n_best": 3},
        {"beams": 2, "length_penalty": 1.0, "repetition_penalty": 1.2, "min_new_tokens": 2},
        {"sample": True, "temperature": 1.5, "seed": 5},
        {"sample": True, "top_k": 8, "top_p": 0.9},
    ],
)
def test_a_batch_gives_what_each_prefix_gives_alone(
    model: CPMAnt, settings: dict[str, Any]
) -> None:
    prefixes = random_prefixes((0, 50, 2, 19, 7, 120, 3, 11, 1, 30))
    settings = {**settings, "max_new_tokens": 10}
    alone = [generate(model, [prefix], **settings)[0] for prefix in prefixes]
    for micro_tokens in (10**6, 200):
        together = generate(model, prefixes, micro_tokens=micro_tokens, **settings)
        for ours, theirs in zip(together, alone, strict=True):
            assert_same(ours, [(h.ids, h.finished, h.score) for h in theirs])
            expected = [h.log_prob for h in theirs]
            assert [h.log_prob for h in ours] == pytest.approx(expected, abs=TOLERANCE)
    backwards = generate(model, prefixes[::-1], **settings)[::-1]
    assert [[h.ids for h in each] for each in backwards] == [[h.ids for h in e] for e in alone]


def test_no_prefixes_no_texts(model: CPMAnt) -> None:
    assert generate(model, []) == []


def test_a_prefix_of_one_id(model: CPMAnt) -> None:
    prefixes = [(9,), (30,)]
    made = generate(model, prefixes, n_prompt=0, max_new_tokens=4, beams=2)
    for prefix, ours in zip(prefixes, made, strict=True):
        settings = Decoding(max_new_tokens=4, beams=2)
        assert_same(ours, naive_search(model, prefix, settings, n_prompt=0))


def test_a_text_may_end_at_once_or_after_one_token(model: CPMAnt) -> None:
    (prefix,) = random_prefixes((4,))
    ((first,),) = generate(model, [prefix], max_new_tokens=1, stop=())
    assert len(first.ids) == 1
    assert not first.finished
    ((nothing,),) = generate(model, [prefix], max_new_tokens=20, stop=first.ids)
    assert nothing.ids == ()
    assert nothing.finished
    assert nothing.log_prob == nothing.score == pytest.approx(first.log_prob, abs=TOLERANCE)


# --- against transformers ---


@pytest.mark.parametrize(
    "settings",
    [{}, {"beams": 3, "n_best": 3}, {"beams": 4, "n_best": 4, "length_penalty": 0.8}],
)
def test_texts_equal_those_of_transformers(tmp_path: Path, settings: dict[str, Any]) -> None:
    """Its cached generation means the same: the prefix is encoded alone, a token sees all before
    it. Its uncached one does not (generated tokens would be context)."""
    theirs = talkative_hugging_face()
    model = load(write_hugging_face(tmp_path / "hf", theirs)).eval()
    eos, longest = 17, max(LENGTHS)
    drawn = [prefix[N_PROMPT:] for prefix in random_prefixes(LENGTHS, seed=4)]
    texts = [[token or 1 for token in text] for text in drawn if text]  # to them 0 is padding
    prompt = range(VOCAB + 2 * N_PROMPT, VOCAB + 3 * N_PROMPT)
    prefixes = [(*prompt, *text) for text in texts]
    made = generate(model, prefixes, stop=(eos,), banned=(0,), max_new_tokens=12, **settings)
    searching = {"length_penalty": settings.get("length_penalty", 0.0), "early_stopping": "never"}
    output = theirs.generate(
        torch.tensor([[0] * (longest - len(text)) + text for text in texts]),
        max_new_tokens=12,
        do_sample=False,
        num_beams=settings.get("beams", 1),
        num_return_sequences=settings.get("n_best", 1),
        **(searching if settings else {}),
        suppress_tokens=[0],
        eos_token_id=eos,
        pad_token_id=0,
        use_cache=True,
        return_dict_in_generate=True,
        output_scores=True,
    )
    flat = [hypothesis for each in made for hypothesis in each]
    for ours, row in zip(flat, output.sequences[:, longest:].tolist(), strict=True):
        assert row[: len(ours.ids) + 1] == [*ours.ids, eos][: len(row)]
    if settings:
        scores = output.sequences_scores.tolist()
        # a score is the sum of a dozen such log-probabilities
        assert [h.score for h in flat] == pytest.approx(scores, rel=TOLERANCE, abs=TOLERANCE)
    assert {h.finished for h in flat} == {True, False}
    assert len({h.ids for h in flat}) > len(flat) / 2


# --- one token at a time ---


@pytest.mark.parametrize("settings", [{}, {"sample": True, "seed": 3, "top_p": 0.95}])
def test_streamed_tokens_are_the_generated_text(model: CPMAnt, settings: dict[str, Any]) -> None:
    wanted = request(max_new_tokens=10, **settings)
    for prefix in random_prefixes(LENGTHS):
        ((whole,),) = decode.generate(model, [prefix], wanted)
        assert tuple(decode.stream(model, prefix, wanted)) == whole.ids


def test_a_stream_that_is_left_puts_the_model_back_to_training() -> None:
    model = backbone(config=replace(CONFIG, dropout_p=0.5)).train()
    (prefix,) = random_prefixes((8,))
    stream = decode.stream(model, prefix, request(stop=()))
    first = next(stream)
    assert not torch.is_inference_mode_enabled()
    stream.close()
    assert model.training
    ((text,),) = generate(model, [prefix], stop=())
    assert text.ids[0] == first
    assert model.training


# --- precision, and what cannot be ---


@pytest.mark.parametrize("kind", ["plain", "lora"])
def test_bfloat16_log_probs_are_near_those_without_a_cache(kind: str) -> None:
    """A delta stays fp32 on the bfloat16 backbone, as an engine runs it: under autocast."""
    model, prefixes = make(kind), random_prefixes(LENGTHS)
    for name, parameter in model.named_parameters():
        parameter.data = parameter if ".lora." in name else parameter.to(torch.bfloat16)
    with torch.autocast("cpu", torch.bfloat16, enabled=kind == "lora"):
        made = generate(model, prefixes, max_new_tokens=6, beams=2, stop=(3,))
        expected = [log_prob(model, p, h, 3) for p, (h,) in zip(prefixes, made, strict=True)]
    assert [h.log_prob for (h,) in made] == pytest.approx(expected, abs=0.3)


def test_weights_that_are_not_numbers_are_one_sentence(model: CPMAnt) -> None:
    broken = copy.deepcopy(model)
    with torch.no_grad():
        broken.encoder.output_layernorm.weight[3] = float("nan")
    for settings in ({}, {"sample": True}, {"beams": 2}):
        with pytest.raises(UserError, match="not finite"):
            generate(broken, random_prefixes((3,)), **settings)


def test_a_call_that_cannot_work_is_refused(model: CPMAnt) -> None:
    with pytest.raises(ValueError, match="prefix 1 has 3 ids, expected at least 4"):
        generate(model, [*random_prefixes((3,)), (1, 2, 3)])
    with pytest.raises(ValueError, match="expected at least 1"):
        generate(model, [()], n_prompt=0)
    with pytest.raises(ValueError, match="tokens are banned"):
        generate(model, random_prefixes((3,)), banned=range(VOCAB))
    with pytest.raises(ValueError, match="only one beam can be streamed"):
        decode.stream(model, (1,), request(beams=2, n_prompt=0))
