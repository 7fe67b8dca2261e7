"""Damages records and predictions files, and runs every reader of results over them.

    python tests/fuzz_records.py --n 20000     # so many damaged files; --seed N for others

test_fuzz_records.py does a few. Whatever a file contains, a reader answers with a result or a
UserError, and the page's data stays valid JSON.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import re
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import board_records as made

from cpm_tune.errors import UserError
from cpm_tune.leaderboard.aggregate import make_board
from cpm_tune.leaderboard.compare import Method, compare_rows
from cpm_tune.leaderboard.export import export
from cpm_tune.leaderboard.formats import FORMATS
from cpm_tune.leaderboard.plot import COSTS, draw
from cpm_tune.leaderboard.rescore import rescore_results
from cpm_tune.leaderboard.results import read_folder
from cpm_tune.leaderboard.verify import verify_results
from cpm_tune.schema.record import RECORD, AnyRecord, RunRecord, SystemRecord
from cpm_tune.schema.spec import RunSpec, SystemSpec

PREDICTIONS = "predictions.test.jsonl"
PER_FOLDER = 20  # runs of a results folder, each with a record and a predictions file
EVIL: tuple[Any, ...] = (
    *(None, True, False, 0, 1, -1, 7, 100, 2**31, 2**63, 2**64, -(2**70), 10**40, 10**400),
    *(0.0, -0.0, 0.5, 1e-310, 1e30, 1e99, 1e101, 1e154, 1.7e308, -1.7e308),
    *(
        "",
        " ",
        "0",
        "nan",
        "=1+1",
        "＝1",
        "\r=1",
        "\x1b[31mred",
        "a\nb",
        "\u202e",
        "\u2028",
        "\x00",
    ),
    *("../..", "/etc", "hub:a/b", "</script>", "\\input{x}", "|", "é", "𠀀", "x" * 5_000, "\ud800"),
    *([], {}, [[]], [None], {"": 0}, ["a", 1, None], {"a": {"b": []}}),
    *("accuracy", "test", "dev", "finished", "running", "failed", "system", "run", "random"),
    *("perplexity", "bleu_4", "span_f1", "ndcg_10", "equation_accuracy", "rouge_l_char_f", "ccpm"),
)
LINES = (
    *("", " ", "{", "[", "null", "0", '"x"', "[]", "{}", '{"id": 1}', '{"id": null, "target": 1}'),
    *(
        '{"id": "0", "prediction": NaN, "target": 0}',
        '{"id": "0", "prediction": 1e999, "target": 1}',
    ),
    *('{"id": "0", "prediction": "\\ud800", "target": "\\udc00"}', "\ufeff{}", "\u2028", "NaN"),
    '{"id": "0", "scores": [-Infinity, 1], "prediction": 0, "target": 0}',
    *("[" * 100_000, '{"id":' * 50_000, '{"id": "0", "prediction": ' + "[" * 190 + "]" * 190 + "}"),
    '{"id": "0", "prediction": ' + "9" * 5_000 + ', "target": 1}',
    '{"id": "0", "prediction": "9**9**9**9", "target": {"answer": "1"}}',
)


def system_record(run: RunRecord, name: str) -> SystemRecord:
    """An outside system's record on the same data as a run."""
    spec = SystemSpec(
        system=name,
        task=run.spec.task,
        task_version=run.spec.task_version,
        metrics=run.spec.metrics,
        data=run.spec.data.model_copy(update={"train": None, "dev": None}),
        predictions_sha256="a" * 64,
        seed=run.spec.seed,
    )
    return SystemRecord(
        run_id=spec.run_id,
        spec_sha256=spec.sha256,
        spec=spec,
        ranks_by=run.ranks_by,
        comparable=True,
        split="test",
        source="answers.jsonl",
        data={"test": run.data["test"]},
        scores={"test": run.scores["test"]},
        predictions={},
        packages={},
        scored_at="2026-01-01T00:00:00+00:00",
    )


def originals(noise: random.Random, n: int) -> Iterator[AnyRecord]:
    """Records of every kind, to be damaged."""
    for number in range(n):
        task = noise.choice([*made.LITE, *made.OTHER])
        delta, backbone = noise.choice(list(made.DELTAS)), noise.choice(list(made.BACKBONES))
        run = made.make_record(task, backbone, delta, number % 5)
        yield system_record(run, f"system {number % 3}") if noise.random() < 0.2 else run


def damaged(noise: random.Random, value: Any) -> Any:
    """A JSON value with one part replaced, removed or doubled, often a deep one."""
    if isinstance(value, dict) and value and noise.random() < 0.985:
        key = noise.choice(sorted(value))
        copy = dict(value)
        kind = noise.random()
        if kind < 0.95:
            copy[key] = damaged(noise, value[key])
        elif kind < 0.98:
            del copy[key]
        else:
            copy[noise.choice([str(e) for e in EVIL[:40]] + ["extra"])] = copy[key]
        return copy
    if isinstance(value, list) and value and noise.random() < 0.96:
        at = noise.randrange(len(value))
        if noise.random() < 0.2:
            return noise.choice([value[:at], value * 3, value[::-1]])
        return [*value[:at], damaged(noise, value[at]), *value[at + 1 :]]
    if isinstance(value, int | float) and abs(value) < 1e100 and noise.random() < 0.3:
        return noise.choice([-value, value * 1e200, value + 1, 0])
    alike = [e for e in EVIL if type(e) is type(value)] if noise.random() < 0.75 else []
    return noise.choice(alike or EVIL)


def record_bytes(noise: random.Random, record: AnyRecord) -> bytes:
    """A damaged run.json. Most have the right hash of their spec, so that they are read on."""
    values = json.loads(record.model_dump_json())
    for _ in range(noise.choice([1, 1, 2, 4, 8])):
        values = damaged(noise, values)
    with contextlib.suppress(Exception):
        spec = (SystemSpec if values.get("kind") == "system" else RunSpec)(**values["spec"])
        values |= {"spec_sha256": spec.sha256}
        values |= {"run_id": spec.run_id} if noise.random() < 0.8 else {}
    return mangled(noise, json.dumps(values).encode(), 0.1)


def prediction_bytes(noise: random.Random, text: str) -> bytes:
    """A damaged predictions file."""
    lines = text.splitlines()[: noise.choice([1, 3, 12])]
    for _ in range(noise.choice([1, 2, 4])):
        at = noise.randrange(len(lines))
        if noise.random() < 0.4:
            lines[at] = noise.choice(LINES)
        elif lines[at][:1] == "{" and len(lines[at]) < 10_000:
            with contextlib.suppress(ValueError):
                lines[at] = json.dumps(damaged(noise, json.loads(lines[at])))
    return mangled(noise, "\n".join(lines).encode(errors="surrogatepass"), 0.15)


def mangled(noise: random.Random, raw: bytes, share: float) -> bytes:
    """Bytes that are, in so many cases, cut, spoilt, or of another encoding."""
    if noise.random() > share or not raw:
        return raw
    at = noise.randrange(len(raw))
    return noise.choice(
        [raw[:at], raw[:at] + noise.randbytes(4) + raw[at:], b"\xef\xbb\xbf" + raw, b"\x00" + raw]
    )


def fill(folder: Path, noise: random.Random, n: int = PER_FOLDER) -> None:
    """A results folder of `n` damaged runs."""
    for record in originals(noise, n):
        place = folder / record.run_id
        place.mkdir(exist_ok=True)
        made.write_predictions(place, record.spec.task, record.spec.seed, 12)
        if noise.random() < 0.8:
            file = place / PREDICTIONS
            file.write_bytes(prediction_bytes(noise, file.read_text(encoding="utf-8")))
        if noise.random() < 0.5:  # the record agrees with the file, whatever it is
            from cpm_tune.common.paths import file_sha256

            sha = {PREDICTIONS: file_sha256(place / PREDICTIONS)}
            record = record.model_copy(update={"predictions": sha})
        raw = record.model_dump_json().encode()
        (place / RECORD).write_bytes(record_bytes(noise, record) if noise.random() < 0.8 else raw)


def strict(constant: str) -> None:
    """JSON of the page has no NaN."""
    raise AssertionError(f"{constant} in the page")


def readers(folder: Path, figures: Path | None) -> dict[str, Callable[[], object]]:
    """Every reader of a results folder, by name."""

    def page() -> None:
        text, _ = export(folder, "html", published=True, texts="all")
        text.encode()
        found = re.search(r"<script[^>]*application/json[^>]*>(.*?)</script>", text, re.DOTALL)
        assert found is not None
        json.loads(found[1], parse_constant=strict)

    def plot() -> None:
        results = read_folder(folder)
        board = make_board(results)
        for cost in COSTS if board.rows and figures is not None else ():
            draw(board, results, figures or folder, cost=cost)

    formats: dict[str, Callable[[], object]] = {
        style: lambda style=style: export(folder, style, published=style == "md")[0].encode()  # type: ignore[misc]
        for style in FORMATS
        if style != "html"
    }
    return formats | {
        "page": page,
        "plot": plot,
        "verify": lambda: verify_results(folder),
        "compare": lambda: compare_rows((), folder, Method(resamples=20), every=True),
        "rescore": lambda: rescore_results(folder, write=True),
    }


def check(folder: Path, figures: Path | None = None) -> None:
    """Run every reader; raise what is not a UserError, and AssertionError for a slow one."""
    for name, reader in readers(folder, figures).items():
        began = time.perf_counter()
        with contextlib.suppress(UserError):
            reader()
        seconds = time.perf_counter() - began
        assert seconds < 20, f"{name} took {seconds:.1f} s"


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--n", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--keep", action="store_true", help="go on after a failure")
    options = parser.parse_args()
    os.fsync = lambda fd: None
    failures, turns = 0, -(-options.n // (2 * PER_FOLDER))
    for turn in range(turns):
        seed = f"{options.seed} {turn}"
        with tempfile.TemporaryDirectory() as temporary:
            folder = Path(temporary) / "results"
            folder.mkdir()
            fill(folder, random.Random(seed))
            for name, reader in readers(folder, None if turn % 20 else Path(temporary)).items():
                began = time.perf_counter()
                try:
                    reader()
                except UserError:
                    pass
                except Exception as error:
                    failures += 1
                    print(f"turn {seed}: {name}: {type(error).__name__}: {str(error)[:300]}")
                    if not options.keep:
                        raise
                if (seconds := time.perf_counter() - began) > 5:
                    print(f"turn {seed}: {name} took {seconds:.1f} s")
    print(f"{turns * 2 * PER_FOLDER:,} damaged files, {failures} failures")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
