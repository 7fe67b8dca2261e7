"""`benchmarks/gpu.py` runs through without a GPU, whatever its parts do, and keeps to its time."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from conftest import REPOSITORY


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(REPOSITORY / "benchmarks"))
    return importlib.import_module("gpu")


def measured(script: Any, out: Path, minutes: float) -> tuple[int, dict[str, Any]]:
    code = script.measure(out, minutes, ["300M"], "cpu", True)
    return code, json.loads(out.read_text())


def test_a_part_that_fails_or_hangs_is_an_entry_and_the_others_run(
    script: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    work = {
        "about": "pathlib.Path(out).write_text('{\"gpu\": {}}')",
        "train 300M ours": "sys.exit('no GPU here')",
        "train 300M transformers": "subprocess.Popen(['sleep', '60']).wait()",
        "generate 300M ours": "pass",
        "generate 300M transformers": "pathlib.Path(out).write_text('{\"per_second\": 2.0}')",
    }
    (tmp_path / "benchmarks").mkdir()
    program = "import pathlib, subprocess, sys\nout = sys.argv[sys.argv.index('--out') + 1]\n"
    for name, code in work.items():
        given = name.split()
        program += f"if sys.argv[1:{len(given) + 1}] == {given}:\n    {code}\n"
    (tmp_path / "benchmarks" / "gpu_work.py").write_text(program)
    monkeypatch.setattr(script, "ROOT", tmp_path)
    chosen = [script.Part(name, 0.1, 3) for name in work]
    monkeypatch.setattr(script, "parts", lambda shapes: chosen)
    code, made = measured(script, tmp_path / "gpu.json", 1)
    parts = made["parts"]
    assert code == 1
    assert parts["about"]["gpu"] == {}
    assert parts["train 300M ours"]["error"] == "no GPU here"
    assert parts["train 300M transformers"]["error"] == "stopped after 3 s"
    assert parts["generate 300M ours"]["error"] == "it left no result"
    assert parts["generate 300M transformers"]["per_second"] == 2.0
    assert made["ours by transformers"] == {}


def test_what_no_longer_fits_into_the_time_is_skipped_with_the_reason(
    script: Any, tmp_path: Path
) -> None:
    started = time.monotonic()
    code, made = measured(script, tmp_path / "gpu.json", 0.01)
    assert code == 0
    assert time.monotonic() - started < 60
    assert all("of the 0.01 minutes were left" in p["skipped"] for p in made["parts"].values())
    assert list(made["parts"])[:2] == ["about", "tests"]


def test_its_time_is_eight_minutes_whatever_the_parts(script: Any) -> None:
    for shapes in ([], ["300M"], list(script.SHAPES)):
        for part in script.parts(shapes):
            assert 0 < part.least < part.most < 8 * 60


def test_failed_tests_are_listed(script: Any, tmp_path: Path) -> None:
    result = tmp_path / "result"
    result.write_text(
        '<testsuites><testsuite><testcase name="a"/><testcase name="b"><failure message="no"/>'
        '</testcase><testcase name="c"><skipped message="two GPUs"/></testcase></testsuite>'
        "</testsuites>"
    )
    found = script._found(script.Part("tests", 1, 2), result)
    assert found == {"passed": 1, "failed": {"b": "no"}, "skipped": {"c": "two GPUs"}}


@pytest.mark.slow
@pytest.mark.parametrize("who", ["ours", "transformers"])
def test_training_and_generation_run_through_on_a_cpu(
    script: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, who: str
) -> None:
    chosen = [script.Part(f"{what} 300M {who}", 1, 120) for what in ("train", "generate")]
    monkeypatch.setattr(script, "parts", lambda shapes: chosen)
    code, made = measured(script, tmp_path / "gpu.json", 8)
    assert code == 0, made
    for part in made["parts"].values():
        assert part["per_second"] > 0
        assert part["peak_bytes"] > 2**20
    assert 0 < made["parts"][f"train 300M {who}"]["utilisation"] < 1


def test_the_tests_marked_gpu_are_skipped_without_one() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-m", "gpu", "--collect-only", "tests/test_gpu.py"],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=True,
    )
    assert "deselected" not in done.stdout
