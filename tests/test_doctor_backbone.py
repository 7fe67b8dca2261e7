"""`doctor --backbone`: what it says of a backbone is what a run on it does."""

from __future__ import annotations

from pathlib import Path

import pytest
from causal_folders import make_folder
from conftest import CLI

from cpm_tune.task.registry import preset_files


def told(cli: CLI, backbone: str | Path) -> dict[str, tuple[str, str]]:
    code, out, error = cli("doctor", "--backbone", backbone)
    assert code == 0, error
    lines = [(line[:4].strip(), line[6:30].strip(), line[31:]) for line in out.splitlines()]
    return {name: (state, result) for state, name, result in lines}


def test_the_bundled_backbone_does_all_but_chat(cli: CLI) -> None:
    lines = told(cli, "cpm-ant-tiny")
    refused = {name for name, (state, _) in lines.items() if state != "ok"}
    assert refused == {"chat template"}
    assert {f"delta {name}" for name in preset_files()} <= lines.keys()


@pytest.mark.parametrize("kind", ["llama", "bloom"])
def test_a_refused_delta_is_refused_by_a_run_with_the_same_words(
    cli: CLI, kind: str, tmp_path: Path
) -> None:
    folder = make_folder(tmp_path / kind, kind)
    lines = told(cli, folder)
    assert lines["family"][1].startswith("causal")
    assert lines["yes-logit"][0] == "ok"
    assert lines["chat template"][0] == lines["blanks"][0] == "-"
    assert (lines["delta prefix"][0] == "-") == (kind == "bloom")
    for name in ("lora", "prefix"):
        state, result = lines[f"delta {name}"]
        given = ("--task", "lcqmc", "--backbone", folder, "--template", "cpm-2", "--dry-run")
        code, _, error = cli(*given, "--delta", name)
        assert (code == 0) == (state == "ok")
        assert state == "ok" or result in error


def test_a_folder_that_is_no_backbone_is_a_mistake(cli: CLI, tmp_path: Path) -> None:
    code, _, error = cli("doctor", "--backbone", tmp_path)
    assert code == 2
    assert str(tmp_path) in error
