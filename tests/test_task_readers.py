"""The readers and parsers of every task on what official files should not hold: spoilt files,
values of the wrong kind, missing parts. All of it gives rows or sentences, never anything else."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from conftest import CLI, REAL_DATA
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cpm_tune.data.files import checked_rows
from cpm_tune.data.splits import SplitFile, find_splits, sample_folder
from cpm_tune.errors import UserError, did_you_mean
from cpm_tune.planning.plan import Request, make_plan
from cpm_tune.task import BadRow, Generate, Row, Task
from cpm_tune.task.answers import parsed
from cpm_tune.task.registry import load_task, load_tasks

TASKS = {task.name: task for task in load_tasks()}
PARSING = [name for name, task in TASKS.items() if getattr(task.answer, "parse", None)]
QUIET = {"deadline": None, "suppress_health_check": list(HealthCheck)}


def read(task: Task, folder: Path, split: str, bad: list[str] | None = None) -> list[Row]:
    return list(checked_rows(task, find_splits(task, folder, (split,))[split], bad))


def head(path: Path, size: int = 1500) -> bytes:
    """The beginning of a file: whole lines, or a document cut short."""
    return path.read_bytes()[:size]


_EDITS = st.lists(
    st.tuples(
        st.floats(0, 1),  # where, as a share of the file
        st.integers(0, 30),  # how much is taken away there
        st.binary(max_size=4)
        | st.sampled_from(
            [
                *(b"\n", b"\r\n", b"\t", b'"', b"\\", b"\\ud83d", b"\xef\xbb\xbf", b"null", b"["),
                *(b"]", b"}", b"{", b" ", b"\0", b"-1", b"1e999", b"NaN", b"true", b"<mask>"),
                *(b"#idiom#", b"<answer id=1>", "。".encode()),
            ]
        ),
    ),
    min_size=1,
    max_size=4,
)


@pytest.mark.parametrize("name", TASKS)
def test_a_spoilt_official_file_gives_rows_or_sentences(
    tmp_path_factory: pytest.TempPathFactory, name: str
) -> None:
    task = TASKS[name]
    official = find_splits(task, sample_folder(task))["train"].paths
    whole = [head(path) for path in official]

    @settings(max_examples=30, **QUIET)  # type: ignore[arg-type]
    @given(edits=_EDITS, which=st.integers(0, 5), split=st.sampled_from(["train", "dev", "test"]))
    def check(edits: list[tuple[float, int, bytes]], which: int, split: str) -> None:
        spoilt = list(whole)
        for where, gone, new in edits:
            at = which % len(spoilt)
            start = int(where * len(spoilt[at]))
            spoilt[at] = spoilt[at][:start] + new + spoilt[at][start + gone :]
        folder = tmp_path_factory.mktemp("spoilt")
        paths = tuple(folder / f"{i}{path.suffix}" for i, path in enumerate(official))
        for path, content in zip(paths, spoilt, strict=True):
            path.write_bytes(content)
        bad: list[str] = []
        try:
            rows = list(checked_rows(task, SplitFile(split, paths, ""), bad))
        except UserError as error:  # the file as a whole cannot be read
            rows, bad = [], [str(error)]
        json.dumps(rows, ensure_ascii=False).encode()  # no half surrogates
        for message in bad:
            assert str(folder) in message
            assert "\n" not in message
            assert "() failed" not in message  # what stands for an exception nobody foresaw
            assert f"() of task {name} failed" not in message

    check()


@pytest.mark.parametrize("name", PARSING)
def test_a_spoilt_answer_is_read_or_counted(name: str) -> None:
    task = TASKS[name]
    rows = read(task, sample_folder(task), "dev")[:20]
    for row in rows:
        assert parsed(task, row["target"], row) is not None

    @settings(max_examples=60, **QUIET)  # type: ignore[arg-type]
    @given(
        row=st.sampled_from(rows),
        a=st.integers(0, 60),
        b=st.integers(0, 60),
        new=st.text(max_size=8),
    )
    def check(row: Row, a: int, b: int, new: str) -> None:
        found = parsed(task, row["target"][:a] + new + row["target"][b:], row)
        json.dumps(found)  # what predictions.jsonl has to hold

    check()


SONG = {"name": "山歌", "attrname": "作者", "attrvalue": "无名"}
TALK = [{"message": "听过吗？"}, {"message": "听过。", "attrs": [SONG]}]
RELATION = {
    "id": 1,
    "text": "甲收购乙。",
    "label": 24,
    "label_desc": "收购",
    "head": "甲",
    "tail": "乙",
}
WRONG_KINDS: dict[str, tuple[str, Any, str]] = {
    "a passage that is an object": (
        "c3",
        [{"甲": "乙"}, [{"question": "？", "choice": ["一", "二"], "answer": "一"}], "1"],
        "the text is {'甲': '乙'}, expected an array of lines",
    ),
    "a passage that is one text": (
        "c3",
        ["甲乙", [{"question": "？", "choice": ["一", "二"], "answer": "一"}], "1"],
        "expected an array of lines",
    ),
    "questions that are an object": ("c3", [["甲"], {"question": "？"}, "1"], "array of objects"),
    "a relation's number that is not its name's": (
        "finre",
        {**RELATION, "label": 25},
        "label 25 is 借壳, but label_desc says '收购', which is 24",
    ),
    "a number beside no relation": ("finre", {**RELATION, "label_desc": "N/A"}, "which is 0"),
    "a relation's number that is true": ("finre", {**RELATION, "label": True}, "label is True"),
    "a feature that is a text": (
        "adgen",
        {"feature": ["颜色"], "desc": "好"},
        "is not a name and a value",
    ),
    "features that are an object": ("adgen", {"feature": {"颜色": "红"}, "desc": "好"}, "is dict"),
    "an attribute without a value": (
        "cepsum",
        {"table": {"颜色": []}, "source": "好", "targets": ["好"]},
        "'颜色' is []",
    ),
    "entities that are an object": ("cmeee", {"text": "好", "entities": {}}, "is dict"),
    "corrections that are an object": (
        "yaclc",
        {"sentence_text": "好", "sentence_annos": {}},
        "is dict",
    ),
    "a dialogue without its first message": (
        "kdconv",
        {"messages": [{"message": None}, *TALK[1:]]},
        "the first message has no text",
    ),
    "a triple that is no text": (
        "kdconv",
        {"messages": [TALK[0], {"message": "好", "attrs": [{**SONG, "attrvalue": None}]}]},
        "'attrvalue' of a triple is None",
    ),
    "a content that is an object": (
        "chid",
        {"content": {"#idiom#": 1}, "candidates": ["甲", "乙"], "answer": 0},
        "expected a text or a list of texts",
    ),
    "an evidence that is an object": (
        "gcrc_evidence",
        {
            **{"id": "1", "passage": "甲", "question": "？", "options": ["甲", "乙"]},
            "evidences": [["甲"], {}],
        },
        "evidence 2 is dict",
    ),
}


@pytest.mark.parametrize("what", WRONG_KINDS)
def test_a_value_of_the_wrong_kind_is_named(tmp_path: Path, what: str) -> None:
    name, record, said = WRONG_KINDS[what]
    text = json.dumps(record, ensure_ascii=False)
    (tmp_path / "dev.jsonl").write_text(text + "\n", encoding="utf-8")
    with pytest.raises(UserError) as caught:
        read(TASKS[name], tmp_path, "dev")
    assert str(caught.value).startswith(f"{tmp_path / 'dev.jsonl'}:1: ")
    assert said in str(caught.value)


@pytest.mark.parametrize("cut", ["\\ud83d", "\\ude00", "\\uD83D\\ud83d", "\\ud83d\\n"])
def test_half_a_surrogate_pair_in_an_array_is_a_bad_row(tmp_path: Path, cut: str) -> None:
    good = '{"text": "天气\\ud83d\\ude00很好，\\\\ud83d 是字。", "summary": "晴"}'
    bad = good.replace("晴", cut)
    (tmp_path / "dev.json").write_text(f"[{good},\n{bad},\n{good}]", encoding="utf-8")
    with pytest.raises(UserError, match=r"dev.json: item 2: 'summary' contains half a surrogate"):
        read(TASKS["lcsts"], tmp_path, "dev")
    skipped: list[str] = []
    kept = read(TASKS["lcsts"], tmp_path, "dev", skipped)
    assert [row["text"] for row in kept] == ["天气\U0001f600很好，\\ud83d 是字。"] * 2
    assert len(skipped) == 1


def test_an_escape_of_a_surrogate_is_seen_wherever_it_stands(tmp_path: Path) -> None:
    for before in range((1 << 20) - 60, (1 << 20) - 40):  # across the end of the first block read
        text = '[{"text": "' + "a" * before + '\\ud83d", "summary": "晴"}]'
        (tmp_path / "dev.json").write_text(text, encoding="utf-8")
        with pytest.raises(UserError, match="half a surrogate"):
            read(TASKS["lcsts"], tmp_path, "dev")


@pytest.mark.parametrize(
    ("name", "there", "said"),
    [
        ("wmt20_enzh", ["train.en", "dev.jsonl"], "train.zh is missing (needed with train.en)."),
        ("c3", ["c3-d-train.json"], "c3-m-train.json is missing (needed with c3-d-train.json)."),
        ("lcqmc", ["dev.jsonl", "Train.jsonl"], "The folder contains Train.jsonl, dev.jsonl."),
        ("kbqa", [], "The folder is empty."),
        ("ccpm", [f"{i}.txt" for i in range(10)], "6.txt, 7.txt and 2 more."),
    ],
)
def test_a_split_that_is_not_found_is_told_with_what_is_there(
    tmp_path: Path, name: str, there: list[str], said: str
) -> None:
    for file in there:
        (tmp_path / file).write_text("", encoding="utf-8")
    with pytest.raises(UserError) as caught:
        find_splits(TASKS[name], tmp_path)
    assert "no file for train (" in str(caught.value)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


CLOZE = {"content": "真是#idiom000001#。", "candidates": ["画蛇添足", "一举两得"]}


def test_answers_that_belong_beside_a_file_are_asked_for(tmp_path: Path) -> None:
    (tmp_path / "train.json").write_text(json.dumps(CLOZE), encoding="utf-8")
    with pytest.raises(UserError) as caught:
        read(TASKS["chid"], tmp_path, "train")
    assert "no field 'answer'" in str(caught.value)
    assert "train_answer.json, which is missing from this file's folder" in str(caught.value)
    (tmp_path / "train_answer.json").write_text('{"#idiom000007#": 1}', encoding="utf-8")
    with pytest.raises(UserError, match=r"#idiom000001# is not in train_answer\.json"):
        read(TASKS["chid"], tmp_path, "train")
    (tmp_path / "train_answer.json").write_text('{"#idiom000001#": 1}', encoding="utf-8")
    assert [row["target"] for row in read(TASKS["chid"], tmp_path, "train")] == [1]


def test_a_domain_of_kdconv_that_is_missing_is_said(tmp_path: Path) -> None:
    for domain in ("music", "travel"):
        for split in ("train", "dev", "test"):
            path = tmp_path / domain / f"{split}.json"
            path.parent.mkdir(exist_ok=True)
            if (domain, split) != ("travel", "test"):
                path.write_text(json.dumps([{"messages": TALK, "name": domain}]), encoding="utf-8")
    notes = make_plan(Request(task="kdconv", data=tmp_path)).notes
    assert "the train split lacks the part film" in notes
    assert "the test split lacks the part film and travel" in notes
    assert make_plan(Request(task="kdconv")).notes == (
        "sample data written for this project: not comparable with real kdconv",
    )


@pytest.mark.parametrize("name", ["LCQMC", "Lcqmc", "lcqcm", "LCQCM"])
def test_the_nearest_task_is_named_whatever_the_case(cli: CLI, name: str) -> None:
    code, _, error = cli("--task", name, "--delta", "lora")
    assert code == 2
    assert "Did you mean 'lcqmc'?" in error
    with pytest.raises(UserError, match="Did you mean 'lcqmc'"):
        load_task(name)


def test_the_nearest_name_is_given_as_it_is_spelled() -> None:
    assert did_you_mean("projectq", ["Project_Q", "lr"]) == " Did you mean 'Project_Q'?"
    assert did_you_mean("zzzz", ["lr"]) == " Known: lr."


@pytest.mark.skipif(not (REAL_DATA / "finre").is_dir(), reason="the real FinRE is not here")
def test_the_numbers_of_relations_are_the_official_ones() -> None:
    (module,) = {TASKS["finre"].files.rows.__globals__["RELATIONS"]}  # type: ignore[union-attr]
    lines = (REAL_DATA / "finre" / "relation2id.txt").read_text(encoding="utf-8").splitlines()
    official = {int(number): name for name, number in (line.split() for line in lines)}
    assert {**dict(enumerate(module)), 0: "unknown"} == official


def test_rows_that_cannot_be_used_are_bad_rows_of_every_reader() -> None:
    from cpm_tune.data.files import rows_of

    for task in TASKS.values():
        for record in (None, 3, "字", [], {}, [[]], {"text": None}):
            for row in rows_of(task, "a.json:1", record):
                assert isinstance(row, BadRow | dict)
                if isinstance(row, BadRow):
                    assert row.message.startswith("a.json:1: ")
        assert isinstance(task.answer, Generate) or not getattr(task.answer, "parse", None)
