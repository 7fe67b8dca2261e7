"""Where a scoring rule can be used: templates, option words, soft prompts, lengths."""

from __future__ import annotations

from dataclasses import replace

import pytest
from conftest import encoder_of, small_config
from scoring_tasks import OWN, SEGMENT, TASKS, TOKENIZER, encoder_with

from cpm_tune.delta.config import SoftPromptConfig
from cpm_tune.delta.soft import SoftSlots
from cpm_tune.errors import UserError
from cpm_tune.schema.spec import Encoding
from cpm_tune.task import Row, Template
from cpm_tune.task.registry import load_task, load_tasks
from cpm_tune.task.scoring import scoring_of, unfit


def test_rules_fit_templates_by_their_slot_and_their_words() -> None:
    ccpm = load_task("ccpm")
    ant, two, _ = ccpm.templates
    assert not unfit(ccpm, ant, "yes-logit")
    assert not unfit(ccpm, ant, "mean-nll")
    assert not unfit(ccpm, two, "argmax-vocabulary")
    assert "template 'cpm-ant' of task ccpm has no {answer}; choose cpm-2" in unfit(
        ccpm, ant, "verbaliser-mean"
    )
    assert "has no {option}; choose cpm-ant" in unfit(ccpm, two, "yes-logit")
    own = replace(OWN, templates=(Template("own", "{translation}：{answer}"),))
    said = unfit(own, own.templates[0], "argmax-vocabulary")
    assert "has no option words of its own; no template of it fits" in said
    adgen = load_task("adgen")
    assert "generates its answers" in unfit(adgen, adgen.templates[0], "mean-nll")


def test_the_own_rule_of_every_shipped_template_fits_it() -> None:
    for task in load_tasks():
        for template in task.templates:
            rule = scoring_of(task, template)
            assert rule == "generation" or not unfit(task, template, rule)


def test_a_templates_own_rule_is_in_its_fingerprint_only_if_it_is_not_its_slots() -> None:
    plain = Template("t", "{a}{option}")
    ruled = replace(plain, scoring="mean-nll")
    assert plain.own_scoring == "yes-logit"
    assert ruled.own_scoring == "mean-nll"
    assert plain.sha256 != ruled.sha256
    assert replace(plain, scoring=None).sha256 == plain.sha256


def test_options_that_begin_alike_cannot_be_told_by_their_first_token() -> None:
    task = replace(
        TASKS["answer"],
        templates=(Template("t", "{sentence1}{sentence2}{answer}", ("不同", "不", "相似")),),
    )
    with pytest.raises(UserError, match="options '不同' and '不' of template 't' begin with the"):
        encoder_with(task, "argmax-vocabulary")
    encoder_with(task, "verbaliser-sum")


@pytest.mark.parametrize(("slot", "fits"), [("front", True), ("back", False), ("middle", False)])
def test_a_soft_prompt_inside_the_passage_has_no_likelihood(slot: str, fits: bool) -> None:
    config = SoftPromptConfig(soft_token_num=3, slots=(slot,), ratio_list=(1.0,))
    soft = SoftSlots(config, 10_000, 1)
    if not fits:
        with pytest.raises(UserError, match="scoring mean-nll: the soft prompt's tokens inside"):
            encoder_with(TASKS["option"], "mean-nll", soft)
        return
    encoder = encoder_with(TASKS["option"], "mean-nll", soft)
    row: Row = {"id": "0", "sentence1": "猫", "sentence2": "今天", "target": 2}
    example = encoder.encode(row)
    assert example.contexts == ((*encoder.layout.start, 10_000, 10_001, 10_002),)
    assert all(max(answer.ids) < 10_000 for answer in example.candidates)
    assert all(answer.ids[-1] == TOKENIZER.eos for answer in example.candidates)


def test_a_passage_has_room_for_its_end() -> None:
    task = TASKS["option"]
    for length in range(30, 60):
        encoder = encoder_of(
            *(task, task.templates[0], Encoding(max_length=length, segment=SEGMENT)),
            *(small_config(), TOKENIZER),
            scoring="mean-nll",
        )
        row: Row = {"id": "0", "sentence1": "猫" * 40, "sentence2": "好" * 40, "target": 0}
        (context,), candidates = encoder.encode(row).contexts, encoder.encode(row).candidates
        longest = max(len(context) + len(answer.ids) for answer in candidates)
        assert length - 1 <= longest <= length
