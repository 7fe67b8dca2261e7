"""Rows against rows from a results folder; records verified and scored anew."""

from __future__ import annotations

import json
import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from conftest import CLI, rows, write_jsonl
from statsmodels.stats.contingency_tables import mcnemar
from test_record import record, spec

import cpm_tune.metrics as metrics
from cpm_tune.common.paths import file_sha256
from cpm_tune.schema.record import RunRecord, read_record, write_record
from cpm_tune.schema.spec import BackboneSpec, DataSpec, Recipe
from cpm_tune.systems.predictions import Predictions, predictions_text, score_predictions

N = 200
TARGETS = [i % 2 for i in range(N)]
B = "b" * 64


def run(folder: Path, right: float, delta: str = "lora", seed: int = 1, **changes: Any) -> Path:
    """A finished run of LCQMC whose predictions are right about so often."""
    recipe = None if delta == "none" else Recipe()
    of = spec(**{"delta": {"delta_type": delta}, "seed": seed, "recipe": recipe, **changes})
    chance = random.Random(f"{delta} {seed} {right}")
    found = Predictions(
        tuple(map(str, range(N))),
        tuple(t if chance.random() < right else 1 - t for t in TARGETS),
        tuple(TARGETS),
    )
    place = folder / of.run_id
    place.mkdir(parents=True)
    hashes, scores = {}, {}
    for split in ("dev", "test"):
        path = place / f"predictions.{split}.jsonl"
        path.write_text(
            predictions_text(found.ids, found.predictions, found.targets), encoding="utf-8"
        )
        hashes[path.name] = file_sha256(path)
        scores[split] = {"accuracy": score_predictions("accuracy", found)}
    (place / "delta.safetensors").write_bytes(b"weights")
    weights = file_sha256(place / "delta.safetensors")
    held = {"path": "x", "n": N, "n_skipped": 0, "n_truncated": 0}
    data = {s: {**held, "sha256": getattr(of.data, s)} for s in ("dev", "test")}
    one = record(
        of=of,
        predictions=hashes,
        scores=scores,
        data=data,
        delta={"name": delta, "n_trainable": 5, "bytes": 7, "sha256": weights},
    )
    write_record(place, one)
    return place


def line(cli: CLI, *words: object) -> dict[str, Any]:
    code, said, error = cli("leaderboard", "compare", *words, "--format", "json")
    assert code == 0, error
    found: dict[str, Any] = json.loads(said)
    return found


def test_two_run_folders_have_mcnemars_test(cli: CLI, tmp_path: Path) -> None:
    a, b = run(tmp_path, 0.9), run(tmp_path, 0.6, "adapter")
    (one,) = line(cli, a, b)["comparisons"]
    sides = [
        [json.loads(text)["prediction"] for text in (f / "predictions.test.jsonl").open()]
        for f in (a, b)
    ]
    right = [[p == t for p, t in zip(side, TARGETS, strict=True)] for side in sides]
    pairs = list(zip(*right, strict=True))
    table = [[pairs.count((x, y)) for y in (True, False)] for x in (True, False)]
    assert one["test"] == "McNemar, continuity correction"
    assert one["p"] == pytest.approx(mcnemar(table, exact=False, correction=True).pvalue)
    assert one["difference"] == pytest.approx((sum(right[0]) - sum(right[1])) / N)
    assert one["low"] < one["difference"] < one["high"]
    assert one["verdict"] == "win"


def test_rows_by_name_take_all_seeds_and_say_so(cli: CLI, tmp_path: Path) -> None:
    for seed in (1, 2, 3):
        run(tmp_path, 0.8, seed=seed)
        run(tmp_path, 0.8, "adapter", seed=seed)
    run(tmp_path, 0.5, backbone=BackboneSpec(sha256="a" * 64, init="random"))
    found = line(cli, "lora", "b:adapter", "--results", tmp_path)
    assert found["rows"] == ["lora on b", "adapter on b"]
    (one,) = found["comparisons"]
    assert one["seeds"] == [3, 3]
    assert one["verdict"] == "tie"
    assert "approximate randomisation" in one["test"]
    assert any("each counts with its mean over the seeds" in note for note in found["notes"])
    code, said, _ = cli("leaderboard", "compare", "--matrix", "--results", tmp_path)
    assert code == 0
    assert "lora on b (random control)" in said
    assert "0/1/0" in said
    assert "0/0/1" in said


def test_holm_is_over_all_tests_shown(cli: CLI, tmp_path: Path) -> None:
    for task in ("lcqmc", "ccpm"):
        for delta, right in (("lora", 0.8), ("adapter", 0.72), ("bitfit", 0.7)):
            run(tmp_path, right, delta, task=task)
    found = line(cli, "lora", "adapter", "bitfit", "--results", tmp_path)
    lines = found["comparisons"]
    assert len(lines) == 6
    ordered = sorted(lines, key=lambda one: one["p"])
    assert ordered[0]["p_holm"] == pytest.approx(min(1, 6 * ordered[0]["p"]))
    assert all(one["p_holm"] >= one["p"] for one in lines)


def test_markdown_and_text_say_the_same(cli: CLI, tmp_path: Path) -> None:
    run(tmp_path, 0.8), run(tmp_path, 0.7, "adapter")
    words = ("leaderboard", "compare", "lora", "adapter", "--results", tmp_path)
    text, md = (cli(*words, "--format", style)[1] for style in ("text", "md"))
    assert "paired percentile bootstrap over examples, 10,000 resamples, seed 0" in text
    assert {len(row.split(" | ")) for row in md.splitlines() if row.startswith("| l")} == {11}
    for value in ("A - B", "Holm p", "McNemar"):
        assert value in text
        assert value in md


@pytest.mark.parametrize(
    ("other", "said"),
    [
        ({"data": DataSpec(train=B, dev=B, test=B)}, "test file aaaaaaaaaaaa and bbbbbbbbbbbb"),
        ({"task_version": 2}, "task version 1 and 2"),
        ({"data": DataSpec(train=B, dev=B, test="a" * 64, limit=9)}, "limit none and 9"),
        ({"task": "ccpm"}, "only lora on b"),
    ],
)
def test_what_keeps_rows_apart_is_one_sentence(
    other: dict[str, Any], said: str, cli: CLI, tmp_path: Path
) -> None:
    run(tmp_path, 0.8), run(tmp_path, 0.7, "adapter", **other)
    code, _, error = cli("leaderboard", "compare", "lora", "adapter", "--results", tmp_path)
    assert code == 2
    assert "cannot be compared" in error
    assert said in error


def test_rows_that_are_not_one_are_told_apart(cli: CLI, tmp_path: Path) -> None:
    run(tmp_path, 0.8), run(tmp_path, 0.8, recipe=Recipe(lr=0.5)), run(tmp_path, 0.7, "adapter")
    words = ("leaderboard", "compare", "adapter", "--results", tmp_path)
    fingerprint = spec().data.train
    code, _, error = cli(*words, "lora")
    assert code == 2
    assert "'lora on b' has runs of several settings, which differ in train.lr" in error
    for selector in ("lora@train.lr=0.5", f"lora@train.lr=0.5,train data={fingerprint[:12]}"):
        assert cli(*words, selector)[0] == 0  # the second as it was spelled before
    for wrong, said in (
        ("lora@train.lr=3", "no such run"),
        ("lora@train.l=3", "Did you mean 'train.lr'"),
        ("lara", "Did you mean 'lora'"),
        ("adapter", "compared with itself"),
    ):
        code, _, error = cli(*words, wrong)
        assert code == 2
        assert said in error
    assert "several" not in cli("leaderboard", "compare", "--matrix", "--results", tmp_path)[2]


def test_a_system_and_a_run_with_another_template_are_compared_and_noted(
    cli: CLI, data: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    for name, flipped in (("Mine", 4), ("Theirs", 2)):
        lines = rows(16, 200)
        for i, one in enumerate(lines):
            one["label"] = int(one["label"]) ^ (i % flipped == 0)  # type: ignore[call-overload]
        path = write_jsonl(tmp_path / f"{name}.jsonl", lines)
        words = ("--task", "lcqmc", "--data", data, "--out", out)
        assert cli("score", *words, "--predictions", path, "--name", name)[0] == 0
    found = line(cli, "Mine", "Theirs", "--results", out)
    (one,) = found["comparisons"]
    assert (one["a"], one["b"]) == (0.75, 0.5)
    assert one["test"] == "McNemar, exact"
    run(tmp_path / "r", 0.8), run(tmp_path / "r", 0.7, "adapter", template="cpm-2")
    notes = line(cli, "lora", "adapter", "--results", tmp_path / "r")["notes"]
    assert any("different templates (cpm-2, cpm-ant)" in note for note in notes)


# --- verify and rescore ---


def change(folder: Path, edit: Any) -> None:
    raw = json.loads((folder / "run.json").read_text(encoding="utf-8"))
    edit(raw)
    (folder / "run.json").write_text(json.dumps(raw), encoding="utf-8")


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda f: (f / "run.json").write_text("{"), "not a valid run record"),
        (lambda f: (f / "delta.safetensors").write_bytes(b"x"), "delta.safetensors is not the"),
        (lambda f: (f / "predictions.dev.jsonl").unlink(), "predictions.dev.jsonl is missing"),
        (
            lambda f: change(f, lambda r: r["scores"]["test"]["accuracy"].update(value=0.99)),
            "test accuracy: value is recorded as 0.99",
        ),
        (lambda f: change(f, lambda r: r.update(run_id="x")), "run_id is x, but its spec gives"),
        (lambda f: f.rename(f.parent / "renamed"), "not called by its run_id"),
        (lambda f: change(f, lambda r: r["data"]["test"].update(n=3)), "says 3 rows in test"),
        (lambda f: change(f, lambda r: r["data"]["test"].update(sha256=B)), "data.test.sha256"),
        (lambda f: change(f, lambda r: r.update(predictions={})), "names no predictions.dev"),
    ],
)
def test_verify_names_each_fault_and_exits_1(
    damage: Any, said: str, cli: CLI, tmp_path: Path
) -> None:
    folder = run(tmp_path, 0.8)
    run(tmp_path, 0.7, "adapter")
    code, out, _ = cli("leaderboard", "verify", tmp_path)
    assert (code, out) == (0, "2 records checked, 0 faults\n")
    damage(folder)
    code, out, _ = cli("leaderboard", "verify", tmp_path)
    assert code == 1
    assert said in out


def test_rescore_follows_a_metric_that_changed_and_keeps_the_old_score(
    cli: CLI, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = run(tmp_path, 0.8)
    other = run(tmp_path, 0.7, "adapter")
    control = {"zero-shot": {"value": 0.1, "low": 0, "high": 1, "run_id": other.name}}
    change(folder, lambda r: r.update(controls=control))
    code, out, _ = cli("rescore", tmp_path)
    assert (code, out) == (0, "2 runs rescored, no score differs\n")
    before = read_record(folder / "run.json")
    old = metrics.get_metric("accuracy")

    def worse(predictions: Any, targets: Any) -> metrics.Score:
        score = old.score(predictions, targets)
        return replace(score, value=score.value / 2, low=score.low / 2)

    new = replace(old, score=worse, signature="accuracy|another")
    monkeypatch.setattr("cpm_tune.systems.predictions.get_metric", lambda name: new)
    code, out, _ = cli("rescore", tmp_path)
    assert code == 1
    assert "4 scores differ (not written" in out
    assert "signature" in out
    assert read_record(folder / "run.json") == before
    assert cli("leaderboard", "verify", tmp_path)[0] == 1
    code, out, _ = cli("rescore", tmp_path, "--write")
    assert code == 0
    after: RunRecord = read_record(folder / "run.json")
    assert after.test.value == before.test.value / 2
    assert [e.score for e in after.earlier_scores] == [
        before.scores[split]["accuracy"] for split in ("dev", "test")
    ]
    assert after.controls["zero-shot"].value == read_record(other / "run.json").test.value
    assert cli("leaderboard", "verify", tmp_path)[0] == 0
    assert cli("rescore", tmp_path)[0] == 0


def test_rescore_leaves_a_run_with_changed_predictions_as_it_is(cli: CLI, tmp_path: Path) -> None:
    folder = run(tmp_path, 0.8)
    with (folder / "predictions.test.jsonl").open("a") as file:
        file.write("\n")
    before = (folder / "run.json").read_bytes()
    code, _, error = cli("rescore", tmp_path, "--write")
    assert code == 1
    assert "not the predictions of its record" in error
    assert (folder / "run.json").read_bytes() == before
    code, _, error = cli("leaderboard", "compare", folder, run(tmp_path, 0.7, "adapter"))
    assert code == 2
    assert "the file was changed" in error
