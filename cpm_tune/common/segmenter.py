"""The jieba segmenter of this process."""

from __future__ import annotations

from functools import cache
from typing import Any

from cpm_tune.common.paths import cache_dir


@cache
def make_segmenter() -> Any:
    """The jieba segmenter of this process: quiet, its cache in the user's cache folder.

    There is one for all vocabularies, since reading its dictionary takes a second.
    """
    import logging
    import warnings

    with warnings.catch_warnings(action="ignore"):  # old escapes in its texts, from Python 3.12 on
        import jieba

    jieba.setLogLevel(logging.WARNING)
    segmenter = jieba.Tokenizer()
    segmenter.tmp_dir = str(cache_dir("jieba"))
    return segmenter
