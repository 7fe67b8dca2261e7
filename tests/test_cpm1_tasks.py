"""CPM-1's own sequences: ChID and STC, token by token, and their runs on a tiny CPM-1."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import cpm1_oracle as cpm1
import pytest
import torch
from conftest import CLI
from cpm1_vocabulary import model_for

from cpm_tune.backbone.causal.cpm1_tokenizer import CPM1Tokenizer
from cpm_tune.backbone.causal.layout import CausalLayout
from cpm_tune.backbone.example import Answer, Ids
from cpm_tune.backbone.families import open_folder
from cpm_tune.data.encode import Encoder
from cpm_tune.errors import UserError
from cpm_tune.task import Row, Template
from cpm_tune.task.registry import load_task

CHID, STC = load_task("chid"), load_task("stc")
IDIOMS = [
    *("画蛇成足", "守株成兔", "守株成鹿", "井底成蛙", "刻舟成剑"),
    *("杯弓成影", "亡羊成牢", "掩耳成铃", "自相成盾", "叶公成龙"),
]
PASSAGE = "他做事#idiom000001# ，令人放心。她却总是#idiom000002#，"
TEXTS = (
    *(f"选项 {i} : 选项{i}:" for i in range(10)),
    *(str(i) for _ in range(5) for i in range(10)),
    *IDIOMS,
    "他做事，令人放心。她却总是，",
    "上下文:答案是:对话上文:你好吗 回复:我很好\n",
)
SEP, MASK, EOD = 4, 6, 7


@pytest.fixture(scope="module")
def tokenizer() -> CPM1Tokenizer:
    return CPM1Tokenizer(model_for(TEXTS, 260))


def encoder(tokenizer: CPM1Tokenizer, task: Any, name: str, answer_tokens: int = 0) -> Encoder:
    layout = CausalLayout(tokenizer, (), len(tokenizer))
    return Encoder(task, task.template(name), layout, tokenizer, 400, answer_tokens)


def blanks(content: str = PASSAGE) -> list[Row]:
    """The rows of a passage of the competition, the first two idioms right."""
    assert CHID.files.rows is not None
    answers = {"#idiom000001#": 0, "#idiom000002#": 1}
    record = {"content": [content], "candidates": IDIOMS, "answers": answers}
    return [{"id": "x", **row, "target": row["answer"]} for row in CHID.files.rows(record)]


def test_chid_is_tuned_on_cpm_1s_sequence(tokenizer: CPM1Tokenizer) -> None:
    """As process_one_sent of preprocess_chid_finetune.py makes it, each piece encoded alone."""
    encode = tokenizer.encode
    first, second = blanks()
    options: list[int] = []
    for number, idiom in enumerate(IDIOMS):
        options += [*encode(f"选项{number}:"), *encode(idiom), SEP]
    digits = [encode(str(number))[0] for number in range(10)]
    assert len(set(digits)) == 10
    assert all(digit in encode(f"选项{number}:") for number, digit in enumerate(digits))
    asked = [MASK, *encode("答案是:")]
    for row, left, right, gold in (
        (first, "他做事", "，令人放心。她却总是，", 0),
        (second, "他做事 ，令人放心。她却总是", "，", 1),
    ):
        example = encoder(tokenizer, CHID, "cpm-1").encode(row)
        passage = [*encode("上下文:"), *encode(left), MASK, *encode(right), EOD]
        assert example.contexts == ((*passage, *options, *asked),)
        assert example.candidates == tuple(Answer(0, (digit,)) for digit in digits)
        assert example.gold == gold
    trained = encoder(tokenizer, CHID, "cpm-1").encode(second, train=True)
    assert trained.candidates == (Answer(0, (digits[1],)),)


@pytest.mark.parametrize("content", [PASSAGE, "#idiom000001#，令人放心。"])
def test_chid_zero_shot_is_each_filled_passage(tokenizer: CPM1Tokenizer, content: str) -> None:
    """As process_one_sent_eval of preprocess_chid_zeroshot.py, with <eod> after the passage; its
    first token has no likelihood."""
    row = blanks(content)[0]
    example = encoder(tokenizer, CHID, "cpm-1-zero-shot").encode(row)
    passages = []
    for idiom in IDIOMS:
        text = content.replace("#idiom000001#", idiom).replace("#idiom000002#", "")
        passages.append((*tokenizer.encode(text), EOD))
    scored: list[Ids] = [
        (*example.contexts[answer.context], *answer.ids) for answer in example.candidates
    ]
    assert scored == passages
    assert {len(context) for context in example.contexts} == {1}


def test_stc_learns_the_whole_line(tokenizer: CPM1Tokenizer) -> None:
    row: Row = {"id": "1", "post": "你好吗", "target": "我很好"}
    asked = encoder(tokenizer, STC, "cpm-1", 32)
    line = (*tokenizer.encode("对话上文:你好吗 回复:我很好\n"), EOD)
    for train in (True, False):
        example = asked.encode(row, train=train)
        assert (example.contexts, example.candidates) == ((line[:1],), (Answer(0, line[1:]),))
    assert asked.prefix(row).contexts == (tuple(tokenizer.encode("对话上文:你好吗 回复:")),)
    long = asked.encode({**row, "post": "你好吗" * 300})
    assert (len(long.contexts[0]) + len(long.candidates[0].ids), long.truncated) == (400, True)


def test_an_entry_that_a_vocabulary_lacks_is_refused_unless_it_may_be_absent(
    tokenizer: CPM1Tokenizer,
) -> None:
    layout = CausalLayout(tokenizer, (), len(tokenizer))
    row: Row = {"id": "1", "post": "你好", "target": "我"}
    maybe = Template("t", "{post:strip}{<go>?}你{answer}")
    example = Encoder(STC, maybe, layout, tokenizer, 64, 8).encode({**row, "post": " 你好 "})
    assert example.contexts[0] == tuple(tokenizer.encode("你好你"))
    needed = Template("t", "{post}{<go>}{answer}")
    with pytest.raises(UserError, match="special entry <go>, which this vocabulary lacks"):
        Encoder(STC, needed, layout, tokenizer, 64, 8)
    there = Template("t", "{post}{<sep>?}你{|}好{answer}")
    example = Encoder(STC, there, layout, tokenizer, 64, 8).encode(row)
    expected = (*tokenizer.encode("你好"), SEP, *tokenizer.encode("你"), *tokenizer.encode("好"))
    assert example.contexts[0] == expected


@pytest.fixture(scope="module")
def backbone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny CPM-1 of one rank, in Hugging Face's or the original's form."""
    model = model_for(TEXTS, 260)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cpm1, "VOCAB", len(CPM1Tokenizer(model)))
        patch.setattr(cpm1, "POSITIONS", 256)
        ranks = cpm1.random_ranks(1)
        folder = cpm1.write_ranks(tmp_path_factory.mktemp("cpm1") / "cpm1", ranks)
        (folder / "chinese_vocab.model").write_bytes(model)
        for place in (folder, folder / "80000"):
            (place / "config.json").write_text(json.dumps({"n_head": cpm1.HEADS}))
    return folder


def chid_data(folder: Path) -> Path:
    """The competition's files, with two blanks."""
    folder.mkdir()
    record = json.dumps({"content": [PASSAGE], "candidates": IDIOMS}, ensure_ascii=False)
    for split in ("train", "dev", "test"):
        (folder / f"{split}.json").write_text(f"{record}\n" * (1 + (split == "train")))
        answers = {"#idiom000001#": 0, "#idiom000002#": 1}
        (folder / f"{split}_answer.json").write_text(json.dumps(answers))
    return folder


SHORT = ("--set", "train.max_steps=2", "--set", "train.eval_every=2", "--set", "train.batch_size=2")


def records(out: Path) -> list[dict[str, Any]]:
    return [json.loads(path.read_text()) for path in sorted(out.glob("*/run.json"))]


def test_a_tiny_cpm_1_runs_chid_and_stc(cli: CLI, backbone: Path, tmp_path: Path) -> None:
    data, out = chid_data(tmp_path / "chid"), tmp_path / "out"
    chid = ("--task", "chid", "--data", data, "--backbone", backbone, "--out", out)
    code, _, error = cli(*chid, "--template", "cpm-1", "--delta", "lora", *SHORT)
    assert code == 0, error
    code, _, error = cli(*chid, "--template", "cpm-1-zero-shot", "--delta", "none")
    assert code == 0, error
    rules = {(r["spec"]["template"], r["scoring"]) for r in records(out)}
    assert rules == {("cpm-1", "verbaliser-sum"), ("cpm-1-zero-shot", "mean-nll")}
    assert {r["scores"]["test"]["accuracy"]["n"] for r in records(out)} == {2}

    posts = [["你 好 吗", "我 很 好"]] * 4
    stc = tmp_path / "stc"
    stc.mkdir()
    (stc / "STC.json").write_text(json.dumps({"train": posts, "valid": posts}))
    (stc / "STC_test.json").write_text(json.dumps({"test": posts}))
    out = tmp_path / "stc-out"
    given = ("--task", "stc", "--data", stc, "--backbone", backbone, "--out", out)
    code, _, error = cli(*given, "--template", "cpm-1", "--delta", "lora", *SHORT)
    assert code == 0, error
    ids = (*CPM1Tokenizer(model_for(TEXTS, 260)).encode("对话上文:你好吗 回复:我很好\n"), EOD)
    with torch.no_grad():
        (untuned,) = (r for r in records(out) if r["spec"]["recipe"] is None)
        model = open_folder(backbone).open(torch.float32).model.eval()
        logits = model(torch.tensor([ids])).logits[0, :-1]
        table, gold = model.get_input_embeddings().weight, torch.tensor(ids[1:])
        loss = torch.nn.functional.cross_entropy(logits, gold)
        sums = table[logits.argmax(-1)].sum(0), table[gold].sum(0)
        cosine = sums[0] @ sums[1] / (sums[0].norm() * sums[1].norm())
    scores = untuned["scores"]["test"]
    assert scores["perplexity"]["value"] == pytest.approx(loss.exp().item(), rel=1e-4)
    assert scores["embedding_average"]["value"] == pytest.approx(cosine.item(), abs=1e-4)
