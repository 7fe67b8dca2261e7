"""No command fails with a traceback on any results folder, and nothing that a file holds blanks the
page, reaches the network, or is obeyed by a terminal or a spreadsheet."""

from __future__ import annotations

import csv
import io
import json
import os
import random
import re
import shlex
import socket
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import board_records as made
import fuzz_records
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cpm_tune.commands.cli import main
from cpm_tune.common.paths import file_sha256, relative
from cpm_tune.common.reading import read_json, read_regular
from cpm_tune.common.terminal import EscapedStream, obeyed, safe_output
from cpm_tune.errors import UserError
from cpm_tune.leaderboard.export import export
from cpm_tune.leaderboard.formats import FORMATS
from cpm_tune.leaderboard.plot import COSTS
from cpm_tune.leaderboard.repeat import repeat_of
from cpm_tune.runs.rerun import backbone_folder
from cpm_tune.schema.record import RunRecord, read_any_record, write_record
from cpm_tune.task.registry import load_task

ESCAPES = "\x1b]0;owned\x07\x1b[2J\x1b[31mred\u202e"
DEEP = '{"id": "9", "prediction": ' + "[" * 100_000
BAD_LINES = {
    "NaN": '{"id": "1", "prediction": 0, "target": 0, "scores": [NaN, 1]}',
    "Infinity": '{"id": "1", "prediction": -Infinity, "target": 0}',
    "1e999": '{"id": "1", "prediction": 1e999, "target": 0}',
    "deep": DEEP,
    "191 deep, whole": '{"id": "1", "prediction": ' + "[" * 999 + "]" * 999 + "}",
    "cut": '{"id": "1", "predic',
    "no object": "[1, 2]",
    "no id": '{"prediction": 1, "target": 1}',
}


def changed(record: RunRecord, **changes: object) -> RunRecord:
    return record.model_copy(update=changes)


def unlabelled(record: RunRecord) -> RunRecord:
    test = record.data["test"].model_copy(update={"labelled": False})
    scores = {"dev": record.scores["dev"]}
    return changed(record, data={**record.data, "test": test}, scores=scores, controls={})


def fill(folder: Path) -> None:
    """One folder of every kind that a results folder may contain."""
    for record in made.suite(("ccpm", "lcsts"), ("lora", "none"), ("small", "large"), (1, 2)):
        made.store(folder, record)
    run = made.make_record("ccpm", "small", "lora", 7)
    for name in ("ours", ESCAPES.replace("\x07", "")):
        system = fuzz_records.system_record(run, name)
        place = folder / system.run_id
        place.mkdir()
        write_record(place, system)
        made.write_predictions(place, "ccpm", 7)
    on_dev = fuzz_records.system_record(run, "on dev")
    spec = on_dev.spec.model_copy(update={"data": run.spec.data.model_copy(update={"test": None})})
    on_dev = on_dev.model_copy(
        update={
            "spec": spec,
            "spec_sha256": spec.sha256,
            "run_id": spec.run_id,
            "split": "dev",
            "data": {"dev": run.data["dev"]},
            "scores": {"dev": run.scores["dev"]},
        }
    )
    (folder / spec.run_id).mkdir()
    write_record(folder / spec.run_id, on_dev)
    made.store(folder / "again", made.make_record("ccpm", "small", "lora", 1, world_size=2))
    made.store(folder, made.make_record("c3", ESCAPES, f"={ESCAPES}", 1))
    made.store(folder, unlabelled(made.make_record("math23k", "small", "lora", 1)))
    made.store(folder, changed(run, status="failed", error=f"no\nluck {ESCAPES}"))
    running = made.make_record("ccpm", "small", "lora", 8)
    partial = made.store(folder, changed(running, status="running", scores={}))
    partial.rename(f"{partial}.partial")
    files: dict[str, str | bytes] = {
        "foreign/run.json": '{"name": "left-pad", "version": "1.0"}',
        "\x1b[31mred/run.json": "[1, 2]",
        "empty/run.json": "",
        "cut/run.json": run.model_dump_json()[:500],
        "binary/run.json": bytes(range(256)),
        "deep/run.json": "[" * 100_000,
        "nan/run.json": '{"kind": "system", "scores": NaN}',
        "future/run.json": run.model_dump_json().replace(
            '"schema_version":1', '"schema_version":2', 1
        ),
        "changed/run.json": run.model_dump_json().replace('"seed":7', '"seed":9'),
        "half/run.json.part": "{",
        "huge/run.json": re.sub(
            r'"n_trainable":\d+', '"n_trainable":' + "9" * 400, run.model_dump_json()
        ),
        "package.json": "{}",
        "notes.txt": "mine",
        ".bench/failed/x.json": "{",
    }
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)
    (folder / "directory" / "run.json").mkdir(parents=True)
    (folder / "link").mkdir()
    (folder / "link" / "run.json").symlink_to("nowhere")
    (folder / "loop").symlink_to(folder)
    if hasattr(os, "mkfifo"):
        (folder / "pipe").mkdir()
        os.mkfifo(folder / "pipe" / "run.json")
        place = made.store(folder, made.make_record("c3", "small", "lora", 19))
        (place / "predictions.test.jsonl").unlink()
        os.mkfifo(place / "predictions.test.jsonl")
    for number, line in enumerate(BAD_LINES.values()):
        place = made.store(folder, made.make_record("c3", "small", "lora", 20 + number))
        with (place / "predictions.test.jsonl").open("a", encoding="utf-8") as file:
            file.write(line)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("hostile") / "results"
    place.mkdir()
    fill(place)
    return place


@pytest.fixture(autouse=True)
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    def connect(*arguments: object) -> None:
        raise AssertionError("the network was asked")

    monkeypatch.setattr(socket.socket, "connect", connect)


COMMANDS = [
    *(f"leaderboard RESULTS --format {style}" for style in FORMATS),
    *(f"leaderboard RESULTS --published --format {style}" for style in FORMATS),
    "leaderboard RESULTS --format html --texts",
    "leaderboard RESULTS --format html --no-texts --predictions 500",
    "leaderboard RESULTS --out OUT/board.html",
    "leaderboard verify RESULTS",
    *(f"leaderboard plot RESULTS --out OUT --cost {cost}" for cost in list(COSTS)[:1]),
    "leaderboard plot RESULTS --out OUT --published --row ours/outside",
    "leaderboard compare ours small:lora --results RESULTS",
    "leaderboard compare small:lora large:lora --results RESULTS --format md",
    "leaderboard compare --matrix --results RESULTS",
    "leaderboard compare --matrix --results RESULTS --format json",
    "leaderboard compare ours nobody --results RESULTS",
    "rescore RESULTS",
]


@pytest.mark.parametrize("words", COMMANDS)
def test_every_command_on_every_kind_of_record_ends_in_a_result_or_a_sentence(
    words: str, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    places = {"RESULTS": str(folder), "OUT": str(tmp_path), "ours/outside": "ours / outside system"}
    code = main([places.get(word, word.replace("OUT", str(tmp_path))) for word in words.split()])
    printed = capsys.readouterr()
    assert code in (0, 1, 2)
    if code == 2:
        assert printed.err.splitlines()[-1].startswith("error: ")
    assert "Traceback" not in printed.err


@pytest.mark.parametrize("command", ["predict", "export", "generate 我 --delta-from"])
def test_a_command_on_one_run_refuses_every_kind_of_record_with_a_sentence(
    command: str, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for path in sorted(folder.iterdir()):
        more = ["--to", "peft", "--out", str(tmp_path / "x")] if command == "export" else []
        if command == "predict":
            more = ["--out", str(tmp_path / "x")]
        assert main([*command.split(), str(path), *more]) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert line.startswith("error: ")
        assert not (tmp_path / "x").exists()


def test_rescoring_writes_what_it_can_and_names_the_rest(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fill(tmp_path)
    for path in tmp_path.glob("*/run.json"):  # as if every record named the file beside it
        predictions = path.with_name("predictions.test.jsonl")
        if predictions.is_file():
            record = read_any_record(path)
            sha = {predictions.name: file_sha256(predictions)}
            write_record(path.parent, record.model_copy(update={"predictions": sha}))
    assert main(["rescore", str(tmp_path), "--write"]) == 1
    assert "fault: " in capsys.readouterr().err
    assert main(["leaderboard", str(tmp_path)]) == 0


@pytest.mark.parametrize("kind", BAD_LINES)
def test_a_line_that_cannot_be_shown_is_noted_and_the_page_stands(
    kind: str, tmp_path: Path
) -> None:
    place = made.store(tmp_path, made.make_record("ccpm", "small", "lora", 1))
    file = place / "predictions.test.jsonl"
    first, *rest = file.read_text(encoding="utf-8").splitlines()[:4]
    file.write_text("\n".join([first, BAD_LINES[kind], *rest]) + "\n", encoding="utf-8")
    page, notes = export(tmp_path, "html")
    assert shown_of(page)["id"] is None
    assert len(shown_of(page)["right"]) == 4, "ids are 0, 1, 2, 3"
    (note,) = (note for note in notes if "predictions" in note)
    assert note.startswith(f"{file}:2: not shown (")
    assert note.endswith(").")
    assert len(note) < 400
    file.write_text("\n".join([first, *[BAD_LINES[kind]] * 1500, *rest]), encoding="utf-8")
    _, notes = export(tmp_path, "html")
    (note,) = (note for note in notes if "predictions" in note)
    assert note.startswith(f"{file}:2: not shown (")
    assert note.endswith("), nor are 1,499 lines after it.")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes")
@pytest.mark.parametrize("read", [read_json, read_regular, file_sha256])
def test_nothing_waits_for_a_named_pipe(read: Callable[[Path], object], tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(OSError, match="not a regular file"):
        read(tmp_path / "pipe")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes")
def test_predictions_that_are_a_pipe_are_noted(tmp_path: Path) -> None:
    place = made.store(tmp_path, made.make_record("ccpm", "small", "lora", 1))
    file = place / "predictions.test.jsonl"
    file.unlink()
    os.mkfifo(file)
    page, notes = export(tmp_path, "html")
    assert f"{file}: not shown (not a regular file)." in notes
    assert "small / lora" in page


@pytest.mark.parametrize("value", ["5.0", "-3", '"0.5"', "NaN", "1.1"])
def test_a_score_that_cannot_be_is_left_out(value: str, tmp_path: Path) -> None:
    made.store(tmp_path, made.make_record("ccpm", "small", "lora", 1))
    whole = json.loads(export(tmp_path, "json")[0])["rows"]
    path = made.store(tmp_path, made.make_record("ccpm", "small", "lora", 2)) / "run.json"
    record = json.loads(path.read_text(encoding="utf-8"))
    record["scores"]["test"]["accuracy"]["value"] = "@"
    path.write_text(json.dumps(record).replace('"@"', value), encoding="utf-8")
    text, notes = export(tmp_path, "json")
    assert json.loads(text)["rows"] == whole
    (note,) = notes
    assert "accuracy" in note
    assert note.startswith(str(path))


def test_the_page_shows_names_as_a_terminal_does_and_no_place_of_this_machine(
    tmp_path: Path,
) -> None:
    made.store(tmp_path, made.make_record("ccpm", "a\u202eb", " ", 1))
    (tmp_path / "cut").mkdir()
    (tmp_path / "cut" / "run.json").write_text("{", encoding="utf-8")
    page, _ = export(tmp_path, "html")
    match = re.search(r'id="data-board">(.*?)</script>', page)
    assert match
    board = json.loads(match[1])
    (row,) = board["rows"]
    assert (row["backbone"], row["delta"]) == (r"a\u202eb", "' '")
    (left_out,) = board["left_out"]
    assert left_out.startswith("cut/run.json: not a valid run record")


@pytest.mark.parametrize(
    ("text", "folder", "wanted"),
    [
        ("/a/b/c/run.json: cut.", "/a/b", "c/run.json: cut."),
        ("/a/b: gone.", "/a/b", "b: gone."),
        ("give the folder above /a/b.", "/a/b", "give the folder above b."),
        ("/a/bc/run.json: cut.", "/a/b", "/a/bc/run.json: cut."),
        ("/x/a/b/run.json: cut.", "/a/b", "/x/a/b/run.json: cut."),
        ("../x/run.json: cut.", ".", "../x/run.json: cut."),
        ("r/x/run.json: not in 'r/y'.", "r", "x/run.json: not in 'y'."),
    ],
)
def test_paths_begin_at_the_results_folder(text: str, folder: str, wanted: str) -> None:
    assert relative(text, [Path(folder)]) == wanted


def shown_of(page: str) -> Any:
    """The examples of the only run of a page, whose data must be JSON as the browser reads it."""

    def refuse(name: str) -> None:
        raise AssertionError(f"{name} in the page")

    parts = re.findall(r'<script[^>]*id="data-([\w-]+)">(.*?)</script>', page, re.DOTALL)
    data = {name: json.loads(text, parse_constant=refuse) for name, text in parts}
    (run,) = (part for name, part in data.items() if name.startswith("run-"))
    return run["examples"]


def test_half_a_surrogate_pair_reaches_the_page_as_json(tmp_path: Path) -> None:
    place = made.store(tmp_path, made.make_record("ccpm", "small", "lora", 1))
    line = '{"id": "\\ud800", "prediction": "a\\udfff", "target": "</script>\u2028"}\n'
    (place / "predictions.test.jsonl").write_text(line, encoding="utf-8")
    page, _ = export(tmp_path, "html")
    shown = shown_of(page.encode().decode())
    assert (shown["id"], shown["prediction"]) == (["\ud800"], ["a\udfff"])


def test_the_command_to_run_again_cannot_be_another_one() -> None:
    name = "x'; touch here #\x1b[201~\n"
    record = made.make_record("ccpm", name, "lora", 1)
    command = repeat_of(record, load_task("ccpm")).command
    assert command.isprintable()
    words = shlex.split(command)
    assert words[words.index("--backbone") + 1] == "x'; touch here #\\x1b[201~\\n"


@pytest.mark.parametrize("first", [*"=+-@＝＋－＠", "\t=", "\r=", "\n="])
@pytest.mark.parametrize("style", ["csv", "csv-wide"])
def test_no_cell_is_a_formula_to_a_spreadsheet(first: str, style: str, tmp_path: Path) -> None:
    name = f'{first}HYPERLINK("x")'
    made.store(tmp_path, made.make_record("ccpm", name, f"a\r{first}1", 1))
    text, _ = export(tmp_path, style)
    assert "\r" not in text
    lines = list(csv.reader(io.StringIO(text)))
    assert len(lines) == 2
    cells = [cell for cell in lines[1] if "HYPERLINK" in cell or cell.startswith("a")]
    assert len(cells) >= 3
    for cell in lines[1]:
        with_number = re.fullmatch(r"-?\d+(\.\d+)?(e-?\d+)?", cell)
        assert with_number or not cell.startswith((*"=+-@＝＋－＠", "\t", "\r", "\n"))


class Terminal(io.TextIOWrapper):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        return True


def on_terminal(action: Callable[[], object], monkeypatch: pytest.MonkeyPatch) -> tuple[str, str]:
    """What an action prints on a terminal's standard output and error."""
    streams = [Terminal(io.BytesIO(), encoding="utf-8") for _ in range(2)]
    monkeypatch.setattr(sys, "stdout", streams[0])
    monkeypatch.setattr(sys, "stderr", streams[1])
    action()
    texts = []
    for stream in streams:
        stream.flush()
        texts.append(stream.buffer.getvalue().decode())  # type: ignore[attr-defined]
    return texts[0], texts[1]


@pytest.mark.parametrize("words", ["leaderboard", "leaderboard verify", "rescore"])
def test_a_terminal_shows_escape_sequences_and_obeys_none(
    words: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    printed = on_terminal(lambda: main([*words.split(), str(folder)]), monkeypatch)
    assert "\\x1b" in "".join(printed)
    for text in printed:
        assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202e]", text)


def test_our_own_displays_still_move_the_cursor(monkeypatch: pytest.MonkeyPatch) -> None:
    def show() -> None:
        with safe_output():
            assert isinstance(sys.stderr, EscapedStream)
            print("\x1b[2Jname\tand\nline")
            obeyed(sys.stderr).write("\x1b[2J")
        assert not isinstance(sys.stderr, EscapedStream)

    assert on_terminal(show, monkeypatch) == ("\\x1b[2Jname\tand\nline\n", "\x1b[2J")


def test_a_file_or_pipe_gets_names_as_they_are(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["leaderboard", str(folder), "--format", "json"]) == 0
    assert any(ESCAPES in row["id"] for row in json.loads(capsys.readouterr().out)["rows"])


@pytest.mark.parametrize("place", ["hub:some/model", "/nowhere", ""])
@pytest.mark.parametrize("name", ["hub:some/model", "some/model", "model"])
def test_a_record_never_reaches_the_network(
    place: str, name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    record = made.make_record("ccpm", name, "lora", 1)
    record.backbone.path = place or "gone"
    with pytest.raises(UserError, match=r"there is no such folder; give .*--backbone"):
        backbone_folder(record, None)


def test_nor_does_a_command_on_somebodys_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def download(name: str) -> Path:
        raise AssertionError("downloaded")

    monkeypatch.setattr("cpm_tune.backbone.hub.download", download)
    run = made.store(tmp_path, made.make_record("ccpm", "hub:some/model", "lora", 1))
    out = str(tmp_path / "out")
    commands = (
        ["export", str(run), "--to", "hf", "--out", out],
        ["generate", "我", "--delta-from", str(run), "--backbone", "cpm-ant-tiny"],
        ["generate", "我", "--delta-from", str(run)],
    )
    for words in commands:
        assert main(words) == 2
        assert capsys.readouterr().err.startswith("error: ")


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(noise=st.randoms(use_true_random=False))
def test_damaged_records_and_predictions_never_raise(
    noise: random.Random, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """fuzz_records.py does 20,000."""
    folder = tmp_path_factory.mktemp("fuzz")
    fuzz_records.fill(folder, noise, 3)
    fuzz_records.check(folder)


def test_nor_does_resuming_somebodys_pre_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def download(name: str) -> Path:
        raise AssertionError("downloaded")

    monkeypatch.setattr("cpm_tune.backbone.hub.download", download)
    (tmp_path / "corpus").mkdir()
    record = {"corpus": str(tmp_path / "corpus"), "out": str(tmp_path), "steps": 1}
    record |= {"backbone": "hub:some/model"}
    (tmp_path / "run.json").write_text(json.dumps(record), encoding="utf-8")
    assert main(["pretrain", "run", "--out", str(tmp_path), "--resume"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ")
