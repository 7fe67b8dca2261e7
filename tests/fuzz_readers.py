"""Damages data files of every kind and runs the readers of every task over them.

    python tests/fuzz_readers.py --n 20000     # so many damaged files; --seed N for others

test_fuzz_readers.py does a few. Whatever a file contains, a reader gives rows or a UserError with
the file's name, within 5 seconds.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import shutil
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from functools import cache
from itertools import islice
from pathlib import Path
from typing import Any

from fuzz_records import EVIL, LINES, damaged

from cpm_tune.commands.list_ import look
from cpm_tune.data.files import checked_rows, official_records
from cpm_tune.data.prompts import read_prompts
from cpm_tune.data.readers import Layout
from cpm_tune.data.splits import find_splits, sample_folder
from cpm_tune.data.store import read_split
from cpm_tune.errors import UserError
from cpm_tune.systems.submission import read_answers
from cpm_tune.task import SPLITS, Task
from cpm_tune.task.registry import load_tasks

SLOWEST = 5.0  # seconds for one reading of one folder
N_RECORDS = 12
ENDINGS = (".jsonl", ".json", ".jsonline", ".tsv", ".txt", ".csv", ".utf8", ".dat", ".en", ".zh")
DOC = (
    "<doc id={i}>\n    <human_label>{score}</human_label>\n    <summary>\n        {i}号线\n"
    "    </summary>\n    <short_text>\n        {i}号线明年开通。\n    </short_text>\n</doc>\n"
)
WORDS = ("一", "二号线", "a b", '"', '""', "1", "0", "-1", "标题", "text", "sentence1", "是", "，")


@cache
def tasks() -> list[Task]:
    """Every task."""
    return load_tasks()


@cache
def originals(name: str) -> tuple[tuple[str, tuple[Path, ...]], ...]:
    """The files of a task's sample data by split."""
    task = next(task for task in tasks() if task.name == name)
    return tuple((s, f.paths) for s, f in find_splits(task, sample_folder(task)).items())


@cache
def records(name: str) -> tuple[Any, ...]:
    """Official records of a task's sample data."""
    task = next(task for task in tasks() if task.name == name)
    file = find_splits(task, sample_folder(task))["dev"]
    return tuple(record for _, record in islice(official_records(task, file), N_RECORDS))


@cache
def head(path: Path) -> bytes:
    """The beginning of a file: whole lines if it has many, else its first items or all of it."""
    raw = path.read_bytes()
    lines = raw.splitlines(keepends=True)
    if len(lines) > N_RECORDS:
        return b"".join(lines[:N_RECORDS])
    with contextlib.suppress(ValueError):
        value = json.loads(raw)
        if isinstance(value, list):
            return json.dumps(value[:N_RECORDS], ensure_ascii=False).encode()
        if isinstance(value, dict):
            cut = {k: v[:N_RECORDS] if isinstance(v, list) else v for k, v in value.items()}
            return json.dumps(cut, ensure_ascii=False).encode()
    return raw


def text_of(noise: random.Random, values: list[Any]) -> str:
    """Records as JSON: lines, an array, or objects of several lines."""
    ascii_only = noise.random() < 0.3
    form = noise.randrange(4)
    if form == 0:
        return json.dumps(values, ensure_ascii=ascii_only)
    if form == 1:
        return json.dumps(values, ensure_ascii=ascii_only, indent=noise.choice([1, 2]))
    indent = 2 if form == 2 else None
    end = noise.choice(["\n", "\r\n", "\n\n", ",\n", "\r", "\u2028"])
    return end.join(json.dumps(value, ensure_ascii=ascii_only, indent=indent) for value in values)


def table_of(noise: random.Random, task: Task, values: list[Any]) -> str:
    """Records as a table with or without a header, with any delimiter."""
    keys = list(task.files.columns)
    if values and isinstance(values[0], dict) and noise.random() < 0.7:
        keys = list(values[0])
    known = [*keys, *task.files.aliases, "id", "foo", *WORDS]
    rows = [
        [str(value.get(key, "")) if isinstance(value, dict) else str(value) for key in keys]
        for value in values
    ]
    if noise.random() < 0.7:
        rows.insert(0, [noise.choice(known) if noise.random() < 0.2 else key for key in keys])
    for row in filter(None, rows):
        if noise.random() < 0.2:
            row[noise.randrange(len(row))] = str(noise.choice([*EVIL, *WORDS]))
        if noise.random() < 0.05:
            row.insert(0, noise.choice(WORDS))
        if noise.random() < 0.05:
            del row[-1]
    joined = noise.choice(["\t", ",", ",", "\t", ";", "|", " "])
    quoted = noise.random() < 0.3
    cells = [[f'"{c}"' if quoted or "\n" in c else c for c in row] for row in rows]
    return noise.choice(["\n", "\r\n", "\r"]).join(joined.join(row) for row in cells)


def bytes_of(noise: random.Random, task: Task, split: str) -> bytes:
    """A damaged file of some kind."""
    kind = noise.random()
    if kind < 0.3:
        known = dict(originals(task.name))
        raw = head(noise.choice(known.get(split, known["dev"])))
    elif kind < 0.4 and task.name in ("lcsts", "kbqa", "pku_seg", "wmt20_enzh"):
        raw = "".join(
            DOC.format(i=i, score=noise.choice([1, 3, 5, "", "x"])) for i in range(6)
        ).encode()
    else:
        values = list(records(task.name))[: noise.choice([0, 1, 2, N_RECORDS])]
        for _ in range(noise.choice([0, 1, 1, 3])):
            if values:
                at = noise.randrange(len(values))
                values[at] = damaged(noise, values[at])
        text = table_of(noise, task, values) if noise.random() < 0.35 else text_of(noise, values)
        lines = text.split("\n")
        if noise.random() < 0.1:
            lines.insert(noise.randrange(len(lines) + 1), noise.choice([*LINES, *WORDS, '"' * 9]))
        raw = "\n".join(lines).encode(errors="surrogatepass")
    return spoilt(noise, raw)


def spoilt(noise: random.Random, raw: bytes) -> bytes:
    """Bytes that are often cut, mixed up, or in another encoding."""
    if noise.random() < 0.4 or not raw:
        return raw
    at, other = sorted((noise.randrange(len(raw)), noise.randrange(len(raw))))
    way = noise.randrange(14)
    if way < 2:
        with contextlib.suppress(UnicodeError):
            return raw.decode().encode(("gb18030", "utf-16")[way])
    return [
        raw[:at],
        raw[at:],
        raw[:at] + noise.randbytes(noise.choice([1, 4, 40])) + raw[at:],
        raw[:at] + raw[other:],
        raw[:other] + raw[at:],
        b"\xef\xbb\xbf" + raw,
        raw[:at] + b"\0" * noise.choice([1, 500]) + raw[at:],
        raw[:at] + noise.choice([b'"', b"\n", b"\t", b",", b"{", b"[", b"\\", b"<doc>"]) + raw[at:],
        raw.replace(b"\n", noise.choice([b"\r", b"\r\n", b"", b"\n\n"])),
        raw.replace(b'"', noise.choice([b"", b"'", b'""']), noise.choice([1, -1])),
        raw[:at] + raw[at:other] * noise.choice([2, 50]) + raw[other:],
        noise.choice([b"\x1f\x8b", b"PK\x03\x04", b"\xff\xfe", b"\xfe\xff"]) + raw,
        raw[:at] + b"[" * noise.choice([10, 100_000]) + raw[at:],
        raw[:at] + b"9" * noise.choice([20, 5_000]) + raw[at:],
    ][way]


def fill(folder: Path, noise: random.Random, task: Task) -> None:
    """A folder of damaged files under names that the task accepts."""
    for split in SPLITS:
        if noise.random() < 0.1:
            continue
        accepted = noise.choice(task.files.names[split])
        for name in (accepted,) if isinstance(accepted, str) else accepted:
            part = noise.choice(task.files.parts or ("x",))
            place = folder / name.replace("*/", f"{part}/").replace("*", "")
            if not place.suffix:
                place = place.with_suffix(noise.choice(ENDINGS))
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_bytes(bytes_of(noise, task, split))
    for name in task.files.whole:
        if noise.random() < 0.3:
            (folder / name).write_bytes(bytes_of(noise, task, "train"))


def readings(
    folder: Path, noise: random.Random, task: Task
) -> Iterator[tuple[str, Callable[[], None]]]:
    """What is read in a folder, by name."""

    def rows(split: str, bad: list[str] | None) -> None:
        file = find_splits(task, folder, (split,), fingerprints=False)[split]
        for row in checked_rows(task, file, bad, Layout()):
            assert set(row) == {"id", "target", *task.files.columns} - (
                {task.answer.column} - {"target"}
            )
            json.dumps(row, ensure_ascii=False).encode()
        assert not bad or all(str(folder) in message for message in bad)

    for split in SPLITS:
        yield f"{split} with bad rows", lambda split=split: rows(split, [])  # type: ignore[misc]
        yield split, lambda split=split: rows(split, None)  # type: ignore[misc]
    yield "list", lambda: look(task, folder) and None
    if noise.random() < 0.1:
        skip = noise.random() < 0.5

        def stored() -> None:
            for file in find_splits(task, folder).values():
                list(read_split(task, file, skip_bad_rows=skip).rows)

        yield "stored", stored
    given = sorted(path for path in folder.rglob("*") if path.is_file())
    if given and noise.random() < 0.3:
        path = noise.choice(given)
        yield "prompts", lambda: read_prompts(path) and None
        data = find_splits(task, sample_folder(task), ("test",))["test"]
        yield "submission", lambda: read_answers(task, path, data) and None


def check(seed: str, root: Path) -> Iterator[tuple[str, str]]:
    """Make a folder and read it; yield what was slow or raised anything but a UserError."""
    noise = random.Random(seed)
    task = noise.choice(tasks())
    folder = root / "folder"
    folder.mkdir()
    fill(folder, noise, task)
    for name, reading in readings(folder, noise, task):
        began = time.perf_counter()
        try:
            reading()
        except UserError as error:
            if "\n" in str(error).strip():
                yield f"{task.name} {name}", f"several lines: {error!s:.200}"
        except Exception as error:  # what is looked for
            *_, last = traceback.extract_tb(error.__traceback__)
            where = f"{Path(last.filename).name}:{last.lineno}"
            yield f"{task.name} {name}", f"{type(error).__name__} at {where}: {error!s:.100}"
        if (seconds := time.perf_counter() - began) > SLOWEST:
            yield f"{task.name} {name}", f"{seconds:.1f} s"
    shutil.rmtree(folder)


def main() -> int:
    """Check so many files; 1 if something was found."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--n", type=int, default=20_000, help="damaged files")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    found: Counter[str] = Counter()
    with tempfile.TemporaryDirectory() as temporary:
        os.environ["XDG_CACHE_HOME"] = temporary + "/cache"
        for turn in range(-(-options.n // len(SPLITS))):
            for reading, what in check(f"{options.seed} {turn}", Path(temporary)):
                if not found[what]:
                    print(f"seed '{options.seed} {turn}' {reading}: {what}", flush=True)
                found[what] += 1
    print(f"{options.n:,} files, {sum(found.values())} findings")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
