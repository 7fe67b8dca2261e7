"""The cache of encoded rows: the same examples as without it, never a wrong one, whatever happens
to its files."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from conftest import CLI, encoder_of, small_config, vocabulary

from cpm_tune.backbone.ant.tokenizer import Tokenizer
from cpm_tune.backbone.example import Answer, Example
from cpm_tune.common.paths import cache_dir
from cpm_tune.data import encoded as module
from cpm_tune.data.encode import Encoder
from cpm_tune.data.encoded import Use, encoded, encoded_at, keep_encoded
from cpm_tune.data.example_store import EncodedCache
from cpm_tune.data.splits import find_splits, sample_folder
from cpm_tune.data.store import RowDataset, read_split
from cpm_tune.schema.spec import Encoding
from cpm_tune.task.registry import load_task

USES: tuple[Use, ...] = ("train", "score", "prefix")
LCQMC = load_task("lcqmc")


@pytest.fixture(autouse=True)
def _empty_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def read(name: str = "lcqmc", n: int | None = 20, folder: Path | None = None) -> RowDataset:
    task = load_task(name)
    file = find_splits(task, folder or sample_folder(task), ("train",))["train"]
    return read_split(task, file, n).rows


def encoder_for(
    name: str = "lcqmc",
    words: Sequence[str] = (),
    version: int | None = None,
    answer_tokens: int = 12,
    **encoding: int,
) -> Encoder:
    task = load_task(name)
    template = task.templates[0]
    template = replace(template, version=version or template.version)
    tokenizer = Tokenizer([*vocabulary(), *words])
    config = small_config(vocab_size=len(tokenizer))
    settings = Encoding(**{"max_length": 200, **encoding})
    return encoder_of(task, template, settings, config, tokenizer, answer_tokens)


def plain(rows: RowDataset, encoder: Encoder, use: Use) -> list[Example]:
    if use != "prefix":
        return [encoder.encode(row, train=use == "train") for row in rows]
    return [encoder.prefix(row) for row in rows]


def examples(rows: RowDataset, encoder: Encoder, use: Use = "train") -> list[Example]:
    return [example for _, example in encoded(rows, encoder, use)]


def n_encoded(monkeypatch: pytest.MonkeyPatch, rows: RowDataset, encoder: Encoder) -> int:
    """How many rows are encoded to get them all; what comes out has to be right."""
    wanted = plain(rows, encoder, "train")
    calls = []
    own = module._encode
    with monkeypatch.context() as patch:
        patch.setattr(module, "_encode", lambda *given: calls.append(given) or own(*given))
        assert examples(rows, encoder) == wanted
    return len(calls)


def files() -> list[Path]:
    return sorted(cache_dir("encoded").iterdir())


# --- the same as without ---


@pytest.mark.parametrize("name", ["lcqmc", "c3", "sogou_log", "math23k"])
def test_examples_of_every_kind_come_back_as_they_were(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = read(name)
    for use in USES:
        wanted = plain(rows, encoder_for(name), use)
        assert examples(rows, encoder_for(name), use) == wanted
        with monkeypatch.context() as patch:
            patch.setattr(module, "_encode", None)  # nothing is encoded any more
            assert examples(rows, encoder_for(name), use) == wanted
            some = (7, 0, 3, 7)
            again = encoded_at(rows, some, encoder_for(name), use)
            assert again == [wanted[k] for k in some]
            part = rows.share(1, 3).share(1, 2).first(2)
            assert examples(part, encoder_for(name), use) == [wanted[4], wanted[10]]
    assert len(files()) == len(USES)


def test_a_run_from_the_cache_ends_with_the_same_bytes(
    cli: CLI, data: Path, small_backbone: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = []
    for out in (tmp_path / "first", tmp_path / "second"):
        code, _, _ = cli(
            *("--task", "lcqmc", "--delta", "lora", "--data", data, "--out", out),
            *("--backbone", small_backbone, "--set", "train.epochs=1", "--control", "none"),
        )
        assert code == 0
        (run,) = out.glob("lcqmc.*")
        found.append(
            [run.name]
            + [(run / name).read_bytes() for name in ("delta.safetensors", "log.jsonl")][:1]
            + [file.read_bytes() for file in sorted(run.glob("predictions.*"))]
            + [json.loads((run / "run.json").read_text())[key] for key in ("scores", "data")]
        )
        monkeypatch.setattr(module, "_encode", None)
    assert found[0] == found[1]


# --- what makes other files ---


def test_what_is_another_encoding_is_not_taken_from_the_cache(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    rows = read()
    assert n_encoded(monkeypatch, rows, encoder_for()) == 20
    assert n_encoded(monkeypatch, rows, encoder_for()) == 0
    others: list[dict[str, Any]] = [
        {"version": 99},
        {"words": ["蜥蜴"]},
        {"max_length": 60},
        {"prompt_type": 1},
        {"answer_tokens": 13},
    ]
    for other in others:
        assert n_encoded(monkeypatch, rows, encoder_for(**other)) == 20, other
    (sample,) = find_splits(LCQMC, sample_folder(LCQMC), ("train",))["train"].paths
    text = sample.read_text(encoding="utf-8")
    (tmp_path / sample.name).write_text(text.replace("？", "?", 1), encoding="utf-8")
    assert n_encoded(monkeypatch, read(folder=tmp_path), encoder_for()) == 20
    assert n_encoded(monkeypatch, rows, encoder_for()) == 0


# --- files that are not right ---


def test_a_damaged_file_is_never_trusted_and_made_again(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = read()
    examples(rows, encoder_for())
    (file,) = files()
    whole = file.read_bytes()
    damaged = [b"", whole[:10], whole[:-1], whole + b"\0", whole[len(whole) // 2 :]]
    for at in range(0, len(whole), len(whole) // 23):
        damaged.append(whole[:at] + bytes([whole[at] ^ 0x40]) + whole[at + 1 :])
    for content in damaged:
        file.write_bytes(content)
        n_encoded(monkeypatch, rows, encoder_for())
        assert file.read_bytes() == whole
        assert n_encoded(monkeypatch, rows, encoder_for()) == 0
    assert files() == [file]


def test_a_file_cut_short_while_it_is_in_use_harms_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    rows = read()
    examples(rows, encoder_for())
    (file,) = files()
    encoder = encoder_for()
    encoded_at(rows, (0,), encoder, "train")
    os.truncate(file, 100)
    assert n_encoded(monkeypatch, rows, encoder) > 10


def test_processes_at_the_same_rows_complete_each_other(monkeypatch: pytest.MonkeyPatch) -> None:
    rows, ours, theirs = read(), encoder_for(), encoder_for()
    encoded_at(rows, range(8), ours, "train")
    encoded_at(rows, range(5, 20), theirs, "train")
    assert files() == []
    keep_encoded(ours)
    keep_encoded(theirs)
    assert len(files()) == 1
    assert n_encoded(monkeypatch, rows, encoder_for()) == 0


def test_a_few_more_rows_do_not_write_a_file_again(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = read(n=None).first(100)
    for upto, kept in ((80, 80), (83, 80), (95, 95)):
        encoder = encoder_for()
        encoded_at(rows, range(upto), encoder, "train")
        keep_encoded(encoder)
        assert n_encoded(monkeypatch, rows, encoder_for()) == 100 - kept


def test_a_few_rows_of_very_many_leave_no_index_of_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A step on a file of millions of rows must not end with work for each of them."""
    example = Example("1", ((1, 2),), (Answer(0, (3,)),), 0, False)
    for n, there in ((5_000_000, False), (2_000, True)):
        path = tmp_path / f"{n}.bin"
        cache = EncodedCache(path, n)
        cache.put(n - 1, example)
        assert cache.get(n - 1) == example
        cache.publish()
        assert path.exists() == there
        assert cache.get(n - 1) == example


def test_records_are_written_and_read_again_wherever_they_are(tmp_path: Path) -> None:
    path, n = tmp_path / "some.bin", 3_000
    cache = EncodedCache(path, n)
    for number in (0, 1_234, n - 1):
        cache.put(number, Example(str(number), ((1, 2),), (Answer(0, (3,)),), 0, False))
    cache.publish()
    again = EncodedCache(path, n)
    present = {k: e.id for k in range(n) if (e := again.get(k)) is not None}
    assert present == {0: "0", 1_234: "1234", n - 1: str(n - 1)}
    path.write_bytes(path.read_bytes()[:-5])
    assert all(EncodedCache(path, n).get(k) is None for k in present)


def test_a_disk_that_takes_nothing_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*given: Any) -> int:
        raise OSError(28, "No space left on device")

    rows = read()
    with monkeypatch.context() as patch:
        patch.setattr(os, "pwrite", full)
        assert n_encoded(monkeypatch, rows, encoder_for()) == 20
    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", full)
        assert n_encoded(monkeypatch, rows, encoder_for()) == 20
    assert files() == []
    assert n_encoded(monkeypatch, rows, encoder_for()) == 20
