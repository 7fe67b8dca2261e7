"""Make the sample data of prompted_text and prompted_choice that ships with cpm-tune.

The rows are those of lcsts' and ccpm's sample data, as finished prompts. Code: Apache-2.0 with the
project; data: CC0-1.0.

Regenerate: `python tasks/sample/make_prompted.py [FOLDER]`.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from splits import HERE, write_jsonl

SIZES = {"train": 400, "eval": 100, "test": 100}


def text(record: dict[str, Any]) -> dict[str, Any]:
    """A row of lcsts as a prompt and a text."""
    return {"input": f"{record['text']}摘要：", "target": record["summary"]}


def choice(record: dict[str, Any]) -> dict[str, Any]:
    """A row of ccpm as a prompt with options."""
    prompt = f"{record['translation']}这句话的诗句是："
    return {"input": prompt, "options": record["choices"], "target": record["answer"]}


def rows(task: str, name: str, n: int) -> list[dict[str, Any]]:
    """The first rows of a task's sample file."""
    lines = (HERE / task / f"{name}.jsonl").read_text(encoding="utf-8").split("\n")
    return [json.loads(line) for line in lines[:n]]


def main(out: Path = HERE) -> None:
    """Write the three files below `out`/prompted_text and `out`/prompted_choice."""
    for name, task, dev, make in (
        ("prompted_text", "lcsts", "dev", text),
        ("prompted_choice", "ccpm", "valid", choice),
    ):
        splits = {
            split: [make(row) for row in rows(task, dev if split == "eval" else split, n)]
            for split, n in SIZES.items()
        }
        write_jsonl(out / name, splits)


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else HERE)
