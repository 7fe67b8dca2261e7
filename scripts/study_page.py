"""Makes the tables and the figure of docs/reports/study.md from the study's runs.

    python tune.py bench --suite suites/study.yaml --jobs 2 --out results/study
    python scripts/study_page.py results/study [--write] [--keep examples/study]

A cell is a task, a backbone, its weights (trained or random) and a delta, and has one run per
seed. Cells that lack a seed are left out, so this works while the study goes on. `--write` puts the
tables between the page's markers and draws its figure; `--keep` copies what they are made of, the
records and the predictions of test.
"""

from __future__ import annotations

import argparse
import itertools
import shutil
import statistics
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from compare_deltas import markdown

from cpm_tune.common.folders import RECORD, predictions_file
from cpm_tune.common.writing import write_atomically
from cpm_tune.leaderboard.means import interval
from cpm_tune.leaderboard.selection import read_candidates
from cpm_tune.leaderboard.statistics import ComparisonResult, compare, holm, verdict
from cpm_tune.metrics import get_metric
from cpm_tune.schema.record import RunRecord
from cpm_tune.systems.predictions import Predictions, recorded_predictions

REPOSITORY = Path(__file__).resolve().parent.parent
PAGE = REPOSITORY / "docs" / "reports" / "study.md"
FIGURE = REPOSITORY / "docs" / "pictures" / "study-curves.png"
START, END = "<!-- made by scripts/study_page.py -->", "<!-- to here -->"
BACKBONES = ("cpm-ant-tiny", "cpm-1-tiny", "cpm-2-tiny")
TASKS = ("ccpm", "clozet", "finre", "wantwords", "math23k")
DELTAS = ("lora", "adapter", "prefix", "full")
SEEDS = (1, 2, 3)

Key = tuple[str, str, str, str]  # task, backbone, trained or random, delta
Pair = tuple[Key, Key]


@dataclass(frozen=True)
class Cell:
    """The runs of one cell, one per seed, in their order."""

    runs: Sequence[tuple[Path, RunRecord]]

    @cached_property
    def predictions(self) -> list[Predictions]:
        """Each run's predictions of test."""
        return [recorded_predictions(folder, record, "test") for folder, record in self.runs]

    @property
    def records(self) -> list[RunRecord]:
        """The runs' records."""
        return [record for _, record in self.runs]

    @property
    def score(self) -> str:
        """The mean over seeds with its 95% interval."""
        scores = [record.test for record in self.records]
        values = [score.value for score in scores]
        low, high, _ = interval(values, scores, 1)
        return f"{statistics.fmean(values):.3f} [{max(low, 0):.3f}, {min(high, 1):.3f}]"


def read_cells(results: Path) -> tuple[dict[Key, Cell], dict[tuple[str, str], RunRecord]]:
    """The cells that have all seeds, and the zero-shot runs by task and backbone."""
    runs: dict[Key, dict[int, tuple[Path, RunRecord]]] = {}
    bare: dict[tuple[str, str], RunRecord] = {}
    for candidate in read_candidates(results)[0]:
        record = candidate.record
        if not isinstance(record, RunRecord):
            continue
        name, weights = record.backbone.name, record.spec.backbone.init
        if record.delta.name == "none":
            bare[record.spec.task, name] = record
            continue
        key = record.spec.task, name, weights, record.delta.name
        runs.setdefault(key, {})[record.spec.seed] = candidate.folder, record
    cells = {
        key: Cell([seeds[seed] for seed in SEEDS])
        for key, seeds in runs.items()
        if set(SEEDS) <= set(seeds)
    }
    return cells, bare


def compared(
    cells: dict[Key, Cell], pairs: Iterable[Pair]
) -> dict[Pair, tuple[ComparisonResult, str]]:
    """Each pair of cells of one task compared on test's rows, with verdicts after Holm's correction
    over all of them."""
    results: dict[Pair, ComparisonResult] = {}
    for a, b in pairs:
        if a in cells and b in cells:
            metric = get_metric(cells[a].records[0].ranks_by)
            targets = cells[a].predictions[0].targets
            first, second = ([run.predictions for run in cells[key].predictions] for key in (a, b))
            results[a, b] = compare(metric, first, second, targets)
    adjusted = holm([result.p for result in results.values()])
    return {
        pair: (result, verdict(result.difference, p, True))
        for (pair, result), p in zip(results.items(), adjusted, strict=True)
    }


def scores(cells: dict[Key, Cell], bare: dict[tuple[str, str], RunRecord]) -> str:
    """A table for each task: scores, their random-backbone controls, and the differences."""
    controls = compared(
        cells,
        [
            ((task, backbone, "checkpoint", delta), (task, backbone, "random", delta))
            for task, backbone, delta in itertools.product(TASKS, BACKBONES, DELTAS)
        ],
    )
    parts = []
    for task in TASKS:
        rows, metric, others = [], "", ""
        for backbone in BACKBONES:
            if (task, backbone) in bare:
                record = bare[task, backbone]
                metric = record.ranks_by
                rows.append([f"`{backbone}`", "none", "", f"{record.test.value:.3f}", "", ""])
            for delta in DELTAS:
                pair = (task, backbone, "checkpoint", delta), (task, backbone, "random", delta)
                if pair not in controls:
                    continue
                result, won = controls[pair]
                cell, control = (cells[key] for key in pair)
                recipe = cell.records[0].spec.recipe
                assert recipe is not None
                mark = {"win": "*", "loss": " (worse*)", "tie": ""}[won]
                change = f"{result.difference:+.3f} [{result.low:.3f}, {result.high:.3f}]{mark}"
                line = ["", f"`{delta}`", f"{recipe.lr:g}", cell.score, control.score, change]
                rows.append(line)
                others = simple_answers(cell.records[0])
        if others:
            header = ["backbone", "delta", "rate", metric, "random backbone", "difference"]
            parts.append(f"### {task}\n\n{others}\n\n{markdown(header, rows)}")
    return "\n\n".join(parts)


def simple_answers(record: RunRecord) -> str:
    """What is right without any model."""
    names = {name: score for name, score in record.controls.items() if name != "zero-shot"}
    texts = [
        f"{name} {score.value:.3f}" for name, score in names.items() if score.value is not None
    ]
    return f"Without any model: {', '.join(texts)}." if texts else ""


def wins(cells: dict[Key, Cell], axis: Sequence[str], by_delta: bool) -> str:
    """Wins, ties and losses of rows against columns, over the tasks and the other axis."""
    pairs: list[tuple[Pair, str, str]] = []
    for task, (a, b) in itertools.product(TASKS, itertools.combinations(axis, 2)):
        for other in BACKBONES if by_delta else DELTAS:
            if by_delta:
                pair = (task, other, "checkpoint", a), (task, other, "checkpoint", b)
            else:
                pair = (task, a, "checkpoint", other), (task, b, "checkpoint", other)
            pairs.append((pair, a, b))
    results = compared(cells, [pair for pair, _, _ in pairs])
    counts: dict[tuple[str, str], Counter[str]] = {}
    for pair, a, b in pairs:
        if pair in results:
            won = results[pair][1]
            counts.setdefault((a, b), Counter())[won] += 1
            other = {"win": "loss", "loss": "win"}.get(won, won)
            counts.setdefault((b, a), Counter())[other] += 1

    def text(a: str, b: str) -> str:
        count = counts.get((a, b))
        return "-".join(str(count[k]) for k in ("win", "tie", "loss")) if count else ""

    if not counts:
        return ""
    rows = [[f"`{a}`", *(text(a, b) for b in axis)] for a in axis]
    return markdown(["", *(f"`{name}`" for name in axis)], rows)


def costs(cells: dict[Key, Cell]) -> str:
    """What a training took, as the median over the tasks and seeds of a row."""
    rows = []
    for backbone, delta in itertools.product(BACKBONES, DELTAS):
        records = [
            record
            for (_, name, weights, of), cell in cells.items()
            if (name, weights, of) == (backbone, "checkpoint", delta)
            for record in cell.records
        ]
        trainings = [record.training for record in records if record.training is not None]
        if not trainings:
            continue
        peaks = [r.environment.peak_memory_bytes / 2**30 for r in records if r.environment]
        rows.append(
            [
                f"`{backbone}`",
                f"`{delta}`",
                f"{records[0].delta.n_trainable:,}",
                f"{records[0].delta.bytes:,}",
                f"{statistics.median(t.samples_per_second for t in trainings):.0f}",
                f"{statistics.median(t.seconds for t in trainings):.0f}",
                f"{statistics.median(peaks):.2f}",
            ]
        )
    header = ["backbone", "delta", "trained values", "bytes", "samples/s", "seconds", "peak GiB"]
    return markdown(header, rows) if rows else ""


def mean_curve(records: Iterable[RunRecord]) -> tuple[list[int], list[float]]:
    """The steps of the runs' evaluations, and the means of their dev scores."""
    runs = [record.training.curve for record in records if record.training is not None]
    means = [statistics.fmean(point.dev for point in at) for at in zip(*runs, strict=True)]
    return [point.step for point in runs[0]] if runs else [], means


def curves(cells: dict[Key, Cell]) -> str:
    """The dev score by step: means over the seeds and the tasks."""
    rows, steps = [], list[int]()
    for backbone, delta, weights in itertools.product(BACKBONES, DELTAS, ("checkpoint", "random")):
        of = [cells.get((task, backbone, weights, delta)) for task in TASKS]
        records = [record for cell in of if cell is not None for record in cell.records]
        if None in of:
            continue
        steps, means = mean_curve(records)
        name = "" if weights == "random" else f"`{backbone}`"
        init = "random" if weights == "random" else "trained"
        rows.append([name, f"`{delta}`", init, *(f"{value:.3f}" for value in means)])
    header = ["backbone", "delta", "weights", *(f"step {step}" for step in steps)]
    return markdown(header, rows) if rows else ""


def draw(cells: dict[Key, Cell], path: Path) -> None:
    """The dev scores by step: a panel for each task and delta, a line for each backbone; dashed on
    random weights."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    colours = dict(zip(BACKBONES, ("#1f77b4", "#d62728", "#2ca02c"), strict=True))
    figure, axes = pyplot.subplots(
        len(TASKS), len(DELTAS), figsize=(11, 12), sharex=True, sharey="row", squeeze=False
    )
    for (i, task), (j, delta) in itertools.product(enumerate(TASKS), enumerate(DELTAS)):
        panel = axes[i][j]
        for backbone, weights in itertools.product(BACKBONES, ("checkpoint", "random")):
            cell = cells.get((task, backbone, weights, delta))
            if cell is None:
                continue
            steps, means = mean_curve(cell.records)
            style = "--" if weights == "random" else "-"
            panel.plot(steps, means, style, color=colours[backbone], label=backbone)
        panel.grid(alpha=0.3)
        if i == 0:
            panel.set_title(delta)
        if j == 0:
            panel.set_ylabel(f"{task}, dev")
        if i == len(TASKS) - 1:
            panel.set_xlabel("step")
    for row in axes:  # shared by its panels, once all lines are there
        row[0].set_ylim(bottom=0)
    lines = [
        line for panel in axes.flat for line in panel.get_lines() if line.get_linestyle() == "-"
    ]
    by_name = {line.get_label(): line for line in lines}
    names = [name for name in BACKBONES if name in by_name]
    figure.legend([by_name[n] for n in names], names, loc="lower center", ncols=3, frameon=False)
    figure.tight_layout(rect=(0, 0.03, 1, 1))
    figure.savefig(path, dpi=75, metadata={"Software": None})


def tables(results: Path) -> tuple[str, dict[Key, Cell]]:
    """All tables as Markdown, and the cells they are from."""
    cells, bare = read_cells(results)
    parts = {
        "Scores": scores(cells, bare),
        "Deltas against each other": wins(cells, DELTAS, True),
        "Backbones against each other": wins(cells, BACKBONES, False),
        "Cost": costs(cells),
        "Learning curves": curves(cells),
    }
    texts = [f"## {title}\n\n{text}" for title, text in parts.items() if text]
    whole = 2 * len(TASKS) * len(BACKBONES) * len(DELTAS)
    if len(cells) < whole:
        part = f"{len(cells)} of {whole} cells (a task, a backbone, its weights, a delta)"
        texts.insert(0, f"The study is not finished: {part} have all their seeds.")
    return "\n\n".join(texts), cells


def keep(results: Path, folder: Path) -> None:
    """Copy every finished run's record and its predictions of test, with paths from the checkout's
    root."""
    for candidate in read_candidates(results)[0]:
        record, run = candidate.record, folder / candidate.folder.name
        assert isinstance(record, RunRecord)
        root = record.backbone.path.removesuffix(f"cpm_tune/backbone/{record.backbone.name}")
        text = (candidate.folder / RECORD).read_text(encoding="utf-8")
        run.mkdir(parents=True, exist_ok=True)
        write_atomically(run / RECORD, text.replace(f'"{root}', '"'))
        shutil.copyfile(candidate.folder / (name := predictions_file("test")), run / name)


def main(argv: Sequence[str] | None = None) -> None:
    """Print or write the tables."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("results", type=Path, help="results folder of the suite")
    parser.add_argument("--write", action="store_true", help="write the page and its figure")
    parser.add_argument("--keep", metavar="DIR", type=Path, help="copy the records to this folder")
    args = parser.parse_args(argv)
    text, cells = tables(args.results)
    if args.keep:
        keep(args.results, args.keep)
    if not args.write:
        print(text)
        return
    page = PAGE.read_text(encoding="utf-8")
    before, _, rest = page.partition(START)
    _, _, after = rest.partition(END)
    write_atomically(PAGE, f"{before}{START}\n\n{text}\n\n{END}{after}")
    draw(cells, FIGURE)


if __name__ == "__main__":
    main()
