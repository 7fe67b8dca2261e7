"""The tokens of a row, for `show`."""

from __future__ import annotations

from collections.abc import Callable

from cpm_tune.backbone.bundled import resolve
from cpm_tune.backbone.families import open_folder
from cpm_tune.backbone.protocol import check_length, fitting
from cpm_tune.commands.options.look import Show
from cpm_tune.common.sizes import counted
from cpm_tune.data.encode import Encoder
from cpm_tune.data.shots import Shots
from cpm_tune.data.splits import data_folder, find_splits
from cpm_tune.data.store import read_split
from cpm_tune.planning.plan import chat_template, encoding_of
from cpm_tune.schema.options import Scoring
from cpm_tune.task import Row, Task, Template


def encoder_of(
    task: Task,
    template: Template,
    backbone: str,
    length: int | None,
    scoring: Scoring | None = None,
    chat: str | None = None,
) -> Encoder:
    """The encoder of a run with this backbone, longest sequence and chat template."""
    folder = open_folder(resolve(backbone))
    encoding = encoding_of(task, {} if length is None else {"encode.max_length": length})
    answer_tokens = getattr(task.answer, "max_new_tokens", 0)
    check_length(encoding.max_length, folder.config, "--max-length")
    tokenizer = folder.tokenizer()
    layout = folder.layout(fitting(encoding, folder), tokenizer)
    turns = None if chat is None else folder.turns(chat_template(folder, chat), tokenizer)
    return Encoder(
        *(task, template, layout, tokenizer, encoding.max_length, answer_tokens),
        scoring=scoring,
        turns=turns,
    )


def describer(task: Task, template: Template, options: Show) -> Callable[[Row], list[str]]:
    """A function that describes the sequences of a row, with their scored tokens."""
    length, chat = options.max_length, options.chat_template
    encoder = encoder_of(task, template, options.backbone, length, options.scoring, chat)
    if options.shots:
        file = find_splits(task, data_folder(task, options.data), ("train",))["train"]
        rows = read_split(task, file).rows
        encoder.add_shots(Shots(task, rows, options.shots, options.shot_choice, seed=1))

    def lines(row: Row) -> list[str]:
        example = encoder.encode(row)
        text = []
        for sequence in encoder.layout.describe(example):
            tokens = " ".join(map(repr, sequence.tokens))
            scored = ", ".join(f"{token!r} after position {i}" for i, token in sequence.scored)
            before = f"{sequence.n_before} soft-prompt rows + " * bool(sequence.n_before)
            text.append(f"    {before}{tokens}")
            text.append(f"    length {sequence.length}; scored: {scored}")
        dropped = f", {counted(example.dropped, 'shot')} dropped" if example.dropped else ""
        return [*text, f"    truncated: {'yes' if example.truncated else 'no'}{dropped}"]

    return lines
