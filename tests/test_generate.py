"""`generate` and the Python interface behind it: conventions, deltas, files, mistakes."""

from __future__ import annotations

import io
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from backbone_oracle import PROMPT, VOCAB, VOCABULARY, talkative_hugging_face, write_hugging_face
from conftest import CLI

import cpm_tune as ct
from cpm_tune.backbone.ant.checkpoint import write_native
from cpm_tune.backbone.ant.layout import AntLayout
from cpm_tune.decode import Request, generate
from cpm_tune.delta.foreign import write_peft
from cpm_tune.delta.merge import merge
from cpm_tune.errors import UserError
from cpm_tune.schema.spec import Decoding

pytestmark = pytest.mark.usefixtures("one_thread")

TEXTS = ["今天天气不错", "我爱北京，你他", "上海", "大小小大小小大小abcdab"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of transformers', with weights whose texts depend on their prompts."""
    theirs = talkative_hugging_face()
    return write_hugging_face(tmp_path_factory.mktemp("backbone") / "hf", theirs)


@pytest.fixture
def backbone(folder: Path) -> ct.Backbone:
    return ct.load_backbone(folder)


def prefix(ids: list[int]) -> tuple[int, ...]:
    """The convention by hand: prompt type 2, `<s>`, the text."""
    return (*range(VOCAB + 2 * PROMPT, VOCAB + 3 * PROMPT), VOCABULARY.index("<s>"), *ids)


# --- conventions ---


@pytest.mark.parametrize("beams", [1, 3])
def test_texts_equal_those_of_transformers_on_the_same_folder(
    backbone: ct.Backbone, folder: Path, beams: int
) -> None:
    from transformers import CpmAntForCausalLM

    theirs = CpmAntForCausalLM.from_pretrained(folder).eval()
    specials = [VOCABULARY.index(s) for s in ("<pad>", "<unk>", "<s>", "<d>", "</d>")]
    eos, newline = VOCABULARY.index("</s>"), VOCABULARY.index("</n>")
    searching: dict[str, Any] = {"length_penalty": 1.0, "early_stopping": "never"}
    ours = backbone.generate(TEXTS, beams=beams, repetition_penalty=1, max_new_tokens=9)
    for text, made in zip(TEXTS, ours, strict=True):
        ids = [VOCABULARY.index("<s>"), *backbone.tokenizer.encode(text)]
        row = theirs.generate(
            torch.tensor([ids]),
            max_new_tokens=9,
            do_sample=False,
            num_beams=beams,
            **(searching if beams > 1 else {}),
            suppress_tokens=specials,
            begin_suppress_tokens=[eos, newline],
            eos_token_id=eos,
            pad_token_id=0,
            use_cache=True,
        )[0, len(ids) :]
        written = [i for i in row.tolist() if i != eos]
        assert made.text == backbone.tokenizer.decode(written)
        assert made.n_tokens == len(row)
    assert len({str(made) for made in ours}) >= 3


def test_what_the_vocabulary_lacks_is_left_out_and_named(backbone: ct.Backbone) -> None:
    options = {"max_new_tokens": 6, "beams": 2}
    whole, clean = backbone.generate(["今天天气不错龘€", "今天天气不错"], **options)
    assert (whole.text, whole.left_out) == (clean.text, ("龘", "€"))
    assert clean.left_out == ()
    ids = [VOCABULARY.index(entry) for entry in ("今天天气", "不错")]
    assert backbone.tokenizer.encode("今天天气不错") == ids
    ((expected,),) = generate(
        backbone.model,
        [prefix(ids)],
        Request(
            Decoding(**options, length_penalty=1, repetition_penalty=1.2, min_new_tokens=1),
            AntLayout((), PROMPT, 2, 0),
            stop=frozenset({VOCABULARY.index("</s>")}),
            banned=frozenset(map(VOCABULARY.index, ("<pad>", "<unk>", "<s>", "<d>", "</d>"))),
            not_first=frozenset({VOCABULARY.index("</n>")}),
        ),
    )
    assert clean.text == backbone.tokenizer.decode(expected.ids)
    assert clean.log_prob == pytest.approx(expected.log_prob, abs=1e-5)
    assert clean.n_tokens == len(expected.ids) + expected.finished


def test_the_first_token_is_no_newline_and_no_end(backbone: ct.Backbone) -> None:
    texts = backbone.generate(TEXTS, num=60, temperature=50.0, top_p=1, max_new_tokens=2)
    assert all(text.text and text.text[0] != "\n" for text in texts)
    assert any(text.text[1:] == "\n" for text in texts)
    assert any(text.finished for text in texts)


@pytest.mark.parametrize("settings", [{}, {"beams": 1}, {"sample": True, "seed": 5}])
def test_a_text_does_not_depend_on_what_else_is_asked_for(
    backbone: ct.Backbone, settings: dict[str, Any]
) -> None:
    settings = {**settings, "max_new_tokens": 12}
    together = backbone.generate([*TEXTS, "你"], batch_tokens=60, **settings)
    for text, made in zip([*TEXTS, "你"], together, strict=True):
        (alone,) = backbone.generate(text, **settings)
        assert (alone.text, alone.finished) == (made.text, made.finished)
        assert alone.log_prob == pytest.approx(made.log_prob, abs=1e-4)


def test_several_texts_of_a_prompt(backbone: ct.Backbone) -> None:
    beams = backbone.generate(TEXTS[:2], num=4, max_new_tokens=8)
    assert [(text.of, text.rank) for text in beams] == [(i, k) for i in range(2) for k in range(4)]
    assert len({text.text for text in beams}) == 8
    scores = [text.score for text in beams[:4]]
    assert scores == sorted(scores, reverse=True)
    drawn = backbone.generate(TEXTS[0], num=5, sample=True, seed=1, max_new_tokens=8)
    assert len({text.text for text in drawn}) > 1
    assert backbone.generate(TEXTS[0], num=5, sample=True, seed=1, max_new_tokens=8) == drawn
    (first,) = backbone.generate(TEXTS[0], sample=True, seed=1, max_new_tokens=8)
    assert first.text == drawn[0].text
    assert backbone.generate(TEXTS[0], num=5, sample=True, seed=2, max_new_tokens=8) != drawn


@pytest.mark.parametrize("settings", [{}, {"temperature": 1.2, "seed": 3}])
def test_a_stream_is_the_text(backbone: ct.Backbone, settings: dict[str, Any]) -> None:
    whole = backbone.generate(TEXTS[1], **({"beams": 1} | settings))[0]
    pieces = list(backbone.stream(TEXTS[1], **settings))
    assert "".join(pieces) == whole.text
    assert len(pieces) == whole.n_tokens - whole.finished


# --- blanks ---


def test_all_lengths_of_all_blanks_are_tried(backbone: ct.Backbone) -> None:
    plain = {"repetition_penalty": 1}
    (made,) = backbone.infill("今天__，我__上海__{1}", blank_tokens=(1, 2), **plain)
    each = [
        backbone.infill(f"今天____{{{a}}}，我____{{{b}}}上海____{{1}}", **plain)[0]
        for a in (1, 2)
        for b in (1, 2)
    ]
    best = max(each, key=lambda text: text.log_prob / text.n_tokens)
    assert (made.text, made.fills) == (best.text, best.fills)
    first, second, third = made.fills
    assert made.text == f"今天{first}，我{second}上海{third}"
    assert len({text.n_tokens for text in each}) == 3
    drawn = backbone.infill("今天____，我", num=6, sample=True, temperature=3.0)
    assert len({text.text for text in drawn}) > 1
    ranked = backbone.infill("今天____，我", num=6)
    assert [text.rank for text in ranked] == list(range(6))
    assert [text.score for text in ranked] == sorted((t.score for t in ranked), reverse=True)


# --- deltas ---


@pytest.fixture(scope="module")
def deltas(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One LoRA: saved as ours, as PEFT does, and merged."""
    place = tmp_path_factory.mktemp("deltas")
    backbone = ct.load_backbone(folder)
    delta = backbone.insert_delta("lora", lora_r=4, seed=3)
    with torch.no_grad():
        for parameter in delta.parameters.values():
            parameter.add_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1)))
    for name in ("own", "peft", "merged"):
        (place / name).mkdir()
    delta.save(place / "own")
    write_peft(place / "peft", backbone.model, delta.config, delta.state())
    merge(delta)
    write_native(
        place / "merged",
        backbone.model,
        (folder / "vocab.txt").read_text(encoding="utf-8"),
        trained=True,
    )
    return place


def test_saved_peft_and_merged_deltas_write_the_same(
    cli: CLI, folder: Path, deltas: Path, tmp_path: Path
) -> None:
    (tmp_path / "prompts.txt").write_text("\n".join(TEXTS) + "\n", encoding="utf-8")
    words = ("generate", "--input", tmp_path / "prompts.txt", "--greedy")
    said = {
        name: cli(*words, *more)
        for name, more in {
            "none": ("--backbone", folder),
            "own": ("--backbone", folder, "--delta-from", deltas / "own"),
            "peft": ("--backbone", folder, "--delta-from", deltas / "peft"),
            "merged": ("--backbone", deltas / "merged"),
        }.items()
    }
    assert {code for code, _, _ in said.values()} == {0}
    assert said["own"] == said["peft"] == said["merged"] != said["none"]
    assert len(said["own"][1].splitlines()) == len(TEXTS)


def test_a_delta_comes_out_again(backbone: ct.Backbone, deltas: Path) -> None:
    plain = backbone.generate(TEXTS)
    backbone.load_delta(deltas / "own")
    tuned = backbone.generate(TEXTS)
    backbone.load_delta(deltas / "peft")
    assert [t.text for t in backbone.generate(TEXTS)] == [t.text for t in tuned]
    assert [t.text for t in tuned] != [t.text for t in plain]
    backbone.remove_delta()
    assert backbone.generate(TEXTS) == plain


def test_a_soft_prompt_stands_where_training_has_it(backbone: ct.Backbone) -> None:
    settings = {"soft_token_num": 4, "slots": ["front", "back"], "ratio_list": [1, 3]}
    backbone.insert_delta("soft_prompt", **settings)
    table = VOCAB + backbone.folder.config.prompt_types * PROMPT
    ids = backbone.tokenizer.encode(TEXTS[0])
    soft = [*range(table, table + 4)]
    expected = generate(
        backbone.model,
        [(*prefix([soft[0], *ids]), *soft[1:])],
        Request(
            Decoding(beams=1, repetition_penalty=1.2, min_new_tokens=1),
            AntLayout((), PROMPT, 2, 0),
            stop=frozenset({backbone.tokenizer.eos}),
            banned=frozenset(backbone.tokenizer.never_written),
            not_first=frozenset({VOCABULARY.index("</n>")}),
        ),
    )[0][0]
    assert backbone.generate(TEXTS[0], beams=1)[0].log_prob == pytest.approx(expected.log_prob)
    with pytest.raises(UserError, match="blanks have no such place"):
        backbone.infill("今天____")


@pytest.fixture(scope="module")
def run(small_backbone: Path, tmp_path_factory: pytest.TempPathFactory) -> ct.Run:
    settings = {"train.max_steps": 2, "train.eval_every": 2, "encode.prompt_type": 1}
    return ct.tune(
        "ccpm",
        "lora",
        backbone=small_backbone,
        out=tmp_path_factory.mktemp("runs"),
        controls=(),
        limit=12,
        settings=settings,
    )


def test_a_run_scores_and_writes(run: ct.Run, cli: CLI, small_backbone: Path) -> None:
    assert ct.load_run(run.folder) == run
    scores = run.score("test", limit=12)
    assert scores["accuracy"].value == run.test.value
    backbone = run.backbone()
    code, said, _ = cli("generate", "春风", "--delta-from", run.folder, "--max-new-tokens", "7")
    assert code == 0
    assert said == backbone.generate("春风", max_new_tokens=7)[0].text + "\n"
    other = ct.load_backbone(small_backbone)
    other.load_delta(run.folder)
    assert other.generate("春风") == backbone.generate("春风")
    writer = backbone._writer(None)
    start = backbone.folder.config.vocab_size + backbone.folder.config.prompt_length
    assert writer.layout.start[0] == start  # the run's own prompt type, 1


def test_a_backbone_that_is_not_the_runs_is_named_with_the_one_that_is(
    run: ct.Run, cli: CLI, folder: Path, deltas: Path
) -> None:
    own = run.record.backbone
    assert own.name == "small"
    code, _, error = cli("generate", "春风", "--delta-from", run.folder, "--backbone", folder)
    assert (code, error.count("\n")) == (2, 1)
    assert f"--backbone {folder} (sha256 " in error
    assert f"its delta was tuned on backbone small (sha256 {own.sha256[:12]}…)" in error
    assert f"omit --backbone to use {own.path}" in error
    with pytest.raises(UserError, match=r"tuned on backbone small \(sha256 .*not on the one here"):
        ct.load_backbone(folder).load_delta(run.folder)
    given = ("generate", "春风", "--delta-from", deltas / "own", "--backbone", own.path)
    assert "tuned on another backbone (sha256 " in cli(*given)[2]


def test_a_delta_of_random_weights_is_refused_elsewhere(run: ct.Run, tmp_path: Path) -> None:
    record = run.record.model_dump(mode="json")
    record["spec"]["backbone"]["init"] = "random"
    for file in run.folder.glob("delta.*"):
        (tmp_path / file.name).write_bytes(file.read_bytes())
    from cpm_tune.schema.record import RunRecord, write_record

    spec = type(run.record.spec).model_validate(record["spec"])
    changed = {**record, "run_id": spec.run_id, "spec_sha256": spec.sha256}
    write_record(tmp_path, RunRecord.model_validate(changed))
    backbone = ct.load_backbone(run.record.backbone.path)
    with pytest.raises(UserError, match="random weights"):
        backbone.load_delta(tmp_path)


# --- files in and out ---


def test_prompts_and_texts_go_through_files(
    cli: CLI, folder: Path, backbone: ct.Backbone, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = [str(text) for text in backbone.generate(TEXTS[:3], num=2, max_new_tokens=9)]
    rows = [{"id": f"p{i}", "prompt": text} for i, text in enumerate(TEXTS[:3])]
    source, out = tmp_path / "prompts.jsonl", tmp_path / "texts.jsonl"
    source.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    words = ("generate", "--backbone", folder, "--num", "2", "--max-new-tokens", "9")
    code, said, _ = cli(*words, "--input", source, "--out", out)
    assert (code, said) == (0, f"written    {out}  6 texts\n")
    written = [json.loads(line) for line in out.read_text(encoding="utf-8").splitlines()]
    assert [row["text"] for row in written] == expected
    assert [(row["id"], row["rank"]) for row in written[:3]] == [("p0", 0), ("p0", 1), ("p1", 0)]
    assert {"prompt", "log_prob", "tokens", "finished"} < set(written[0])
    piped = ("\r\n".join(TEXTS[:3]) + "\r\n").encode()
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(piped)))
    code, said, _ = cli(*words)
    assert said.splitlines() == [text.replace("\n", "\\n") for text in expected]
    assert {path.name for path in tmp_path.iterdir()} == {source.name, out.name}


def test_blanks_and_what_is_left_out_on_the_command_line(
    cli: CLI, folder: Path, backbone: ct.Backbone
) -> None:
    text = "今天____{2}龘，我"
    code, said, warned = cli("generate", "--backbone", folder, "--infill", text, "--jsonl")
    assert code == 0
    row = json.loads(said)
    assert row["fills"] == list(backbone.infill(text)[0].fills)
    assert "lacks 龘; left out" in warned
    code, said, _ = cli("generate", "--backbone", folder, TEXTS[1], "--greedy", "--stream")
    assert said == backbone.generate(TEXTS[1], beams=1)[0].text + "\n"


def test_a_memory_limit_changes_no_text(cli: CLI, folder: Path, deltas: Path) -> None:
    words = ("generate", "--backbone", folder, "--delta-from", deltas / "own", TEXTS[1])
    _, _, refused = cli(*words, "--memory-limit", "1KB")
    (least,) = re.findall(r"needs (\S+),", refused)
    code, said, _ = cli(*words, "--memory-limit", least)
    assert code == 0
    assert said == cli(*words)[1]


def test_a_text_that_cannot_be_put_in_place_leaves_nothing(
    cli: CLI, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*places: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("os.replace", refuse)
    code, _, error = cli("generate", "--backbone", folder, "今天", "--out", tmp_path / "texts")
    assert code == 2
    assert "texts: cannot be written (Permission denied)" in error
    assert not list(tmp_path.iterdir())


def test_the_interface_is_light_until_it_is_used() -> None:
    code = """
import sys
import cpm_tune as ct
assert {"load_backbone", "tune", "load_run"} <= set(dir(ct))
heavy = {"torch", "transformers", "opendelta", "numpy", "pydantic", "jieba"}
assert not heavy & set(sys.modules), heavy & set(sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    with pytest.raises(AttributeError, match="no attribute 'generat'"):
        _ = ct.generat
