"""Damages backbone and delta folders, and runs every reader of them over each.

    python tests/fuzz_checkpoints.py --n 20000     # so many damaged folders; --seed N for others

test_fuzz_checkpoints.py does a few. Whatever a folder contains, opening and reading it ends with a
result or a UserError, within seconds and a bound of memory.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import random
import resource
import shutil
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cpm1_oracle as cpm1
import cpm2_ranks as cpm2
import torch
from backbone_oracle import CONFIG, VOCABULARY_TEXT, random_hugging_face, write_reference
from fuzz_records import EVIL, damaged, mangled

from cpm_tune.backbone.ant.checkpoint import load_weights, save_native
from cpm_tune.backbone.ant.config import ROLES
from cpm_tune.backbone.ant.convert import convert
from cpm_tune.backbone.ant.folder import open_folder
from cpm_tune.backbone.causal.megatron import gpt2_config, read_checkpoint, write_checkpoint
from cpm_tune.backbone.encdec import cpm2_ranks
from cpm_tune.backbone.encdec.config import EncDecConfig
from cpm_tune.backbone.opening import random_backbone
from cpm_tune.backbone.ranks.files import is_cpm2
from cpm_tune.delta.config import (
    AdapterConfig,
    CompacterConfig,
    LoraConfig,
    PrefixConfig,
    SoftPromptConfig,
    with_names,
)
from cpm_tune.delta.foreign import write_opendelta, write_peft
from cpm_tune.delta.insert import insert, like
from cpm_tune.delta.saved import read_saved
from cpm_tune.errors import UserError

SECONDS, MEMORY = 5.0, 2 * 2**30
SHA = "0" * 64
DELTAS = (
    LoraConfig(lora_r=2),
    AdapterConfig(bottleneck_dim=2),
    CompacterConfig(reduction_factor=2, hypercomplex_division=2),
    PrefixConfig(reparameterize=True, embed_dim=4, mid_dim=4),
    SoftPromptConfig(soft_token_num=6, token_init="random"),
)
NUMBERS = (0, -1, 1, 7, 10**7, 2**31 - 1, 2**31, 2**40, 2**63, 10**30, 0.5, True, "8", None, [1])


def originals(place: Path) -> list[Path]:
    """One folder of every form, backbones first."""
    model = random_backbone(CONFIG, 1, torch.float32)
    theirs = random_hugging_face()
    save_native(place / "native", model, VOCABULARY_TEXT, trained=True)
    write_reference(place / "reference", theirs)
    theirs.save_pretrained(place / "hf")
    theirs.save_pretrained(place / "shards", max_shard_size="8KB")
    (place / "pickled").mkdir()
    shutil.copy(place / "hf" / "config.json", place / "pickled")
    torch.save(
        theirs.state_dict(),
        place / "pickled" / "pytorch_model.bin",
        _use_new_zipfile_serialization=False,
    )
    for name in ("hf", "shards", "pickled"):
        (place / name / "vocab.txt").write_text(VOCABULARY_TEXT, encoding="utf-8")
    for zipped in (False, True):
        for name, iteration, written in (
            ("ranks", "80000", cpm1.write_ranks(place / "a", cpm1.random_ranks(2), zipped=zipped)),
            ("cpm2", "100000", cpm2.write_ranks(place / "b", cpm2.random_ranks(2), zipped=zipped)),
        ):
            (written / iteration).rename(place / f"{name}.{zipped}")
            shutil.rmtree(written)
    folder = open_folder(place / "native")
    for config in DELTAS:
        config = with_names(config, ROLES)
        delta = insert(model, config, folder.sha256(), 1)
        kind = config.delta_type
        delta.save(place / f"delta.{kind}")
        if isinstance(config, LoraConfig | AdapterConfig | CompacterConfig):
            out = place / f"opendelta.{kind}"
            out.mkdir()
            write_opendelta(out, model, config, delta.state())
        if isinstance(config, LoraConfig):
            for name in ("peft", "delta.best"):
                (place / name).mkdir()
            write_peft(place / "peft", model, config, delta.state())
            torch.save(delta.state(), place / "delta.best" / "best.pt")
        delta.remove()
    return sorted(place.iterdir())


def damaged_json(noise: random.Random, raw: bytes) -> bytes:
    """JSON with a few values replaced, or its bytes spoilt."""
    values = json.loads(raw)
    for _ in range(noise.choice([1, 1, 2, 4])):
        if isinstance(values, dict) and values and noise.random() < 0.6:
            key = noise.choice(sorted(values))
            values = {**values, key: noise.choice(NUMBERS) if noise.random() < 0.5 else
                      damaged(noise, values[key])}  # fmt: skip
        else:
            values = damaged(noise, values)
    with contextlib.suppress(ValueError):
        raw = json.dumps(values).encode(errors="surrogatepass")
    return mangled(noise, raw, 0.1)


def damaged_safetensors(noise: random.Random, raw: bytes) -> bytes:
    """A safetensors file with a damaged header, or damaged bytes."""
    size = int.from_bytes(raw[:8], "little")
    if noise.random() < 0.8:
        header = damaged_json(noise, raw[8 : 8 + size])
        length = len(header) if noise.random() < 0.9 else noise.choice([0, 7, 2**24, 2**40, 2**63])
        return length.to_bytes(8, "little") + header + raw[8 + size :]
    return mangled(noise, raw, 1)


def damaged_bytes(noise: random.Random, raw: bytes) -> bytes:
    """Some bytes changed, removed, doubled or inserted."""
    made = bytearray(raw)
    for _ in range(noise.choice([1, 2, 5, 20])):
        at = noise.randrange(len(made) + 1)
        match noise.randrange(4):
            case 0:
                made[at : at + 1] = noise.randbytes(1)
            case 1:
                del made[at : at + noise.choice([1, 3, 50])]
            case 2:
                made[at:at] = made[at : at + noise.choice([1, 3, 50])]
            case _:
                made[at:at] = noise.choice([b"(", b"}", b"]", b"R", b"b", b"s", b"2", b"0", b"l",
                    b"K\xff", b"J\xff\xff\xff\x7f", b"\x8a\x08" + b"\x7f" * 8, b"cos\nsystem\n",
                    b"\x85R", b"q\x00", b"h\x00", b"t", b"\x94", b"\x93", b"Q"])  # fmt: skip
    return bytes(made)


def damaged_pickle(noise: random.Random, file: Path) -> None:
    """torch.save's file with damaged operations, or damaged bytes."""
    raw = file.read_bytes()
    if raw[:2] != b"PK" or noise.random() < 0.1:
        end = min(len(raw), 20_000)  # where the operations are
        file.write_bytes(damaged_bytes(noise, raw[:end]) + raw[end:])
        return
    with zipfile.ZipFile(file) as old:
        records = {record.filename: old.read(record) for record in old.infolist()}
    with zipfile.ZipFile(file, "w") as new:
        for name, content in records.items():
            if name.endswith("data.pkl"):
                content = damaged_bytes(noise, content)
            elif noise.random() < 0.02:
                content = content[: len(content) // 2]
            elif noise.random() < 0.02:
                continue
            kind = zipfile.ZIP_DEFLATED if noise.random() < 0.02 else zipfile.ZIP_STORED
            new.writestr(name, content, kind)


def damage(noise: random.Random, folder: Path) -> None:
    """Damage one or two files of a folder."""
    for _ in range(noise.choice([1, 1, 1, 2])):
        files = sorted(file for file in folder.iterdir() if file.is_file())
        if not files:
            return
        file = noise.choice(files)
        if noise.random() < 0.02:
            file.unlink()
        elif noise.random() < 0.02:
            file.write_bytes(noise.choice([b"", b"\x00" * 99, str(noise.choice(EVIL)).encode(
                errors="replace")]))  # fmt: skip
        elif file.suffix == ".json":
            with contextlib.suppress(ValueError):
                file.write_bytes(damaged_json(noise, file.read_bytes()))
        elif file.suffix == ".safetensors":
            with contextlib.suppress(ValueError):
                file.write_bytes(damaged_safetensors(noise, file.read_bytes()))
        elif file.suffix in (".pt", ".bin"):
            with contextlib.suppress(Exception):  # of zipfile, for a file that is damaged already
                damaged_pickle(noise, file)
        else:
            file.write_bytes(damaged_bytes(noise, file.read_bytes()))


def read(folder: Path, out: Path, model: Any) -> None:
    """What a command does with such a folder."""
    if any(part in folder.name for part in ("delta", "peft")):
        config, state = read_saved(folder, like(model), SHA)
        delta = insert(model, config, SHA, 0, values=state)
        delta.remove()
        return
    if "ranks" in folder.name:
        shape, weights = read_checkpoint(folder)
        out.mkdir()
        write_checkpoint(out, weights, cpm1.HEADS, 1)
        gpt2_config(shape, cpm1.HEADS)
        return
    if "cpm2" in folder.name:
        is_cpm2(folder)
        sizes, weights = cpm2_ranks.read_checkpoint(folder)
        out.mkdir()
        values = cpm2_ranks.mt5_config(sizes)
        EncDecConfig.of(values)
        cpm2_ranks.write_checkpoint(out, weights, values, 1, 1)
        return
    opened = open_folder(folder)
    opened.tokenizer().encode("今天天气不错 abc\n")
    opened.sha256()
    load_weights(opened, torch.float32)
    convert(opened, out, "native" if len(opened.weights) % 2 else "hf")


class SlowError(Exception):
    """A reader took too long."""


def check(folder: Path, out: Path, model: Any) -> None:
    """Read a folder; raise whatever is not a UserError of one line, and SlowError."""
    began = time.thread_time()
    try:
        read(folder, out, model)
    except UserError as error:
        if len(str(error)) > 4_000:
            raise ValueError(f"a sentence of {len(str(error))} characters") from error
    if (seconds := time.thread_time() - began) > SECONDS:
        raise SlowError(f"{seconds:.1f} s")


def run(n: int, seed: object, report: Callable[[str, Exception], None]) -> None:
    """Read `n` damaged folders."""
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as temporary:
        place = Path(temporary)
        (place / "originals").mkdir()
        folders = originals(place / "originals")
        global SHA
        SHA = open_folder(place / "originals" / "native").sha256()
        model = random_backbone(CONFIG, 1, torch.float32)
        for number in range(n):
            noise = random.Random(f"{seed} {number}")
            source = folders[noise.randrange(len(folders))]
            folder = place / source.name
            shutil.copytree(source, folder)
            damage(noise, folder)
            try:
                check(folder, place / "out", model)
            except Exception as error:
                report(f"{seed} {number} {source.name}", error)
            shutil.rmtree(folder)
            shutil.rmtree(place / "out", ignore_errors=True)


def bound_memory() -> None:
    """Let allocations fail that would take much more memory than the process has now."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    most = pages * resource.getpagesize() + MEMORY
    resource.setrlimit(resource.RLIMIT_AS, (most, most))


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--n", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--keep", action="store_true", help="go on after a failure")
    options = parser.parse_args()
    if sys.platform == "linux":
        bound_memory()
    failures = 0

    def report(which: str, error: Exception) -> None:
        nonlocal failures
        failures += 1
        print(f"{which}: {type(error).__name__}: {str(error)[:300]}", flush=True)
        if not options.keep:
            raise error

    run(options.n, options.seed, report)
    print(f"{options.n:,} damaged folders, {failures} failures")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
