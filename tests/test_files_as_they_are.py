"""Files as people have them: answers withheld, other encodings and delimiters. Each gives the right
rows, or a sentence with the place; never other rows without a word."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from a_file import read, written
from conftest import rows, write_jsonl

from cpm_tune.data.prompts import prompts_from, read_prompts
from cpm_tune.data.splits import SplitFile, find_splits
from cpm_tune.data.store import read_split
from cpm_tune.errors import UserError
from cpm_tune.systems.submission import read_answers
from cpm_tune.task import SPLITS
from cpm_tune.task.registry import load_task

NEWS = [(f"第{i}号线明年开通,记者从市政府获悉，第{i}号线地铁将于明年开通。") for i in range(1, 13)]
PAIRS = [f"第{i}句话是什么意思,第{i}句话的意思,{i % 2}" for i in range(1, 301)]


# --- answers that are withheld ---

BLANK = "答案一"
WITHHELD: dict[str, list[Any]] = {
    "cmeee": [{"text": "患儿发热三天，咳嗽明显。", "entities": []}],
    "lcqmc": [
        {"sentence1": "一", "sentence2": "二", "label": ""},
        {"sentence1": "一", "sentence2": "二", "label": -1},
        {"sentence1": "一", "sentence2": "二", "label": "-1"},
    ],
    "ccpm": [{"translation": "月", "choices": ["一", "二"], "answer": a} for a in (-1, "", None)],
    "c3": [
        [["一"], [{"question": "问", "choice": ["甲", "乙"], "answer": a}], "n"] for a in ("", None)
    ],
    "gcrc": [
        {"id": "1", "passage": "一", "question": "问", "options": ["甲", "乙"], "answer": a}
        for a in ("", -1, None)
    ],
    "gcrc_evidence": [
        {"id": "1", "passage": "一", "question": "问", "options": ["甲"], "evidences": e}
        for e in ([], [[]], None)
    ],
    "clozet": [{"story": "一<mask>二", "plot0": "甲", "plot1": "乙", "label": a} for a in ("", -1)],
    "chid": [{"content": "他#idiom#", "candidates": ["甲", "乙"], "answer": a} for a in ("", -1)],
    "finre": [
        {"head": "甲", "tail": "乙", "text": "甲买乙", "label": -1},
        {"head": "甲", "tail": "乙", "text": "甲买乙", "label_desc": ""},
    ],
    "lcsts": [{"text": "一", "summary": ""}],
    "ncls_enzh": [{"document": "a", "summary": " "}],
    "wmt20_enzh": [{"target": "a", "source": ""}],
    "adgen": [{"content": "类型#裤", "summary": ""}, {"feature": [["类型", "裤"]], "desc": ""}],
    "math23k": [{"original_text": "一加一", "equation": "", "ans": ""}],
    "wantwords": [{"definition": "天上的水", "word": ""}],
    "cepsum": [{"table": {"一": "二"}, "source": "三", "targets": t} for t in ([], [""])],
    "sogou_log": [
        {"query_id": "1", "query": "一", "doc": [{"title": "甲", "relevance": r}, {"title": "乙"}]}
        for r in (-1, "")
    ],
}


@pytest.mark.parametrize(
    ("task", "record"), [(task, record) for task, many in WITHHELD.items() for record in many]
)
def test_a_test_split_whose_answers_are_all_empty_is_unlabelled(
    tmp_path: Path, task: str, record: Any
) -> None:
    ending = "json" if task in ("c3", "gcrc", "gcrc_evidence") else "jsonl"
    lines = [json.dumps(record, ensure_ascii=False)] * 3
    text = f"[{','.join(lines)}]" if ending == "json" else "\n".join(lines)
    split = read(task, written(tmp_path / f"test.{ending}", text), "test")
    assert (len(split), split.labelled) == (3, False)
    assert set(map(str, split.rows.targets())) == {"None"}


def test_rows_without_entities_stay_rows_of_dev_and_of_a_labelled_test(tmp_path: Path) -> None:
    nothing: dict[str, object] = {"text": "今天天气好。", "entities": []}
    one = {"start_idx": 0, "end_idx": 1, "type": "dis", "entity": "感冒"}
    some: dict[str, object] = {"text": "感冒了。", "entities": [one]}
    dev = read("cmeee", write_jsonl(tmp_path / "dev.json", [nothing, nothing]))
    assert dev.rows.targets() == ["无", "无"]
    test = read("cmeee", write_jsonl(tmp_path / "test.json", [nothing, some]), "test")
    assert (test.labelled, test.rows.targets()[0]) == (True, "无")


def test_stc_without_responses_and_spr_without_labels_are_unlabelled(tmp_path: Path) -> None:
    stc = written(tmp_path / "STC_test.json", json.dumps({"test": [["你 好", ""], ["再 见"]]}))
    assert not read("stc", stc, "test").labelled
    for label in ("", "-1", " "):
        text = f"ID,Dialogue_id,Utterance_id,Speaker,Sentence,Label\n1,1,1,甲,好,{label}\n"
        assert not read("spr", written(tmp_path / "test.csv", text), "test").labelled


# --- ids ---


@pytest.mark.parametrize("empty", [None, "", " "])
def test_an_id_that_is_null_or_empty_is_the_rows_number(tmp_path: Path, empty: Any) -> None:
    lines = [{**row, "id": empty} for row in rows(3)]
    ids = [row["id"] for row in read("lcqmc", write_jsonl(tmp_path / "dev.jsonl", lines)).rows]
    assert ids == ["0", "1", "2"]
    asked = {"question": "问", "choice": ["甲", "乙"], "answer": "甲"}
    c3 = written(tmp_path / "dev.json", json.dumps([[["一"], [asked, asked], empty]] * 2))
    if empty != " ":
        assert [row["id"] for row in read("c3", c3).rows] == ["0", "1", "2", "3"]
    table = "".join(f"{'' if empty is None else empty},一,二,1\n" for _ in range(3))
    csv = written(tmp_path / "dev.csv", "id,text_a,text_b,label\n" + table)
    assert [row["id"] for row in read("lcqmc", csv).rows] == ["0", "1", "2"]


def test_ids_that_occur_again_are_told(tmp_path: Path) -> None:
    content = [{"id": n // 3, "sentence1": "猫", "sentence2": "狗", "label": 0} for n in range(6)]
    write_jsonl(tmp_path / "train.jsonl", content)
    task = load_task("lcqmc")
    split = read_split(task, find_splits(task, tmp_path, ("train",))["train"])
    assert any("4 rows have ids of an earlier row, the first '0'" in w for w in split.warnings)


# --- encodings, NUL bytes ---


def lines_of(ending: str, n: int = 1000) -> list[str]:
    pairs = [(f"第{i}句话是什么意思", f"第{i}句话的意思", i % 2) for i in range(1, n + 1)]
    if ending in ("jsonl", "json"):
        keys = ("sentence1", "sentence2", "label")
        return [json.dumps(dict(zip(keys, p, strict=True)), ensure_ascii=False) for p in pairs]
    return [("," if ending == "csv" else "\t").join(map(str, pair)) for pair in pairs]


@pytest.mark.parametrize("ending", ["tsv", "txt", "csv", "jsonl", "json"])
def test_nul_bytes_are_named_and_dropped_on_request(tmp_path: Path, ending: str) -> None:
    raw = [line.encode() for line in lines_of(ending, 30)]
    raw[19] = raw[19][:6] + b"\0" * 500
    path = tmp_path / f"dev.{ending}"
    path.write_bytes(b"[" + b",\n".join(raw) + b"]" if ending == "json" else b"\n".join(raw))
    with pytest.raises(UserError, match=r"dev\.\w+:20: NUL bytes; the file is damaged"):
        read("lcqmc", path)
    if ending != "json":
        assert (len(s := read("lcqmc", path, skip=True)), s.n_skipped) == (29, 1)
    escaped = [{**row, "sentence1": "一\0二"} for row in rows(2)]
    with pytest.raises(UserError, match=r":1: 'sentence1' contains a NUL character"):
        read("lcqmc", write_jsonl(tmp_path / "e.jsonl", escaped))


@pytest.mark.parametrize("ending", ["tsv", "txt", "csv", "jsonl", "json"])
def test_a_line_in_gbk_is_named_and_dropped_on_request(tmp_path: Path, ending: str) -> None:
    raw = [line.encode() for line in lines_of(ending)]
    raw[699] = lines_of(ending)[699].encode("gbk")
    body = b"\n".join(raw)
    if ending == "json":
        body = b"[" + b",\n".join(raw) + b"]"
    path = tmp_path / f"dev.{ending}"
    path.write_bytes(body)
    with pytest.raises(UserError, match=r"dev\.\w+:700: not UTF-8 text; it looks like GBK"):
        read("lcqmc", path)
    split = read("lcqmc", path, skip=True)
    assert (len(split), split.n_skipped) == (999, 1)
    assert [row["sentence1"] for row in split.rows.at([698, 699])] == [
        "第699句话是什么意思",
        "第701句话是什么意思",
    ]


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be"])
@pytest.mark.parametrize("ending", ["tsv", "csv", "jsonl", "json"])
def test_utf16_is_named(tmp_path: Path, ending: str, encoding: str) -> None:
    text = "\n".join(["id" if ending in ("tsv", "csv") else "", *lines_of(ending, 5)]).strip()
    text = f"[{text}]" if ending == "json" else text
    with pytest.raises(UserError, match=rf"dev\.{ending}:1: not UTF-8 text; it looks like UTF-16"):
        read("lcqmc", written(tmp_path / f"dev.{ending}", text, encoding))


@pytest.mark.parametrize("ending", ["tsv", "csv", "jsonl"])
def test_bad_rows_of_every_kind_are_dropped_alike(tmp_path: Path, ending: str) -> None:
    lines = lines_of(ending, 20)
    lines[7] = lines[7][: len(lines[7]) // 2]
    split = read("lcqmc", written(tmp_path / f"dev.{ending}", "\n".join(lines)), skip=True)
    assert (len(split), split.n_skipped) == (19, 1)


# --- other kinds of file ---


@pytest.mark.parametrize(
    ("ending", "joined", "looks"),
    [
        ("csv", ";", "separated by semicolons .* commas were expected; save it with commas"),
        ("csv", "\t", r"separated by tabs .* rename it to end in \.tsv"),
        ("tsv", ",", r"separated by commas .* rename it to end in \.csv"),
        ("txt", ";", "separated by semicolons .* save it with tabs"),
        ("tsv", "|", "separated by bars .* save it with tabs"),
    ],
)
@pytest.mark.parametrize("header", [None, ("sentence1", "sentence2", "label")])
def test_another_delimiter_is_recognised(
    tmp_path: Path, ending: str, joined: str, looks: str, header: tuple[str, ...] | None
) -> None:
    cells = [header, *(("一句话", "二句话", str(i % 2)) for i in range(4))]
    text = "\n".join(joined.join(line) for line in cells if line)
    with pytest.raises(UserError, match=rf"dev\.{ending}:1: the columns look {looks}"):
        read("lcqmc", written(tmp_path / f"dev.{ending}", text))


@pytest.mark.parametrize("ending", ["txt", "tsv", "csv"])
@pytest.mark.parametrize("form", ["lines", "array", "indented"])
def test_json_in_a_table_is_recognised(tmp_path: Path, ending: str, form: str) -> None:
    objects = [{"text": "一", "summary": "二"}] * 3
    text = json.dumps(objects, indent=2 if form == "indented" else None)
    if form == "lines":
        text = "\n".join(map(json.dumps, objects))
    new = "jsonl" if form == "lines" else "json"
    with pytest.raises(UserError, match=rf":1: this looks like JSON; rename .* in \.{new}"):
        read("lcsts", written(tmp_path / f"dev.{ending}", text))


@pytest.mark.parametrize("ending", ["csv", "tsv", "txt", "jsonl", "json"])
def test_blank_lines_are_passed_over(tmp_path: Path, ending: str) -> None:
    lines = lines_of(ending, 4)
    text = "\n".join(["  ", lines[0], "", " \t ", *lines[1:], "   ", ""])
    assert len(read("lcqmc", written(tmp_path / f"dev.{ending}", text))) == 4


def test_json_objects_of_several_lines_are_read_one_after_the_other(tmp_path: Path) -> None:
    problem = {"id": "7", "original_text": "每人2个，3人几个？", "equation": "x=2*3", "ans": "6"}
    text = "\n".join([json.dumps(problem, ensure_ascii=False, indent=2)] * 3)
    path = written(tmp_path / "dev.json", text)
    assert read("math23k", path).rows.targets() == ["2*3"] * 3
    lines = text.splitlines()
    del lines[8]  # in the second object
    lines[7] = lines[7].rstrip(",") + "!"
    cut = written(tmp_path / "cut.json", "\n".join(lines))
    with pytest.raises(UserError, match=r"cut\.json:7: not a whole JSON object from this line on"):
        read("math23k", cut)
    assert (len(s := read("math23k", cut, skip=True)), s.n_skipped) == (2, 1)


def test_an_official_answer_that_is_empty_is_a_row_and_told(tmp_path: Path) -> None:
    rule = "=" * 50
    text = ""
    for i in (1, 2, 3):
        answer = "" if i == 2 else "北京"
        text += f"<question id={i}>\t问{i}？\n<triple id={i}>\t甲 ||| 乙 ||| 丙\n"
        text += f"<answer id={i}>\t{answer}\n{rule}\n  \n"
    split = read("kbqa", written(tmp_path / "train.txt", text), "train")
    assert split.rows.targets() == ["北京", "", "北京"]
    assert split.warnings == ("train: 1 answer is empty, first at train.txt:8",)
    missing = written(tmp_path / "dev.txt", text.replace("<answer id=2>\t\n", ""))
    with pytest.raises(UserError, match=r"dev\.txt:6: no field 'answer', or an empty one"):
        read("kbqa", missing)


# --- prompts ---


def test_prompts_are_read_from_json_of_every_form(tmp_path: Path) -> None:
    objects = [{"prompt": "《秋夜》", "id": "a"}, {"prompt": "《春》", "id": None}]
    for name, text in {
        "a.json": json.dumps(objects),
        "b.json": json.dumps(objects, indent=1),
        "c.json": "\n".join(map(json.dumps, objects)),
        "d.jsonl": "\n".join(map(json.dumps, objects)),
        "e.json": "\n".join(json.dumps(o, indent=2) for o in objects),
    }.items():
        prompts = read_prompts(written(tmp_path / name, text))
        assert [prompt.text for prompt in prompts] == ["《秋夜》", "《春》"]
        assert prompts[0].id == "a"
        assert isinstance(prompts[1].id, int)
    plain = read_prompts(written(tmp_path / "f.txt", "今天\n \n[表情]明天\n{\n"))
    assert [(p.text, p.id) for p in plain] == [("今天", 1), ("[表情]明天", 3), ("{", 4)]
    with pytest.raises(UserError, match="standard input:1: this looks like JSON"):
        prompts_from([b'[{"prompt": "x"}]'])


def test_what_is_there_is_decided_once(tmp_path: Path) -> None:
    for split in SPLITS:
        write_jsonl(tmp_path / f"{split}.jsonl", rows(2))
    write_jsonl(tmp_path / "valid.jsonl", rows(2))
    with pytest.raises(UserError, match="could both be the dev split"):
        find_splits(load_task("lcqmc"), tmp_path)
    assert set(find_splits(load_task("lcqmc"), tmp_path, ("train", "test"))) == {"train", "test"}


@pytest.mark.parametrize("task", ["pku_seg", "wordseg_weibo"])
@pytest.mark.parametrize("blank", ["", "\n", "\n \n\n"])
def test_empty_lines_of_segmented_text_do_not_count(tmp_path: Path, task: str, blank: str) -> None:
    gold = SplitFile("test", (written(tmp_path / "test.txt", "很  好\n\n走  吧\n明  天\n\n"),), "")
    mine = written(tmp_path / "mine.txt", "很  好\n走吧\n明  天" + blank)
    answers, _ = read_answers(load_task(task), mine, gold)
    assert [answer.prediction is not None for answer in answers] == [True] * 3
    short = written(tmp_path / "short.txt", "很  好\n走吧" + blank)
    with pytest.raises(UserError, match=r"short\.txt: 2 records, but test\.txt has 3"):
        read_answers(load_task(task), short, gold)


# --- names and sizes ---


def test_exact_sizes_decide_and_rounded_ones_warn() -> None:
    source = {name: load_task(name).source for name in ("adgen", "kbqa", "kdconv", "lcqmc")}
    assert source["adgen"].size_note("dev", 1_070) == ""
    assert source["kbqa"].size_note("test", 9_870) == ""
    assert source["lcqmc"].size_note("test", 12_500) == ""
    assert source["lcqmc"].size_note("test", 100) == "test has 100 rows, officially 12,500 (LCQMC)"
    note = source["adgen"].size_note("dev", 300)
    assert note == "dev has 300 rows, officially 1,070 (AdvertiseGen and E-Reviews)"
    rounded = source["kdconv"]
    assert rounded.size_note("test", 100) == ""
    assert rounded.size_warning("test", 100).startswith("test has 100 rows; the published number")
    assert rounded.size_warning("test", 9_090) == ""
    assert source["lcqmc"].size_warning("test", 100) == ""


# --- keys, labels and options that are not as they should be ---


@pytest.mark.parametrize("name", ["dev.jsonl", "dev.json"])
def test_a_key_that_is_there_twice_is_a_bad_row(tmp_path: Path, name: str) -> None:
    """Its last value would be taken, and the first lost without a word."""
    lines = [json.dumps(row, ensure_ascii=False) for row in rows(3)]
    lines[1] = lines[1].replace("{", '{"label": 1, ', 1)
    text = "[" + ",\n".join(lines) + "]" if name.endswith(".json") else "\n".join(lines)
    path = written(tmp_path / name, text)
    with pytest.raises(UserError, match=r"(:2|item 2): .*'label' is there twice"):
        read("lcqmc", path)
    assert (len(read("lcqmc", path, skip=True)), read("lcqmc", path, skip=True).n_skipped) == (2, 1)


@pytest.mark.parametrize("ending", ["jsonl", "csv"])
@pytest.mark.parametrize("label", [1.0, 0.5, True])
def test_labels_may_be_whole_numbers_with_a_point(
    tmp_path: Path, ending: str, label: float
) -> None:
    """A table with an empty cell in a column of numbers is written so by many programs."""
    row = {"sentence1": "今天", "sentence2": "天气", "label": label}
    path = tmp_path / f"dev.{ending}"
    if ending == "csv":
        written(path, ",".join(row) + "\n" + ",".join(map(str, row.values())) + "\n")
    else:
        write_jsonl(path, [row])
    if label == 1.0 and label is not True:
        assert read("lcqmc", path).rows.targets() == [1]
    else:
        with pytest.raises(UserError, match="expected 0 or 1"):
            read("lcqmc", path)


def test_an_unlabelled_test_names_the_columns_that_are_not_read(tmp_path: Path) -> None:
    named = [{"sentence1": "今天", "sentence2": "天气", "gold": 1}]
    write_jsonl(tmp_path / "test.jsonl", named)
    (warning,) = read("lcqmc", tmp_path / "test.jsonl", "test").warnings
    assert "'gold'; if the answers are there, call the column 'label'" in warning
    write_jsonl(tmp_path / "test.jsonl", [{**named[0], "label": 1}])
    assert not read("lcqmc", tmp_path / "test.jsonl", "test").warnings


def test_equal_options_of_a_row_are_counted(tmp_path: Path) -> None:
    path = tmp_path / "dev.jsonl"
    choices = ["床前明月光", "疑是地上霜", "举头望明月", "低头思故乡"]
    made = [{"translation": "月光", "choices": choices, "answer": 0} for _ in range(3)]
    made[1] = {**made[1], "choices": [*choices[:3], choices[0]]}
    write_jsonl(path, made)
    assert read("ccpm", path).warnings == ("dev: 1 row has two equal options, first row 1",)
