"""Writes docs/tasks.md and docs/tasks/, the protocol of every task, from the registry.

    python scripts/tasks_page.py

The test suite checks that the pages are up to date.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from cpm_tune.task import Choice, Generate, Options, Rank, Task
from cpm_tune.task.registry import load_tasks
from cpm_tune.task.scoring import scoring_of

DOCS = Path(__file__).resolve().parent.parent / "docs"
HEAD = Path(__file__).with_suffix(".md")


def pages() -> dict[Path, str]:
    """The text of the overview and of one page per capability, by path."""
    groups: dict[str, list[Task]] = {}
    for task in sorted(load_tasks(), key=lambda task: "cuge" not in task.suites):
        groups.setdefault(task.capability, []).append(task)
    texts = {DOCS / "tasks.md": _overview(groups)}
    for capability, tasks in groups.items():
        cards = "\n\n".join(card(task) for task in tasks)
        texts[DOCS / "tasks" / _file(capability)] = (
            f"# Tasks: {capability}\n\n[The rules for every task](../tasks.md#rules-for-every-task)"
            f" apply here too.\n\n{cards}\n"
        )
    return texts


def card(task: Task) -> str:
    """A task's section."""
    source = task.source
    sizes = _counts(source.sizes)
    lines = [f"## {task.name}", "", f"{source.title}.", ""]
    editions = "; ".join(f"{name} {_counts(n)}" for name, n in source.editions.items())
    lines += [
        f"- {task.kind}; task groups: {', '.join(task.suites) or '-'}",
        f"- rows {sizes} (train / dev / test)"
        + (f"; exact numbers: {editions}" if editions else ""),
        f"- licence: {source.licence}",
        f"- obtain: {source.obtain}" + (f"; paper: <{source.paper}>" if source.paper else ""),
        f"- metrics: {', '.join(task.metrics)}",
        f"- answer: {_answer(task)}",
    ]
    for template in task.templates:
        options = f", options {' / '.join(template.options)}" if template.options else ""
        ends = ", ".join(template.keep_end)
        keeps = f"; if it is too long, {ends} loses its beginning" if ends else ""
        text = template.text.replace("\n", "\\n")
        rule = f" ({scoring_of(task, template)}{options})"
        lines.append(f"- template `{template.name}` v{template.version}: `{text}`{rule}{keeps}")
    if task.recipe:
        lines.append(f"- recipe: {', '.join(f'{k}={v}' for k, v in task.recipe.items())}")
    if task.published:
        rules = {row: f" by {rule}" for row, rule in task.published_scoring.items()}
        scores = "; ".join(f"{row}: {s}{rules.get(row, '')}" for row, s in task.published.items())
        lines.append(f"- published results: {scores} ({task.published_source})")
    if task.submission:
        lines.append(f"- submission: `{task.submission.file}`")
    if task.protocol:
        lines += ["", task.protocol]
    return "\n".join(lines)


def _overview(groups: Mapping[str, list[Task]]) -> str:
    lines = ["| capability | task | kind | in CUGE | metric that ranks |", "|---|---|---|---|---|"]
    for capability, tasks in groups.items():
        for task in tasks:
            link = f"[{task.name}](tasks/{_file(capability)}#{task.name})"
            cuge = "yes" if "cuge" in task.suites else "no"
            lines.append(f"| {capability} | {link} | {task.kind} | {cuge} | {task.metrics[0]} |")
    return HEAD.read_text(encoding="utf-8") + "\n## All tasks\n\n" + "\n".join(lines) + "\n"


def _file(capability: str) -> str:
    return capability.replace(" ", "-") + ".md"


def _counts(sizes: Sequence[int | None]) -> str:
    return " / ".join("-" if n is None else f"{n:,}" for n in sizes)


def _answer(task: Task) -> str:
    answer = task.answer
    if isinstance(answer, Choice):
        return f"one of {len(answer.labels)} labels"
    if isinstance(answer, Options):
        return f"one of the row's options, at most {answer.most}"
    if isinstance(answer, Rank):
        return "an order of the row's documents"
    assert isinstance(answer, Generate)
    read = ", read by a parser" if answer.parse else ""
    beams = f"beam search with {answer.beams}" if answer.beams > 1 else "greedy"
    return f"a generated text of at most {answer.max_new_tokens} tokens, {beams}{read}"


if __name__ == "__main__":
    (DOCS / "tasks").mkdir(exist_ok=True)
    for path, text in pages().items():
        path.write_text(text, encoding="utf-8")
