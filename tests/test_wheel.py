"""An installed wheel, away from the checkout, finds its tasks, presets, samples and schema."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import REPOSITORY


@pytest.mark.slow
def test_an_installed_wheel_works_from_any_directory(tmp_path: Path) -> None:
    build = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(tmp_path)]
    done = subprocess.run([*build, str(REPOSITORY)], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    (wheel,) = tmp_path.glob("cpm_tune-*.whl")
    assert wheel.stat().st_size < 60_000_000
    check = [sys.executable, "-m", "twine", "check", "--strict", str(wheel)]
    done = subprocess.run(check, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    site = tmp_path / "site"
    install = [
        sys.executable,
        "-m",
        "pip",
        "install",
        "--quiet",
        "--no-deps",
        "--target",
        str(site),
    ]
    subprocess.run([*install, str(wheel)], check=True, capture_output=True)

    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    environment = {**os.environ, "PYTHONPATH": str(site)}

    def run(*words: str) -> str:
        done = subprocess.run(
            [sys.executable, "-m", "cpm_tune", *words],
            capture_output=True,
            text=True,
            cwd=elsewhere,
            env=environment,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    code = (
        "import cpm_tune, cpm_tune.schema.record as r; print(cpm_tune.__file__, r.SCHEMA.is_file())"
    )
    found = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=elsewhere, env=environment
    )
    assert found.stdout.split() == [str(site / "cpm_tune" / "__init__.py"), "True"]
    assert "lcqmc" in run("list", "tasks")
    assert "lora" in run("list", "deltas")
    assert "sample data" in run("show", "lcqmc", "--text")
    few = ["--limit", "8", "--set", "train.max_steps=1", "--control", "none", "--out", "out"]
    assert "test accuracy" in run("--task", "lcqmc", "--delta", "lora", *few)
    assert list((elsewhere / "out").glob("lcqmc.lora.*/run.json"))
    page = elsewhere / "board.html"
    run("leaderboard", "out", "--published", "--out", str(page))
    assert "CPM-2" in page.read_text(encoding="utf-8")
    assert (site / "bin" / "cpm-tune").exists()
