"""Makes settings, --config files and suites of all kinds of nonsense, and plans them.

    python tests/fuzz_requests.py --n 20000     # so many requests of each kind; --seed N for others

test_fuzz_requests.py does a few. Whatever is asked for, the command ends within seconds, with a
plan or with sentences.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import random
import re
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

from fuzz_records import EVIL

from cpm_tune.bench.suite import Override, Suite
from cpm_tune.commands import tune
from cpm_tune.commands.cli import main
from cpm_tune.commands.options.tune import Tune
from cpm_tune.planning.settings import DELTA_KEYS, KEYS

SECONDS = 5.0  # that a request may take
SETTINGS = (*sorted(KEYS | DELTA_KEYS), "train", "delta", "run", "", ".", "train.", "a.b.c", "seed")
OPTIONS = (*(field.name.replace("_", "-") for field in fields(Tune)), "set", "lr", "", "None")
AXES = (*(field.name for field in fields(Suite)), *Override.model_fields, "cells", "match", "x")
NAMES = ("lcqmc", "ccpm", "math23k", "all", "cuge-lite", "lora", "none", "bitfit", "full", "prefix")
TEXTS = (
    *(
        "1",
        "0",
        "-1",
        "1e-3",
        "1e400",
        "-.inf",
        ".nan",
        "0x1f",
        "0o7",
        "1_000",
        "9" * 400,
        "9" * 5_000,
    ),
    *("true", "no", "~", "null", "''", '"', "'", "[", "]", "{", "}", "[1, 2]", "{a: 1}", "{? : }"),
    *("!!int x", "!!timestamp x", "!!binary x", "!!python/object:os.system x", "!!set {1}", "!x y"),
    *("!!float x", "!!map [1]", "!!omap [1]", "!!pairs [1]", "!!bool x", "!!null x", "!!merge x"),
    *(
        "&a [*a]",
        "*a",
        "&a",
        "<<",
        "<<: 1",
        "<<: [1]",
        "<<: {a: 1}",
        "? a",
        "- a",
        "a: b: c",
        "%YAML",
    ),
    *(
        "2024-13-45",
        "12:30:45",
        "190:20:30.15",
        "---",
        "...",
        "#",
        "@",
        "`",
        "|",
        ">",
        "\t",
        "a\tb: c",
    ),
    *(
        "[" * 1_500,
        "{a: " * 300,
        "\x00",
        "\x07",
        "\x85",
        "\u2028",
        "\ufeff",
        "\ud800",
        "名字",
        "＝",
        "1-3",
    ),
    *(
        "3-1",
        "1-99999999999",
        "1,2,,3",
        ",",
        "../..",
        "/",
        "~",
        "/dev/null",
        "hub:a/b",
        "cpu",
        "x" * 300,
    ),
)


def plain(value: Any) -> str:
    """A text that a file may have for a value: JSON, which is YAML as well, or what is in TEXTS."""
    return json.dumps(value, ensure_ascii=False, default=str)


def some_value(chance: random.Random, depth: int = 0) -> str:
    kind = chance.random()
    if kind < 0.35:
        return chance.choice(TEXTS)
    if kind < 0.6:
        return plain(chance.choice(EVIL))
    if kind < 0.8 or depth > 2:
        return chance.choice(NAMES)
    inner = [some_value(chance, depth + 1) for _ in range(chance.randrange(4))]
    if kind < 0.9:
        return f"[{', '.join(inner)}]"
    keys = (chance.choice(AXES if depth < 2 else SETTINGS) for _ in inner)
    return "{" + ", ".join(f"{key}: {value}" for key, value in zip(keys, inner, strict=True)) + "}"


def some_settings(chance: random.Random) -> str:
    pairs = [
        f"{chance.choice(SETTINGS)}: {some_value(chance, 2)}" for _ in range(chance.randrange(4))
    ]
    return "{" + ", ".join(pairs) + "}"


def mapping(chance: random.Random, keys: Sequence[str], first: Sequence[str]) -> str:
    """A file: lines of `first`, then keys with values, now and then with a wrong byte."""
    lines = list(first) if chance.random() < 0.9 else []
    for _ in range(chance.randrange(1, 4)):
        key = chance.choice(keys)
        some = some_settings if key in ("set", "grid") and chance.random() < 0.8 else some_value
        lines.append(f"{key}: {some(chance)}")
    text = "\n".join(lines) + "\n"
    if chance.random() < 0.2:
        place = chance.randrange(len(text))
        text = text[:place] + chance.choice(TEXTS) + text[place + chance.randrange(3) :]
    return text


def command(chance: random.Random, kind: str, file: Path) -> list[str]:
    """The words of a request of a kind: set, config or suite."""
    task = ["--task", chance.choice(NAMES[:3]), "--delta", chance.choice(NAMES[5:])]
    if kind == "set":
        count = chance.randrange(1, 4)
        pairs = (f"{chance.choice(SETTINGS)}={some_value(chance, 1)}" for _ in range(count))
        return [*task, *(word for pair in pairs for word in ("--set", pair))]
    keys, first = (OPTIONS, ["task: lcqmc"]) if kind == "config" else (AXES, ["tasks: [lcqmc]"])
    text = mapping(chance, keys, first)
    file.write_bytes(text.encode("utf-8", "surrogatepass" if chance.random() < 0.5 else "replace"))
    if kind == "config":
        return ["--config", str(file), *task * (chance.random() < 0.3)]
    more = ["--precision", "fp32", "--seeds", "1"] if chance.random() < 0.3 else []
    return ["bench", "--suite", str(file), "--dry-run", *more]


def outcome(words: Sequence[str]) -> tuple[int, str]:
    """The exit code of a request and what it prints; nothing is run."""
    out, error = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(error):
        try:
            code = main(words)
        except SystemExit as end:
            code = int(end.code or 0)
    return code, error.getvalue()


def fault(words: Sequence[str]) -> str:
    """What is wrong with how a request ends, or nothing."""
    began = time.monotonic()
    try:
        code, said = outcome(words)
    except BaseException as error:  # what a user would see as a traceback
        return f"{type(error).__name__}: {error}"
    if (seconds := time.monotonic() - began) > SECONDS:
        return f"took {seconds:.1f} s"
    if code not in (0, 2) or (code == 2 and not said.strip()):
        return f"exit code {code}: {said[:200]}"
    if re.search(r"Traceback|set_int_max_str_digits|pydantic|\bNoneType\b|<class ", said):
        return f"not a sentence for users: {said[:300]}"
    if any(len(line) > 1_500 for line in said.splitlines()):
        return f"a line of {max(map(len, said.splitlines())):,} characters: {said[:200]}"
    return ""


def run(n: int, seed: int, report: Callable[[str], None] = print) -> list[str]:
    """Plan `n` requests of each kind; return and report what went wrong."""
    chance, faults = random.Random(seed), list[str]()
    carry_out, tune.load = tune.load, lambda target: lambda *args, **options: None  # type: ignore[assignment]
    try:
        with tempfile.TemporaryDirectory() as folder:
            for number in range(n):
                for kind in ("set", "config", "suite"):
                    file = Path(folder) / f"{kind}.yaml"
                    words = command(chance, kind, file)
                    if problem := fault(words):
                        text = file.read_bytes()[:400] if kind != "set" else b""
                        faults.append(f"{kind} {number}: {problem}\n  {words!r:.600}\n  {text!r}")
                        report(faults[-1])
    finally:
        tune.load = carry_out
    return faults


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--n", type=int, default=1_000)
    parser.add_argument("--seed", type=int, default=1)
    chosen = parser.parse_args()
    started = time.monotonic()
    found = run(chosen.n, chosen.seed)
    print(f"{3 * chosen.n:,} requests, {len(found)} faults, {time.monotonic() - started:.0f} s")
    sys.exit(bool(found))
