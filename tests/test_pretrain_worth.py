"""What scripts/worth.py and scripts/probes.py measure, on tiny backbones with known results."""

import json
import math
import random
import sys

import numpy as np
import pytest
import torch
from conftest import REPOSITORY
from pretrain_runs import config_for, make_corpus

from cpm_tune.backbone.ant.checkpoint import save_native
from cpm_tune.backbone.ant.tokenizer import Tokenizer
from cpm_tune.backbone.opening import random_backbone
from cpm_tune.errors import UserError
from cpm_tune.pretrain.prepare import prepare
from cpm_tune.pretrain.sources import TextSource

sys.path.insert(0, str(REPOSITORY / "scripts"))
import probes
import worth

CHARACTERS = "天地玄黄宇宙洪荒日月盈昃辰宿列张"
SOURCES = ("tang", "linux", "novel")
PAIRS = [
    (f"{verb} {noun}", f"{zh_verb}{zh_noun}")
    for verb, zh_verb in (("Open", "打开"), ("Close", "关闭"), ("Save", "保存"))
    for noun, zh_noun in (("the file", "文件"), ("the window", "窗口"), ("all", "全部内容"))
]


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    return make_corpus(tmp_path_factory.mktemp("corpus"), SOURCES)


@pytest.fixture(scope="module")
def tokenizer(corpus):
    return Tokenizer.from_file(corpus.vocabulary)


@pytest.fixture
def backbone(corpus):
    return random_backbone(config_for(corpus), 1, torch.float32).eval()


@pytest.fixture
def uniform(backbone):
    """A backbone to which every token is as likely as any other."""
    for parameter in backbone.parameters():
        parameter.data.zero_()
    return backbone


def couplet_texts(n):
    """Quatrains of two couplets with titles; no two lines are the same."""
    drawn = random.Random(1)
    lines: dict[str, None] = {}
    while len(lines) < 4 * n:
        lines["".join(drawn.sample(CHARACTERS, 5 if len(lines) < 2 * n else 7))] = None
    four = [list(lines)[i : i + 4] for i in range(0, 4 * n, 4)]
    poems = [f"《题{i}》某\n{a}，{b}。\n{c}，{d}。" for i, (a, b, c, d) in enumerate(four)]
    return {"tang": poems[: n // 2], "song": poems[n // 2 :]}


# --- held-out losses ----------------------------------------------------------------------------


def test_a_uniform_backbone_loses_the_logarithm_of_the_vocabulary(corpus, tokenizer, uniform):
    found = worth.heldout_losses(corpus, uniform, tokenizer)
    assert set(found["sources"]) == set(SOURCES)
    for objectives in found["sources"].values():
        assert set(objectives) == {"infilling", "generation"}
        for part in objectives.values():
            assert part["tokens"] > 0
            assert part["nats_per_token"] == pytest.approx(math.log(len(tokenizer)), rel=1e-5)


def test_the_groups_are_means_by_tokens_of_their_sources(corpus, tokenizer, backbone):
    found = worth.heldout_losses(corpus, backbone, tokenizer)
    assert set(found["groups"]) == {"verse", "modern"}
    for group, name in (("verse", "tang"), ("modern", "linux")):
        parts = list(found["sources"][name].values())
        for key, value in found["groups"][group].items():
            values, tokens = [p[key] for p in parts], [p["tokens"] for p in parts]
            assert value == pytest.approx(np.average(values, weights=tokens))
            assert min(values) <= value <= max(values)


def test_a_group_without_sources_is_left_out(tmp_path, backbone):
    other = make_corpus(tmp_path, ("novel", "tang"))
    tokenizer = Tokenizer.from_file(other.vocabulary)
    model = random_backbone(config_for(other), 1, torch.float32).eval()
    assert set(worth.heldout_losses(other, model, tokenizer)["groups"]) == {"verse"}


# --- the next line ------------------------------------------------------------------------------


def test_a_uniform_backbone_is_at_chance_and_gives_every_line_the_same(tokenizer, uniform):
    items = [("", "天地玄黄宇"), ("天地玄黄宇，", "宙洪荒日月"), ("天，", "地玄黄宇宙洪荒")]
    found = worth._log_p(items, uniform, tokenizer)
    full_stops = np.array([6, 6, 8])  # with the full stop, without </s> and what is before
    assert found == pytest.approx(-full_stops * math.log(len(tokenizer)), rel=1e-5)
    four = worth.next_line_of_four(couplet_texts(40), uniform, tokenizer)
    assert four == {"n": 80, "likelihood": 0.25, "gain": 0.25}


def test_a_random_backbone_is_near_chance(tokenizer, backbone):
    four = worth.next_line_of_four(couplet_texts(250), backbone, tokenizer)
    assert four["n"] == 400
    for key in ("likelihood", "gain"):
        assert abs(four[key] - 0.25) < 5 * math.sqrt(0.25 * 0.75 / 400)
    assert worth.next_line_of_four(couplet_texts(250), backbone, tokenizer) == four


@pytest.mark.parametrize(
    ("right", "wrong", "alone", "likelihood", "gain"),
    [
        (-1.0, -2.0, -9.0, 1.0, 1.0),
        (-2.0, -1.0, -9.0, 0.0, 0.0),
        (float("nan"), float("nan"), -9.0, None, None),  # a broken model is not a perfect one
    ],
    ids=["oracle", "contrary", "broken"],
)
def test_an_oracle_is_always_right(tokenizer, monkeypatch, right, wrong, alone, likelihood, gain):
    texts = couplet_texts(40)
    known = {(a + "，", b) for group in probes.couplets(texts) for a, b in group}

    def judge(items, model, tokenizer):
        return np.array(
            [(right if item in known else wrong) if item[0] else alone for item in items]
        )

    monkeypatch.setattr(worth, "_log_p", judge)
    with np.errstate(invalid="ignore"):
        four = worth.next_line_of_four(texts, None, tokenizer)
    if likelihood is None:
        assert math.isnan(four["likelihood"])
        assert math.isnan(four["gain"])
    else:
        assert (four["likelihood"], four["gain"]) == (likelihood, gain)


def test_a_judge_that_does_not_look_at_the_first_line_gains_nothing_from_it(tokenizer, monkeypatch):
    """It finds some of the right lines, and what the first line adds is a guess."""
    monkeypatch.setattr(
        worth, "_log_p", lambda items, *_: np.array([-float(ord(line[0])) for _, line in items])
    )
    four = worth.next_line_of_four(couplet_texts(100), None, tokenizer)
    assert four["gain"] == 0.25
    assert 0 < four["likelihood"] < 1


# --- the form of quatrains ----------------------------------------------------------------------


def test_titles_are_those_of_quatrains_each_once(tokenizer, backbone):
    body = "天地玄黄宇，宙洪荒日月。\n盈昃辰宿列，张天地玄黄。"
    tang = ["《甲》某\n" + body, "《甲》某\n" + body, body, "《乙》某\n天地玄黄宇，宙洪荒日月。"]
    song = [
        "《丙》某\n" + body + "\n" + body,
        "《丁》某\n天地，玄黄，\n宇宙，洪荒。",
        "《戊》\n" + body,
    ]
    found = worth.quatrain_form({"tang": tang, "song": song}, backbone, tokenizer)
    assert found["samples"] == 2
    assert 0 <= found["with_form"] <= 2
    assert {example.split("\n")[0] for example in found["examples"]} == {"《甲》某", "《戊》"}


@pytest.mark.parametrize(
    ("written", "share"),
    [("天地玄黄宇，宙洪荒日月。\n盈昃辰宿列，张天地玄黄。", 1), ("天地。", 0), ("", 0)],
)
def test_a_hundred_quatrains_at_most_are_sampled_and_counted(
    tokenizer, backbone, monkeypatch, written, share
):
    asked = []

    def generate(model, tokenizer, objective, prefix, **options):
        asked.append((prefix, options["seed"]))
        return [written]

    monkeypatch.setattr(worth, "generate", generate)
    body = "天地玄黄宇，宙洪荒日月。\n盈昃辰宿列，张天地玄黄。"
    same = [f"《题{i}》某\n{body}" for i in range(150)]
    found = worth.quatrain_form({"tang": same, "song": []}, backbone, tokenizer)
    assert (found["samples"], found["with_form"]) == (100, 100 * share)
    assert len({prefix for prefix, _ in asked}) == len({seed for _, seed in asked}) == 100
    assert all(prefix.startswith("《题") and prefix.endswith("\n") for prefix, _ in asked)
    assert found["examples"] == [prefix + written for prefix, _ in asked[:5]]


# --- pairs --------------------------------------------------------------------------------------


def pair_texts():
    forward = "\n".join(part for pair in PAIRS[:5] for part in pair)
    backward = "\n".join(part for en, zh in PAIRS[5:] for part in (zh, en))
    return {"office-pairs": [forward + "\nleft over"], "jupyter-pairs": [backward]}


def test_pairs_ask_for_the_translation_whichever_side_is_first():
    groups = probes.pairs(pair_texts(), random.Random(1))
    rows = [row for group in groups for row in group]
    assert [len(group) for group in groups] == [1] * len(PAIRS)
    assert [(row["given"], row["options"][row["answer"]]) for row in rows] == PAIRS
    translations = {zh for _, zh in PAIRS}
    for row in rows:
        assert len(set(row["options"])) == 4
        assert set(row["options"]) <= translations
    assert len({row["answer"] for row in rows}) > 1
    assert probes.pairs(pair_texts(), random.Random(1)) == groups


def test_pairs_without_chinese_and_long_ones_are_left_out():
    texts = pair_texts()
    texts["office-pairs"] += ["English\nonly", "Long " * 20 + "\n" + "很长的"]
    assert len(probes.pairs(texts, random.Random(1))) == len(PAIRS)


def test_wrong_translations_are_as_long_as_the_right_one():
    """Of many, the twelve nearest in length."""
    lines = [f"Number {n} of these\n{'天' * n}" for n in range(1, 61)]
    texts = {"office-pairs": ["\n".join(lines)], "jupyter-pairs": []}
    for (row,) in probes.pairs(texts, random.Random(1)):
        right = len(row["options"][row["answer"]])
        assert all(abs(len(option) - right) <= 12 for option in row["options"])


# --- the script ---------------------------------------------------------------------------------


@pytest.fixture
def measured(corpus, backbone, tmp_path, monkeypatch, capsys):
    """A function that runs worth.py on the tiny backbone and returns what it printed."""
    folder = tmp_path / "backbone"
    save_native(folder, backbone, corpus.vocabulary.read_text(encoding="utf-8"), trained=False)

    def run(*words, **other):
        given = {"backbone": folder, "corpus": corpus.path, "out": tmp_path / "out"} | other
        options = [str(word) for key, value in given.items() for word in (f"--{key}", value)]
        monkeypatch.setattr(sys, "argv", ["worth.py", *options, *map(str, words)])
        worth.main()
        return capsys.readouterr().out

    return run


def test_losses_of_any_corpus_are_printed_and_kept(measured, tmp_path):
    printed = measured("--only", "loss", "seen")
    assert "tang" in printed
    kept = json.loads((tmp_path / "out/worth.json").read_text())
    assert set(kept["heldout"]["sources"]) == set(SOURCES)
    assert set(kept["heldout lines in training"]) == set(SOURCES)


def test_what_does_not_fit_is_refused_before_anything_is_measured(measured, tmp_path):
    with pytest.raises(UserError, match="not the vocabulary that"):
        measured("--only", "loss", backbone="cpm-ant-tiny")
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot be written"):
        measured("--only", "loss", out=tmp_path / "file")
    (tmp_path / "out/worth.json").write_text("[]")
    with pytest.raises(UserError, match=r"worth.json: not a file of this script"):
        measured("--only", "loss")


def test_a_corpus_with_nothing_held_out_has_nothing_to_measure(measured, corpus, tmp_path):
    path = tmp_path / "tang.txt"
    path.write_text("天地玄黄宇宙洪荒日月盈昃辰宿列张")
    one = prepare([TextSource("tang", (path,), heldout=0)], corpus.vocabulary, tmp_path / "one")
    with pytest.raises(UserError, match="no document is held out"):
        measured("--only", "seen", corpus=one.path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "not readable"),
        (bytes(range(256)), r"dev.jsonl:1: not UTF-8 text; it looks like UTF-16"),
        (b"{}\n" * 9, "9 rows, expected LCQMC's dev.jsonl"),
        (b"{}\n" * 8802, r"not LCQMC's dev.jsonl \(KeyError"),
        (b"{\n" * 8802, r"not LCQMC's dev.jsonl \(JSONDecodeError"),
    ],
    ids=["missing", "binary", "few", "other", "broken"],
)
def test_another_file_than_lcqmcs_is_refused(measured, tmp_path, content, message):
    if content is not None:
        (tmp_path / "dev.jsonl").write_bytes(content)
    with pytest.raises(UserError, match=message):
        measured("--only", "lcqmc-real", "--lcqmc", tmp_path / "dev.jsonl")


def test_too_few_held_out_lines_are_told_instead_of_drawn_forever():
    poem = "《题》\n明月松间照，清泉石上流。\n竹喧归浣女，莲动下渔舟。"
    with pytest.raises(UserError, match="next-line: 2 distinct lines of 5 characters"):
        probes.next_lines({"tang": [poem], "song": []}, random.Random(1))
    texts = {"office-pairs": ["Open\n打开\nClose\n关闭"], "jupyter-pairs": []}
    with pytest.raises(UserError, match="en-zh: fewer than four"):
        probes.pairs(texts, random.Random(1))


def test_a_corpus_without_the_probes_sources_is_told(corpus, tokenizer):
    with pytest.raises(UserError, match=r"no source 'song'; expected the corpus of scripts"):
        probes.heldout_texts(corpus, tokenizer)
