"""Losses on plain texts with and without a delta, and deltas scaled back towards zero."""

from __future__ import annotations

import csv
import json
import re
from pathlib import Path
from typing import Any

import encdec_folders
import numpy as np
import pytest
import torch
from causal_folders import make_folder
from conftest import CLI
from transformers import AutoModelForCausalLM, AutoModelForSeq2SeqLM

from cpm_tune.analysis.forgetting import after, compared, losses, passages
from cpm_tune.api import load_run
from cpm_tune.backbone.families import open_folder
from cpm_tune.engine.engine import make_engine
from cpm_tune.errors import UserError
from cpm_tune.leaderboard.aggregate import make_board
from cpm_tune.leaderboard.figures import pareto_front, points
from cpm_tune.leaderboard.forgetting import (
    cell_forgetting,
    choose_texts,
    note_of,
    scaled_alike,
)
from cpm_tune.leaderboard.frame import as_dataframe
from cpm_tune.leaderboard.results import read_folder
from cpm_tune.leaderboard.verify import verify_results
from cpm_tune.planning.plan import Request, make_plan
from cpm_tune.pretrain.plain_texts import read_texts
from cpm_tune.runs.execute import execute
from cpm_tune.runs.forgetting import Meter
from cpm_tune.runs.rerun import predict_run
from cpm_tune.runs.session import tune_all
from cpm_tune.schema.record import read_record
from cpm_tune.schema.spec import Encoding, Execution

pytestmark = pytest.mark.usefixtures("one_thread")

TEXTS = {
    "one": ["春天来了，花开了。", "水山火木" * 5 + "，人来人往。", "短"],
    "two": ["天" * 30 + "地" * 400],
}
QUICK = {"train.max_steps": 2, "train.eval_every": 1, "train.lr": 0.02}
SHORT = "春天来了，花开了，鸟也来了。"


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory, small_backbone: Path) -> dict[str, Path]:
    """A short run of each kind of delta, with its zero-shot control."""
    out = tmp_path_factory.mktemp("results")
    made = {}
    for delta in ("none", "lora", "full", "soft_prompt", "prefix"):
        settings = QUICK if delta != "none" else {}
        request = Request("lcqmc", delta, str(small_backbone), limit=12, seed=1, settings=settings)
        made[delta] = execute(make_plan(request), out).folder
    return made


def opened(folder: Path) -> tuple[Any, Any, Any]:
    known = open_folder(folder)
    return known, known.tokenizer(), known.layout(Encoding(), known.tokenizer())


@pytest.mark.parametrize("kind", ["gpt2", "mt5"])
def test_losses_equal_those_of_transformers(kind: str, tmp_path: Path) -> None:
    make = encdec_folders.make_folder if kind == "mt5" else make_folder
    place = make(tmp_path / kind, kind)
    folder = open_folder(place)
    tokenizer = folder.tokenizer()
    values = {"prompt_type": None, "segment": None}
    layout = folder.layout(
        Encoding(**values, target="answer" if kind == "mt5" else None), tokenizer
    )
    read = passages(TEXTS, tokenizer, layout, folder.config.shape.limit)
    engine = make_engine(Execution(device="cpu"), "fp32")
    nats = losses(folder.open(torch.float32), layout, read, engine, 512)
    oracle = AutoModelForSeq2SeqLM if kind == "mt5" else AutoModelForCausalLM
    model = oracle.from_pretrained(place).eval()
    for example, value in zip(read.examples, nats, strict=True):
        (context,), (answer,) = example.contexts, example.candidates
        with torch.no_grad():
            if kind == "mt5":
                inputs = {
                    "input_ids": torch.tensor([[*context, *layout.end]]),
                    "decoder_input_ids": torch.tensor([[layout.first, *answer.ids[:-1]]]),
                }
                logits = model(**inputs).logits[0]
            else:
                ids = torch.tensor([[*context, *answer.ids]])
                logits = model(ids).logits[0, len(context) - 1 : -1]
        target = torch.tensor(answer.ids)
        expected = torch.nn.functional.cross_entropy(logits, target, reduction="sum")
        assert value == pytest.approx(float(expected), rel=1e-4)


def test_texts_are_cut_and_counted(small_backbone: Path) -> None:
    _, tokenizer, layout = opened(small_backbone)
    read = passages(TEXTS, tokenizer, layout, None)
    assert read.texts == (("one", 0), ("one", 1), *[("two", 0)] * 3)  # the short one is left out
    assert read.characters.tolist() == [9 - 2, 26 - 6, 150, 150, 30 - 7]
    short = passages(TEXTS, tokenizer, layout, 100)
    assert max(len(e.contexts[0]) + len(e.candidates[0].ids) for e in short.examples) <= 100
    assert short.characters.sum() >= 0.7 * 456
    shifted = after(read, layout, (70_000, 70_001))
    n = len(layout.start)
    for plain, with_front in zip(read.examples, shifted.examples, strict=True):
        context = with_front.contexts[0]
        assert context[: n + 2] == (*layout.start, 70_000, 70_001)
        assert context[n + 2 :] == plain.contexts[0][n:]


def test_the_difference_and_its_interval_by_hand(small_backbone: Path) -> None:
    _, tokenizer, layout = opened(small_backbone)
    texts = {"a": [SHORT * 2, SHORT * 3], "b": [SHORT * 30, SHORT * 20]}
    read = passages(texts, tokenizer, layout, None)
    bare = np.arange(1.0, len(read.examples) + 1)
    more = np.where([name == "a" for name, _ in read.texts], 0.5, 0.25) * read.characters
    made = compared(texts, read, bare, bare + more)
    for name, difference in (("a", 0.5), ("b", 0.25)):
        record = made[name]
        of = [i for i, (source, _) in enumerate(read.texts) if source == name]
        assert record.bare == pytest.approx(bare[of].sum() / read.characters[of].sum())
        assert (record.texts, record.characters) == (len(texts[name]), read.characters[of].sum())
        # Every text is worse by as much, so every resample is.
        for value in (record.difference, record.low, record.high, record.tuned - record.bare):
            assert value == pytest.approx(difference)


def test_what_forgets_and_what_does_not(runs: dict[str, Path]) -> None:
    texts = {"own": [SHORT * k for k in range(1, 6)]}
    meter = Meter(texts)
    found = {name: meter.measure(run)["own"] for name, run in runs.items()}
    assert len({record.bare for record in found.values()}) == 1
    assert (found["none"].difference, found["none"].low, found["none"].high) == (0, 0, 0)
    for name in ("lora", "full", "soft_prompt", "prefix"):
        assert found[name].tuned != found[name].bare
        assert read_record(runs[name] / "run.json").forgetting["own"] == found[name]
    before = (runs["lora"] / "run.json").read_bytes()
    assert Meter(texts).measure(runs["lora"])["own"] == found["lora"]  # whatever came before it
    assert (runs["lora"] / "run.json").read_bytes() == before


@pytest.mark.parametrize("delta", ["lora", "full"])
def test_a_factor_of_one_is_the_run_and_of_zero_the_backbone(
    delta: str, runs: dict[str, Path], tmp_path: Path
) -> None:
    def predicted(run: Path, factor: float) -> bytes:
        out = tmp_path / f"{run.name}.{factor}"
        predict_run(run, out=out, limit=12, delta_scale=factor)
        return (out / "predictions.test.jsonl").read_bytes()

    own = (runs[delta] / "predictions.test.jsonl").read_bytes()
    bare = (runs["none"] / "predictions.test.jsonl").read_bytes()
    assert predicted(runs[delta], 1.0) == own != bare
    assert predicted(runs[delta], 0.0) == bare
    assert predicted(runs[delta], 0.5) not in (own, bare)


@pytest.mark.parametrize(
    ("delta", "factor", "sentence"),
    [
        ("prefix", 0.5, "kind prefix cannot be scaled: only lora and full"),
        ("none", 0.5, "kind none cannot be scaled"),
        ("lora", 1.0, "1 is the run itself"),
    ],
)
def test_other_deltas_and_the_run_itself_are_not_scaled(
    delta: str, factor: float, sentence: str, runs: dict[str, Path], cli: CLI
) -> None:
    code, _, error = cli("scale", runs[delta], "--by", factor)
    assert (code, sentence in error) == (2, True), error


def test_a_scaled_run_has_a_record_and_a_place_on_the_curve(
    runs: dict[str, Path], cli: CLI, tmp_path: Path
) -> None:
    results = runs["lora"].parent
    assert cli("scale", runs["lora"], "--by", "0,0.5")[0] == 0
    code, out, _ = cli("scale", runs["lora"], "--by", "0.5")
    assert (code, "already exists" in out) == (0, True)
    code, out, error = cli("forgetting", results)
    assert code == 0, error
    assert "7 runs, nats per character" in out
    assert all(name in out for name in ("classical", "dialogue", "everyday", "manual"))
    records = {}
    for file in results.glob("*/run.json"):
        record = read_record(file)
        records[record.delta.name, record.spec.delta_scale] = record
    zero, whole = records["lora", 0.0], records["lora", 1.0]
    assert zero.scores == {**zero.scores, "test": records["none", 1.0].scores["test"]}
    assert all(each.difference == 0 for each in zero.forgetting.values())
    assert len({zero.run_id, whole.run_id, records["lora", 0.5].run_id}) == 3
    assert verify_results(results)[1] == []
    board = make_board(read_folder(results))
    (curve,) = scaled_alike(board.rows)
    assert [row.settings.get("delta_scale") for row in curve] == ["0.0", "0.5", None]
    assert curve[0].forgetting == 0
    assert curve[2].forgetting == pytest.approx(
        np.mean([each.difference for name, each in whole.forgetting.items() if name != "own"])
    )
    plotted = points(board, "forgetting")
    assert {p.name for p in plotted} == {row.id for row in board.rows}
    assert pareto_front(plotted)[0].cost == min(p.cost for p in plotted)
    forgotten = f"{curve[2].forgetting:+.4f}"
    for style in ("text", "md", "latex"):
        code, out, _ = cli("leaderboard", results, "--format", style)
        assert (code, "forgetting" in out, forgotten in out) == (0, True, True)
    for style in ("csv", "csv-wide"):
        lines = list(csv.DictReader(cli("leaderboard", results, "--format", style)[1].splitlines()))
        values = {line["row"]: line["forgetting"] for line in lines}
        assert float(values[curve[2].id]) == pytest.approx(curve[2].forgetting, rel=1e-11)
    drawn = cli("leaderboard", "plot", results, "--out", tmp_path / "figures")[1]
    assert "forgetting.png" in drawn
    code, _, error = cli("--config", results / zero.run_id / "run.json", "--dry-run")
    assert (code, "tune.py scale" in error) == (2, True)
    code, _, error = cli("scale", results / zero.run_id, "--by", "0.5")
    assert (code, "scaled already" in error) == (2, True)


def test_tune_and_python_measure_forgetting_too(
    small_backbone: Path, cli: CLI, tmp_path: Path
) -> None:
    common = ["--task", "lcqmc", "--backbone", small_backbone, "--limit", "12", "--out", tmp_path]
    common += ["--set", "train.max_steps=1", "--control", "none", "--no-shortcuts", "--forgetting"]
    code, out, error = cli(*common, "--delta", "bitfit")
    assert (code, "classical" in out) == (0, True), error
    (folder,) = tmp_path.glob("lcqmc.*/")
    record = read_record(folder / "run.json")
    assert record.forgetting.keys() == read_texts().keys()
    assert "measured before" in cli(*common, "--delta", "bitfit")[1]
    run = load_run(folder)
    assert run.forgetting() == record.forgetting
    own = run.forgetting({"own": [SHORT, SHORT * 2]})["own"]
    assert own == Meter({"own": [SHORT, SHORT * 2]}).measure(folder, write=False)["own"]
    assert read_record(folder / "run.json").forgetting == {**record.forgetting, "own": own}
    assert as_dataframe(tmp_path)["forgetting.own"].tolist() == [own.difference]
    with pytest.raises(UserError, match="has 'own' measured on 2 other texts"):
        run.forgetting({"own": [SHORT]})
    code, _, error = cli(*common, "--delta", "bitfit", "--nnodes", "2")
    assert (code, "is measured by one process" in error) == (2, True), error


def test_forgetting_follows_runs_of_several_processes(small_backbone: Path, tmp_path: Path) -> None:
    request = Request("lcqmc", "none", str(small_backbone), limit=4)
    measured: list[Path] = []

    def start(name: str) -> None:
        assert not measured
        execute(make_plan(request), tmp_path)

    tune_all(request, out=tmp_path, start=start, after=measured.append)
    assert measured == [tmp_path / make_plan(request).spec.run_id]


def test_the_sample_is_read_as_four_sources() -> None:
    texts = read_texts()
    assert {name: len(each) for name, each in texts.items()} == dict.fromkeys(
        ("classical", "dialogue", "everyday", "manual"), 12
    )


def test_other_texts_of_a_name_are_kept_and_one_text_has_no_interval(
    runs: dict[str, Path], cli: CLI, tmp_path: Path
) -> None:
    run = runs["full"]
    own, other = tmp_path / "kept.txt", tmp_path / "beside.txt"
    own.write_text(f"{SHORT}\n\n{SHORT * 2}\n", encoding="utf-8")
    other.write_text(SHORT * 2_000, encoding="utf-8")
    assert cli("forgetting", run, "--texts", own)[0] == 0
    kept = read_record(run / "run.json").forgetting["kept"]
    code, _, error = cli("forgetting", run, "--texts", own, "--limit", "1")
    assert (code, "--overwrite replaces that" in error) == (2, True), error
    code, out, error = cli("forgetting", run, "--texts", other)
    assert (code, "no interval: one text" in out, "cut to 10,000" in error) == (0, True, True)
    record = read_record(run / "run.json")
    beside = record.forgetting["beside"]
    assert record.forgetting["kept"] == kept
    assert kept.low is not None
    assert (beside.low, beside.high, beside.characters <= 10_000) == (None, None, True)
    assert cli("forgetting", run, "--texts", own, "--limit", "1", "--overwrite")[0] == 0
    assert read_record(run / "run.json").forgetting["kept"].texts == 1
    before = {**beside.model_dump(), "low": 0.5, "high": 0.5}  # as earlier versions wrote it
    assert type(beside).model_validate(before) == beside


def test_the_board_shows_forgetting_on_the_texts_of_most_rows(runs: dict[str, Path]) -> None:
    (result, *_) = read_folder(runs["lora"].parent).runs
    each = result.record.forgetting or Meter({"x": [SHORT]}).measure(runs["lora"], write=False)
    one = next(iter(each.values()))

    def part(**sources: tuple[str, float]) -> Any:
        changed = {
            name: one.model_copy(update={"sha256": sha * 64, "difference": value})
            for name, (sha, value) in sources.items()
        }
        return result.record.model_copy(update={"forgetting": changed})

    records = [part(a=("0", 0.5)), part(a=("0", 0.25), b=("1", 9.0)), part(a=("2", 0.75))]
    board = make_board(read_folder(runs["lora"].parent))
    (column, *_), (first, *_) = board.columns, board.rows
    rows = []
    for record in records:
        cell = first.cells[column.id].model_copy(update={"forgetting": cell_forgetting([record])})
        rows.append(first.model_copy(update={"cells": {column.id: cell}}))
    column.notes.clear()
    choose_texts([column], rows)
    assert [row.forgetting for row in rows] == [0.5, 0.25, None]
    assert column.notes == [note_of(board.model_copy(update={"columns": [column], "rows": rows}))]
    assert column.other_texts == 1
    assert column.notes[0].endswith("blank where not on a")
    assert "hashes" not in rows[0].model_dump_json()


MISTAKES = {
    "gone": ("there is no such file or folder", None),
    "empty": ("no file ends in .txt, .jsonl, .json", {}),
    "short": ("no text of 8 characters or more", {"a.txt": "短\n"}),
    "latin": ("not UTF-8 text", {"a.txt": b"\xff\xfe\xfd\n"}),
    "keys": ('expected an object with "text"', {"a.jsonl": json.dumps({"x": 1}) + "\n"}),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_texts_that_cannot_be_read(
    name: str, runs: dict[str, Path], cli: CLI, tmp_path: Path
) -> None:
    sentence, files = MISTAKES[name]
    if files is not None:
        (tmp_path / name).mkdir()
        for file, content in files.items():
            raw = content if isinstance(content, bytes) else content.encode()
            (tmp_path / name / file).write_bytes(raw)
    code, _, error = cli("forgetting", runs["none"], "--texts", tmp_path / name)
    assert (code, sentence in error) == (2, True), error


@pytest.mark.parametrize(
    ("texts", "sentence"),
    [
        ({}, "expected texts of one source or more"),
        ({"x": []}, "texts 'x': there is no text"),
        ({"x": ["今天", 1]}, "texts 'x', number 2 is 1, expected a text"),
        ({"x": "今天"}, "texts 'x' is '今天', expected a list of texts"),
        ({1: ["今天"]}, "texts has the source 1"),
        (["a"], "expected a path, or a dict of lists of texts by source"),
    ],
)
def test_texts_in_python_that_are_none(texts: Any, sentence: str, runs: dict[str, Path]) -> None:
    with pytest.raises(UserError, match=re.escape(sentence)):
        load_run(runs["none"]).forgetting(texts)
