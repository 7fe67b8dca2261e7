"""Tables as people have them: headers of other names, columns swapped, quotes left open. Each
gives the right rows, or a sentence with the place; never other rows without a word."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from a_file import read, written
from conftest import write_jsonl

from cpm_tune.errors import UserError
from cpm_tune.task.registry import load_task

NEWS = [(f"第{i}号线明年开通,记者从市政府获悉，第{i}号线地铁将于明年开通。") for i in range(1, 13)]
PAIRS = [f"第{i}句话是什么意思,第{i}句话的意思,{i % 2}" for i in range(1, 301)]


# --- headers ---


@pytest.mark.parametrize(
    "header", ["标题,正文", "TITLE, Content ", "summary,Text", "\ufeff摘要,内容"]
)
def test_a_header_of_known_names_maps_the_columns(tmp_path: Path, header: str) -> None:
    split = read("lcsts", written(tmp_path / "dev.csv", "\n".join([header, *NEWS])))
    first = split.rows.at([0])[0]
    assert len(split) == 12
    assert (first["target"], first["text"][:5]) == ("第1号线明年开通", "记者从市政")


@pytest.mark.parametrize(
    ("task", "header", "row"),
    [
        (
            "lcsts",
            "甲列\t乙列",
            "{i}号线明年开通，市民出行方便\t记者从市政府获悉，第{i}号线将于明年开通",
        ),
        ("lcsts", "col_a\tcol_b", "{i}号线\t第{i}号线将于明年开通"),
        ("lcqmc", "问法\t另问\t同否", "第{i}句\t第{i}话\t1"),
        ("lcqmc", "句子甲\t句子乙\t是否同义", "第{i}句\t第{i}话\t0"),
    ],
)
@pytest.mark.parametrize("ending", ["tsv", "csv", "txt"])
def test_a_header_of_unknown_names_is_refused_with_the_known_ones(
    tmp_path: Path, task: str, header: str, row: str, ending: str
) -> None:
    text = "\n".join([header, *(row.format(i=i) for i in range(9))])
    text = text.replace("\t", ",") if ending == "csv" else text
    with pytest.raises(UserError, match=r":1: the first row looks like names .*none of which") as e:
        read(task, written(tmp_path / f"dev.{ending}", text))
    assert all(name in str(e.value) for name in load_task(task).files.columns)


@pytest.mark.parametrize("header", ["question1,question2", "Sentence1,SENTENCE2", "text_b,text_a"])
def test_an_unlabelled_table_has_no_row_of_names(tmp_path: Path, header: str) -> None:
    text = "\n".join([header, *(f"第{i}句,第{i}话" for i in range(8))])
    split = read("lcqmc", written(tmp_path / "test.csv", text), "test")
    assert (len(split), split.labelled) == (8, False)
    with pytest.raises(UserError, match="looks like names"):
        read("lcqmc", written(tmp_path / "t.csv", text.replace(header, "foo,bar")), "test")


def test_two_names_for_one_column_are_refused_unless_one_is_its_own(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=":1: text_a and q1 could both be 'sentence1'"):
        read("lcqmc", written(tmp_path / "dev.csv", "text_a,q1,q2,label\n一,二,三,1\n"))
    split = read("lcqmc", written(tmp_path / "e.csv", "sentence1,q1,q2,label\n一,二,三,1\n"))
    assert split.rows.at([0])[0]["sentence1"] == "一"
    lines = [{"Text_A": "一", "q1": "二", "q2": "三", "label": 1}]
    with pytest.raises(UserError, match=":1: Text_A and q1 could both be"):
        read("lcqmc", write_jsonl(tmp_path / "dev.jsonl", lines))


def test_rows_of_data_are_not_taken_for_names(tmp_path: Path) -> None:
    for name, text in {
        "a.tsv": "hello\thi\t1\n你好\t您好\t1\n",
        "b.tsv": "标签\t标题\t0\n你好\t您好\t1\n",
        "c.tsv": "".join(f"ok\tyes\t{i % 2}\n" for i in range(9)),
    }.items():
        assert len(read("lcqmc", written(tmp_path / name, text))) == text.count("\n")


def test_columns_that_look_swapped_are_told(tmp_path: Path) -> None:
    swapped = read("lcsts", written(tmp_path / "dev.csv", "\n".join(NEWS)))
    assert len(swapped) == 12
    (warning,) = swapped.warnings
    assert warning.startswith("dev: the answers (summary) are")
    assert "in a table without header; if its columns are not text, summary" in warning
    right = "\n".join(",".join(reversed(line.split(","))) for line in NEWS)
    assert read("lcsts", written(tmp_path / "b.csv", right)).warnings == ()
    named = read("lcsts", written(tmp_path / "c.csv", "summary,text\n" + "\n".join(NEWS)))
    assert named.warnings == ()


ARTICLE = "记者从市政府获悉，第{i}号线地铁将于明年开通，全长三十公里，共有二十座车站。"


def swapped_files(text: str, summary: str) -> dict[str, str]:
    pairs = [(ARTICLE.format(i=i), f"第{i}号线明年开通") for i in range(1, 13)]
    objects = [{text: article, summary: title} for article, title in pairs]
    rows = [json.dumps(o, ensure_ascii=False) for o in objects]
    return {
        "a.jsonl": "\n".join(rows),
        "b.json": f"[{','.join(rows)}]",
        "c.csv": "\n".join([f"{text},{summary}", *(",".join(pair) for pair in pairs)]),
        "d.tsv": "\n".join([f"{text}\t{summary}", *("\t".join(pair) for pair in pairs)]),
    }


@pytest.mark.parametrize("name", swapped_files("", ""))
def test_columns_that_look_swapped_are_told_for_every_kind_of_file(
    tmp_path: Path, name: str
) -> None:
    right = read("lcsts", written(tmp_path / name, swapped_files("text", "summary")[name]))
    assert right.warnings == ()
    other = written(tmp_path / f"other-{name}", swapped_files("summary", "text")[name])
    (warning,) = read("lcsts", other).warnings
    assert re.fullmatch(
        r"dev: 'summary' is \d\.\d times as long as 'text', which is \d\.\d times as long in the "
        r"task's sample data; are these columns swapped\?",
        warning,
    )
    parts = written(
        tmp_path / "PART.txt",
        "".join(
            f"<doc id={i}>\n<summary>{ARTICLE.format(i=i)}</summary>\n"
            f"<short_text>{i}号线明年开通</short_text>\n</doc>\n"
            for i in range(9)
        ),
    )
    assert "are these columns swapped" in read("lcsts", parts).warnings[0]


def test_own_readers_give_the_warnings_of_the_common_ones(tmp_path: Path) -> None:
    tall = '"' + "一行\n" * 40 + '"'
    spr = "ID,Dialogue_id,Utterance_id,Speaker,Sentence,Label\n" + f"1,1,1,甲,{tall},0\n"
    wmt = f"source,target\n{tall},a line\n"
    finre = {"head": "甲", "tail": "乙", "label": 1, "text": "甲\n" * 40 + "乙"}
    for task, name, text in (("spr", "s.csv", spr), ("wmt20_enzh", "w.csv", wmt)):
        (warning,) = read(task, written(tmp_path / name, text)).warnings
        assert warning == f"dev: {name}:2: one row spans 41 lines; is a quote not closed there?"
    lines = [{**finre, "text": "甲收购乙"}] * 199 + [finre]
    (warning,) = read("finre", write_jsonl(tmp_path / "f.jsonl", lines)).warnings
    assert warning == (
        "dev: 'text' of row 199 has 41 lines, and of 1 of 200 rows more than 10; are several rows "
        "in one?"
    )
    many = [{**finre, "head": "甲", "tail": "乙"}] * 20  # texts of many lines are usual there
    assert read("finre", write_jsonl(tmp_path / "g.jsonl", many)).warnings == ()


def test_empty_sentences_are_named(tmp_path: Path) -> None:
    for name, joined in (("a.csv", ","), ("b.tsv", "\t")):
        text = "\n".join(
            joined.join(row)
            for row in (
                ("sentence1", "sentence2", "label"),
                ("一", "二", "1"),
                ("三", " ", "0"),
                ("四", "", "1"),
            )
        )
        (warning,) = read("lcqmc", written(tmp_path / name, text)).warnings
        assert warning == f"dev: 2 rows have an empty 'sentence2', first at {name}:3"
    row = {"translation": "月", "choices": ["一", "", "三", "四"], "answer": 0}
    (warning,) = read("ccpm", write_jsonl(tmp_path / "c.jsonl", [row])).warnings
    assert warning == "dev: 1 row has an empty 'choices', first at c.jsonl:1"
    cloze = {"content": "#idiom#走来。", "candidates": ["甲", "乙"], "answer": 0}
    assert read("chid", write_jsonl(tmp_path / "d.json", [cloze])).warnings == ()


# --- quotes ---


def test_a_quote_left_open_is_told_where_it_opens(tmp_path: Path) -> None:
    lines = list(PAIRS)
    lines[100] = '"今天天气怎么样,今天天气如何,1'
    lines[200] = '明天天气",明天天气如何,0'
    path = written(tmp_path / "dev.csv", "\n".join(lines) + "\n")
    with pytest.raises(UserError, match=r"dev\.csv:101: a quote opens here and is not closed"):
        read("lcqmc", path)
    split = read("lcqmc", path, skip=True)
    assert (len(split), split.n_skipped) == (299, 1)


@pytest.mark.parametrize("at", [1, 149, 298, 299])
def test_a_quote_open_to_the_end_or_the_next_line_costs_one_row(tmp_path: Path, at: int) -> None:
    lines = list(PAIRS)
    lines[at] = '"今天天气怎么样,今天天气如何,1'
    path = written(tmp_path / "dev.csv", "\n".join(lines))
    with pytest.raises(UserError, match=rf"dev\.csv:{at + 1}: a quote opens here"):
        read("lcqmc", path)
    assert (len(s := read("lcqmc", path, skip=True)), s.n_skipped) == (299, 1)
    if at < 299:
        lines[at + 1] = '明天天气",明天天气如何,0'
        path = written(tmp_path / "next.csv", "\n".join(lines))
        with pytest.raises(UserError, match=rf"next\.csv:{at + 1}: a quote opens here"):
            read("lcqmc", path)


def test_cells_of_several_lines_are_read_and_tall_ones_told(tmp_path: Path) -> None:
    text = 'text,summary\n"第一行, 有逗号\n第二行",短\n"他说""好""\n\n是",答\n'
    split = read("lcsts", written(tmp_path / "dev.csv", text))
    assert [row["text"] for row in split.rows] == ["第一行, 有逗号\n第二行", '他说"好"\n\n是']
    assert split.warnings == ()
    tall = 'text,summary\n好,短\n"' + "一行\n" * 40 + '",短\n'
    (warning,) = read("lcsts", written(tmp_path / "tall.csv", tall)).warnings
    assert warning == "dev: tall.csv:3: one row spans 41 lines; is a quote not closed there?"
