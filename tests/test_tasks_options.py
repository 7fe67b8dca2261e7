"""The tasks with options, documents, words and facts: files, wrong records, submissions."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from conftest import REAL_DATA, REPOSITORY
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from options_table import LAYOUTS, NAMES, SHARED, SUBMITTED, TASKS, WRONG, put, read

from cpm_tune.backbone.ant.tokenizer import Tokenizer
from cpm_tune.data.files import official_records, rows_of
from cpm_tune.data.splits import find_splits
from cpm_tune.errors import UserError
from cpm_tune.task import BadRow, Generate, Row, Task

EMBEDDED = REPOSITORY / "cpm_tune" / "backbone" / "cpm-ant-tiny" / "vocab.txt"
RELEASED = REAL_DATA / "vocab" / "ant.txt"
REAL = pytest.mark.skipif(not REAL_DATA.is_dir(), reason="the real data is not here")


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_official_layout_is_read(tmp_path: Path, layout: str) -> None:
    name, files, split, expected = LAYOUTS[layout]
    for file, content in files.items():
        put(tmp_path / file, content)
    found = read(name, tmp_path, split)
    assert [{key: row[key] for key in want} for row, want in zip(found, expected, strict=True)] == (
        expected
    )


@pytest.mark.parametrize(("name", "record", "said"), WRONG)
def test_a_wrong_record_is_one_sentence_with_its_place(
    tmp_path: Path, name: str, record: Any, said: str
) -> None:
    put(tmp_path / "dev.jsonl", [record])
    with pytest.raises(UserError) as caught:
        read(name, tmp_path, "dev")
    assert said in str(caught.value)
    assert str(caught.value).startswith(f"{tmp_path / 'dev.jsonl'}:1: ")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("<question id=1>\t鱼？\n鱼在水里\n", ":2: expected <question id=1>"),
        ("<question id=1>\t鱼？\n<answer id=2>\t水\n", ":2: answer 2 comes after question 1"),
        ("=====\n<answer id=1>\t水\n", ":2: no field 'question'"),
        ("<question id=1>\t鱼？\n=====\n", ":1: no field 'answer'"),
        (b"<question id=1>\t\xff\n", ":1: not UTF-8"),
    ],
)
def test_a_wrong_line_of_kbqa_is_named(tmp_path: Path, text: str | bytes, said: str) -> None:
    put(tmp_path / "a.kbqa.dev", text)
    with pytest.raises(UserError) as caught:
        read("kbqa", tmp_path, "dev")
    assert f"a.kbqa.dev{said}" in str(caught.value)


@pytest.mark.parametrize("text", ["[1]", "{", '{"#idiom1#": "甲"}', "3", '{"#idiom1#": null}'])
def test_wrong_answers_of_chid_are_named(tmp_path: Path, text: str) -> None:
    put(tmp_path / "dev.json", [SHARED])
    put(tmp_path / "dev_answer.json", text)
    with pytest.raises(UserError, match=r"dev_answer\.json: expected answers of the form"):
        read("chid", tmp_path, "dev")


def test_a_blank_without_its_answer_is_named(tmp_path: Path) -> None:
    put(tmp_path / "dev.json", [SHARED])
    put(tmp_path / "dev_answer.json", {"#idiom000001#": 1})
    with pytest.raises(UserError, match=r"dev\.json:1: #idiom000002# is not in dev_answer\.json"):
        read("chid", tmp_path, "dev")


KEYS = sorted(
    {"story", "plot0", "plot1", "label", "question", "choice", "answer", "evidences", "options"}
    | {"passage", "id", "content", "candidates", "groundTruth", "answers", "query", "query_id"}
    | {"doc", "title", "relevance", "pos_doc", "neg_doc", "definition", "definitions", "word"}
    | {"translation", "choices"}
)
LEAVES = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=6)
LEAVES |= st.sampled_from(["<mask>", "#idiom#", "#idiom000001#甲#idiom000002#", "A", "0", 1])
JSON = st.recursive(
    LEAVES,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.sampled_from(KEYS), inner, max_size=8)
        | st.tuples(st.lists(st.text(max_size=3), max_size=2), inner, inner).map(list)
    ),
    max_leaves=12,
)


@pytest.mark.parametrize("name", [name for name in NAMES if name != "kbqa"])
@settings(max_examples=60, deadline=None)
@given(record=JSON)
def test_any_record_becomes_rows_or_bad_rows(name: str, record: Any) -> None:
    for row in rows_of(TASKS[name], "a.json:1", record):
        assert isinstance(row, dict) or row.message.startswith("a.json:1: ")


@settings(
    max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    lines=st.lists(
        st.builds(
            "{}{}".format,
            st.sampled_from(["<question id=1>\t", "<answer id=1>\t", "<triple id=2>\t", "=", ""]),
            st.text(st.characters(exclude_characters="\0"), max_size=5),
        ),
        max_size=6,
    )
)
def test_any_text_is_read_as_kbqa(tmp_path: Path, lines: list[str]) -> None:
    task = TASKS["kbqa"]
    path = tmp_path / "a.kbqa.test"
    path.write_bytes("\n".join(lines).encode(errors="surrogatepass"))
    for where, record in official_records(task, find_splits(task, tmp_path, ("test",))["test"]):
        for row in rows_of(task, where, record):
            assert isinstance(row, BadRow) or row["question"] == record["question"]


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(text=st.text(max_size=20) | JSON.map(json.dumps), ending=st.sampled_from(["json", "csv"]))
def test_any_answers_of_chid_are_read_or_refused(tmp_path: Path, text: str, ending: str) -> None:
    for path in tmp_path.iterdir():
        path.unlink()
    put(tmp_path / f"test.{'json' if ending == 'json' else 'txt'}", [SHARED])
    put(tmp_path / f"test_answer.{ending}", text)
    try:
        rows = read("chid", tmp_path, "test")
    except UserError:
        return
    assert len(rows) == 3


@pytest.mark.parametrize(("name", "record", "predictions", "expected"), SUBMITTED)
def test_a_submission_is_the_official_record_with_the_predictions(
    name: str, record: Any, predictions: list[Any], expected: Any
) -> None:
    submission = TASKS[name].submission
    assert submission is not None
    assert submission.fill(record, predictions) == expected


def real(tmp_path: Path, files: dict[str, str]) -> Path:
    for name, source in files.items():
        shutil.copy(REAL_DATA / source, tmp_path / name)
    return tmp_path


def jsonl(path: Path) -> list[Any]:
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


def rendered(name: str, rows: list[Row]) -> int:
    """How many prompts all rows have in all templates, having rendered them."""
    prompts = 0
    for template in TASKS[name].templates:
        for row in rows:
            before, option, after = template.render(row, "此")
            assert "此" in option + after
            assert template.text[0] == "{" or before.startswith(template.text[:2])
            prompts += 1
    return prompts


@REAL
def test_real_ccpm(tmp_path: Path) -> None:
    folder = real(
        tmp_path,
        {"valid.jsonl": "ccpm/valid.jsonl", "test_public.jsonl": "ccpm/test_public.head.jsonl"},
    )
    dev, test = read("ccpm", folder, "dev"), read("ccpm", folder, "test")
    assert [row["target"] for row in dev] == [r["answer"] for r in jsonl(folder / "valid.jsonl")]
    assert (len(dev), len(test), {row["target"] for row in test}) == (2720, 200, {None})
    assert rendered("ccpm", dev + test) == 3 * 2920


@REAL
def test_real_c3(tmp_path: Path) -> None:
    names = ("c3-d-dev.json", "c3-m-dev.json")
    rows = read("c3", real(tmp_path, {name: f"c3/{name}" for name in names}), "dev")
    asked = [
        question
        for name in names
        for _, questions, _ in json.loads((tmp_path / name).read_text("utf-8"))
        for question in questions
    ]
    assert len(rows) == len(asked) == 3816
    for row, question in zip(rows, asked, strict=True):
        assert row["choices"][row["target"]] == question["answer"]
    assert rendered("c3", rows) == 3 * 3816
    task = TASKS["c3"]
    assert task.submission is not None
    targets = iter(row["target"] for row in rows)
    for _, record in official_records(task, find_splits(task, tmp_path, ("dev",))["dev"]):
        hidden = [{k: v for k, v in q.items() if k != "answer"} for q in record[1]]
        given = [next(targets) for _ in hidden]
        assert task.submission.fill([record[0], hidden, record[2]], given) == record


@REAL
def test_real_chid(tmp_path: Path) -> None:
    folder = real(
        tmp_path, {f"{s}_few_all.json": f"chid/fewclue_{s}_few_all.json" for s in ("train", "dev")}
    )
    for split in ("train", "dev"):
        rows, records = read("chid", folder, split), jsonl(folder / f"{split}_few_all.json")
        assert len(rows) == len(records) == 202
        for row, record in zip(rows, records, strict=True):
            assert row["before"] + "#idiom#" + row["after"] == record["content"]
            assert (row["candidates"], row["target"]) == (record["candidates"], record["answer"])
        assert rendered("chid", rows) == 5 * 202


@REAL
def test_real_kbqa(tmp_path: Path) -> None:
    name = "nlpcc2016.kbqa.dev"
    folder = real(tmp_path, {name: "kbqa/nlpcc2016.kbqa.head"})
    rows = read("kbqa", folder, "dev")
    lines = (folder / name).read_text("utf-8").splitlines()
    for tag, column in (("question", "question"), ("answer", "target")):
        said = [line.split("\t", 1)[1].strip() for line in lines if line.startswith(f"<{tag} ")]
        assert [row[column] for row in rows] == said
    assert rendered("kbqa", rows) == 1748
    task = TASKS["kbqa"]
    assert task.submission is not None
    records = official_records(task, find_splits(task, folder, ("dev",))["dev"])
    again = [task.submission.fill(record, [record["answer"]]) for _, record in records]
    assert "\n".join(again).split() == "\n".join(lines).split()


@REAL
def test_the_protocol_of_kbqa_counts_the_answers_that_cannot_be_written(tmp_path: Path) -> None:
    tokenizer = Tokenizer.from_file(RELEASED)
    folder = real(tmp_path, {"nlpcc2016.kbqa.dev": "kbqa/nlpcc2016.kbqa.head"})
    task = TASKS["kbqa"]
    assert isinstance(task.answer, Generate)
    ids = [tokenizer.encode(row["target"]) for row in read("kbqa", folder, "dev")]
    too_long = sum(len(one) >= task.answer.max_new_tokens for one in ids)
    unknown = sum(tokenizer.unk in one for one in ids)
    assert f"{too_long} and {unknown} of {len(ids):,}" in task.protocol


@pytest.mark.parametrize("vocabulary", [EMBEDDED, pytest.param(RELEASED, marks=REAL)])
def test_the_words_of_templates_are_in_the_vocabularies(vocabulary: Path) -> None:
    tokenizer = Tokenizer.from_file(vocabulary)
    for task in TASKS.values():
        for template in task.templates:
            for text in (
                *template.options,
                *(p.value for p in template.pieces if p.kind == "text"),
            ):
                assert tokenizer.unk not in tokenizer.encode(text), (task.name, template.name)


@pytest.mark.parametrize("name", NAMES)
def test_a_task_says_what_it_reads_and_scores(name: str) -> None:
    task: Task = TASKS[name]
    assert 2 <= task.protocol.count(". ") + 1 <= 7
    assert {t.name for t in task.templates} >= {"cpm-ant"}
    assert ("cpm-2" in task.suites) == ("cpm-2" in {t.name for t in task.templates})
    assert bool(task.published) == bool(task.published_source)
