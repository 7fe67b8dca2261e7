"""The command `data`: a data set's card."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from cpm_tune.analysis.card import Truncation, lengths, make_card
from cpm_tune.analysis.card_text import render
from cpm_tune.commands.options.look import DataCard
from cpm_tune.common.door import load
from cpm_tune.common.writing import write_atomically
from cpm_tune.data.splits import data_folder, find_splits
from cpm_tune.data.store import read_split
from cpm_tune.errors import UserError
from cpm_tune.planning.plan import find_template
from cpm_tune.task import SPLITS, Row, Task
from cpm_tune.task.registry import load_task, load_tasks

_ENDINGS = {".html": "html", ".htm": "html", ".json": "json", ".txt": "text"}


def run(options: DataCard) -> int:
    """Print or write the card."""
    if options.out is not None and options.out.suffix.lower() not in _ENDINGS:
        raise UserError(f"--out {options.out}: expected an ending of {', '.join(_ENDINGS)}.")
    task = load_task(options.task or _task_of(options), options.include)
    folder = data_folder(task, options.folder)
    files = find_splits(task, folder, SPLITS, SPLITS)
    if not files:
        find_splits(task, folder)  # raises the error that names what is missing
    splits = {
        name: read_split(task, file, None, options.skip_bad_rows) for name, file in files.items()
    }
    truncation = _truncation(task, options)
    card = make_card(task, str(folder), splits, truncation, _corpus(options))
    if options.out is None:
        print(render(card, "text"))
        return 0
    try:
        write_atomically(options.out, render(card, _ENDINGS[options.out.suffix.lower()]) + "\n")
    except OSError as error:
        raise UserError(f"--out {options.out}: cannot be written ({error.strerror}).") from error
    print(f"{options.out}: written")
    return 0


def _task_of(options: DataCard) -> str:
    """The task that the folder is named after."""
    name = "".join(filter(str.isalnum, options.folder.resolve().name)).casefold()
    names = [task.name for task in load_tasks(options.include)]
    alike = [task for task in names if task.replace("_", "").replace("-", "") == name]
    if len(alike) != 1:
        raise UserError(
            f"{options.folder}: no task has the name of this folder; give it with --task NAME."
        )
    return alike[0]


def _truncation(task: Task, options: DataCard) -> Callable[[Iterable[Row]], Truncation]:
    """A function that encodes rows as a run with this backbone and length would."""
    length = options.max_length
    encoder = load("cpm_tune.commands.show_tokens:encoder_of")(
        task, find_template(task, options.template), options.backbone, length
    )

    def measured(rows: Iterable[Row]) -> Truncation:
        examples = [encoder.encode(row) for row in rows]
        tokens = [
            max(len(context) for context in example.contexts)
            + max((len(candidate.ids) for candidate in example.candidates), default=0)
            for example in examples
        ]
        cut = sum(example.truncated for example in examples)
        return Truncation(encoder.max_length, len(examples), cut, lengths(tokens))

    return measured


def _corpus(options: DataCard) -> Callable[[], Iterator[str]] | None:
    """The documents of a prepared corpus, if one is given."""
    if options.corpus is None:
        return None
    texts: Callable[[], Iterator[str]]
    texts = load("cpm_tune.pretrain.store:Corpus").open(options.corpus).texts
    return texts
