"""Answered rows of train that are put before a prompt: few-shot prompting.

Which ones depends on train, the seed and the row alone. A row whose texts are those of a shot never
has that shot, so a row of train does not see its own answer, nor does a copy of it in dev or test.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from itertools import pairwise, zip_longest
from typing import Any

from cpm_tune.backbone.example import Ids
from cpm_tune.backbone.tokens import Parts, Tokenizer, Turns
from cpm_tune.data.files import as_json
from cpm_tune.data.store import RowDataset
from cpm_tune.errors import UserError
from cpm_tune.schema.options import ShotChoice
from cpm_tune.task import Choice, Options, Row, Task

_SEARCHED = 10_000  # rows of train, drawn by the seed, among which the nearest are looked for


class Shots:
    """`k` shots for each row: "balanced" ones are the same for all rows, with as many of each label
    (of each option's number) as can be; "nearest" ones have the texts most like the row's, by the
    cosine of their characters and pairs of characters (tf-idf), the most alike last."""

    def __init__(self, task: Task, rows: RowDataset, k: int, choice: ShotChoice, seed: int) -> None:
        """Raises UserError if train has too few rows."""
        self.k, self.choice = k, choice
        names = [name for name in task.files.columns if name != task.answer.column]
        self._names = tuple(names)
        draw = random.Random(f"shots {seed}")
        pool: dict[str, Row] = {}
        if choice == "balanced":
            numbers: Sequence[int] = _balanced(task, rows, draw)
            wanted = k + 1
        else:
            wanted = _SEARCHED
            numbers = draw.sample(range(len(rows)), min(len(rows), _SEARCHED))
        for start in range(0, len(numbers), 1000):
            for row in rows.at(numbers[start : start + 1000]):
                if len(pool) < wanted:
                    pool.setdefault(self._texts(row), row)
            if len(pool) == wanted:
                break
        if len(pool) <= k:
            raise UserError(
                f"--shots {k}: train has {len(pool)} different rows, expected more than {k}; ask "
                "for fewer shots."
            )
        self._keys, self.pool = tuple(pool), tuple(pool.values())

    def _texts(self, row: Row) -> str:
        return as_json([row[name] for name in self._names])

    @cached_property
    def sha256(self) -> str:
        """Fingerprint of all that decides the shots of a row."""
        about = as_json([self.k, self.choice, self.pool])
        return hashlib.sha256(about.encode()).hexdigest()

    def of(self, row: Row) -> tuple[int, ...]:
        """The shots of a row, as numbers of rows of `pool`, in the order of the prompt."""
        texts = self._texts(row)
        ranked = range(len(self.pool)) if self.choice == "balanced" else self._nearest(texts)
        chosen = [number for number in ranked if self._keys[number] != texts][: self.k]
        return tuple(chosen if self.choice == "balanced" else reversed(chosen))

    def _nearest(self, texts: str) -> list[int]:
        vectoriser, matrix = self._index
        scores = (matrix @ vectoriser.transform([texts]).T).toarray()[:, 0]
        order = (-scores).argsort(kind="stable")[: self.k + 1]
        return [int(number) for number in order]

    @cached_property
    def _index(self) -> tuple[Any, Any]:
        from sklearn.feature_extraction.text import TfidfVectorizer

        vectoriser = TfidfVectorizer(analyzer="char", ngram_range=(1, 2), sublinear_tf=True)
        return vectoriser, vectoriser.fit_transform(self._keys)


def _balanced(task: Task, rows: RowDataset, draw: random.Random) -> list[int]:
    """The numbers of all rows in a drawn order, in which labels take turns."""
    numbers = list(range(len(rows)))
    draw.shuffle(numbers)
    if not isinstance(task.answer, Choice | Options):
        return numbers
    targets, by_target = rows.targets(), dict[Any, list[int]]()
    for number in numbers:
        by_target.setdefault(targets[number], []).append(number)
    labels = sorted(by_target)
    draw.shuffle(labels)
    return list(_in_turn([by_target[label] for label in labels]))


def _in_turn(groups: Sequence[Sequence[int]]) -> Iterator[int]:
    for several in zip_longest(*groups):
        yield from (number for number in several if number is not None)


def as_parts(
    prompt: Sequence[str],
    answer: str,
    tokenizer: Tokenizer,
    known: Mapping[str, Ids],
    turns: Turns | None,
) -> Parts:
    """A shot as it stands before a prompt: `prompt` (one text, or that before an option, the option
    and that after it), the answer and a newline; in a chat template, two turns. `known`: the ids
    of options."""
    encode = tokenizer.encode
    if turns is None:
        ends = (encode(text) for text in ("\n", " ", "。"))
        end = next((ids for ids in ends if ids and tokenizer.unk not in ids), [])
        texts = (known.get(text) or encode(text) for text in (*prompt, answer))
        return (*(index for ids in texts for index in ids), *end)
    if turns.again is None:
        raise UserError(
            "--shots: the chat template treats earlier turns unlike the first one; omit --shots, "
            "or use another template."
        )
    first, *others = prompt
    turn: list[str | int] = [first]
    for option, after in pairwise(others):
        turn += (*(known.get(option) or encode(option)), after)
    turns.strip(turn, turn)
    answer = answer.strip() if all(turns.strips) else answer
    return (*turn, *turns.answered, answer, *turns.again)
