"""The Python interface, misused: each mistake is a UserError of one sentence."""

from __future__ import annotations

import io
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from backbone_oracle import random_hugging_face, rewrite_json, write_hugging_face
from conftest import CLI

import cpm_tune as ct
from cpm_tune.common.writing import write_atomically
from cpm_tune.delta.config import LoraConfig
from cpm_tune.runs.export import export_run
from cpm_tune.runs.rerun import predict_run
from cpm_tune.schema.walk import iter_records

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_hugging_face(tmp_path_factory.mktemp("backbone") / "hf", random_hugging_face(1))


@pytest.fixture(scope="module")
def backbone(folder: Path) -> ct.Backbone:
    return ct.load_backbone(folder)


WRITING: dict[str, tuple[Callable[[Any], Any], str]] = {
    "no text": (lambda b: b.generate(None), "prompts is None, expected a text"),
    "bytes": (lambda b: b.generate(b"ab"), "expected a text"),
    "a number among texts": (lambda b: b.generate(["今天", 3]), "prompt 2 is 3, expected a text"),
    "half a character": (lambda b: b.generate("今\ud800"), "character 2 is half a surrogate"),
    "names for others": (lambda b: b.generate("今天", where=["a", "b"]), "where names 2 prompts"),
    "num as text": (lambda b: b.generate("今天", num="2"), "num is '2', expected a whole number"),
    "half a text": (lambda b: b.generate("今天", num=2.5), "num is 2.5"),
    "beams as text": (lambda b: b.generate("今天", beams="x"), "beams is 'x'"),
    "seed as text": (lambda b: b.generate("今天", seed="x"), "seed is 'x'"),
    "a length as text": (lambda b: b.generate("今天", max_length="9"), "max_length is '9'"),
    "a batch as text": (lambda b: b.generate("今天", batch_tokens="9"), "batch_tokens is '9'"),
    "a stream of a list": (lambda b: b.stream(["今天"]), "expected one text"),
    "blanks as text": (lambda b: b.infill("今____", blank_tokens="2"), "blank_tokens is '2'"),
    "three lengths": (lambda b: b.infill("今____", blank_tokens=(1, 2, 3)), "blank_tokens is (1"),
    "a number as limit": (lambda b: ct.Backbone(b.folder, memory_limit=4), "memory_limit is '4'"),  # type: ignore[arg-type]
    "fewer bits": (lambda b: ct.Backbone(b.folder, quantize="int4"), "'int4', expected int8"),
    "an option that is none": (lambda b: ct.tune("lcqmc", limt=3), "Did you mean 'limit'?"),
    "settings as a list": (lambda b: ct.tune("lcqmc", settings=["x=1"]), "settings is not a dict"),  # type: ignore[arg-type]
    "no such format": (lambda b: export_run(Path("r"), "pefft", Path("o")), "Did you mean 'peft'?"),
    "no such split": (lambda b: predict_run(Path("r"), split="tests"), "Did you mean 'test'?"),
    "a table of nothing": (lambda b: ct.as_dataframe(None), "results is None, expected a path"),  # type: ignore[arg-type]
    "a table of a number": (lambda b: ct.as_dataframe(3), "results is 3, expected a path"),  # type: ignore[arg-type]
    "no folder of a run": (lambda b: ct.load_run("/nope"), "/nope: there is no such folder."),
    "a folder of no run": (
        lambda b: ct.load_run(b.folder.path),
        "not a run's folder (run.json is missing).",
    ),
    "a file as a run": (lambda b: ct.load_run(__file__), "a file, expected the folder of a run."),
    "a file as a backbone": (lambda b: ct.load_backbone(__file__), "a file, expected a folder."),
    "a file of results": (
        lambda b: list(iter_records(Path(__file__), [])),
        "a file, expected a results folder.",
    ),
    "a chat with CPM-Ant": (lambda b: b.generate("今", chat_template="own"), "leave it out."),
    "fewer than no rows": (lambda b: predict_run(Path("r"), limit=-1), "limit is -1"),
}


@pytest.mark.parametrize("mistake", WRITING)
def test_a_mistake_is_one_sentence(backbone: ct.Backbone, mistake: str) -> None:
    call, said = WRITING[mistake]
    with pytest.raises(ct.UserError) as caught:
        call(backbone)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_delta_that_was_taken_out_is_not_saved_as_nothing(
    backbone: ct.Backbone, tmp_path: Path
) -> None:
    first = backbone.insert_delta("lora")
    (tmp_path / "file").touch()
    with pytest.raises(ct.UserError, match=r"file: cannot be written \(File exists\)"):
        first.save(tmp_path / "file")
    backbone.insert_delta("bitfit")
    with pytest.raises(ct.UserError, match="this delta was removed"):
        first.save(tmp_path / "delta")
    assert not (tmp_path / "delta").exists()
    backbone.remove_delta()


def _cut(place: Path) -> None:
    (place / "delta.safetensors").write_bytes(b"cut")


def _of_another_rank(place: Path) -> None:
    rewrite_json(place / "delta.json", config=lora(lora_r=3))


def _of_other_modules(place: Path) -> None:
    rewrite_json(place / "delta.json", config=lora(modified_modules=["project_z"]))


def _of_another_backbone(place: Path) -> None:
    rewrite_json(place / "delta.json", backbone_sha256="1" * 64)


def lora(**changes: object) -> dict[str, object]:
    return {**LoraConfig(lora_r=2).model_dump(mode="json"), **changes}


CHANGES: dict[str, Callable[[ct.Backbone, Path], Any]] = {
    **{
        change.__name__.strip("_"): lambda b, place, change=change: (
            change(place),
            b.load_delta(place),
        )
        for change in (_cut, _of_another_rank, _of_other_modules, _of_another_backbone)
    },
    "nowhere": lambda b, place: b.load_delta(place / "nowhere"),
    "no path": lambda b, _: b.load_delta(None),
    "no such module": lambda b, _: b.insert_delta("lora", modified_modules=["project_z"]),
    "a text of nothing": lambda b, _: b.insert_delta(
        "soft_prompt", token_init="text", init_text="龘€"
    ),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_delta_that_cannot_be_put_in_leaves_the_one_that_is_there(
    backbone: ct.Backbone, tmp_path: Path, change: str
) -> None:
    backbone.insert_delta("lora", lora_r=2).save(tmp_path)
    first = backbone.insert_delta("bitfit", seed=4)
    with torch.no_grad():
        for parameter in first.parameters.values():
            parameter.add_(0.5)
    before = {name: value.clone() for name, value in backbone.model.state_dict().items()}
    trained = {n: (p, p.requires_grad) for n, p in backbone.model.named_parameters()}
    texts = backbone.generate("今天", max_new_tokens=4)
    with pytest.raises(ct.UserError):
        CHANGES[change](backbone, tmp_path)
    assert backbone.delta is first
    after = backbone.model.state_dict()
    assert after.keys() == before.keys()
    assert all(torch.equal(after[name], value) for name, value in before.items())
    now = dict(backbone.model.named_parameters())
    assert all(now[n] is p and p.requires_grad == flag for n, (p, flag) in trained.items())
    assert backbone.generate("今天", max_new_tokens=4) == texts
    backbone.remove_delta()


def test_an_insertion_that_is_broken_off_leaves_nothing_of_itself(
    backbone: ct.Backbone, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    backbone.insert_delta("lora", lora_r=2).save(tmp_path)
    backbone.remove_delta()
    before = {name: value.clone() for name, value in backbone.model.state_dict().items()}

    def broken_off(parameter: torch.Tensor, whole: torch.Tensor) -> None:
        if not parameter.is_meta:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("cpm_tune.delta.insert.fill", broken_off)
        with pytest.raises(KeyboardInterrupt):
            backbone.load_delta(tmp_path)
    assert backbone.delta is None
    after = backbone.model.state_dict()
    assert after.keys() == before.keys()
    assert all(torch.equal(after[name], value) for name, value in before.items())
    backbone.load_delta(tmp_path)
    backbone.remove_delta()


# --- output that is no ordinary file ---


def test_a_pipe_is_written_to_and_a_link_stays_a_link(tmp_path: Path) -> None:
    pipe, link = tmp_path / "pipe", tmp_path / "link"
    os.mkfifo(pipe)
    writer = threading.Thread(target=write_atomically, args=(pipe, "text"))
    writer.start()
    assert pipe.read_text() == "text"
    writer.join()
    assert pipe.is_fifo()
    link.symlink_to(tmp_path / "file")
    write_atomically(link, "text")
    assert link.is_symlink()
    assert (tmp_path / "file").read_text() == "text"


def test_a_full_disk_is_one_sentence(
    cli: CLI, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("cpm_tune.commands.generate._put_out", full)
    code, _, error = cli("generate", "--backbone", folder, "今天")
    assert code == 1
    assert error == "error: the output cannot be written (No space left on device); make room.\n"


def test_what_is_left_out_is_shown_without_control_characters(
    cli: CLI, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO("今天\x01\x1b".encode())))
    code, _, error = cli("generate", "--backbone", folder)
    assert code == 0
    assert r"lacks \x01 \x1b; left out" in error


@pytest.mark.parametrize("controls", ["zero-shot", ("zero_shot",), (1,)])
def test_controls_that_do_not_exist_are_rejected(controls: Any, tmp_path: Path) -> None:
    with pytest.raises(
        ct.UserError, match=r"controls is .*expected a list of zero-shot and random"
    ):
        ct.tune("lcqmc", "lora", controls=controls, out=tmp_path)
