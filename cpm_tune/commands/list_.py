"""The command `list`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from cpm_tune.commands.options.look import List
from cpm_tune.common.texts import table
from cpm_tune.data.splits import sample_folder, splits_there
from cpm_tune.task import SPLITS, Task
from cpm_tune.task.registry import load_preset, load_tasks, preset_files


def run(options: List) -> int:
    """Print one line per task or delta."""
    print(_tasks(options.include, options.data) if options.what == "tasks" else _deltas())
    return 0


def _tasks(include: Sequence[Path], data: Path | None) -> str:
    rows = [
        (t.name, t.capability, t.kind, t.metrics[0], sizes(t), _splits(t, data))
        for t in load_tasks(include)
    ]
    return table(("task", "capability", "kind", "metric", "train / dev / test", "data"), rows)


def sizes(task: Task) -> str:
    """The official sizes of a task's splits."""
    return " / ".join("-" if n is None else f"{n:,}" for n in task.source.sizes)


def _splits(task: Task, data: Path | None) -> str:
    if data is not None:
        there = splits_there(task, data / task.name)
        return "yes" if there == list(SPLITS) else f"only {', '.join(there)}" if there else "no"
    return "sample" if sample_folder(task).is_dir() else "no"


def _deltas() -> str:
    rows = []
    for name in preset_files():
        about = load_preset(name).get("about", {})
        count = about.get("trainable_on_10b")
        rows.append(
            (name, f"{count:,}" if isinstance(count, int) else "-", str(about.get("title", "")))
        )
    return table(("delta", "trained on 10B", "title"), rows)
