"""Tasks on words, entities, relations, corrections, humour: layouts and parsers of each."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from conftest import REAL_DATA
from hypothesis import given, settings
from hypothesis import strategies as st
from words_cases import SIZES, TASKS, filled, lines, parsed, read

from cpm_tune.data.files import checked_rows, rows_of
from cpm_tune.data.splits import find_splits
from cpm_tune.data.store import read_split
from cpm_tune.errors import UserError
from cpm_tune.metrics import get_metric
from cpm_tune.systems.submission import write_submission

# Segmentation


@pytest.mark.parametrize("name", ["pku_seg", "wordseg_weibo"])
@pytest.mark.parametrize("between", ["  ", " ", "\u3000"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_a_line_is_its_sentences_in_words(
    tmp_path: Path, name: str, between: str, end: str
) -> None:
    ending = "utf8" if name == "pku_seg" else "dat"
    path = tmp_path / f"valid.{ending}"
    text = between.join(["“", "你", "好", "！", "”", "他", "说", "。"]) + end + end + "再见" + end
    path.write_bytes(("\ufeff" + text).encode())
    file = find_splits(TASKS[name], tmp_path, ("dev",))["dev"]
    rows = list(checked_rows(TASKS[name], file))
    assert [row["target"] for row in rows] == ["“ 你 好 ！ ”", "他 说 。", "再见"]
    assert [row["text"] for row in rows] == ["“你好！”", "他说。", "再见"]
    assert rows[0]["words"] == ["“", "你", "好", "！", "”"]


def test_a_sentence_is_not_cut_inside_a_word(tmp_path: Path) -> None:
    (tmp_path / "dev.txt").write_text("真 的 吗？不 是\n", encoding="utf-8")
    rows = read(TASKS["pku_seg"], tmp_path / "dev.txt")
    assert [row["words"] for row in rows] == [["真", "的", "吗？不", "是"]]


def test_the_bakeoffs_folder_is_read_as_it_is_unpacked(tmp_path: Path) -> None:
    for name, content in {
        "training/pku_training.utf8": "".join(f"第 {i}  句\r\n" for i in range(20)),
        "gold/pku_test_gold.utf8": "考试  题\r\n",
        "testing/pku_test.utf8": "考试题\r\n",
    }.items():
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).write_bytes(content.encode())
    task = TASKS["pku_seg"]
    splits = {s: list(checked_rows(task, f)) for s, f in find_splits(task, tmp_path).items()}
    assert [row["text"] for row in splits["dev"]] == ["第9句", "第19句"]
    assert len(splits["train"]) == 18
    assert "第9句" not in {row["text"] for row in splits["train"]}
    assert splits["test"][0]["words"] == ["考试", "题"]


def test_the_shared_tasks_names_are_known(tmp_path: Path) -> None:
    for name in ("nlpcc2016-word-seg-train", "nlpcc2016-wordseg-dev", "nlpcc2016-wordseg-test"):
        (tmp_path / f"{name}.dat").write_text("你 好\n", encoding="utf-8")
    assert set(find_splits(TASKS["wordseg_weibo"], tmp_path)) == set(SIZES)


def test_a_test_file_without_spaces_has_no_answers_and_is_filled_in(tmp_path: Path) -> None:
    path = tmp_path / "test.txt"
    path.write_text("你好！我来了。\n\n好\n", encoding="utf-8")
    task = TASKS["pku_seg"]
    rows = read(task, path, "test")
    assert [row["text"] for row in rows] == ["你好！", "我来了。", "好"]
    assert all(row["target"] is None and row["words"] is None for row in rows)
    assert filled(task, {"text": "你好！我来了。"}, [["你好", "！"], None]) == "你好  ！  我来了。"
    assert filled(task, {"text": ""}, []) == ""


@pytest.mark.parametrize(
    ("written", "words"),
    [
        ("我 爱 北京 。", ["我", "爱", "北京", "。"]),
        ("我爱北京。", ["我爱北京。"]),
        ("我 爱 北 。", ["我", "爱", "北", "京。"]),  # a character dropped
        ("我 爱 南京 。", ["我", "爱", "北京", "。"]),  # another one changed
        ("我 爱 <unk>京 。", ["我", "爱", "北京", "。"]),
        ("我 很 爱 北京 。", ["我", "爱", "北京", "。"]),  # one added
        ("我 爱 北京", ["我", "爱", "北京", "。"]),
        ("我 爱", None),
        ("", None),
        ("今天 下雨", None),
    ],
)
def test_words_are_put_back_onto_the_source(written: str, words: list[str] | None) -> None:
    assert parsed(TASKS["pku_seg"], written, {"text": "我爱北京。"}) == words


# Parts of speech


SEGPOS = {
    "tokens": list("二○年他说：“好！”他走了。"),
    "span_list": [
        {"start": 0, "end": 2, "type": "t"},
        {"start": 3, "end": 3, "type": "r"},
        {"start": 4, "end": 4, "type": "v"},
        {"start": 5, "end": 5, "type": "w"},
        {"start": 6, "end": 6, "type": "w"},
        {"start": 7, "end": 7, "type": "a"},
        {"start": 8, "end": 8, "type": "w"},
        {"start": 9, "end": 9, "type": "w"},
        {"start": 10, "end": 10, "type": "r"},
        {"start": 11, "end": 11, "type": "v"},
        {"start": 12, "end": 12, "type": "u"},
        {"start": 13, "end": 13, "type": "w"},
    ],
}


def test_a_tagged_record_is_its_sentences_and_comes_back_whole(tmp_path: Path) -> None:
    task = TASKS["pku_segpos"]
    file = lines(tmp_path / "valid.jsonline", SEGPOS)
    rows = list(checked_rows(task, find_splits(task, tmp_path, ("dev",))["dev"]))
    assert file.exists()
    assert rows[0]["target"] == "二○年/t 他/r 说/v ：/w “/w 好/a ！/w ”/w"
    assert rows[1]["target"] == "他/r 走/v 了/u 。/w"
    assert rows[1]["spans"] == [[0, 0, "r"], [1, 1, "v"], [2, 2, "u"], [3, 3, "w"]]
    predictions = [parsed(task, row["target"], row) for row in rows]
    blind = {"tokens": SEGPOS["tokens"]}
    assert filled(task, blind, predictions) == SEGPOS
    assert filled(task, blind, [None, []])["span_list"] == []


def test_tokens_of_several_characters_and_untagged_stretches_are_kept() -> None:
    task = TASKS["pku_segpos"]
    record = {"tokens": ["AC", "米", "兰", "a b", "胜"], "span_list": [{"start": 0, "end": 2}]}
    record["span_list"] += [{"start": 4, "end": 4, "type": "v"}]
    record["span_list"][0]["type"] = "nz"
    (row,) = rows_of(task, "f:1", record)
    assert isinstance(row, dict)
    assert row["tagged"] == "AC米兰/nz a b 胜/v"
    assert parsed(task, row["tagged"], row) == [[0, 3, "nz"], [7, 7, "v"]]
    assert filled(task, record, [row["spans"]]) == record


@pytest.mark.parametrize(
    ("written", "spans"),
    [
        ("我/r 爱/v 北京/ns", [[0, 0, "r"], [1, 1, "v"], [2, 3, "ns"]]),
        ("我/r 爱 北京/ns", [[0, 0, "r"], [2, 3, "ns"]]),
        ("我/r 爱/v <unk>/q 京/ns", [[0, 0, "r"], [1, 1, "v"], [2, 2, "q"], [3, 3, "ns"]]),
        ("我/r 爱/v <unk>/q <unk>/q", [[0, 0, "r"], [1, 1, "v"]]),
        ("我/r 都/d 爱/v 北京/ns", [[0, 0, "r"], [1, 1, "v"], [2, 3, "ns"]]),
        ("我 爱 北京", None),
        ("我/r", None),
        ("", None),
    ],
)
def test_tagged_words_are_put_back_onto_the_source(
    written: str, spans: list[list[Any]] | None
) -> None:
    assert parsed(TASKS["pku_segpos"], written, {"text": "我爱北京"}) == spans


# Entities


def test_entities_are_listed_in_order_with_the_place_of_unexpected_ones() -> None:
    task = TASKS["cmeee"]
    text = "发热门诊：发热、胸部疼痛，胸部发热"
    spans = [(5, 6, "sym"), (8, 11, "sym"), (8, 9, "bod"), (15, 16, "sym")]
    entities = [
        {"start_idx": a, "end_idx": b, "type": t, "entity": text[a : b + 1]} for a, b, t in spans
    ]
    (row,) = rows_of(task, "f:1", {"text": text, "entities": entities[::-1] + entities[:1]})
    assert isinstance(row, dict)
    assert row["listed"] == "症状：发热（第2处）；症状：胸部疼痛；身体：胸部；症状：发热"
    assert row["entities"] == [list(span) for span in spans]
    assert parsed(task, row["listed"], row) == row["entities"]
    assert filled(task, {"text": text}, [row["entities"]])["entities"] == entities
    assert filled(task, {"text": text}, [None])["entities"] == []


@pytest.mark.parametrize(
    ("written", "spans"),
    [
        ("症状：发热", [[0, 1, "sym"]]),
        ("症状：发热；症状：发热；症状：发热", [[0, 1, "sym"], [3, 4, "sym"]]),
        ("症状：发热（第2处）；症状：发热", [[3, 4, "sym"], [0, 1, "sym"]]),
        ("症状：发热（第9处）；疾病：热", [[1, 1, "dis"]]),
        ("症状:发热;疾病:发热", [[0, 1, "sym"], [0, 1, "dis"]]),
        ("症状：咳嗽", []),
        ("感觉：发热；症状：发热", [[0, 1, "sym"]]),
        ("无", []),
        ("发热", None),
        ("", None),
    ],
)
def test_listed_mentions_are_found_in_the_text(written: str, spans: list[list[Any]] | None) -> None:
    assert parsed(TASKS["cmeee"], written, {"text": "发热，发热"}) == spans


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_any_set_of_entities_survives_the_round_trip(data: st.DataObject) -> None:
    text = data.draw(st.text(alphabet="热痛肺 ；：，", min_size=1, max_size=12))
    place = st.tuples(*[st.integers(0, len(text) - 1)] * 2, st.sampled_from(["dis", "sym"]))
    spans = {(min(a, b), max(a, b), t) for a, b, t in data.draw(st.lists(place, max_size=6))}
    entities = [{"start_idx": a, "end_idx": b, "type": t} for a, b, t in spans]
    (row,) = rows_of(TASKS["cmeee"], "f:1", {"text": text, "entities": entities})
    assert isinstance(row, dict)
    assert parsed(TASKS["cmeee"], row["listed"], row) == row["entities"]


# Relations


@pytest.mark.parametrize("name", ["valid.txt", "valid.tsv", "valid.jsonl", "valid.json"])
def test_every_layout_of_relations_gives_the_same_rows(tmp_path: Path, name: str) -> None:
    cells = [("甲", "乙", "被收购", "乙收购“甲”"), ("丙", "丁", "unknown", "丙、丁")]
    if name.endswith(("txt", "tsv")):
        content = "\r\n\r\n".join("\t".join(row) for row in cells)
    else:
        records = [
            {
                "id": i,
                "text": text,
                "label": 33 if relation == "被收购" else 0,
                "label_desc": "N/A" if relation == "unknown" else relation,
                "head": {"mention": head, "start": 0, "end": 1},
                "tail": {"mention": tail, "start": 2, "end": 3},
            }
            for i, (head, tail, relation, text) in enumerate(cells)
        ]
        content = "\n".join(map(json.dumps, records))
        content = json.dumps(records) if name.endswith("json") else content
    (tmp_path / name).write_bytes(("\ufeff" + content).encode())
    task = TASKS["finre"]
    rows = list(checked_rows(task, find_splits(task, tmp_path, ("dev",))["dev"]))
    assert [(r["head"], r["tail"], r["relation"], r["target"], r["text"]) for r in rows] == [
        ("甲", "乙", "被收购", "被收购", "乙收购“甲”"),
        ("丙", "丁", "NA", "未知", "丙、丁"),
    ]


def test_the_relations_numbers_and_names_agree_with_the_official_list() -> None:
    path = REAL_DATA / "finre" / "relation2id.txt"
    if not path.exists():
        pytest.skip("the real data is not here")
    for line in path.read_text(encoding="utf-8").splitlines():
        relation, number = line.split()
        record = {"text": "甲、乙", "head": "甲", "tail": "乙", "label": int(number)}
        (by_number,) = rows_of(TASKS["finre"], "f:1", record)
        (by_name,) = rows_of(TASKS["finre"], "f:1", {**record, "label_desc": relation})
        assert by_number == by_name
        predicted = filled(TASKS["finre"], {}, [dict(by_name)["relation"]])  # type: ignore[call-overload]
        assert predicted["label"] == int(number)


@pytest.mark.parametrize(
    ("text", "relation"),
    [("收购", "收购"), (" 被收购。", "被收购"), ("未知", "NA"), ("购买", None), ("", None)],
)
def test_a_relations_name_is_read(text: str, relation: str | None) -> None:
    assert parsed(TASKS["finre"], text, {}) == relation


# Corrections


def test_corrections_are_edits_of_every_grammatical_annotation(tmp_path: Path) -> None:
    annotations = [
        (1, "他比我高得多。", 2, 3),
        (1, "他比我高。", 1, 6),
        (1, "他比我高。", 1, 1),
        (0, "他的个子比我高。", 4, 9),
    ]
    record = {
        "sentence_id": 1,
        "sentence_text": "他比我很高。",
        "sentence_annos": [
            {"is_grammatical": g, "correction": c, "edits_count": e, "annotator_count": n}
            for g, c, e, n in annotations
        ],
    }
    right = {"sentence_id": 2, "sentence_text": "我来了。", "sentence_annos": []}
    task = TASKS["yaclc"]
    first, second = read(task, lines(tmp_path / "dev.jsonl", record, right))
    assert first["target"] == "他比我高。"
    golds = [first["gold"], second["gold"]]
    assert golds[0] == {
        "source": "他比我很高。",
        "edits": [[[3, 4, ""]], [[3, 4, ""], [5, 5, "得多"]]],
    }
    assert second["target"] == "我来了。"
    assert golds[1] == {"source": "我来了。", "edits": [[]]}
    score = get_metric("m2_f0.5").score
    assert score(["他比我高得多。", "我来了。"], golds).value == 1
    assert score(["他比我很高。", None], golds).value == 0


@settings(max_examples=50, deadline=None)
@given(st.text(min_size=1, max_size=12).filter(str.strip), st.text(max_size=12).filter(str.strip))
def test_a_correction_is_filled_in_again(source: str, corrected: str) -> None:
    task = TASKS["yaclc"]
    prediction = parsed(task, corrected, {"text": source.strip()})
    record = filled(task, {"sentence_text": source}, [prediction])
    assert record["sentence_annos"][0]["correction"] == corrected.strip()


# Humour


SPR = """ID,Dialogue_id,Utterance_id,Speaker,Sentence,Label
0,0,0,甲,"你好，乙",0
1,0,1,乙,我不好。,1
2,1,0,甲,再见。,0
"""


def test_an_utterance_has_those_before_it_in_its_dialogue(tmp_path: Path) -> None:
    (tmp_path / "dev.csv").write_bytes(("\ufeff" + SPR.replace("\n", "\r\n")).encode())
    rows = list(checked_rows(TASKS["spr"], find_splits(TASKS["spr"], tmp_path, ("dev",))["dev"]))
    assert [(r["id"], r["context"], r["sentence"], r["target"]) for r in rows] == [
        ("0", "", "你好，乙", 0),
        ("1", "甲：你好，乙 ", "我不好。", 1),
        ("2", "", "再见。", 0),
    ]


@pytest.mark.parametrize("drop", [True, False])
def test_utterances_without_labels_are_read_as_a_test_split(tmp_path: Path, drop: bool) -> None:
    path = tmp_path / "test.csv"
    cells = [line.rsplit(",", 1) for line in SPR.splitlines()]
    kept = [a if drop else f"{a},{b if b == 'Label' else ''}" for a, b in cells]
    path.write_text("\n".join(kept), encoding="utf-8")
    rows = read(TASKS["spr"], path, "test")
    assert [row["target"] for row in rows] == [None] * 3
    with pytest.raises(UserError, match=r"test\.csv:2: no field 'label', or an empty one"):
        read(TASKS["spr"], path, "dev")


def test_the_submission_of_spr_is_the_official_table_with_labels(tmp_path: Path) -> None:
    task, official = TASKS["spr"], SPR.replace("，", ",")
    cells = [line.rsplit(",", 1)[0] for line in official.splitlines()]
    (tmp_path / "test.csv").write_text("\n".join(cells) + "\n", encoding="utf-8")
    split = read_split(task, find_splits(task, tmp_path, ("test",))["test"])
    assert not split.labelled
    made = tmp_path / "SPR.csv"
    assert write_submission(task, split, [0, 1, 0], made) == []
    assert made.read_text(encoding="utf-8") == official
