"""The scripts around pre-training: text extraction, and how worth is measured."""

import importlib.util
import json
import random
import struct
import sys
from pathlib import Path

import numpy as np
import pytest

from cpm_tune.errors import UserError

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


def test_lcqmc_is_split_at_line_feeds_alone_and_may_have_a_byte_order_mark(tmp_path):
    rows = [
        {"sentence1": f"第{n}个\u2028问题\x85", "sentence2": f"别的{n}", "label": n % 2}
        for n in range(8802)
    ]
    lines = [json.dumps(row, ensure_ascii=False) for row in rows]
    file = tmp_path / "dev.jsonl"
    file.write_bytes(("\ufeff" + "\r\n".join(lines) + "\n").encode())
    probes.write_lcqmc(file, tmp_path / "out")
    written = lcqmc_parts(tmp_path / "out")
    half = len(written["train"]) // 2
    whole = [*written["train"][:half], *written["dev"], *written["test"]]
    assert sorted(whole, key=rows.index) == rows


def lcqmc_parts(folder):
    """The rows of each split that write_lcqmc wrote."""
    texts = {name: (folder / f"{name}.jsonl").read_bytes() for name in ("train", "dev", "test")}
    return {
        name: [json.loads(line) for line in text.strip(b"\n").split(b"\n")]
        for name, text in texts.items()
    }


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


def test_parts_of_the_real_lcqmc_share_no_sentence(tmp_path):
    file = tmp_path / "dev.jsonl"
    rows = [{"sentence1": f"甲{i}？", "sentence2": f"乙{i}", "n": i} for i in range(8_802)]
    for i in range(0, 8_000, 4):  # four rows hang together by one sentence or the next
        rows[i + 1]["sentence2"] = f"甲{i}！"
        rows[i + 2]["sentence1"] = f" 乙{i}"
        rows[i + 3]["sentence1"] = rows[i + 2]["sentence2"]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    probes.write_lcqmc(file, tmp_path / "out")
    parts = lcqmc_parts(tmp_path / "out")
    train = parts["train"][: len(parts["train"]) // 2]
    numbers = {name: {row["n"] for row in part} for name, part in parts.items()}
    assert sorted(n for part in numbers.values() for n in part) == list(range(8_802))
    assert 1000 <= len(parts["test"]) < 1004
    assert 800 <= len(parts["dev"]) < 804
    for name, part in numbers.items():
        assert {n // 4 for n in part if n < 8_000}.isdisjoint(
            n // 4 for other, o in numbers.items() if other != name for n in o if n < 8_000
        )
    first = train[0]
    swapped = {**first, "sentence1": first["sentence2"], "sentence2": first["sentence1"]}
    assert parts["train"][len(train)] == swapped


def test_rows_that_all_hang_together_are_not_split(tmp_path):
    file = tmp_path / "dev.jsonl"
    row = json.dumps({"sentence1": "甲", "sentence2": "乙"})
    file.write_text(f"{row}\n" * 8_802)
    with pytest.raises(UserError, match="in common"):
        probes.write_lcqmc(file, tmp_path / "out")


def test_the_overlap_of_characters_is_judged_by_a_threshold_of_the_training_rows(tmp_path):
    pairs = {  # Jaccard 1, 2/3, 1/3, 0
        "train": [("甲乙", "乙甲", 1), ("甲乙丙", "甲乙", 1), ("甲乙", "乙丙", 0), ("甲", "丙", 0)],
        "test": [("甲乙丙", "甲乙", 1), ("甲乙", "乙丙", 1), ("甲", "甲", 0), ("甲", "乙", 0)],
    }
    for split, rows in pairs.items():
        lines = [json.dumps({"sentence1": a, "sentence2": b, "label": y}) for a, b, y in rows]
        (tmp_path / f"{split}.jsonl").write_text("\n".join(lines) + "\n")
    assert probes.overlap_baseline(tmp_path) == {"threshold": 2 / 3, "test": 0.5}


def test_poems_have_title_author_and_verse_and_nothing_else(tmp_path):
    folder = tmp_path / "package/dist/shi"
    folder.mkdir(parents=True)
    notes = {"notes": ["注释"], "biography": "生平", "strains": ["平平"]}
    contents = {
        "b.1.json": [
            {
                "id": "x1",
                "title": " 春晓 ",
                "author": "孟浩然",
                "paragraphs": [" 天地。 ", "", "玄黄。"],
            },
            {"title": "无文", "author": "某", "paragraphs": []},
            {"rhythmic": "浣溪沙", "author": None, "content": ["宇宙。"], **notes},
        ],
        "b.0.json": {
            "title": "千字文",
            "content": [{"chapter": "其一", "paragraphs": ["洪荒。"], **notes}],
        },
        "b.2.json": [{"para": ["日月。"]}],
        "other.json": [{"paragraphs": ["不读"]}],
    }
    for name, content in contents.items():
        (folder / name).write_text(json.dumps(content, ensure_ascii=False), encoding="utf-8")
    assert list(corpus._poems(tmp_path, "shi/b.*.json")) == [
        ("shi/b.0#0", "《千字文》\n其一\n洪荒。"),
        ("shi/x1", "《春晓》孟浩然\n天地。\n玄黄。"),
        ("shi/b.1#2", "《浣溪沙》\n宇宙。"),
        ("shi/b.2#0", "日月。"),
    ]
    twice = corpus._poems(tmp_path, "shi/b.2.json", "shi/other.json")
    assert [text for _, text in twice] == ["日月。", "不读"]


def write_catalogue(path, entries):
    """A .mo file: header, table of originals, table of translations, strings."""
    entries = {"": "Content-Type: text/plain; charset=UTF-8\n", **entries}
    parts = [(k.encode(), v.encode()) for k, v in sorted(entries.items())]
    at, tables, strings = 28 + 16 * len(parts), ([], []), b""
    for column in (0, 1):
        for part in parts:
            tables[column].append((len(part[column]), at + len(strings)))
            strings += part[column] + b"\0"
    head = struct.pack("<7I", 0x950412DE, 0, len(parts), 28, 28 + 8 * len(parts), 0, 0)
    body = b"".join(struct.pack("<2I", *entry) for table in tables for entry in table)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(head + body + strings)


def test_pairs_are_eight_a_document_and_every_other_one_is_chinese_first(tmp_path):
    folder = tmp_path / "zh_CN/LC_MESSAGES"
    menu = {f"Item {chr(65 + i)}": f"项目{chr(0x4E00 + i)}" for i in range(18)}
    write_catalogue(folder / "menu.mo", menu)
    found = list(corpus._pairs(tmp_path, "**/LC_MESSAGES/*.mo"))
    assert [name for name, _ in found] == ["menu/0", "menu/1", "menu/2"]
    pairs = list(menu.items())
    wanted = [pairs[:8], [pair[::-1] for pair in pairs[8:16]], pairs[16:]]
    assert [text.split("\n") for _, text in found] == [
        [part for pair in group for part in pair] for group in wanted
    ]


def test_pairs_are_plain_translated_and_each_once(tmp_path):
    folder = tmp_path / "zh_CN/LC_MESSAGES"
    first = {
        "menu\x04~Open File": "打开文件(~O)",
        "one file\0%d files": "一个文件\0多个文件",
        "OK": "OK",
        "%": "百分比符号",
        "One": "一",
    }
    write_catalogue(folder / "a.mo", first)
    write_catalogue(folder / "b.mo", {"Open File": "打开文件", "Close": "关闭"})
    found = dict(corpus._pairs(tmp_path, "**/*.mo"))
    assert set(found) == {"a/0", "b/0"}
    lines = found["a/0"].split("\n")
    known = set(zip(lines[::2], lines[1::2], strict=True))
    assert ("Open File", "打开文件") in known
    assert ("one file", "一个文件") in known
    assert {en for en, _ in known} == {"Open File", "one file"}
    assert found["b/0"] == "Close\n关闭"
