"""OCNLI, TNEWS and IFLYTEK: CLUE's files, and CPM-1's forms without training."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from cpm1_vocabulary import model_for

from cpm_tune.backbone.causal.cpm1_tokenizer import CPM1Tokenizer
from cpm_tune.backbone.causal.layout import CausalLayout
from cpm_tune.data.encode import Encoder
from cpm_tune.data.files import checked_rows
from cpm_tune.data.splits import find_splits, sample_folder
from cpm_tune.task.registry import load_task

EOD = 7
PAIR = {
    "level": "easy",
    "sentence1": "今天下雨",
    "sentence2": "外面是湿的",
    "prem_id": "x",
    "id": 3,
}
TITLE = {"label_desc": "news_sports", "sentence": "主队赢了", "keywords": ""}


@pytest.mark.parametrize(
    ("name", "records", "expected"),
    [
        (
            "ocnli",
            [{**PAIR, "label": "entailment"}, {**PAIR, "label": "-"}, {**PAIR, "label": "neutral"}],
            [("今天下雨", 0), ("今天下雨", 1)],
        ),
        ("tnews", [{**TITLE, "label": "103"}], [("主队赢了", 3)]),
        ("tnews", [{**TITLE, "label": 116}], [("主队赢了", 14)]),
        ("iflytek", [{"label": "118", "label_des": "其他", "sentence": "记账"}], [("记账", 118)]),
    ],
)
def test_clues_files_are_read(
    name: str, records: list[Any], expected: list[tuple[str, int]], tmp_path: Path
) -> None:
    task = load_task(name)
    file = tmp_path / "dev.json"
    file.write_text("".join(json.dumps(r, ensure_ascii=False) + "\n" for r in records))
    rows = list(checked_rows(task, find_splits(task, tmp_path, ("dev",))["dev"]))
    text = task.shown[0]
    assert [(row[text], row["target"]) for row in rows] == expected


@pytest.mark.parametrize(
    ("name", "fields", "prefixes", "scored"),
    [
        (
            "ocnli",
            {"sentence1": "今天下雨", "sentence2": "外面是湿的"},
            ("今天下雨？|对，", "今天下雨？|也许，", "今天下雨？|错，"),
            "外面是湿的",
        ),
        ("tnews", {"sentence": "主队赢了"}, ("这是关于体育的文章：",), "主队赢了"),
        ("iflytek", {"sentence": "记账"}, ("这是关于打车的应用程序：",), "记账"),
    ],
)
def test_cpm_1s_forms_score_what_follows_the_label(
    name: str, fields: dict[str, str], prefixes: tuple[str, ...], scored: str
) -> None:
    task = load_task(name)
    template = task.template("cpm-1-zero-shot")
    assert template is not None
    texts = (*template.options, *fields.values(), "今天下雨？对，错，也许，外面是湿的")
    tokenizer = CPM1Tokenizer(model_for(texts, 500))
    layout = CausalLayout(tokenizer, (), len(tokenizer))
    encoder = Encoder(task, template, layout, tokenizer, 200)
    example = encoder.encode({"id": "1", "target": 0, **fields})
    answer = (*tokenizer.encode(scored), EOD)
    assert {candidate.ids for candidate in example.candidates} == {answer}
    assert [c.context for c in example.candidates] == list(range(encoder.n_options(example)))
    expected = {
        tuple(index for part in prefix.split("|") for index in tokenizer.encode(part))
        for prefix in prefixes
    }
    assert expected <= set(example.contexts)


def test_the_sample_data_is_what_its_script_makes(tmp_path: Path) -> None:
    script = sample_folder(load_task("ocnli")).parent / "make_clue.py"
    subprocess.run([sys.executable, str(script), str(tmp_path)], check=True)
    for name in ("ocnli", "tnews", "iflytek"):
        for file in (tmp_path / name).iterdir():
            assert file.read_bytes() == (sample_folder(load_task(name)) / file.name).read_bytes()
