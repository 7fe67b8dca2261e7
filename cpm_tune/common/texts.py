"""Text for a terminal, and values in messages."""

from __future__ import annotations

from collections.abc import Sequence

from cpm_tune.errors import escaped


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Left-aligned columns; a Chinese character counts as two cells, a control character is written
    as its escape."""
    from rich.cells import cell_len

    lines = [[escaped(cell) for cell in line] for line in (header, *rows)]
    widths = [max(cell_len(line[i]) for line in lines) for i in range(len(header))]
    return "\n".join(
        "  ".join(
            cell + " " * (width - cell_len(cell)) for cell, width in zip(line, widths, strict=True)
        ).rstrip()
        for line in lines
    )


def markdown(text: str) -> str:
    """A text that Markdown prints unchanged, on one line."""
    for char in "\\|<>*_`[]":
        text = text.replace(char, "\\" + char)
    return " ".join(escaped(text).split())


def shortened(value: object, most: int = 80) -> str:
    """A value of somebody's file as a message has it: its literal, cut if it is long."""
    text = repr(value)
    return text if len(text) <= most else f"{text[: most - 3]}..."
