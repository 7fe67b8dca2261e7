"""Run ids that were recorded once: whatever is reorganised, the same request is the same run.

A change of a shipped template, sample file, task version or backbone rightly changes an id; then
the new one is recorded here. Anything else that changes one is a bug: runs of before would be
tuned again, and no longer stand in one row with those of now.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import pytest

from cpm_tune.planning.plan import Plan, Request, make_plan


@dataclass
class Case:
    """A request, the plan made of it, and the id that was recorded."""

    run_id: str
    task: str
    delta: str = "lora"
    settings: dict[str, Any] = field(default_factory=dict)
    options: dict[str, Any] = field(default_factory=dict)
    control: str = ""

    def plan(self) -> Plan:
        plan = make_plan(Request(self.task, self.delta, settings=self.settings, **self.options))
        return getattr(plan, self.control)() if self.control else plan


CASES = [
    Case("lcqmc.lora.s1.525d8fc1ba01", "lcqmc"),
    Case("lcqmc.none.s0.2ad2d7ed5b8d", "lcqmc", control="zero_shot"),
    Case("lcqmc.adapter-random.s1.18ae6f29aa97", "lcqmc", "adapter", control="on_random_backbone"),
    Case(
        "c3.prefix.s1.5998b036872a", "c3", "prefix", {"train.lr": 0.003, "train.schedule": "cosine"}
    ),
    Case(
        "chid.soft_prompt.s1.22a484161ffd",
        "chid",
        "soft_prompt",
        {"delta.option_token_num": 2, "encode.max_length": 192},
    ),
    Case(
        "adgen.soft_prompt.s1.6cad29f0f6cf",
        "adgen",
        "soft_prompt",
        {
            "delta.token_init": "text",
            "delta.init_text": "写一段广告",
            "decode.beams": 4,
            "decode.n_best": 2,
            "decode.length_penalty": 0.6,
        },
    ),
    Case("lcqmc.full.s7.0245dd178b54", "lcqmc", "full", options={"precision": "bf16", "seed": 7}),
    Case("wantwords.none.s0.a6b2c48f0a09", "wantwords", "none"),
    Case(
        "sogou_log.bitfit.s1.8d8ee75c68bd",
        "sogou_log",
        "bitfit",
        options={"limit": 40, "skip_bad_rows": True},
    ),
    Case(
        "math23k.lora.s1.71b93109e63a",
        "math23k",
        "lora",
        {"delta.lora_r": 16, "decode.beams": 1, "decode.sample": True, "train.dev_rows": 16},
        {"quantize": "int8", "precision": "fp16"},
    ),
    Case(
        "cmeee.parallel_adapter.s1.07ea6c3bcb4a",
        "cmeee",
        "parallel_adapter",
        {"run.micro_tokens": 1024, "run.checkpointing": True},
    ),
    Case(
        "spr.compacter.s3.cfbe9a9ee207", "spr", "compacter", {"train.max_steps": 100}, {"seed": 3}
    ),
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.run_id.rpartition(".")[0])
def test_a_request_has_the_id_that_was_recorded(case: Case) -> None:
    if "quantize" in case.options:
        pytest.importorskip("torchao", reason="8-bit weights need the extra int8")
    assert case.plan().spec.run_id == case.run_id
