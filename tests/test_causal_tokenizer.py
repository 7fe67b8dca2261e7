"""Tokenizers of Hugging Face's folders: byte-level BPE, and sentencepiece's with a dummy prefix."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from tokenizers.processors import TemplateProcessing
from transformers import AutoTokenizer

from cpm_tune.backbone.causal.tokenizer import HFTokenizer, read_tokenizer
from cpm_tune.errors import UserError

TEXTS = [
    "春天来了，花都开了。",
    "今天天气很好 hello world",
    "鱼\n鸟  花",
    "Hello, it's 12 o'clock.",
] * 5
ROUND = ["春天来了", "天气 好吗？\n很好", "hello  world ", " a", "龘😀", ""]


def byte_level() -> Tokenizer:
    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    made.train_from_iterator(
        TEXTS,
        trainers.BpeTrainer(
            vocab_size=400,
            initial_alphabet=alphabet,
            special_tokens=["<|end|>"],
            show_progress=False,
        ),
    )
    return made


def llama(*, metaspace: bool) -> Tokenizer:
    """As Llama's files are: byte fallback, a space put before texts by one way or the other."""
    specials = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
    made = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    if metaspace:
        made.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
    else:
        replace = normalizers.Replace(" ", "▁")
        made.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), replace])
    made.decoder = decoders.Sequence(
        [
            decoders.Replace("▁", " "),
            decoders.ByteFallback(),
            decoders.Fuse(),
            decoders.Strip(" ", 1, 0),
        ]
    )
    made.train_from_iterator(
        TEXTS, trainers.BpeTrainer(vocab_size=400, special_tokens=specials, show_progress=False)
    )
    values = json.loads(made.to_str())
    values["added_tokens"] = values["added_tokens"][:3]  # the bytes are entries like others
    made = Tokenizer.from_str(json.dumps(values))
    made.post_processor = TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    return made


KINDS = {
    "byte-level": byte_level,
    "prepend": lambda: llama(metaspace=False),
    "metaspace": lambda: llama(metaspace=True),
}
EOS = {"byte-level": "<|end|>", "prepend": "</s>", "metaspace": "</s>"}


@pytest.fixture(scope="module", params=sorted(KINDS))
def folder(request: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("tokenizers") / request.param
    made.mkdir()
    KINDS[request.param]().save(str(made / "tokenizer.json"))
    about = {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": EOS[request.param]}
    (made / "tokenizer_config.json").write_text(json.dumps(about))
    return made


def opened(folder: Path) -> HFTokenizer:
    return read_tokenizer(folder, {"vocab_size": 600})


def test_texts_and_pieces_come_back(folder: Path) -> None:
    tokenizer = opened(folder)
    for text in ROUND:
        ids = tokenizer.encode(text)
        assert tokenizer.decode(ids) == text
        assert "".join(tokenizer.pieces(ids)) == text
        assert tokenizer.encode(text + "春天") == ids + tokenizer.encode("春天") or text


@settings(max_examples=60, deadline=None)
@given(text=st.text(alphabet=st.sampled_from("春天来了鱼鸟 \nab,.龘😀"), max_size=20))
def test_any_text_comes_back(text: str) -> None:
    for tokenizer in TOKENIZERS:
        assert tokenizer.decode(tokenizer.encode(text)) == text


def test_a_context_has_the_models_own_ids_if_the_space_is_an_entry_alone(folder: Path) -> None:
    tokenizer, theirs = opened(folder), AutoTokenizer.from_pretrained(folder)
    for text in ("了天来春，开花。", "花\n鸟", "来 hello"):  # no entry is a space with 了, 花 or 来
        assert [*tokenizer.start, *tokenizer.encode(text)] == theirs(text)["input_ids"]


def test_ids_beyond_the_tokenizer_and_specials_are_never_written(folder: Path) -> None:
    tokenizer = opened(folder)
    n = len(tokenizer)
    assert set(range(n, 600)) <= set(tokenizer.never_written)
    assert tokenizer.eos not in tokenizer.never_written
    special = EOS[folder.name]
    assert tokenizer.eos not in tokenizer.encode(special), "written in a text it is text"
    assert tokenizer.decode(tokenizer.encode(special)) == special


def test_what_is_wrong_is_one_sentence(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="but the config says vocab_size 50"):
        read_tokenizer(folder, {"vocab_size": 50})
    (tmp_path / "tokenizer.json").write_bytes((folder / "tokenizer.json").read_bytes())
    with pytest.raises(UserError, match="no token ends a text"):
        read_tokenizer(tmp_path, {"vocab_size": 600, "eos_token_id": 50256})
    for broken in ("", "[]", "{}", '{"model": 3}', '{"model": {"type": "BPE"}, "added_tokens": 1}'):
        (tmp_path / "tokenizer.json").write_text(broken)
        with pytest.raises(UserError) as refused:
            read_tokenizer(tmp_path, {"vocab_size": 600, "eos_token_id": 1})
        assert "\n" not in str(refused.value)


def _of(kind: str) -> HFTokenizer:
    return HFTokenizer(json.loads(KINDS[kind]().to_str()), {"eos": 0}, 600)


TOKENIZERS = [_of(kind) for kind in sorted(KINDS)]
