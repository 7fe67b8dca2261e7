"""Writes docs/tasks.md, the protocol of every task, from the registry.

    python scripts/tasks_page.py

The test suite checks that the page is up to date.
"""

from __future__ import annotations

from pathlib import Path

from cpm_tune.task import Choice, Generate, Options, Rank, Task
from cpm_tune.task.registry import load_tasks

PAGE = Path(__file__).resolve().parent.parent / "docs" / "tasks.md"

HEAD = Path(__file__).with_suffix(".md")


def card(task: Task) -> str:
    """A task's section."""
    source = task.source
    sizes = " / ".join("-" if n is None else f"{n:,}" for n in source.sizes)
    lines = [f"### {task.name}", "", f"{source.title}.", ""]
    lines += [
        f"- {task.capability}; {task.kind}; suites: {', '.join(task.suites) or '-'}",
        f"- rows {sizes} (train / dev / test); licence: {source.licence}",
        f"- obtain: {source.obtain}" + (f"; paper: <{source.paper}>" if source.paper else ""),
        f"- metrics: {', '.join(task.metrics)}",
        f"- answer: {_answer(task)}",
    ]
    for template in task.templates:
        options = f" (options {' / '.join(template.options)})" if template.options else ""
        ends = ", ".join(template.keep_end)
        keeps = f"; too long, {ends} loses its beginning" if ends else ""
        text = template.text.replace("\n", "\\n")
        lines.append(f"- template `{template.name}` v{template.version}: `{text}`{options}{keeps}")
    if task.recipe:
        lines.append(f"- recipe: {', '.join(f'{k}={v}' for k, v in task.recipe.items())}")
    if task.published:
        figures = ", ".join(f"{row} {score}" for row, score in task.published.items())
        lines.append(f"- published (quoted): {figures}; {task.published_source}")
    if task.submission:
        lines.append(f"- submission: `{task.submission.file}`")
    if task.protocol:
        lines += ["", " ".join(task.protocol.split())]
    return "\n".join(lines)


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
    return f"a text of at most {answer.max_new_tokens} tokens, beam {answer.beams}{read}"


def page() -> str:
    """The whole page."""
    tasks = load_tasks()
    parts = [HEAD.read_text(encoding="utf-8")]
    for suite, title in (("cuge", "CUGE"), ("", "Outside CUGE")):
        members = [t for t in tasks if ("cuge" in t.suites) == (suite == "cuge")]
        parts.append(f"## {title}\n")
        parts += [card(task) + "\n" for task in members]
    return "\n".join(parts)


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
