"""Records: validated on read, written whole, described by the JSON Schema that ships."""

from __future__ import annotations

import json
from pathlib import Path

import jsonschema
import pytest

from cpm_tune.errors import UserError
from cpm_tune.schema.record import SCHEMA, RunRecord, json_schema, read_record, write_record
from cpm_tune.schema.spec import (
    BackboneSpec,
    DataSpec,
    Encoding,
    Execution,
    Recipe,
    RunSpec,
    flattened,
)
from cpm_tune.schema.walk import iter_records

SHA = "a" * 64


def spec(**changes: object) -> RunSpec:
    values: dict[str, object] = {
        "task": "lcqmc",
        "task_version": 1,
        "template": "cpm-ant",
        "template_version": 1,
        "template_sha256": SHA,
        "metrics": ("accuracy",),
        "data": DataSpec(train=SHA, dev=SHA, test=SHA),
        "backbone": BackboneSpec(sha256=SHA),
        "delta": {"delta_type": "lora", "lora_r": 8},
        "encoding": Encoding(),
        "recipe": Recipe(),
        "seed": 1,
    }
    return RunSpec(**{**values, **changes})  # type: ignore[arg-type]


def record(
    value: float = 0.75, n: int = 400, of: RunSpec | None = None, **changes: object
) -> RunRecord:
    of = of or spec()
    score = {
        "value": value,
        "low": value - 0.04,
        "high": value + 0.04,
        "n": n,
        "signature": "accuracy|test",
        "higher_is_better": True,
    }
    split = {"path": "x", "sha256": SHA, "n": n, "n_skipped": 0, "n_truncated": 0}
    values: dict[str, object] = {
        "status": "finished",
        "run_id": of.run_id,
        "spec_sha256": of.sha256,
        "spec": of,
        "execution": Execution(),
        "ranks_by": "accuracy",
        "comparable": True,
        "data": {"dev": split, "test": split},
        "backbone": {"name": "b", "path": "p", "sha256": SHA, "trained": True, "n_parameters": 1},
        "delta": {"name": "lora", "n_trainable": 5, "bytes": 20, "sha256": SHA},
        "scores": {"dev": {"accuracy": score}, "test": {"accuracy": score}},
        "controls": {"majority": {"value": 0.5, "low": 0.45, "high": 0.55}},
    }
    return RunRecord.model_validate({**values, **changes})


def test_a_record_survives_writing_and_reading(tmp_path: Path) -> None:
    write_record(tmp_path, record())
    assert read_record(tmp_path / "run.json") == record()
    assert [path.name for path in tmp_path.iterdir()] == ["run.json"]


def test_a_results_folder_is_walked_once_and_what_is_skipped_is_reported(tmp_path: Path) -> None:
    finished, running = record(), record(of=spec(seed=2), status="running")
    for name, of in {"a": finished, "b": running, "c.partial": finished, "d.old": finished}.items():
        (tmp_path / "deeper" / name).mkdir(parents=True)
        write_record(tmp_path / "deeper" / name, of)
    (tmp_path / "e").mkdir()
    (tmp_path / "e" / "run.json").write_text("{}")
    skipped: list[str] = []
    assert list(iter_records(tmp_path, skipped)) == [(tmp_path / "deeper" / "a", finished)]
    assert len(skipped) == 1
    assert "e/run.json" in skipped[0]
    names = [path.name for path, _ in iter_records(tmp_path, [], finished=False)]
    assert names == ["a", "b", "c.partial", "d.old"]
    with pytest.raises(UserError, match="no such results folder"):
        next(iter_records(tmp_path / "absent", []))


def test_a_spec_is_flattened_by_dotted_keys() -> None:
    flat = flattened(spec())
    assert flat["task"] == "lcqmc"
    assert flat["metrics"] == ["accuracy"]
    assert flat["delta.lora_r"] == 8
    assert flat["recipe.max_steps"] is None
    assert flat["decoding"] is None
    assert "backbone.quantize" not in flat


def test_the_shipped_schema_is_that_of_the_code_and_accepts_a_record() -> None:
    shipped = json.loads(SCHEMA.read_text(encoding="utf-8"))
    assert shipped == json_schema()
    jsonschema.validate(json.loads(record().model_dump_json()), shipped)
    broken = json.loads(record().model_dump_json())
    broken["status"] = "done"
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(broken, shipped)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda r: r.pop("spec"), "spec"),
        (lambda r: r.update(status="done"), "status"),
        (lambda r: r.update(extra=1), "extra"),
        (lambda r: r["spec"].update(seed=2), "the file was changed"),
        (lambda r: r.update(scores={}), "without its test accuracy"),
        (lambda r: r["scores"]["test"]["accuracy"].update(value="NaN"), "value"),
    ],
)
def test_an_invalid_record_is_named_with_its_first_fault(
    tmp_path: Path, change: object, said: str
) -> None:
    raw = json.loads(record().model_dump_json())
    change(raw)  # type: ignore[operator]
    path = tmp_path / "run.json"
    path.write_text(json.dumps(raw), encoding="utf-8")
    with pytest.raises(UserError, match=said) as caught:
        read_record(path)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff\xfe", b'{"status": "finished"}'])
def test_a_file_that_is_no_record_is_named(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "run.json"
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"run\.json"):
        read_record(path)


@pytest.mark.parametrize(
    "change",
    [
        {"task": "c3"},
        {"task_version": 2},
        {"metrics": ("accuracy", "f1")},
        {"template_sha256": "b" * 64},
        {"data": DataSpec(train=SHA, dev=SHA, test="b" * 64)},
        {"data": DataSpec(train=SHA, dev=SHA, test=SHA, limit=5)},
        {"backbone": BackboneSpec(sha256="b" * 64)},
        {"backbone": BackboneSpec(sha256=SHA, init="random")},
        {"delta": {"delta_type": "lora", "lora_r": 4}},
        {"encoding": Encoding(max_length=128)},
        {"recipe": Recipe(lr=1e-4)},
        {"seed": 2},
        {"precision": "bf16"},
    ],
)
def test_whatever_decides_a_result_changes_the_run_id(change: dict[str, object]) -> None:
    assert spec(**change).run_id != spec().run_id


def test_the_run_id_is_the_same_on_every_machine() -> None:
    assert spec().run_id == "lcqmc.lora.s1.07c79758bff8"


NAMES = ["../x", "..", ".", "", "a/b", "a\\b", "a\0b", "a\nb", "x" * 300]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("where", ["run_id", "spec.task", "spec.delta.delta_type"])
def test_a_name_that_leads_out_of_the_folder_is_refused(
    name: str, where: str, tmp_path: Path
) -> None:
    """Locks, folders and figures are named after them."""
    values = json.loads(record(0.5).model_dump_json())
    *above, key = where.split(".")
    place = values
    for part in above:
        place = place[part]
    place[key] = name
    path = tmp_path / "run.json"
    path.write_text(json.dumps(values), encoding="utf-8")
    with pytest.raises(UserError, match=r"run\.json: not a valid run record: .*(name|characters)"):
        read_record(path)


@pytest.mark.parametrize("split", ["../x", "all", ""])
def test_a_record_has_no_other_splits(split: str, tmp_path: Path) -> None:
    values = json.loads(record(0.5).model_dump_json())
    values["scores"][split] = {}
    path = tmp_path / "run.json"
    path.write_text(json.dumps(values), encoding="utf-8")
    with pytest.raises(UserError, match=r"run\.json: not a valid run record: scores"):
        read_record(path)


@pytest.mark.parametrize(
    ("key", "value"),
    [("value", 1e101), ("value", -1e101), ("low", 1e300), ("n", 2**63), ("n", 10**400), ("n", 0)],
)
def test_a_number_that_no_run_reaches_is_refused(key: str, value: float, tmp_path: Path) -> None:
    values = json.loads(record(0.5).model_dump_json())
    (score,) = values["scores"]["test"].values()
    score[key] = value
    path = tmp_path / "run.json"
    path.write_text(json.dumps(values), encoding="utf-8")
    with pytest.raises(UserError, match=rf"run\.json: not a valid run record: .*{key}"):
        read_record(path)
