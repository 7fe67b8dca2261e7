"""The command `list`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from cpm_tune.backbone.bundled import FOLDERS
from cpm_tune.backbone.families import families, open_folder, presets
from cpm_tune.commands.options.look import List
from cpm_tune.common.texts import table
from cpm_tune.data.splits import check_first_rows, data_folder, find_splits, sample_folder
from cpm_tune.errors import UserError, absent
from cpm_tune.task import SPLITS, Task
from cpm_tune.task.registry import load_preset, load_tasks, preset_files


def run(options: List) -> int:
    """Print one line per task, delta or backbone."""
    if options.what == "tasks":
        print(_tasks(options.include, options.data))
    else:
        print(_deltas() if options.what == "deltas" else _backbones())
    return 0


def _tasks(include: Sequence[Path], data: Path | None) -> str:
    if data is not None and not data.is_dir():
        raise UserError(f"--data {data}: {absent(data)}.")
    rows, remarks = [], []
    for t in load_tasks(include):
        there, remark = look(t, data)
        rows.append((t.name, t.capability, t.kind, t.metrics[0], sizes(t), there))
        remarks += [f"{t.name}: {remark}"] if remark else []
    listed = table(("task", "capability", "kind", "metric", "train / dev / test", "data"), rows)
    return "\n".join([listed, *([""] if remarks else []), *remarks])


def sizes(task: Task) -> str:
    """The official sizes of a task's splits."""
    return " / ".join("-" if n is None else f"{n:,}" for n in task.source.sizes)


def look(task: Task, data: Path | None) -> tuple[str, str]:
    """Whether `tune --data` would find a task's splits and read their first rows ("yes", "no" or
    "only dev"), and its notes or what is wrong. A folder of other tasks is not wrong."""
    if data is None:
        return ("sample" if sample_folder(task).is_dir() else "no"), ""
    folder = data_folder(task, data)
    try:
        splits = find_splits(task, folder, fingerprints=False)
        check_first_rows(task, splits)
    except UserError as error:
        there = [split for split in SPLITS if _has_files(task, folder, split)]
        return (f"only {', '.join(there)}" if there else "no"), "" if folder == data else str(error)
    files = splits.values()
    return "yes", "; ".join(text for file in files for text in (file.note, file.warning) if text)


def _has_files(task: Task, folder: Path, split: str) -> bool:
    try:
        file = find_splits(task, folder, (split,), fingerprints=False)[split]
        check_first_rows(task, {split: file})
    except UserError:
        return False
    return not file.source


def _deltas() -> str:
    rows = []
    for name in preset_files():
        about = load_preset(name).get("about", {})
        count = about.get("trainable_on_10b")
        rows.append(
            (name, f"{count:,}" if isinstance(count, int) else "-", str(about.get("title", "")))
        )
    return table(("delta", "trained on 10B", "title"), rows)


def _backbones() -> str:
    """Bundled backbones, published sizes, and the families whose folders are recognised."""
    known = [(name, open_folder(path).config, "bundled") for name, path in FOLDERS.items()]
    known += [(name, config, "pass its folder") for name, config in presets().items()]
    rows = []
    for name, config, weights in known:
        shape = config.shape
        sizes = f"{shape.layers} x {shape.width}", f"{shape.vocabulary:,}"
        rows.append((name, config.family, *sizes, weights))
    listed = table(("backbone", "family", "layers x width", "vocabulary", "weights"), rows)
    kinds = "\n".join(f"{family.name}: {family.title}" for family in families())
    return f"{listed}\n\n--backbone FOLDER is recognised by its files, of these families:\n{kinds}"
