"""Scores uploaded predictions in a process of its own (`python -m` this module).

It runs in a folder that has the predictions alone, reads a request as JSON from standard input, and
prints the result as one JSON object. What a file makes it do, it does to itself: it may use bounded
memory and time, and the server that started it ends it.
"""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cpm_tune.common.paths import relative
from cpm_tune.errors import UserError, readable
from cpm_tune.leaderboard.outside_systems import row_id
from cpm_tune.schema.record import shown_scores
from cpm_tune.systems.system import TakenError, score_system

MEMORY = 8 * 2**30  # bytes of address space
SECONDS = 300  # of processor time


def result_of(request: Mapping[str, Any]) -> dict[str, Any]:
    """The scores of a request's predictions, or an `error`: one sentence."""
    data = request["data"]
    folders = [Path(each) for each in (request["out"], data, *request["include"]) if each]
    try:
        scored = score_system(
            request["task"],
            Path(request["file"]),
            request["name"],
            data=None if data is None else Path(data),
            split=request["split"],
            seed=request["seed"],
            out=Path(request["out"]),
            include=tuple(map(Path, request["include"])),
        )
    except TakenError:
        name, seed = request["name"], request["seed"]
        sentence = f"other predictions of '{name}' with seed {seed} on this data are kept here"
        return {"error": readable(f"{sentence}; choose another seed or name.")}
    except UserError as error:
        return {"error": readable(relative(str(error), folders))}
    except MemoryError:
        return {"error": f"the file needs more than {MEMORY // 2**30} GiB to be scored."}
    record = scored.record
    return {
        "id": record.run_id,
        "name": record.name,
        "row": row_id(record.name),
        "task": record.spec.task,
        "split": record.split,
        "metric": record.ranks_by,
        "scores": shown_scores(record.scores[record.split]),
        "warnings": [text for text in (record.note, *record.warnings) if text],
        "existed": scored.reused,
    }


def _limit() -> None:
    """Bound this process, where the system can."""
    with contextlib.suppress(ImportError, OSError, ValueError):
        import resource

        resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
        resource.setrlimit(resource.RLIMIT_CPU, (SECONDS, SECONDS))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


if __name__ == "__main__":
    _limit()
    print(json.dumps(result_of(json.load(sys.stdin))))
