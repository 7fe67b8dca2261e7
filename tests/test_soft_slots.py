"""A soft prompt's slots: how many tokens stand where, and before which options."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from conftest import encoder_of, small_config, vocabulary
from delta_table import DELTAS, SHA, backbone, sequence
from hypothesis import given
from hypothesis import strategies as st

from cpm_tune.backbone.ant.tokenizer import Tokenizer
from cpm_tune.data.template_ids import placed_ids
from cpm_tune.delta.config import SoftPromptConfig, parse_config
from cpm_tune.delta.insert import insert
from cpm_tune.delta.slots import apportion, slot_places
from cpm_tune.delta.soft import SoftSlots
from cpm_tune.errors import UserError
from cpm_tune.planning.inputs import read_inputs
from cpm_tune.planning.plan import Request, make_plan
from cpm_tune.schema.spec import Encoding
from cpm_tune.task.registry import load_preset, load_task, preset_files
from cpm_tune.task.template import Template

SHAPE = small_config()
FIRST = SHAPE.vocab_size + SHAPE.prompt_types * SHAPE.prompt_length

# CPM-2's configs/prompt/*: name -> ratio_list of 100 tokens, and where each slot ends.
CPM_2 = {
    "lcqmc_10_0_0": ([1.0, 0.0, 0.0], [100, 100, 100]),
    "lcqmc_0_0_10": ([0.0, 0.0, 1.0], [0, 0, 100]),
    "lcqmc_5_0_5": ([0.5, 0.0, 0.5], [50, 50, 100]),
    "lcqmc_0_10_0": ([0.0, 1.0, 0.0], [0, 100, 100]),
    "lcqmc_5_5_0": ([0.5, 0.5, 0.0], [50, 100, 100]),
    "lcqmc_0_5_5": ([0.0, 0.5, 0.5], [0, 50, 100]),
    "lcqmc_33_34_33": ([0.33, 0.34, 0.33], [33, 67, 100]),
    "lcqmc_99_1_0": ([0.99, 0.01, 0.0], [99, 100, 100]),
    "c3_33_34_33_0": ([0.33, 0.34, 0.33, 0.0], [33, 67, 100, 100]),
    "29/100, which is less in floating point": ([0.29, 0.71], [29, 100]),
}


@pytest.mark.parametrize(("ratios", "ends"), CPM_2.values(), ids=CPM_2)
def test_tokens_are_divided_as_in_cpm_2(ratios: list[float], ends: list[int]) -> None:
    slots = [f"slot{k}" for k in range(len(ratios))]
    divided = apportion(100, slots, ratios)
    assert [divided[slot].stop for slot in slots] == ends
    assert apportion(100, slots, [round(100 * r) for r in ratios]) == divided


@given(st.integers(1, 300), st.lists(st.integers(0, 50), min_size=1, max_size=5))
def test_every_token_is_in_one_slot_and_every_slot_within_one_of_its_share(
    n: int, ratios: list[int]
) -> None:
    slots = [f"slot{k}" for k in range(len(ratios))]
    try:
        divided = apportion(n, slots, ratios)
    except ValueError:
        assert not sum(ratios) or any(r > 0 and n * r < 2 * sum(ratios) for r in ratios)
        return
    assert [k for slot in slots for k in divided[slot]] == list(range(n))
    for slot, ratio in zip(slots, ratios, strict=True):
        assert abs(len(divided[slot]) - n * ratio / sum(ratios)) < 1


def test_slot_ids_follow_the_backbones_own_prompts_and_options_take_from_the_front() -> None:
    config = SoftPromptConfig(soft_token_num=10, ratio_list=(5, 0, 5))
    slots = SoftSlots(config, FIRST)
    assert slots.names == ("front", "back")
    assert slots.slot_ids("front") == tuple(range(FIRST, FIRST + 5))
    assert slots.slot_ids("middle") == ()
    assert slots.slot_ids("back") == tuple(range(FIRST + 5, FIRST + 10))
    with pytest.raises(UserError, match="Did you mean 'middle'"):
        slots.slot_ids("midle")

    # CPM-2: three tokens before each of four options, 12 fewer in front
    config = SoftPromptConfig(option_token_num=3)
    slots = SoftSlots(config, FIRST, n_options=4)
    assert slots.options[0] == (FIRST, FIRST + 1, FIRST + 2)
    assert slots.options[3] == (FIRST + 9, FIRST + 10, FIRST + 11)
    assert slots.slot_ids("front") == tuple(range(FIRST + 12, FIRST + 33))
    with pytest.raises(UserError, match="12 options need 36 tokens, but slot 'front' has 33"):
        SoftSlots(config, FIRST, n_options=12)


def test_slots_stand_in_front_before_the_last_field_and_where_the_answer_begins() -> None:
    found = {}
    for template in load_task("lcqmc").templates:
        pieces = [piece.value or piece.kind for piece in template.pieces]
        for slot, place in slot_places([piece.kind for piece in template.pieces]).items():
            pieces[place:place] = []
            found[template.name, slot] = pieces[place] if place < len(pieces) else "the end"
    assert found["cpm-2", "front"] == "“"
    assert found["cpm-2", "middle"] == "sentence2"
    assert found["cpm-2", "back"] == "answer"
    assert found["cpm-ant", "front"] == "sentence1"
    assert found["cpm-ant", "middle"] == "sentence2"
    assert found["cpm-ant", "back"] == "the end"
    one_field = ["text", "field", "text", "option", "text"]
    assert slot_places(one_field)["middle"] == 3
    assert slot_places(["text", "field", "answer"])["middle"] == 1


def test_slots_at_the_same_place_keep_their_order() -> None:
    places = slot_places(["field", "answer"])
    assert places == {"front": 0, "middle": 0, "back": 1}
    task, soft = load_task("wantwords"), SoftSlots(SoftPromptConfig(soft_token_num=9), FIRST)
    template = Template("t", "{definition}{answer}")
    placed, _ = placed_ids(template, soft)
    assert placed == {0: tuple(range(FIRST, FIRST + 6)), 1: tuple(range(FIRST + 6, FIRST + 9))}
    assert task.answer_kind == "generate"


def test_soft_tokens_stand_before_each_listed_option_in_training_and_inference() -> None:
    task = load_task("ccpm")
    template, tokenizer = task.template("cpm-2"), Tokenizer(vocabulary())
    config = SoftPromptConfig(soft_token_num=60, option_token_num=3)
    encoder = encoder_of(
        task, template, Encoding(), SHAPE, tokenizer, soft=SoftSlots(config, FIRST, n_options=4)
    )
    row = {"id": 1, "translation": "春天", "choices": ["花", "草", "树", "水"], "target": 2}
    for train in (True, False):
        ids = encoder.encode(row, train=train).contexts[0]
        for k, shown in enumerate(("一、花；", "二、草；", "三、树；", "四、水；")):
            at = ids.index(FIRST + 3 * k)
            assert ids[at : at + 3] == tuple(range(FIRST + 3 * k, FIRST + 3 * k + 3))
            expected = tokenizer.encode(shown)
            assert list(ids[at + 3 : at + 3 + len(expected)]) == expected
    cut = encoder.encode({**row, "choices": ["花" * 300, "草", "树"]})
    assert cut.truncated
    assert FIRST + 8 in cut.contexts[0]
    assert FIRST + 9 not in cut.contexts[0]  # there is no fourth option


def test_c3_has_soft_tokens_where_cpm_2_has_them() -> None:
    """Written out after C3Dataset.process_data, with a prompt: 33 less those before options, the
    question, 34, the options with three each, 33, the text."""
    task, tokenizer = load_task("c3"), Tokenizer(vocabulary())
    folder = preset_files()["lora"].parent
    config = parse_config(load_preset(str(folder / "cpm-2-prompts/c3.json")), "c3")
    encoder = encoder_of(
        *(task, task.template("cpm-2-prompt"), Encoding(), SHAPE, tokenizer),
        soft=SoftSlots(config, FIRST, n_options=4),
    )
    row = {"id": "1", "passage": "今天", "question": "怎么", "choices": ["猫", "好"], "target": 1}
    (context,), start = encoder.encode(row).contexts, len(encoder.layout.start)

    def soft(*ends: int) -> list[int]:
        return list(range(FIRST + ends[0], FIRST + ends[1]))

    expected = [*soft(12, 33), *tokenizer.encode("怎么"), *soft(33, 67)]
    for k, shown in enumerate(("一、猫；", "二、好；")):
        expected += [*soft(3 * k, 3 * k + 3), *tokenizer.encode(shown)]
    expected += [*soft(67, 100), *tokenizer.encode("今天")]
    assert list(context[start:]) == expected


def test_tokens_before_options_where_none_are_shown_are_an_error(
    small_backbone: Path,
) -> None:
    settings = {"delta.option_token_num": 3}
    request = Request("wantwords", "soft_prompt", backbone=str(small_backbone), settings=settings)
    with pytest.raises(UserError, match="shows no options"):
        read_inputs(make_plan(request))


def test_the_positions_of_cpm_2s_study_are_there_as_configs() -> None:
    files = sorted((preset_files()["lora"].parent / "cpm-2-positions").glob("*.json"))
    kinds = [piece.kind for piece in load_task("lcqmc").template("cpm-2").pieces]
    found = {}
    for file in files:
        config = parse_config(load_preset(str(file)), file.name)
        slots = SoftSlots(config, FIRST)
        assert set(slots.names) <= set(slot_places(kinds))
        found[file.stem] = "-".join(name[0] for name in slots.names)
    assert found == {name: name for name in ("f", "b", "f-b", "m", "f-m", "m-b", "f-m-b")}


def test_masks_hide_text_from_the_prompt_or_the_prompt_from_text() -> None:
    front = SoftPromptConfig(soft_token_num=6, ratio_list=(1, 0, 0), prompt_sees_text=False)
    for config in (front, DELTAS["soft_prompt, hidden"]):
        model = backbone()
        delta = insert(model, config, SHA, seed=1)
        row = sequence(model, config, 20, 12)
        soft = (row["ids"] >= FIRST)[0]
        other = {**row, "ids": row["ids"].clone()}
        other["ids"][0, -4] = 77  # another word of the text, context for all
        with torch.no_grad():
            before, changed = model(**row)[0], model(**other)[0]
            for parameter in delta.parameters.values():
                parameter.add_(torch.randn(parameter.shape))
            moved = model(**row)[0]
        sees_text, sees_prompt = config.prompt_sees_text, config.text_sees_prompt
        assert torch.equal(before[soft], changed[soft]) == (not sees_text)
        assert torch.equal(before[~soft], moved[~soft]) == (not sees_prompt)
        assert not torch.equal(before[~soft], changed[~soft])
        assert not torch.equal(before[soft], moved[soft])


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"prompt_sees_text": False}, "must see the text"),
        ({"text_sees_prompt": False, "ratio_list": [1, 1, 0]}, "needs a back slot"),
        ({"text_sees_prompt": False, "prompt_sees_text": False}, "in one direction at least"),
    ],
)
def test_masks_that_leave_nothing_to_answer_with_are_an_error(
    changes: dict[str, object], said: str, small_backbone: Path
) -> None:
    settings = {f"delta.{name}": value for name, value in changes.items()}
    with pytest.raises(UserError, match=said):
        make_plan(Request("lcqmc", "soft_prompt", backbone=str(small_backbone), settings=settings))
    with pytest.raises(UserError, match=said):
        insert(backbone(), parse_config({"delta_type": "soft_prompt", **changes}, "x"), SHA, 1)


def test_inputs_are_made_once_and_a_control_has_the_encoder_of_its_own_delta(
    small_backbone: Path,
) -> None:
    plan = make_plan(Request("lcqmc", "soft_prompt", backbone=str(small_backbone)))
    inputs = read_inputs(plan)
    assert inputs.of(plan) is inputs
    assert inputs.of(plan.on_random_backbone()) is inputs
    control = inputs.of(plan.zero_shot())
    assert (control.splits, control.engine) == (inputs.splits, inputs.engine)
    assert (inputs.skeleton.n_trained > 0, control.skeleton.n_trained) == (True, 0)
    row = next(iter(inputs.splits["dev"].rows))
    lengths = [len(one.encoder.encode(row).contexts[0]) for one in (inputs, control)]
    assert lengths[0] - lengths[1] == load_preset("soft_prompt")["soft_token_num"]
