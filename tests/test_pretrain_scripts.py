"""The scripts around pre-training: text extraction, and how worth is measured."""

import importlib.util
import json
import random
import sys
from pathlib import Path

import numpy as np
import pytest

SCRIPTS = Path(__file__).resolve().parent.parent / "scripts"


def load(name):
    specification = importlib.util.spec_from_file_location(
        f"scripts_{name}", SCRIPTS / f"{name}.py"
    )
    module = importlib.util.module_from_spec(specification)
    sys.modules[specification.name] = module
    specification.loader.exec_module(module)
    return module


sys.path.insert(0, str(SCRIPTS))
corpus, worth, probes = load("corpus"), load("worth"), load("probes")


def test_every_source_names_a_pinned_package():
    for source in corpus.SOURCES.values():
        assert source.package in corpus.PACKAGES
    for package in corpus.PACKAGES.values():
        assert len(package.sha256) == 64
        assert package.version in " ".join(package.command())


def test_a_file_with_another_checksum_is_refused(tmp_path):
    package = corpus.PACKAGES["linux-command"]
    (tmp_path / package.pattern).write_bytes(b"something else")
    with pytest.raises(SystemExit, match="sha256"):
        corpus.fetch(package, tmp_path)


def test_markup_becomes_lines_without_code_and_headers():
    html = "<header>菜单</header><h1>打开 文件</h1><p>点击<b>打开</b>。</p><pre>ls -l</pre><li>甲"
    assert corpus._html_lines(html) == ["打开文件", "点击打开。", "甲"]


def test_user_interface_strings_lose_their_accelerators():
    assert corpus._plain("~Save As...") == "Save As..."
    assert corpus._plain("另存为(~A)...") == "另存为..."


@pytest.mark.parametrize(
    ("text", "form"),
    [
        ("床前明月光，疑是地上霜。\n举头望明月，低头思故乡。", True),
        ("床前明月光，疑是地上霜。\n举头望明月，低头思故。", False),
        ("床前明月光，疑是地上霜。", False),
        ("明月，明月，明月，明月。", False),
        ("床前明月A，疑是地上霜。\n举头望明月，低头思故乡。", False),
    ],
)
def test_the_form_of_a_quatrain(text, form):
    assert worth._form(text) is form


def test_the_right_next_line_is_anywhere_and_wrong_ones_come_from_other_poems():
    drawn = random.Random(0)
    characters = [chr(0x4E00 + i) for i in range(2000)]
    lines = ["".join(drawn.sample(characters, 5)) for _ in range(800)]
    couplets = [f"{a}，{b}。" for a, b in zip(lines[::2], lines[1::2], strict=True)]
    poems = ["\n".join(["《题》", *couplets[i : i + 4]]) for i in range(0, 400, 4)]
    groups = probes.next_lines({"tang": poems, "song": []}, random.Random(1))
    rows = [row for group in groups for row in group]
    assert len(rows) == 400
    places = np.bincount([row["answer"] for row in rows], minlength=4)
    assert places.min() > 70
    for poem, group in zip(poems, groups, strict=True):
        for row in group:
            right = row["options"][row["answer"]]
            assert f"{row['given']}，{right}。" in poem
            assert len(set(row["options"])) == 4
            assert not [line for line in row["options"] if line != right and line in poem]


def test_one_segmentation_is_right_and_all_have_the_same_characters():
    texts = {name: ["打开文件以后可以在窗口中选择需要的字体"] for name in probes.MODERN}
    groups = probes.segmentations({**texts, "novel": []}, random.Random(1))
    rows = [row for group in groups for row in group]
    assert rows
    for row in rows:
        assert len(set(row["options"])) == 4
        assert {option.replace("/", "") for option in row["options"]} == {row["given"]}
        assert "//" not in "".join(row["options"])


def test_the_summary_pairs_rows_and_seeds(tmp_path):
    for init, hits in (("checkpoint", [1, 1, 1, 0]), ("random", [1, 0, 0, 0])):
        for seed in (1, 2):
            folder = tmp_path / f"{init}{seed}"
            folder.mkdir()
            spec = {"backbone": {"init": init}, "delta": {"delta_type": "lora"}, "seed": seed}
            (folder / "run.json").write_text(json.dumps({"status": "finished", "spec": spec}))
            rows = [{"prediction": hit, "target": 1} for hit in hits]
            (folder / "predictions.test.jsonl").write_text("\n".join(map(json.dumps, rows)))
    found = worth.summary(tmp_path, [1, 2, 3])
    assert found["pretrained"] == [0.75, 0.75]
    assert found["random"] == [0.25, 0.25]
    assert found["difference"] == 0.5
    assert found["low"] <= 0.5 <= found["high"]


def test_results_are_kept_beside_those_of_another_process(tmp_path):
    file = tmp_path / "worth.json"
    worth.keep(file, "probes/en-zh", {"n_test": 3})
    worth.keep(file, "heldout", [1])
    worth.keep(file, "probes/lcqmc", None)
    kept = json.loads(file.read_text())
    assert kept == {"probes": {"en-zh": {"n_test": 3}, "lcqmc": None}, "heldout": [1]}


def test_the_real_lcqmc_is_split_in_its_own_order(tmp_path):
    file = tmp_path / "dev.jsonl"
    rows = [{"sentence1": f"甲{i}", "sentence2": f"乙{i}", "n": i} for i in range(8_802)]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    probes.write_lcqmc(file, tmp_path / "out")
    train, dev, test = (
        [json.loads(x) for x in (tmp_path / "out" / f"{name}.jsonl").open()]
        for name in ("train", "dev", "test")
    )
    assert train[:7000] + dev + test == rows[:8_800]
    assert [len(part) for part in (train, dev, test)] == [14_000, 800, 1000]
    assert train[7000] == {"sentence1": "乙0", "sentence2": "甲0", "n": 0}
