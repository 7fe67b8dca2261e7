"""Turns a row into contexts and answers. The only encoder: training and inference share it.

A context begins with the ids that the backbone's layout says. Texts that are too long are shortened
by one rule: the longest fields (and the row's options) lose characters, at the side that the
template names, until the sequence fits; the template's words are never cut. A text to generate is
cut to `answer_tokens`, for which training and inference leave room. Rows that were cut are counted.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import astuple
from typing import Any

from cpm_tune.backbone.example import Answer, Example, Ids
from cpm_tune.backbone.protocol import Layout
from cpm_tune.backbone.tokens import Parts, Tokenizer, Turns, joined
from cpm_tune.data.example_store import EncodedCache
from cpm_tune.data.shots import Shots, as_parts
from cpm_tune.data.template_ids import known_ids, placed_ids, special_ids
from cpm_tune.delta.soft import SoftSlots
from cpm_tune.errors import UserError
from cpm_tune.schema.options import Scoring
from cpm_tune.task import Choice, Generate, Options, Rank, Row, Task, Template
from cpm_tune.task.scoring import scoring_of
from cpm_tune.task.template import Piece

Part = str | int | None  # a text, an id, the end of a text


class Encoder:
    """Encodes the rows of one task with one template and one vocabulary."""

    def __init__(
        self,
        task: Task,
        template: Template,
        layout: Layout,
        tokenizer: Tokenizer,
        max_length: int,
        answer_tokens: int = 0,
        soft: SoftSlots | None = None,
        scoring: Scoring | None = None,
        turns: Turns | None = None,
    ) -> None:
        """`max_length` bounds a context and its longest answer together, `answer_tokens` is the
        room for a text to generate, `soft` a soft prompt's tokens, `scoring` the rule that scores
        options, if it is not the template's own. With `turns` of a chat template the text before
        the answer is the user's turn, and what is scored or generated the assistant's.

        Raises UserError if template or settings do not fit the vocabulary.
        """
        self.template, self.layout, self.tokenizer = template, layout, tokenizer
        self.answer, self.rule = task.answer, scoring_of(task, template, scoring)
        self.turns, self.end = turns, turns.end if turns else tokenizer.eos
        self._start: Parts = turns.opening if turns else layout.start
        self.generates = isinstance(task.answer, Generate)
        self.max_length, self.answer_tokens = max_length, answer_tokens
        self._soft, self._before_option = placed_ids(template, soft)
        before_each = soft is not None and soft.options and not template.scores_in_prompt
        listed = isinstance(task.answer, Options) and task.answer.options
        self._listed = listed if before_each and listed else None
        self._verbalised = {
            option: known_ids(template, tokenizer, option, "option") for option in template.options
        }
        self._special = special_ids(template, tokenizer)
        # The prompt's tokens are in the loss too, and prompt and answer are one text.
        self._whole = template.counts == "text" and (self.generates or self.rule == "mean-nll")
        yes = (
            known_ids(template, tokenizer, template.yes, "answer word")
            if self.rule == "yes-logit"
            else (tokenizer.unk,)
        )
        if len(yes) != 1:
            others = [t.name for t in task.templates if not t.scores_in_prompt]
            way = "use another backbone"
            if others:
                way = f"choose a template that scores words: --template {others[0]}"
            elif known := [t.name for t in task.templates if len(tokenizer.encode(t.yes)) == 1]:
                way = f"choose another template: --template {known[0]}"
            raise UserError(
                f"'{template.yes}' is not a single entry of this vocabulary, but {len(yes)}, and "
                f"template '{template.name}' scores options by one; {way}."
            )
        self._yes = yes[0]
        self._lead = layout.lead
        self.stores: dict[tuple[str, str], EncodedCache] = {}  # see encoded.py
        lists = set(task.files.texts)
        empty: Row = {name: [] if name in lists else "" for name in template.fields}
        longest = max(template.options, key=len, default="")
        self._empty, self._longest = empty, (longest,)
        self._shots: Shots | None = None
        self._n_shots, self._shot_parts = 0, dict[int, Parts]()
        parts = self._ids(empty, (longest,), None)
        self._bare: dict[tuple[int, ...], Ids] = {(): parts[0]}
        self._check_rule()
        least = self._length(parts)
        if least > max_length:
            needed = f"template '{template.name}'"
            needed += f" and {answer_tokens} tokens to generate" if self.generates else ""
            raise UserError(
                f"encode.max_length is {max_length}: the soft prompt and {needed} alone "
                f"need {least}; raise it."
            )

    def _check_rule(self) -> None:
        """Raise UserError if the rule cannot score this template's options in this vocabulary."""
        if self.rule == "argmax-vocabulary":
            first: dict[int, str] = {}
            for option, ids in self._verbalised.items():
                if (other := first.setdefault(ids[0], option)) != option:
                    raise UserError(
                        f"scoring argmax-vocabulary: options '{other}' and '{option}' of template "
                        f"'{self.template.name}' begin with the same entry of this vocabulary; "
                        "choose another rule or template."
                    )
        likelihood = self.rule == "mean-nll" or self._whole
        what = f"template '{self.template.name}'" if self.generates else "scoring mean-nll"
        if likelihood and self.turns:
            raise UserError(
                f"{what}: a chat template has no place for a whole passage; omit "
                "--chat-template, or choose another rule."
            )
        counted = 0  # the first piece whose tokens have a likelihood
        if self.template.counts == "after":
            counted = [piece.kind for piece in self.template.pieces].index("option")
        inside = [place for place in self._soft if place > counted]
        if likelihood and (inside or (any(self._before_option) and not counted)):
            raise UserError(
                f"{what}: the soft prompt's tokens inside the text have no likelihood; "
                "put all of them in front (delta.slots, delta.ratio_list, delta.option_token_num) "
                "or choose another rule."
            )

    def fingerprint(self) -> list[Any]:
        """Return, as JSON values, all that decides besides a row how it is encoded."""
        template = self.template
        return [
            [template.name, template.version, template.sha256, self.rule],
            [self.max_length, self.answer_tokens, self.layout.start, *self._form],
            [sorted(self._soft.items()), self._before_option, self._listed],
            self.tokenizer.sha256,
            astuple(self.turns) if self.turns else None,
            self._shots.sha256 if self._shots else None,
        ]

    @property
    def _form(self) -> list[Any]:
        """What else of the layout decides how rows are cut, if anything does."""
        return [self._lead, self.layout.around] if self._lead or self.layout.around else []

    @property
    def stop(self) -> frozenset[int]:
        """The ids that end a generated text."""
        return frozenset({self.end, self.tokenizer.eos})

    def n_options(self, example: Example) -> int:
        """The number of options that an example was encoded with."""
        return len(example.candidates) // (2 if self.rule == "verbaliser-relative" else 1)

    def uneven(self, row: Row) -> bool:
        """Whether a row's options have several lengths in tokens that the rule adds up."""
        encode = self.tokenizer.encode
        lengths = {len(self._verbalised.get(text) or encode(text)) for text in self.options(row)}
        return self.rule == "verbaliser-sum" and len(lengths) > 1

    def options(self, row: Row) -> tuple[str, ...]:
        """The texts that are scored for a row, in the order of the labels or the row's options."""
        if isinstance(self.answer, Choice):
            return self.template.options
        if isinstance(self.answer, Options | Rank):
            options = tuple(row[self.answer.options])
            return self.template.options[: len(options)] if self.template.options else options
        return ()

    def encode(self, row: Row, *, train: bool = False) -> Example:
        """Encode a row.

        With `train`, what carries no loss is left out: wrong options, where the loss is that of the
        gold answer's tokens (as in CPM-2), documents as good as the best one. Without it a text to
        generate is encoded, too, if there is one, to be scored.
        """
        target, texts = row["target"], self.options(row)
        if self.generates and self._whole:
            return self._line(row, target)
        (before, options, after), truncated, shots = self._fit(row, texts)
        dropped = self._n_shots - len(shots)
        gold = -1 if target is None else 0
        if self.generates:
            answer, cut = self._to_write(target or "")
            options, truncated = [answer], truncated or cut
        elif isinstance(self.answer, Rank):
            gold = -1 if target is None else max(range(len(target)), key=lambda i: target[i])
            if train:
                kept = [i for i, grade in enumerate(target) if i == gold or grade < target[gold]]
                options, gold = [options[i] for i in kept], kept.index(gold)
        elif target is not None:
            gold = int(target)
        if train and self.rule != "yes-logit" and not self.generates:
            options, gold = [options[gold]], 0
        contexts, candidates = self._scored(before, options, after, shots, train=train)
        return Example(str(row["id"]), contexts, candidates, gold, truncated, dropped)

    def _scored(
        self, before: Ids, options: list[Ids], after: Ids, shots: tuple[int, ...], *, train: bool
    ) -> tuple[tuple[Ids, ...], tuple[Answer, ...]]:
        """The contexts and the answers that the rule scores in them: one per option, in order; by
        verbaliser-relative a second one each, in a context without the row's texts."""
        if self.rule == "yes-logit":
            contexts = tuple((*before, *option, *after) for option in options)
            return contexts, tuple(self._answer(k, (self._yes,)) for k in range(len(options)))
        if self.rule == "mean-nll":
            after = (*after, self.end)
            if self.template.counts == "after":
                contexts = tuple((*before, *option) for option in options)
                return contexts, tuple(self._answer(k, after) for k in range(len(options)))
            return self._passages([(*before, *option, *after) for option in options])
        if self.rule == "argmax-vocabulary" and not train:
            return (before,), tuple(self._answer(0, option[:1]) for option in options)
        answers = tuple(self._answer(0, option) for option in options)
        if self.rule == "verbaliser-relative" and not train:
            alone = tuple(self._answer(1, option) for option in options)
            return (before, self._without_row(shots)), (*answers, *alone)
        return (before,), answers

    def _passages(self, passages: Sequence[Ids]) -> tuple[tuple[Ids, ...], tuple[Answer, ...]]:
        """Passages as answers, each in the context of its first ids, which are not scored."""
        n = max(self.layout.shortest, len(self.layout.start) + len(self._soft.get(0, ())))
        contexts = list(dict.fromkeys(passage[:n] for passage in passages))
        answers = (self._answer(contexts.index(each[:n]), each[n:]) for each in passages)
        return tuple(contexts), tuple(answers)

    def _line(self, row: Row, target: str | None) -> Example:
        """The prompt and the text to generate as one text, every token of which is learnt."""
        before, after = self._parts(row, None)
        written = (target or "") + self.template.end
        ids = (*self._one((*before, written, *after)), self.end)
        room = self.max_length - self.layout.around - len(self._lead)
        contexts, candidates = self._passages([ids[:room]])
        gold = -1 if target is None else 0
        return Example(str(row["id"]), contexts, candidates, gold, len(ids) > room)

    def _answer(self, context: int, ids: Ids) -> Answer:
        return Answer(context, (*self._lead, *ids), len(self._lead))

    def _to_write(self, text: str) -> tuple[Ids, bool]:
        """The ids of a text and the end mark, at most `answer_tokens`, and whether it was cut."""
        ids = (*self.tokenizer.encode(text + self.template.end), self.end)
        return ids[: self.answer_tokens], len(ids) > self.answer_tokens

    def prefix(self, row: Row) -> Example:
        """An example of one context to continue: the ids before the text to generate."""
        (before, _, _), truncated, shots = self._fit(row, ())
        dropped = self._n_shots - len(shots)
        return Example(str(row["id"]), (before,), (), -1, truncated, dropped)

    def _without_row(self, shots: tuple[int, ...]) -> Ids:
        """A context with empty fields."""
        if shots not in self._bare:
            self._bare = {shots: self._ids(self._empty, self._longest, None, shots)[0]}
        return self._bare[shots]

    def _parts(
        self, row: Row, cap: int | None, shots: tuple[int, ...] = ()
    ) -> tuple[list[Part], list[Part]]:
        """What is before, with these shots, and what is after the option or answer."""
        parts: tuple[list[Part], list[Part]] = ([], [])
        side = first = 0
        for place, piece in enumerate(self.template.pieces):
            parts[side].extend(self._soft.get(place, ()))
            if place == 0:
                for number in shots:
                    parts[0].extend(self._shot(number))
                first = len(parts[0])
            if piece.kind in ("option", "answer"):
                if piece.kind == "option" and self._before_option:
                    parts[0].extend(self._before_option[0])
                side = 1
            elif piece.kind != "field":
                parts[side].extend(self._part(piece))
            elif isinstance(row[piece.value], str):
                parts[side].append(self.template.cut(row, piece, cap))
            else:
                before_each = self._before_option if piece.value == self._listed else ()
                for number, each in enumerate(self.template.listed(row[piece.value], cap)):
                    parts[side].extend(before_each[number] if before_each else ())
                    for inner in each:
                        parts[side].extend(self._part(inner))
        parts[side].extend(self._soft.get(len(self.template.pieces), ()))
        if self.turns:
            last = parts[self.template.scores_in_prompt]
            self.turns.strip(parts[0], last, first)
            last.extend(self.turns.ask)
        return parts

    def _part(self, piece: Piece) -> Sequence[Part]:
        if piece.kind == "text":
            return (piece.value,)
        return (None,) if piece.kind == "break" else self._special[piece.value]

    def _ids(
        self,
        row: Row,
        options: tuple[str, ...],
        cap: int | None,
        shots: tuple[int, ...] = (),
    ) -> tuple[Ids, list[Ids], Ids]:
        """The ids before the option or answer, with these shots, of each option, and after it. If
        all is encoded as one, an option's ids are those of all."""
        before, after = self._parts(row, cap, shots)
        if self._whole and options and not self.generates:
            return (), [self._one((*before, text[:cap], *after)) for text in options], ()
        encode = self.tokenizer.encode
        written = [
            self._verbalised.get(text)
            or tuple(encode(text[:cap]))
            or (() if self.template.scores_in_prompt else (self.tokenizer.unk,))
            for text in options
        ]
        first = encode if shots else self.tokenizer.opening
        return joined((*self._start, *before), encode, first), written, joined(after, encode)

    def _one(self, parts: Iterable[Part]) -> Ids:
        return joined((*self._start, *parts), self.tokenizer.encode, self.tokenizer.opening)

    def _length(self, parts: tuple[Ids, list[Ids], Ids]) -> int:
        before, options, after = parts
        longest = max(map(len, options), default=0)
        answer = max(longest, self.answer_tokens if self.generates else 0)
        others = self.layout.around + len(self._lead) + (self.rule == "mean-nll")
        return len(before) + answer + len(after) + others

    def _fit(
        self, row: Row, options: tuple[str, ...]
    ) -> tuple[tuple[Ids, list[Ids], Ids], bool, tuple[int, ...]]:
        """The ids that fit max_length, whether fields were cut, and the shots that are in them.

        The first shots go first; fields are cut, to as many characters, if none is left."""
        room = self.max_length
        shots = self._shots.of(row) if self._shots else ()
        for dropped in range(len(shots) + 1):
            whole = self._ids(row, options, None, shots[dropped:])
            if self._length(whole) <= room:
                return whole, False, shots[dropped:]
        shown = [row[name] for name in self.template.fields]
        texts = [text for value in shown for text in ([value] if isinstance(value, str) else value)]
        low, high = 0, max(map(len, (*texts, *options)), default=0)
        while high - low > 1:  # `low` characters fit, `high` do not
            middle = (low + high) // 2
            fits = self._length(self._ids(row, options, middle)) <= room
            low, high = (middle, high) if fits else (low, middle)
        return self._ids(row, options, low), True, ()

    # --- shots ---

    def add_shots(self, shots: Shots) -> None:
        """Put shots before every prompt from now on; raise UserError if there is no place."""
        if self.rule == "mean-nll":
            raise UserError(
                "scoring mean-nll: shots would be scored with the passage; omit --shots, or choose "
                "another rule."
            )
        if self._whole or not all(self.template.specials.values()):
            raise UserError(
                f"--shots: template '{self.template.name}' is a paper's own sequence, which has "
                "none; omit --shots, or choose another template."
            )
        self._shots, self._n_shots = shots, shots.k
        self._shot(0)

    def _shot(self, number: int) -> Parts:
        """A shot as it stands in a prompt: a prompt with its answer; in a chat template, turns."""
        if (known := self._shot_parts.get(number)) is not None:
            return known
        assert self._shots is not None
        row = self._shots.pool[number]
        answer, options = row["target"], self.options(row)
        if isinstance(self.answer, Rank):
            answer = max(range(len(answer)), key=lambda i: answer[i])
        answer = options[answer] if options else answer
        before, option, after = self.template.render(row, answer)
        if self.template.scores_in_prompt:
            prompt, answer = [before, option, after], self.template.yes
        else:
            prompt, answer = [before], option
        parts = as_parts(prompt, answer, self.tokenizer, self._verbalised, self.turns)
        self._shot_parts[number] = parts
        return parts
