"""What makes rows comparable: prompt and scoring rule in spec, record, columns, tests and published
results; records of schema 1; numbers of another version."""

from __future__ import annotations

import csv
import io
import json
import shutil
from pathlib import Path
from typing import Any

import board_records as made
import pytest
from conftest import CLI
from hypothesis import given
from hypothesis import strategies as st

from cpm_tune.errors import UserError
from cpm_tune.leaderboard.aggregate import make_board
from cpm_tune.leaderboard.board import Board
from cpm_tune.leaderboard.export import export
from cpm_tune.leaderboard.formats import FORMATS
from cpm_tune.leaderboard.published import read_published
from cpm_tune.leaderboard.results import Results, StoredRecord, read_folder
from cpm_tune.schema.record import RunRecord, read_any_record, write_record
from cpm_tune.schema.spec import BackboneSpec, Encoding, RunSpec
from cpm_tune.task import Generate
from cpm_tune.task.registry import load_task, load_tasks

SCHEMA_1 = Path(__file__).with_name("records_schema1")
SHA = "b" * 64
PROTOCOLS: dict[str, dict[str, Any]] = {
    "scored by mean-nll": {"protocol": {"scoring": "mean-nll"}},
    "5 shots": {"protocol": {"shots": 5}},
    "chat template bbbbbbbb": {"protocol": {"chat_template": SHA}},
    "numbers 7, now 1": {"numbers": 7},
    "template cpm-2 v1": {"template": "cpm-2"},
}


def board(*records: RunRecord, published: bool = False) -> Board:
    runs = tuple(StoredRecord(record, Path()) for record in records)
    return make_board(Results(runs, (), ()), published=published)


# --- the spec ---

FIELDS = {
    "scoring": st.sampled_from(["yes-logit", "verbaliser-mean", "argmax-vocabulary", "mean-nll"]),
    "shots": st.integers(1, 64),
    "chat_template": st.text("0123456789abcdef", min_size=64, max_size=64),
}
FAMILIES = {
    "family": st.sampled_from(["bee", "causal", "encdec"]),
    "tokenizer": st.text("0123456789abcdef", min_size=64, max_size=64),
}


@given(
    st.fixed_dictionaries({}, optional=FIELDS),
    st.fixed_dictionaries({}, optional=FAMILIES),
)
def test_what_is_usual_is_left_out_of_the_spec_and_read_back(
    fields: dict[str, Any], backbone: dict[str, Any]
) -> None:
    spec = made.make_record("ccpm", "b", "lora", 1).spec
    other = "family" in backbone
    encoding = Encoding(prompt_type=None, segment=None) if other else Encoding()
    changed = RunSpec(
        **{
            **dict(spec),
            **fields,
            "backbone": BackboneSpec(sha256=spec.backbone.sha256, **backbone),
            "encoding": encoding,
        }
    )
    written = json.loads(changed.model_dump_json())
    assert written.keys() - json.loads(spec.model_dump_json()).keys() == fields.keys()
    assert written["backbone"].keys() == {"sha256", "init"} | backbone.keys()
    assert ("prompt_type" in written["encoding"]) == ("segment" in written["encoding"]) != other
    assert RunSpec.model_validate_json(changed.model_dump_json()) == changed
    assert (changed.sha256 == spec.sha256) == (not fields and not backbone)


def test_a_backbone_of_cpm_ant_has_its_own_prompt_and_segment(cli: CLI) -> None:
    words = ("--task", "lcqmc", "--set", "encode.segment=null", "--dry-run")
    code, _, error = cli(*words)
    assert code == 2
    assert "encode.segment is none, expected a number for CPM-Ant" in error


# --- columns ---


@pytest.mark.parametrize(("trait", "changes"), PROTOCOLS.items(), ids=list(PROTOCOLS))
def test_rows_of_another_protocol_are_in_another_column_in_every_format(
    trait: str, changes: dict[str, Any], tmp_path: Path
) -> None:
    usual = [made.make_record("ccpm", "b", "lora", seed) for seed in (1, 2)]
    other = [made.make_record("ccpm", "b", "lora", seed, **changes) for seed in (3, 4)]
    one = board(*usual, *other)
    assert [column.id for column in one.columns] == ["ccpm", "ccpm#2"]
    assert all(len(cell.runs) == 2 for row in one.rows for cell in row.cells.values())
    assert trait in one.columns[1].apart
    assert one.columns[0].scoring == "yes-logit"
    for record in (*usual, *other):
        made.store(tmp_path, record)
    for name in ("text", "md", "csv", "latex", "json", "html"):
        text = export(tmp_path, name)[0]
        assert "yes-logit" in text, name
    lines = list(csv.DictReader(io.StringIO(export(tmp_path, "csv")[0])))
    assert [(line["column"], line["seeds"]) for line in lines] == [("ccpm", "2"), ("ccpm#2", "2")]


@pytest.mark.parametrize("family", [{"family": "causal"}, {"tokenizer": SHA}], ids=str)
def test_families_and_tokenizers_are_rows_of_one_column(family: dict[str, Any]) -> None:
    records = [made.make_record("ccpm", "b", "lora", 1)]
    records += [made.make_record("ccpm", "b", "lora", seed, family=family) for seed in (1, 2)]
    one = board(*records)
    assert [column.id for column in one.columns] == ["ccpm"]
    assert sorted(len(row.cells["ccpm"].runs) for row in one.rows) == [1, 2]


@pytest.mark.parametrize("changes", PROTOCOLS.values(), ids=list(PROTOCOLS))
def test_rows_of_another_protocol_are_tested_against_each_other_only_by_name(
    changes: dict[str, Any], cli: CLI, tmp_path: Path
) -> None:
    for record in (
        *(made.make_record("ccpm", "b", delta, 1) for delta in ("lora", "adapter")),
        made.make_record("ccpm", "b", "bitfit", 1, **changes),
    ):
        folder = made.store(tmp_path, record)
        (folder / "predictions.test.jsonl").write_text(
            "".join(
                json.dumps({"id": f"{i}", "prediction": i % 2, "target": 0}) + "\n"
                for i in range(20)
            )
        )
        seal(folder)
    words = ("leaderboard", "compare", "--results", tmp_path, "--format", "json")
    code, out, _ = cli(*words, "--matrix")
    assert code == 0
    report = json.loads(out)
    assert report["rows"] == ["adapter on b", "bitfit on b", "lora on b"]
    compared = [[pair is not None for pair in row] for row in report["matrix"]]
    assert compared == [[False, False, True], [False, False, False], [True, False, False]]
    assert any("differ in template or scoring" in reason for reason in report["not_compared"])
    code, out, _ = cli(*words, "lora", "bitfit")
    assert code == 0
    assert any("different " in note for note in json.loads(out)["notes"])


def seal(folder: Path) -> None:
    """Put the fingerprints of the predictions into the record."""
    from cpm_tune.common.paths import file_sha256

    path = folder / "run.json"
    raw = json.loads(path.read_text())
    raw["predictions"] = {f.name: file_sha256(f) for f in folder.glob("predictions.*.jsonl")}
    path.write_text(json.dumps(raw))


# --- published results ---


def test_published_results_are_beside_rows_of_their_rule_and_template_only() -> None:
    records = [
        made.make_record("lcqmc", "b", "lora", 1),
        made.make_record(
            *("lcqmc", "b", "lora", 1),
            template="cpm-2",
            template_version=3,
            protocol={"scoring": "argmax-vocabulary"},
        ),
        made.make_record("lcqmc", "b", "lora", 1, template="cpm-2", template_version=3),
    ]
    one = board(*records, published=True)
    column = next(c for c in one.columns if c.scoring == "argmax-vocabulary")
    rows = {row.id: row.cells for row in one.quoted}
    assert rows["quoted: CPM-2, full fine-tuning"][column.id].value == 89.16
    assert "lcqmc#quoted" in rows["quoted: mT5-XXL, full fine-tuning"]
    for other in {c.id for c in one.columns if c.template_version} - {column.id}:
        assert not any(other in cells for cells in rows.values())


def test_every_published_result_names_its_rule_or_that_it_is_not_published(
    tmp_path: Path,
) -> None:
    made.store(tmp_path, made.make_record("ccpm", "b", "lora", 1))
    one = make_board(read_folder(tmp_path), published=True)
    for row in one.quoted:
        for score in row.cells.values():
            assert score.protocol.startswith("scored by") == bool(score.scoring)
    for name in ("text", "md", "latex"):
        text = export(tmp_path, name, published=True)[0]
        assert "argmax-vocabulary" in text, name
        assert "is not published" in text, name


def test_task_files_give_published_results_the_rule_that_results_published_gives() -> None:
    models = [model for file in read_published().values() for model in file.rows]
    for task in load_tasks():
        scores = [model.scores[task.name] for model in models if task.name in model.scores]
        chosen = {(s.value, s.scoring) for s in scores if s.scoring != "generation"}
        if not isinstance(task.answer, Generate):
            named = {(v, task.published_scoring.get(r, "")) for r, v in task.published.items()}
            assert named == chosen, task.name


def test_published_templates_that_are_named_exist() -> None:
    for file in read_published().values():
        for model in file.rows:
            for task, score in model.scores.items():
                name, _, version = score.template.rpartition(" v")
                if version.isdigit():
                    template = load_task(task).template(name)
                    assert template is not None
                    assert template.version == int(version)


# --- records of schema 1 ---


@pytest.fixture
def old(tmp_path: Path) -> Path:
    return Path(shutil.copytree(SCHEMA_1, tmp_path / "old"))


def test_records_of_schema_1_are_read_and_their_rule_is_known(old: Path) -> None:
    records = {p.parent.name: read_any_record(p) for p in sorted(old.glob("*/run.json"))}
    assert {record.schema_version for record in records.values()} == {2}
    rules = {r.spec.task: r.scoring for r in records.values() if isinstance(r, RunRecord)}
    assert rules == {"lcqmc": None, "lcsts": "generation"}
    for name, record in records.items():
        assert record.run_id == name
    columns = make_board(read_folder(old)).columns
    assert {c.task: c.scoring for c in columns if c.template_version} == {
        "lcqmc": "yes-logit",
        "lcsts": "generation",
    }


def test_a_record_of_schema_1_shares_its_column_with_one_of_schema_2(old: Path) -> None:
    path = next(old.glob("lcqmc.bitfit*/run.json"))
    first = read_any_record(path)
    assert isinstance(first, RunRecord)
    spec = first.spec.model_copy(update={"seed": 2})
    changes = {"spec": spec, "run_id": spec.run_id, "scoring": "yes-logit"}
    one = board(first, first.model_copy(update=changes))
    (column,), (row,) = one.columns, one.rows
    assert column.scoring == "yes-logit"
    assert len(row.cells["lcqmc"].runs) == 2


@pytest.mark.parametrize(
    "words", [("leaderboard", "verify"), ("rescore",), ("rescore", "--write")], ids=str
)
def test_records_of_schema_1_are_verified_and_rescored(
    words: tuple[str, ...], cli: CLI, old: Path
) -> None:
    before = {path: path.read_bytes() for path in old.rglob("*.json*")}
    code, out, error = cli(*words, old)
    assert code == 0, out + error
    assert {path: path.read_bytes() for path in old.rglob("*.json*")} == before


@pytest.mark.parametrize("name", FORMATS)
def test_records_of_schema_1_are_in_every_format(name: str, cli: CLI, old: Path) -> None:
    code, out, error = cli("leaderboard", old, "--format", name)
    assert code == 0, error
    assert "bitfit" in out
    assert "Always 0" in out


def test_records_of_schema_1_are_compared(cli: CLI, old: Path) -> None:
    run = next(old.glob("lcqmc.bitfit*"))
    code, out, error = cli("leaderboard", "compare", run, "Always 0", "--results", old)
    assert code == 2, out
    assert "cannot be compared" in error  # other rows: the system's split is a smaller file
    first = read_any_record(run / "run.json")
    spec = first.spec.model_copy(update={"seed": 2})
    second = Path(shutil.copytree(run, old / "second"))
    changes = {"spec": spec, "spec_sha256": spec.sha256, "run_id": spec.run_id}
    write_record(second, first.model_copy(update=changes))
    code, out, error = cli("leaderboard", "compare", run, second, "--format", "json")
    assert code == 0, error
    assert json.loads(out)["comparisons"][0]["difference"] == 0


def as_schema_1(folder: Path) -> None:
    """Take out of a record what schema 1 does not have."""
    path = folder / "run.json"
    raw = json.loads(path.read_text())
    raw["schema_version"] = 1
    del raw["scoring"], raw["numbers"]
    path.write_text(json.dumps(raw))


def test_a_run_of_schema_1_is_reused_predicted_with_and_exported(
    cli: CLI, data: Path, small_backbone: Path, tmp_path: Path
) -> None:
    tune = ("--task", "lcqmc", "--data", data, "--backbone", small_backbone, "--delta", "lora")
    tune += ("--set", "train.max_steps=1", "--control", "none", "--out", tmp_path / "out")
    assert cli(*tune)[0] == 0
    (folder,) = (tmp_path / "out").glob("lcqmc.lora*")
    assert json.loads((folder / "run.json").read_text())["scoring"] == "yes-logit"
    as_schema_1(folder)
    code, out, _ = cli(*tune)
    assert code == 0
    assert "already exists" in out
    assert cli("predict", folder, "--out", tmp_path / "p.jsonl")[0] == 0
    assert cli("export", folder, "--to", "merged", "--out", tmp_path / "merged")[0] == 0


@pytest.mark.parametrize("version", [0, 3, "2", None])
def test_a_record_of_an_unknown_schema_is_refused(version: object, old: Path) -> None:
    path = next(old.glob("lcsts*/run.json"))
    raw = json.loads(path.read_text())
    raw["schema_version"] = version
    path.write_text(json.dumps(raw))
    with pytest.raises(UserError, match=r"run\.json: not a valid run record"):
        read_any_record(path)


# --- numbers of another version ---


def test_a_finished_run_of_other_numbers_is_kept_and_marked(
    cli: CLI, data: Path, small_backbone: Path, tmp_path: Path
) -> None:
    tune = ("--task", "lcqmc", "--data", data, "--backbone", small_backbone, "--delta", "bitfit")
    tune += ("--set", "train.max_steps=1", "--control", "none", "--out", tmp_path)
    assert cli(*tune)[0] == 0
    (path,) = tmp_path.glob("lcqmc*/run.json")
    raw = json.loads(path.read_text())
    assert raw["numbers"] == 1
    raw["numbers"] = 7
    path.write_text(json.dumps(raw))
    _, out, _ = cli(*tune)
    assert "of another version, which computes other results (numbers 7); --overwrite" in out
