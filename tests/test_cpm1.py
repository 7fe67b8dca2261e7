"""CPM-1 as a backbone: the files of ranks and Hugging Face's format are the same model."""

from __future__ import annotations

import io
import json
import shutil
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import cpm1_oracle as cpm1
import jieba
import pytest
import sentencepiece
import torch
from conftest import CLI, write_jsonl
from test_cpm1_tokenizer import TEXTS, with_signs

from cpm_tune.backbone.causal import loading
from cpm_tune.backbone.causal.cpm1_tokenizer import CPM1Tokenizer
from cpm_tune.backbone.example import Answer, Example
from cpm_tune.backbone.families import open_folder
from cpm_tune.errors import UserError
from cpm_tune.schema.spec import Encoding

SHORT = ("--set", "train.max_steps=2", "--set", "train.eval_every=2", "--set", "train.batch_size=4")
WORDS = [
    "“猫怎么养”和“如何养狗”的意思是相同的。是",
    "“鱼”与“鸟”的关系是：相似矛盾",
    "不同，意思相同吗？",
]


@cache
def vocabulary() -> bytes:
    """A sentencepiece model with CPM-1's signs, which can write the templates of LCQMC."""
    lines = [" ".join(jieba.cut(text.replace(" ", "▂"))) for text in (*TEXTS, *WORDS)]
    file = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter([*lines * 100, "是 " * 50, "是 不同 相同 " * 20]),
        model_writer=file,
        vocab_size=160,
        model_type="unigram",
        control_symbols=["<cls>", "<sep>", "<pad>", "<mask>", "<eod>"],
        hard_vocab_limit=False,
        character_coverage=1.0,
        minloglevel=2,
    )
    return with_signs(file.getvalue())


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, list[Any]]]:
    """A folder as TsinghuaAI's, of two ranks, and their states; the vocabulary is above 80000."""
    rows = (len(CPM1Tokenizer(vocabulary())) + 1) // 2 * 2
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cpm1, "VOCAB", rows)
        patch.setattr(cpm1, "POSITIONS", 256)
        ranks = cpm1.random_ranks(2)
        folder = cpm1.write_ranks(tmp_path_factory.mktemp("cpm1") / "cpm1", ranks)
        (folder / "chinese_vocab.model").write_bytes(vocabulary())
        for place in (folder, folder / "80000"):
            (place / "config.json").write_text(json.dumps({"n_head": cpm1.HEADS}))
        yield folder, ranks


def logits_of(path: Path, ids: list[int]) -> torch.Tensor:
    """Those after each but the last of these ids, by the backbone of a folder."""
    folder = open_folder(path)
    layout = folder.layout(Encoding(prompt_type=None, segment=None), folder.tokenizer())
    one = Example("", (tuple(ids[:1]),), (Answer(0, tuple(ids[1:])),), 0, False)
    with torch.no_grad():
        (logits,) = folder.open(torch.float32).eval().scores(layout.collate([one]))
    return logits


def test_ranks_and_hugging_faces_format_give_the_logits_of_the_ranks(
    cli: CLI, published: tuple[Path, list[Any]], tmp_path: Path
) -> None:
    folder, ranks = published
    ids = [7, 0, 47, 5, 23, 24, 25, 11, 11]
    expected = cpm1.logits(ranks, ids)[:-1].float()
    assert cli("convert", folder / "80000", tmp_path / "hf", "--to", "hf")[0] == 0
    code, _, error = cli("convert", tmp_path / "hf", tmp_path / "again", "--to", "reference")
    assert code == 0, error
    assert (
        cli("convert", tmp_path / "again", tmp_path / "half", "--to", "hf", "--dtype", "bf16")[0]
        == 0
    )
    for path in (folder, folder / "80000", tmp_path / "hf", tmp_path / "again"):
        torch.testing.assert_close(logits_of(path, ids), expected, atol=1e-5, rtol=1e-5)
    assert open_folder(folder).config == open_folder(tmp_path / "hf").config
    code, _, error = cli("convert", folder, tmp_path / "native", "--to", "native")
    assert (code, "CPM-Ant's own format" in error) == (2, True)


def in_memory(model: Any) -> bool:
    model.to_empty(device="cpu")
    return True


def test_a_sharding_engine_reads_ranks_one_merged_tensor_at_a_time(
    published: tuple[Path, list[Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = open_folder(published[0])
    expected = folder.open(torch.float32).state_dict()
    monkeypatch.setattr(loading, "_whole", lambda *given: pytest.fail("read as a whole"))
    model = folder.open(torch.float32, materialise=in_memory)
    values = model.state_dict()
    assert values.keys() == expected.keys()
    for name, value in expected.items():
        assert torch.equal(values[name], value), name


def test_the_published_config_is_put_right(
    cli: CLI, published: tuple[Path, list[Any]], tmp_path: Path
) -> None:
    """In Hugging Face's folder bos and eos are outside the vocabulary and the pad is another."""
    out = tmp_path / "hf"
    assert cli("convert", published[0], out, "--to", "hf")[0] == 0
    values = json.loads((out / "config.json").read_text())
    wrong = {**values, "bos_token_id": 50256, "eos_token_id": 50256, "pad_token_id": 0}
    (out / "config.json").write_text(json.dumps(wrong))
    folder = open_folder(out)
    assert folder.config == open_folder(published[0]).config
    tokenizer = folder.tokenizer()
    assert isinstance(tokenizer, CPM1Tokenizer)
    assert (tokenizer.eos, tokenizer.pad, tokenizer.start) == (7, 5, ())
    text = "今天天气不错，我们去公园散步。"
    assert tokenizer.encode(text) == CPM1Tokenizer(vocabulary()).encode(text)


def test_runs_texts_and_exports(
    cli: CLI, published: tuple[Path, list[Any]], tmp_path: Path
) -> None:
    data = tmp_path / "data"
    data.mkdir()
    for split, n in (("train", 8), ("dev", 4), ("test", 4)):
        rows = [
            {"id": i, "sentence1": "今天天气不错", "sentence2": "今天散步", "label": i % 2}
            for i in range(n)
        ]
        write_jsonl(data / f"{split}.jsonl", rows)
    given = ("--task", "lcqmc", "--data", data, "--backbone", published[0])
    given = (*given, "--out", tmp_path / "out", *SHORT)
    for template in ("cpm-ant", "cpm-2"):
        code, _, error = cli(*given, "--template", template)
        assert code == 0, error
    words = ("--backbone", published[0], "--max-new-tokens", 4)
    code, _, error = cli("generate", "今天天气", *words)
    assert code == 0, error


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda f: (f / "chinese_vocab.model").unlink(), "no vocabulary; put CPM-1's"),
        (lambda f: (f / "80000" / "mp_rank_00_model_states.pt").unlink(), "mp_rank_00"),
        (lambda f: (f / "config.json").unlink(), '"n_head": N'),
    ],
)
def test_what_is_missing_is_one_sentence(
    change: Any, words: str, published: tuple[Path, list[Any]], tmp_path: Path
) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(published[0], folder)
    change(folder)
    with pytest.raises(UserError, match=words) as refused:
        open_folder(folder)
    assert "\n" not in str(refused.value)
