"""Small vocabularies in the form of CPM-2's, with the special entries at their places."""

from __future__ import annotations

from collections.abc import Iterable

BEGIN = ("<unk>", "<s>", "</s>", "▃", "<sep>", "<pad>", "<mask>")
WORDS = (
    *"的。！（），：；？、是否“”一二三四五六七今天气是个好日子中国人民大学生爱北京上海与问题",
    *"选项文章译查询标历史图谱键值词语意思表达相似矛盾关",
    *'abcdehlo019ABZ.,!?+#&_%-/<>:;()~{}"',
    *("今天", "天气", "今天天气", "北京", "北京大学", "大学生", "京大", "中国人", "相似", "矛盾"),
    *("相关", "ab", "abc", "he", "hello", "helloo", "10", "0.1", "……"),
)
INSIDE = tuple("##" + part for part in (*"abcdehlo019ABZ.", "lo", "ello", "bc", "ing"))


def vocabulary(
    n_sentinels: int = 12, *, bilingual: bool = False, words: Iterable[str] = WORDS
) -> list[str]:
    """The lines of a vocabulary."""
    begin = (*BEGIN, "<go>", "<eod>") if bilingual else (*BEGIN, "<eod>")
    middle = dict.fromkeys(("▁", ",", "▂", *words, *(INSIDE if bilingual else ())))
    return [*begin, *middle, *(f"<s_{i}>" for i in range(n_sentinels))]
