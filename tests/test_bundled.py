"""The bundled backbones: what each folder has, and that every command takes their names."""

import json
import math
import re

import pytest
import torch

from cpm_tune.backbone.bundled import FOLDERS
from cpm_tune.backbone.families import open_folder

NAMES = pytest.mark.parametrize("name", FOLDERS)


def _last(name, event):
    lines = (FOLDERS[name] / "training.jsonl").read_text(encoding="utf-8").splitlines()
    return [entry for entry in map(json.loads, lines) if entry["event"] == event][-1]


@NAMES
def test_it_is_trained_small_and_says_what_it_is(name):
    path = FOLDERS[name]
    assert open_folder(path).trained
    assert sum(file.stat().st_size for file in path.iterdir()) < 15_000_000
    card = (path / "README.md").read_text(encoding="utf-8")
    assert card.startswith(f"# {name}\n")
    assert "not a general\nChinese model" in card or "not a general Chinese model" in card


@NAMES
def test_the_losses_of_its_card_are_those_of_its_log(name):
    """Each row of the card's table of held-out losses has the log's figures in its order."""
    card = (FOLDERS[name] / "README.md").read_text(encoding="utf-8")
    section = card.split("## Held-out loss")[1].split("##")[0]
    rows = [
        row.split("|")[2:-1] for row in re.findall(r"^\| [a-zA-Z].*\d\.\d\d .*$", section, re.M)
    ]
    sources = _last(name, "heldout-all")["sources"]
    assert len(rows) == len(sources)
    for row, objectives in zip(rows, sources.values(), strict=True):
        known = [
            value
            for part in objectives.values()
            for value in (part["nats_per_character"], part["unigram_nats_per_character"])
        ]
        for cell, value in zip(row, known, strict=True):
            assert math.isclose(float(cell), value, abs_tol=0.0051), (row, known)


@NAMES
def test_a_run_and_a_text_by_name(name, cli, tmp_path):
    line = ("--task", "ccpm", "--delta", "lora", "--backbone", name, "--limit", "8")
    sets = ("--set", "train.max_steps=2", "--set", "train.eval_every=2", "--no-shortcuts")
    code, output, error = cli(*line, *sets, "--out", tmp_path)
    assert code == 0, error
    (record,) = tmp_path.glob("ccpm.lora.*/run.json")
    assert json.loads(record.read_text())["backbone"]["name"] == name
    code, output, error = cli(
        "generate", "春眠不觉晓，", "--backbone", name, "--max-new-tokens", "6"
    )
    assert code == 0, error
    assert output.strip()


@NAMES
def test_weights_are_finite(name):
    model = open_folder(FOLDERS[name]).open(torch.float32)
    assert all(bool(p.isfinite().all()) for p in model.parameters())
