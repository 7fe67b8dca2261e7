"""`leaderboard serve`: a page that follows a folder, and a server that others cannot use."""

from __future__ import annotations

import asyncio
import json
import os
import platform
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import board_records as made
import pytest
from browser import chromium
from conftest import CLI, REPOSITORY
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cpm_tune.common.folders import SWEEP, worked_on
from cpm_tune.leaderboard.aggregate import make_board
from cpm_tune.leaderboard.examples import BESIDE
from cpm_tune.leaderboard.html import as_script
from cpm_tune.leaderboard.page_data import lazy_part, page_parts, source_of
from cpm_tune.leaderboard.results import read_folder
from cpm_tune.leaderboard.serve import live as live_module
from cpm_tune.leaderboard.serve import uploads
from cpm_tune.leaderboard.serve.activity import activity
from cpm_tune.leaderboard.serve.live import Live, Shown
from cpm_tune.leaderboard.serve.scoring import result_of
from cpm_tune.leaderboard.serve.uploads import RefusedError, Scorer, file_name
from cpm_tune.schema.record import RunRecord, write_record
from cpm_tune.systems.system import score_system

testclient = pytest.importorskip("starlette.testclient")
from cpm_tune.leaderboard.serve.app import make_app  # noqa: E402  it needs the extra

GOLD = REPOSITORY / "tasks" / "sample" / "ccpm" / "test.jsonl"
OWN = "http://127.0.0.1:8765"


@pytest.fixture
def results(tmp_path: Path) -> Path:
    folder = tmp_path / "results"
    for record in made.suite(("ccpm", "c3"), ("lora", "bitfit"), ("small",), (1, 2)):
        made.store(folder, record)
    return folder


@pytest.fixture
def live(results: Path, monkeypatch: pytest.MonkeyPatch) -> Live:
    monkeypatch.setattr(live_module, "POLL", 0)
    monkeypatch.setattr(live_module, "_SHARE", 0)
    monkeypatch.setattr("cpm_tune.leaderboard.serve.app._FIRST", 60)  # however busy the machine is
    return Live([results], Shown())


def client_of(live: Live, keep_in: Path | None = None, most: int = 10**6) -> Any:
    app = make_app(live, Scorer(None, (), keep_in, most))
    return testclient.TestClient(app, base_url=OWN)


@pytest.fixture
def client(live: Live) -> Any:
    return client_of(live)


def running(folder: Path, seed: int, log: str = "", **changes: Any) -> RunRecord:
    """A run in the making, as `execute` leaves it; lcqmc is of 100 steps."""
    record = made.make_record("lcqmc", "small", "lora", seed)
    splits = {"train": record.data["test"].model_copy(update={"n": 320})}
    fresh = {"status": "running", "scores": {}, "training": None, "data": splits, **changes}
    record = record.model_copy(update=fresh)
    place = folder / f"{record.run_id}.partial"
    place.mkdir(parents=True)
    write_record(place, record)
    if log:
        (place / "log.jsonl").write_text(log, encoding="utf-8")
    return record


# --- the page and its data ---


def test_the_page_is_that_of_the_folder_and_asks_its_own_server_alone(client: Any) -> None:
    answer = client.get("/")
    assert answer.status_code == 200
    policy = answer.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "connect-src 'self'" in policy
    assert "frame-ancestors 'none'" in policy
    assert "unsafe-inline" not in policy.partition("script-src")[2].partition(";")[0]
    assert policy.removesuffix("; frame-ancestors 'none'") in answer.text
    elements = r'<script type="application/json" id="data-(\w+)">(.*?)</script>'
    embedded = {name: json.loads(text) for name, text in re.findall(elements, answer.text)}
    data = client.get("/data.json").json()
    version = client.get("/live.json").json()["version"]
    assert embedded == {**data, "live": {"version": version}}
    assert data["board"]["n_runs"] == 8
    for name, value in (("x-content-type-options", "nosniff"), ("x-frame-options", "DENY")):
        assert answer.headers[name] == value


def test_a_new_record_is_shown_and_no_other_is_read_again(
    client: Any, live: Live, results: Path
) -> None:
    before = client.get("/live.json").json()["version"]
    read = live.n_read
    assert client.get("/live.json").json()["version"] == before
    assert live.n_read == read
    made.store(results, made.make_record("ccpm", "small", "adapter", 1))
    after = client.get("/live.json").json()["version"]
    assert after != before
    assert live.n_read == read + 1
    rows = client.get("/data.json").json()["board"]["rows"]
    assert "small / adapter" in [row["id"] for row in rows]
    shutil.rmtree(next(results.glob("ccpm.adapter*")))
    assert client.get("/live.json").json()["version"] == before, "gone again"


def test_a_half_written_record_is_no_error_and_comes_when_it_is_whole(
    client: Any, results: Path
) -> None:
    place = made.store(results, made.make_record("ccpm", "small", "prefix", 1)) / "run.json"
    whole = place.read_bytes()
    for cut in (0, 1, len(whole) // 2, len(whole) - 3):
        place.write_bytes(whole[:cut])
        assert client.get("/").status_code == 200
        board = client.get("/data.json").json()["board"]
        assert board["n_runs"] == 8
        assert any("prefix" in text for text in board["left_out"])
    place.write_bytes(whole)
    client.get("/")
    assert client.get("/data.json").json()["board"]["n_runs"] == 9


def test_a_folder_that_is_away_keeps_the_page(client: Any, results: Path) -> None:
    results.rename(results.with_name("away"))
    now = client.get("/live.json").json()
    assert now["activity"]["error"].startswith("results: there is no such results folder")
    assert client.get("/").status_code == 200
    results.with_name("away").rename(results)
    assert "error" not in client.get("/live.json").json()["activity"]


def test_the_data_is_that_of_the_page_made_at_once(client: Any, results: Path) -> None:
    """An oracle: the folder read by the command `leaderboard`."""
    record = made.make_record("c3", "small", "adapter", 1)
    made.store(results, record)
    client.get("/")
    read = read_folder(results)
    source = source_of(make_board(read), read, bounds=BESIDE, folder="parts")
    wanted = page_parts(source)
    assert client.get("/data.json").json() == json.loads(json.dumps(wanted))
    name = wanted["runs"]["of"][record.run_id]
    script = client.get(f"/parts/{name}.js")
    assert script.headers["content-type"].startswith("text/javascript")
    assert script.text == as_script(name, lazy_part(source, name))
    assert client.get("/parts/run-0.js").status_code == 404


# --- what goes on ---

LOG = "".join(
    json.dumps({"step": step, "epoch": 0, "loss": 0.5, "lr": 1e-3, "grad_norm": 1, "time": step})
    + "\n"
    for step in range(1, 41)
)
DEV = json.dumps({"step": 40, "loss": 0.5, "dev": 0.625, "time": 40}) + "\n"


def test_unfinished_runs_are_shown_with_their_progress(client: Any, results: Path) -> None:
    record = running(results, 7, LOG + DEV + '{"step": 41, "lo')
    locks = results / ".locks"
    locks.mkdir()
    holder = locks / f"{record.run_id}.holder"
    holder.write_text(f"process {os.getpid()} on {platform.node()}")
    (run,) = client.get("/live.json").json()["activity"]["runs"]
    assert record.spec.recipe is not None
    total = 320 // record.spec.recipe.batch_size * record.spec.recipe.epochs
    assert (run["name"], run["seed"], run["working"]) == ("lcqmc, lora on small", 7, True)
    assert (run["stage"], run["step"], run["total"], run["dev"]) == ("training", 40, total, 0.625)
    assert run["left"] == total - 40, "a second per step"
    place = results / f"{record.run_id}.partial"
    for name, stage in (
        ("delta.safetensors", "dev"),
        ("predictions.dev.jsonl", "test"),
        ("predictions.test.jsonl", "ending"),
    ):
        (place / name).touch()
        (run,) = client.get("/live.json").json()["activity"]["runs"]
        assert run["stage"] == stage


@pytest.mark.parametrize(
    ("holder", "working"),
    [
        (f"process {os.getpid()} on {platform.node()}", True),
        (f"process 999999999 on {platform.node()}", False),
        ("process 1 on another.machine", None),
        ("\x00", None),
        (None, False),
    ],
    ids=["this", "ended", "elsewhere", "hostile", "none"],
)
def test_whether_a_run_is_at_work_is_known_without_its_lock(
    holder: str | None, working: bool | None, tmp_path: Path
) -> None:
    (tmp_path / ".locks").mkdir()
    if holder is not None:
        (tmp_path / ".locks" / "a.holder").write_text(holder)
    assert worked_on(tmp_path, "a") is working


def test_failures_and_the_trials_of_a_sweep_are_counted(client: Any, results: Path) -> None:
    finished = sorted(p.parent.name for p in results.glob("*/run.json"))
    at_work = running(results, 1, LOG)
    (results / ".locks").mkdir()
    (results / ".locks" / f"{at_work.run_id}.holder").write_text("process 1 on another.machine")
    running(results, 2, status="failed", error="interrupted")
    failed = running(results, 3, status="failed", error="out of memory")
    notes = results / ".bench" / "failed"
    notes.mkdir(parents=True)
    note = {"run_id": "noted", "name": "c3, prefix", "error": "no such file", "detail": "long"}
    (notes / "noted.json").write_text(json.dumps(note))
    (notes / f"{finished[0]}.json").write_text(json.dumps(note))  # it has finished since
    (notes / "half.json").write_text('{"run_i')
    ids = [*finished, at_work.run_id, failed.run_id, "noted", "to come"]
    (results / SWEEP).write_text(json.dumps(dict.fromkeys(ids, "a name")))
    now = client.get("/live.json").json()["activity"]
    assert [(run["seed"], run["working"]) for run in now["runs"]] == [(1, None), (2, False)]
    assert sorted(one["error"] for one in now["failed"]) == ["no such file", "out of memory"]
    (sweep,) = now["sweeps"]
    assert sweep["total"] == 12
    assert (sweep["finished"], sweep["running"]) == (8, 1)
    assert sweep["failed"] + sweep["waiting"] == 3


BAD_LINES = [
    *(b'{"step": 1e999}', b'{"step": []}', b"[[" * 900, LOG[:90].encode()),
    b'{"step": 3, "time": "x"}',
]


@settings(max_examples=60, deadline=None)
@given(st.lists(st.binary(max_size=60) | st.sampled_from(BAD_LINES)))
def test_no_log_is_an_error(tmp_path_factory: pytest.TempPathFactory, lines: list[bytes]) -> None:
    folder = tmp_path_factory.mktemp("log")
    record = running(folder, 1)
    place = folder / f"{record.run_id}.partial"
    (place / "log.jsonl").write_bytes(b"\n".join(lines))
    going_on = activity([(place, record)], set(), [folder])
    assert len(going_on["runs"]) == 1
    json.dumps(going_on, allow_nan=False)


# --- who may ask ---


@pytest.mark.parametrize(
    ("host", "status"),
    [
        *((host, 200) for host in ("127.0.0.1:8765", "localhost:1", "LOCALHOST", "[::1]:8765")),
        *((host, 200) for host in ("192.168.1.7:8765", "[fe80::1]")),
        *((host, 421) for host in ("evil.example", "127.0.0.1.evil.example:8765", "localhost.")),
        *((host, 421) for host in ("", "localhost@evil.example", "evil.example:8765", "[::1", "1")),
        *((host, 421) for host in ("localhost:8765:1", "localhost/", "127.0.0.1:99999999")),
    ],
)
def test_a_name_that_may_be_a_strangers_is_refused(client: Any, host: str, status: int) -> None:
    for path in ("/", "/live.json", "/data.json", "/nothing"):
        answer = client.get(path, headers={"Host": host})
        assert answer.status_code == (404 if status == 200 and path == "/nothing" else status)
    assert status == 200 or "board" not in answer.text


@pytest.mark.parametrize(
    ("headers", "refused"),
    [
        ({}, False),
        ({"Origin": OWN}, False),
        ({"Origin": OWN, "Sec-Fetch-Site": "same-origin"}, False),
        ({"Origin": "http://localhost:8765"}, True),
        ({"Origin": "http://127.0.0.1:9999"}, True),
        ({"Origin": "http://evil.example"}, True),
        ({"Origin": "null"}, True),
        ({"Origin": ""}, True),
        ({"Sec-Fetch-Site": "cross-site"}, True),
        ({"Sec-Fetch-Site": "same-site"}, True),
    ],
)
def test_another_page_can_have_nothing_scored(
    client: Any, headers: dict[str, str], refused: bool
) -> None:
    answer = client.post("/score?task=nothing", headers=headers)
    assert answer.status_code == (403 if refused else 400)


@pytest.mark.parametrize(
    ("site", "mode", "status"),
    [
        *(("same-origin", mode, 200) for mode in ("cors", "no-cors", "navigate")),
        *(("cross-site", mode, 403) for mode in ("cors", "no-cors", "websocket")),
        *((site, "navigate", 200) for site in ("none", "cross-site", "same-site")),
    ],
)
def test_another_page_can_link_here_and_read_nothing(
    client: Any, site: str, mode: str, status: int
) -> None:
    headers = {"Sec-Fetch-Site": site, "Sec-Fetch-Mode": mode}
    for path in ("/", "/data.json", "/live.json"):
        assert client.get(path, headers=headers).status_code == status


@pytest.mark.parametrize(
    "path",
    [
        *("/../run.json", "/..%2f..%2fetc/passwd", "/%2e%2e/%2e%2e/etc/passwd", "//etc/passwd"),
        *("/page/../../run.json", "/index.html", "/results", "/live.json/", "/data.json/x"),
        *("/..\\..\\x", "/%00", "/live.js", "/static/live.js", "/" + "a" * 5000),
        *("/parts/..%2f..%2frun.json", "/parts/run-0.js", "/parts/.js", "/parts/x/../y"),
    ],
)
def test_there_are_few_resources_and_no_files(client: Any, path: str) -> None:
    answer = client.get(path, follow_redirects=False)
    assert answer.status_code in (404, 307)
    assert "root:" not in answer.text


@pytest.mark.parametrize("method", ["PUT", "DELETE", "PATCH", "OPTIONS", "TRACE"])
def test_other_methods_do_nothing(client: Any, method: str) -> None:
    for path in ("/", "/live.json", "/score"):
        assert client.request(method, path).status_code == 405
    assert client.get("/score").status_code == 405


# --- predictions ---

FIELDS = {"task": "ccpm", "name": "Mine", "file": "CCPM.jsonl"}


def test_predictions_are_scored_as_the_command_does_and_not_kept(
    client: Any, results: Path, tmp_path: Path
) -> None:
    before = sorted(results.rglob("*"))
    answer = client.post("/score", params=FIELDS, content=GOLD.read_bytes())
    assert answer.status_code == 200, answer.text
    wanted = score_system("ccpm", GOLD, "Mine", out=tmp_path / "own").record
    result = answer.json()
    assert result["kept"] is False
    assert result["warnings"] == [wanted.note, *wanted.warnings]
    score = result["scores"]["accuracy"]
    assert (score["value"], score["n"]) == (1, wanted.test.n)
    assert sorted(results.rglob("*")) == before


def test_predictions_are_kept_as_a_row_where_that_is_asked_for(live: Live, results: Path) -> None:
    client = client_of(live, keep_in=results)
    lines = [json.loads(line) for line in GOLD.read_text("utf-8").splitlines()]
    rows = [{"id": str(i), "prediction": 0} for i, _ in enumerate(lines)]
    content = "".join(json.dumps(row) + "\n" for row in rows).encode()
    fields = {**FIELDS, "keep": "yes", "name": "我的系统", "file": "../../../etc/我的.jsonl"}
    answer = client.post("/score", params=fields, content=content)
    if answer.status_code == 422:  # the ids are others: use those of the message
        pytest.fail(answer.text)
    assert answer.json()["kept"] is True
    board = client.get("/live.json") and client.get("/data.json").json()["board"]
    assert "我的系统 / outside system" in [row["id"] for row in board["rows"]]
    (record,) = results.glob("ccpm.我的系统*/run.json")
    assert json.loads(record.read_bytes())["source"] == "我的.jsonl (predictions.jsonl)"
    other = client.post("/score", params=fields, content=content.replace(b": 0}", b": 1}", 1))
    assert other.status_code == 422, "nothing that is kept can be replaced"
    assert other.json()["error"] == (
        "other predictions of '我的系统' with seed 1 on this data are kept here; "
        "choose another seed or name."
    )


@pytest.mark.parametrize(
    ("fields", "status", "about"),
    [
        ({}, 400, "there is no task ''"),
        ({"task": "../ccpm", "name": "x"}, 400, "there is no task '../ccpm'"),
        ({"task": "CCPM", "name": "x"}, 400, "Did you mean 'ccpm'?"),
        ({**FIELDS, "name": "  "}, 400, "name is missing"),
        ({**FIELDS, "name": "a\u202eb"}, 400, "name is 'a\\u202eb', expected no control or format"),
        ({**FIELDS, "name": "a\nb"}, 400, "expected no control or format"),
        ({**FIELDS, "name": "x" * 81}, 400, "at most 80 characters"),
        ({**FIELDS, "split": "train"}, 400, "split is 'train', expected dev or test"),
        ({**FIELDS, "seed": "-1"}, 400, "seed is '-1'"),
        ({**FIELDS, "seed": "１"}, 400, "seed is"),
        ({**FIELDS, "seed": "4294967296"}, 400, "seed is"),
        ({**FIELDS, "keep": "yes"}, 403, "start it with --accept DIR"),
        ({**FIELDS, "keep": "1"}, 400, "keep is '1'"),
        ({**FIELDS, "include": "evil.py"}, 400, "there is no field 'include'"),
        ({**FIELDS, "out": "/etc"}, 400, "there is no field 'out'"),
    ],
)
def test_wrong_fields_are_one_sentence(
    client: Any, fields: dict[str, str], status: int, about: str
) -> None:
    answer = client.post("/score", params=fields, content=b"x")
    assert answer.status_code == status
    assert about in answer.json()["error"]


def test_a_file_is_bounded_in_bytes_and_lines(live: Live, monkeypatch: pytest.MonkeyPatch) -> None:
    client = client_of(live, most=1000)

    def parts() -> Iterator[bytes]:  # without a length
        yield from [b"x" * 400] * 3

    for content in (b"x" * 1001, parts()):
        answer = client.post("/score", params=FIELDS, content=content)
        assert (answer.status_code, "more than 1KB" in answer.json()["error"]) == (413, True)
    monkeypatch.setattr(uploads, "LINES", 5)
    answer = client.post("/score", params=FIELDS, content=b"\n" * 6)
    assert (answer.status_code, "lines" in answer.json()["error"]) == (413, True)
    assert client.post("/score", params=FIELDS, content=b"").status_code == 400


def scored(scorer: Scorer, *contents: AsyncIterator[bytes]) -> list[Any]:
    """What becomes of files that are sent at the same time."""

    async def run() -> list[Any]:
        each = (scorer.score(FIELDS, None, content) for content in contents)
        return await asyncio.gather(*each, return_exceptions=True)

    return asyncio.run(run())


async def slowly(seconds: float) -> AsyncIterator[bytes]:
    await asyncio.sleep(seconds)
    yield b"{}\n"


def test_files_at_once_are_few_and_slow_ones_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(uploads, "RECEIVING", 0.1)
    scorer = Scorer(None, (), None, 1000)
    ends = scored(scorer, *(slowly(60) for _ in range(4)))
    assert [end.status for end in ends if isinstance(end, RefusedError)] == [408, 408, 503, 503]
    ends = scored(scorer, slowly(60))
    assert ends[0].status == 408, "places are given back"


def test_scoring_that_takes_too_long_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(uploads, "SCORING", 0.05)
    (end,) = scored(Scorer(None, (), None, 1000), slowly(0))
    assert (end.status, "longer than" in str(end)) == (422, True)


HOSTILE = {
    "binary": bytes(range(256)) * 40,
    "zip": b"PK\x03\x04" + b"\0" * 100,
    "deep": b'{"id": "1", "prediction": ' + b"[" * 100_000,
    "deep array": b"[" * 100_000,
    "numbers": b'{"id": "1", "prediction": ' + b"9" * 50_000 + b"}",
    "infinite": b'{"id": "1", "prediction": 1e999}',
    "one": b'{"id": "1", "prediction": 0}',
    "twice": b'{"id": "1", "id": "2", "prediction": 0}',
    "markup": b'{"id": "<script>alert(1)</script>", "prediction": "\\u001b[2J"}',
    "surrogate": b'{"id": "\\ud800", "prediction": 0}',
    "utf-16": '{"id": "1", "prediction": 0}'.encode("utf-16"),
    "python": b"import os; os.system('touch hacked')",
    "yaml": b"!!python/object/apply:os.system ['touch hacked']",
    "pickle": b"cos\nsystem\n(S'touch hacked'\ntR.",
    "long line": b'{"id": "' + b"x" * 900_000 + b'"}',
}


def request_of(file: Path, out: Path) -> dict[str, Any]:
    return {
        **{"task": "ccpm", "file": str(file), "name": "x", "split": "test", "seed": 1},
        **{"data": None, "include": [], "out": str(out)},
    }


@pytest.mark.parametrize("ending", [".jsonl", ".json", ".csv", ".txt", ".zip"])
@pytest.mark.parametrize("kind", HOSTILE)
def test_no_file_is_more_than_a_sentence(kind: str, ending: str, tmp_path: Path) -> None:
    file = tmp_path / f"file{ending}"
    file.write_bytes(HOSTILE[kind])
    result = result_of(request_of(file, tmp_path / "out"))
    assert set(result) == {"error"}
    assert result["error"].isprintable()
    assert len(result["error"]) < 1200
    assert [path.name for path in tmp_path.iterdir() if path.name != "out"] == [file.name]
    assert not list(tmp_path.glob("out/*/run.json"))


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=5,
)
lines = st.lists(
    st.fixed_dictionaries({"id": st.sampled_from(["0", "1", 0, None]), "prediction": values})
    | values,
    max_size=4,
)


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.binary(max_size=200) | lines.map(lambda each: "\n".join(map(json.dumps, each)).encode()))
def test_whatever_is_uploaded_has_scores_or_a_sentence(
    tmp_path_factory: pytest.TempPathFactory, content: bytes
) -> None:
    place = tmp_path_factory.mktemp("upload")
    (place / "file.jsonl").write_bytes(content)
    result = result_of(request_of(place / "file.jsonl", place / "out"))
    assert ("error" in result) != ("scores" in result)


@given(st.text() | st.text("/\\.:%\x00aZ-_ 字", max_size=20))
def test_a_files_name_stays_in_its_folder(given: str) -> None:
    name = file_name(given)
    place = Path("/a/folder")
    assert (place / name).resolve().parent == place
    assert name.isprintable()
    assert len(os.fsencode(name)) <= 400


def test_plain_names_stay() -> None:
    for name in ("CCPM.jsonl", "我的 预测 (2).json", "a-b_c+d.csv"):
        assert file_name(name) == name
    assert file_name("C:\\fakepath\\x.tsv") == "x.tsv"
    assert file_name(".bashrc") == file_name("") == "predictions.jsonl"
    assert file_name("<b>.csv") == "predictions.csv"


# --- the command ---


@pytest.mark.parametrize(
    ("words", "about"),
    [
        (["nowhere"], "nowhere: there is no such results folder"),
        ([".", "--host", "no.such.host.invalid"], "not an address of this machine"),
        ([".", "--host", "192.0.2.1"], "cannot be listened at"),
        ([".", "--port", "70000"], "--port is 70000, expected a whole number from 0 to 65535"),
        ([".", "--max-upload", "much"], "--max-upload is 'much'"),
        ([".", "--data", "nowhere"], "--data nowhere: there is no such folder"),
        ([".", "--accept", "file"], "--accept file: cannot be written (it is a file)"),
    ],
)
def test_mistakes_are_one_sentence(
    words: list[str], about: str, cli: CLI, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").touch()
    more = [] if "--port" in words else ["--port", "0"]
    try:
        code, _, error = cli("leaderboard", "serve", *words, *more)
    except SystemExit as end:
        code, error = int(str(end.code)), about
    assert code == 2
    assert about in error


def test_without_the_extra_the_command_says_so(
    cli: CLI, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cpm_tune.commands.serve.find_spec", lambda name: None)
    code, _, error = cli("leaderboard", "serve", str(tmp_path))
    assert (code, "pip install 'cpm-tune[serve]'" in error) == (2, True)


def started(*words: str) -> tuple[subprocess.Popen[str], int]:
    """The command as a process, and its port."""
    argv = [sys.executable, str(REPOSITORY / "tune.py"), "leaderboard", "serve", *words]
    process = subprocess.Popen(
        argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    assert process.stdout is not None
    printed = re.search(r"http://127\.0\.0\.1:(\d+)/", process.stdout.readline())
    assert printed
    return process, int(printed[1])


def asked(port: int, request: bytes) -> bytes:
    with socket.create_connection(("127.0.0.1", port), timeout=20) as connection:
        connection.sendall(request)
        answer = b""
        while part := connection.recv(65536):
            answer += part
    return answer


@pytest.fixture
def ended() -> Iterator[Callable[[subprocess.Popen[str]], None]]:
    processes: list[subprocess.Popen[str]] = []
    yield processes.append
    for process in processes:
        if process.poll() is None:
            process.kill()
        process.communicate()


def test_a_real_server_answers_and_ends_at_a_signal(
    results: Path, cli: CLI, ended: Callable[[subprocess.Popen[str]], None]
) -> None:
    process, port = started(str(results), "--port", "0")
    ended(process)
    host = f"Host: 127.0.0.1:{port}\r\nConnection: close\r\n\r\n".encode()
    answer = asked(port, b"GET / HTTP/1.1\r\n" + host)
    assert answer.startswith(b"HTTP/1.1 200 OK")
    assert b"small / lora" in answer
    assert asked(port, b"GET / HTTP/1.0\r\n\r\n").startswith(b"HTTP/1.1 421")
    assert asked(port, b"nonsense\r\n\r\n").startswith(b"HTTP/1.1 400")
    code, _, error = cli("leaderboard", "serve", str(results), "--port", str(port))
    assert (code, f"--port {port}: cannot be listened at" in error) == (2, True)
    place = ("127.0.0.1", port)
    with socket.create_connection(place) as idle, socket.create_connection(place) as sending:
        idle.sendall(b"GET /live.json HTTP/1.1\r\nHost:")
        upload = b"POST /score?task=ccpm&name=x HTTP/1.1\r\nContent-Length: 9\r\n"
        sending.sendall(upload + host + b"{")
        begun = time.monotonic()
        process.send_signal(signal.SIGINT)
        output, error = process.communicate(timeout=30)
    assert (process.returncode, output, "Traceback" in error) == (0, "stopped\n", False)
    assert time.monotonic() - begun < 30


def test_the_open_page_follows_the_folder_and_scores_a_file(
    results: Path,
    tmp_path: Path,
    live: Live,
) -> None:
    """In a real browser, from a real server in this process."""
    import threading

    import uvicorn

    from cpm_tune.leaderboard.serve.app import Address, listening

    with listening(Address(port=0)) as opened, chromium(tmp_path / "profile") as browser:
        url = f"http://127.0.0.1:{opened.getsockname()[1]}/"
        config = uvicorn.Config(
            make_app(live, Scorer(None, (), results, 10**6)), lifespan="off", log_config=None
        )
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [opened]})
        thread.start()
        try:
            browser.get(url)
            text = "return document.querySelector('#live').innerText"
            until(lambda: "nothing is running" in browser.execute_script(text))
            running(results, 7, LOG)
            made.store(results, made.make_record("ccpm", "small", "adapter", 1))
            browser.execute_script("window.same = true")
            until(lambda: "lcqmc, lora on small" in browser.execute_script(text))
            rows = "return [...document.querySelectorAll('[data-row]')].map((r) => r.dataset.row)"
            until(lambda: "small / adapter" in browser.execute_script(rows))
            browser.find_element("css selector", "#live-score summary").click()
            form = "#live-score form"
            browser.find_element("css selector", f"{form} option[value=ccpm]").click()
            name, _seed, file, keep = browser.find_elements("css selector", f"{form} input")
            name.send_keys("<b>Mine</b>")
            file.send_keys(str(GOLD))
            keep.click()
            browser.find_element("css selector", f"{form} button").click()
            until(lambda: "Kept as a row." in browser.execute_script(text), 100)
            assert "1.0000" in browser.execute_script(text)
            browser.find_element("css selector", "#live-score a").click()
            heading = "return document.querySelector('#view-row h2')?.textContent ?? ''"
            until(lambda: "<b>Mine</b>" in browser.execute_script(heading))
            browser.find_element("css selector", "#lang-zh").click()
            assert "给预测打分" in browser.execute_script(text)
            assert browser.execute_script("return window.same"), "without a reload"
            assert browser.get_log("browser") == []
        finally:
            server.should_exit = True
            thread.join()


def until(holds: Callable[[], bool], seconds: float = 30) -> None:
    """Wait for something to become true."""
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.1)
