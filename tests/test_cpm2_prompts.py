"""CPM-2's prompt tuning: rows of a table of their own, in the encoder alone, against the ranks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cpm2_ranks as cpm2
import pytest
import torch
from conftest import CLI, write_jsonl
from test_cpm2 import ANSWER, error_of, publish

from cpm_tune.backbone.example import Answer, Example
from cpm_tune.backbone.families import open_folder
from cpm_tune.common.paths import PACKAGE
from cpm_tune.delta.config import SoftPromptConfig, parse_config
from cpm_tune.delta.insert import insert, load_delta
from cpm_tune.errors import UserError
from cpm_tune.schema.spec import Encoding
from cpm_tune.task.registry import load_preset

MASK, SHA = 6, "0" * 64
# The encoder's input as CPM-2 has it: rows of the prompt are -1, -2, ...
INPUTS = (
    [-1, -2, -3, 30, 47, 23, -4, -5, 25, 11, 40],
    [-1, -2, -3, -4, -5, 23, 24, 47, 11],
    [30, 0, 23, -1, -2, -3, -4, -5],
)
SLOTS: dict[str, Any] = {"soft_token_num": 5, "ratio_list": (1, 0, 0), "token_init": "mask"}


def opened(folder: Path, dtype: torch.dtype, **changes: Any) -> tuple[Any, Any, Any]:
    found = open_folder(folder)
    tokenizer = found.tokenizer()
    model = found.open(dtype)
    delta = insert(model, SoftPromptConfig(**{**SLOTS, **changes}), SHA, 1, tokenizer)
    return model, delta, found.layout(Encoding(), tokenizer)


def scores(model: Any, layout: Any, ids: list[int]) -> torch.Tensor:
    """Logits at the places of ANSWER; ids below 0 are soft tokens."""
    context = tuple(i if i >= 0 else layout.first_free - i - 1 for i in ids)
    batch = layout.collate([Example("", (context,), (Answer(0, ANSWER),), 0, False)])
    (logits,) = model.scores(batch)
    return logits


@pytest.mark.parametrize("ids", INPUTS)
@pytest.mark.parametrize("hidden", ["nothing", "text from prompt", "prompt from text"])
def test_logits_and_gradients_are_those_of_the_ranks(
    tmp_path: Path, ids: list[int], hidden: str
) -> None:
    ranks = publish(tmp_path / "cpm2", 2)
    model, delta, layout = opened(
        tmp_path / "cpm2",
        torch.float32,
        prompt_sees_text=hidden != "text from prompt",
        text_sees_prompt=hidden != "prompt from text",
    )
    (table,) = delta.parameters.values()
    with torch.no_grad():
        table.add_(torch.randn(table.shape, generator=torch.Generator().manual_seed(3)))
    soft = torch.tensor(ids) < 0
    query, key = soft[:, None], soft[None]
    pairs = {
        "nothing": torch.zeros(len(ids), len(ids), dtype=torch.bool),
        "text from prompt": query & ~key,
        "prompt from text": ~query & key,
    }[hidden]
    prompt = table.detach().double().requires_grad_()
    expected = cpm2.logits(ranks, ids, [1, *ANSWER[:-1]], prompt, pairs)
    logits = scores(model, layout, ids)
    assert error_of(logits.detach(), expected.detach().float()) < 1e-5
    for found in (logits, expected):
        torch.nn.functional.cross_entropy(found, torch.tensor(ANSWER), reduction="sum").backward()
    assert error_of(table.grad, prompt.grad.float()) < 1e-5
    assert prompt.grad.abs().sum(1).min() > 0, "the decoder sees every row of the prompt"
    frozen = [p for name, p in model.named_parameters() if name not in delta.parameters]
    assert all(parameter.grad is None for parameter in frozen)


def test_all_rows_begin_as_the_entry_mask(tmp_path: Path) -> None:
    ranks = publish(tmp_path / "cpm2", 2)
    model, delta, layout = opened(tmp_path / "cpm2", torch.float32)
    (table,) = delta.parameters.values()
    row = ranks[0]["word_embeds.weight"][MASK]
    assert torch.equal(table.detach(), row.expand(5, -1))
    ids = INPUTS[0]
    masked = [MASK if i < 0 else i for i in ids]
    model.eval()
    with torch.no_grad():
        torch.testing.assert_close(scores(model, layout, ids), scores(model, layout, masked))
    delta.save(tmp_path / "delta")
    again = load_delta(tmp_path / "delta", open_folder(tmp_path / "cpm2").open(torch.float32), SHA)
    assert torch.equal(*(next(iter(each.state().values())) for each in (delta, again)))


def test_the_mask_of_another_tokenizer_or_none_is_one_sentence(tmp_path: Path) -> None:
    publish(tmp_path / "cpm2", 1)
    found = open_folder(tmp_path / "cpm2")
    with pytest.raises(UserError, match="needs the backbone's tokenizer"):
        insert(found.open(torch.float32), SoftPromptConfig(**SLOTS), SHA, 1)
    with pytest.raises(UserError, match="this vocabulary has no <mask>"):
        insert(found.open(torch.float32), SoftPromptConfig(**SLOTS), SHA, 1, object())  # type: ignore[arg-type]


def test_the_masks_of_its_study_are_there_as_configs(tmp_path: Path) -> None:
    files = sorted((PACKAGE.parent / "delta_configs" / "cpm-2-masks").glob("*.json"))
    assert {file.stem for file in files} == {
        f"{hidden}-{slots}" for hidden in ("p2t", "t2p") for slots in ("f", "f-m", "f-m-b")
    }
    publish(tmp_path / "cpm2", 1)
    model = open_folder(tmp_path / "cpm2").open(torch.float32)
    for file in files:
        config = parse_config(load_preset(str(file)), file.name)
        assert isinstance(config, SoftPromptConfig)
        assert (config.soft_token_num, config.token_init) == (100, "mask")
        assert config.prompt_sees_text == (not file.stem.startswith("p2t"))
        assert config.text_sees_prompt == (not file.stem.startswith("t2p"))
        insert(model, config, SHA, 1, open_folder(tmp_path / "cpm2").tokenizer()).remove()


def test_runs_with_masked_prompts_and_rows_before_options(cli: CLI, tmp_path: Path) -> None:
    publish(tmp_path / "cpm2", 2)
    pair = {"sentence1": "今天天气是好", "sentence2": "今天大学生", "label": 1}
    verse = {"translation": "今天天气", "choices": ["北京", "上海", "中国", "人民"], "answer": 2}
    masks = PACKAGE.parent / "delta_configs" / "cpm-2-masks" / "t2p-f.json"
    options = {"delta.option_token_num": 3, "delta.token_init": "mask"}
    short = {"train.max_steps": 2, "train.eval_every": 2, "train.batch_size": 4}
    for task, row, delta, changes in (
        ("lcqmc", pair, masks, short),
        ("ccpm", verse, "soft_prompt", {**short, **options}),
    ):
        data = tmp_path / task
        data.mkdir()
        for split, n in (("train", 8), ("dev", 4), ("test", 4)):
            write_jsonl(data / f"{split}.jsonl", [{"id": i, **row} for i in range(n)])
        words = ("--backbone", tmp_path / "cpm2", "--out", tmp_path / "out", "--template", "cpm-2")
        sets = [word for each in changes.items() for word in ("--set", "{}={}".format(*each))]
        code, _, error = cli("--task", task, "--delta", delta, "--data", data, *words, *sets)
        assert code == 0, error
