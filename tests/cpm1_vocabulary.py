"""A sentencepiece model with CPM-1's signs in their places, which can write given texts."""

from __future__ import annotations

import io
from functools import cache

import jieba
import sentencepiece
from test_cpm1_tokenizer import with_signs


@cache
def model_for(texts: tuple[str, ...], size: int = 200) -> bytes:
    """A unigram model trained on the words of these texts, as CPM-1's was on its own."""
    lines = [" ".join(jieba.cut(text.replace(" ", "▂").replace("\n", "▃"))) for text in texts]
    file = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(lines * 100),
        model_writer=file,
        vocab_size=size,
        model_type="unigram",
        control_symbols=["<cls>", "<sep>", "<pad>", "<mask>", "<eod>"],
        hard_vocab_limit=False,
        character_coverage=1.0,
        minloglevel=2,
    )
    return with_signs(file.getvalue())
