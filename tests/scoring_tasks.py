"""Tasks and a tokenizer that scoring rules are tested with."""

from __future__ import annotations

from dataclasses import replace
from typing import get_args

from conftest import encoder_of, small_config, vocabulary

from cpm_tune.backbone.ant.tokenizer import Tokenizer
from cpm_tune.data.encode import Encoder
from cpm_tune.delta.soft import SoftSlots
from cpm_tune.engine.engine import make_engine
from cpm_tune.schema.options import Scoring
from cpm_tune.schema.spec import Encoding, Execution
from cpm_tune.task import Choice, Options, Task, Template
from cpm_tune.task.registry import load_task

RULES: tuple[Scoring, ...] = get_args(Scoring)
SEGMENT = 3
CPU = make_engine(Execution(device="cpu"), "fp32")
LCQMC = load_task("lcqmc")
OWN = replace(  # a task whose rows have two to four options of their own
    load_task("ccpm"),
    answer=Options("choices", "answer", 4),
    templates=(Template("own", "{translation}：{answer}"),),
)
TASKS = {
    "option": replace(
        LCQMC,
        answer=Choice((0, 1, 2)),
        templates=(
            Template("t", "{sentence1}和{sentence2}{option}[是否正确]", ("不同", "相同", "无")),
        ),
    ),
    "answer": replace(
        LCQMC,
        answer=Choice((0, 1, 2)),
        templates=(Template("t", "{sentence1}和{sentence2}：{answer}", ("同", "相似", "矛盾无")),),
    ),
    "numbered": replace(
        OWN,
        templates=(Template("t", "{choices}{translation}：{answer}", ("一", "二", "三", "四")),),
    ),
    "own": OWN,
    "ranked": load_task("sogou_log"),
}
SLOT = {"yes-logit": ("option", "ranked"), "mean-nll": tuple(TASKS)}
FITS = {
    rule: SLOT.get(rule, ("answer", "numbered") + (() if "argmax" in rule else ("own",)))
    for rule in RULES
}
CASES = [(rule, name) for rule in RULES for name in FITS[rule]]
TOKENIZER = Tokenizer(vocabulary())


def encoder_with(task: Task, rule: Scoring, soft: SoftSlots | None = None) -> Encoder:
    encoding = Encoding(max_length=320, segment=SEGMENT)
    template = task.templates[0]
    return encoder_of(task, template, encoding, small_config(), TOKENIZER, soft=soft, scoring=rule)
