"""Texts from texts: prompts as the ids that a backbone continues, and texts from generated tokens.

CPM-Ant leaves out what its vocabulary lacks, as in pre-training. The first token is neither a
newline nor the end of the text.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import islice
from numbers import Integral
from typing import Any

from pydantic import ValidationError

from cpm_tune.backbone.base import Backbone
from cpm_tune.backbone.example import Ids
from cpm_tune.backbone.protocol import BackboneFolder, Infilling, check_length, fitting
from cpm_tune.backbone.tokens import Tokenizer, joined
from cpm_tune.common.faults import faults
from cpm_tune.common.sizes import counted, shortened
from cpm_tune.decode import Hypothesis, Request, generate, infill, stream
from cpm_tune.decode.blanks import Blanks, parse_blanks
from cpm_tune.decode.search import parts_of
from cpm_tune.delta.config import DeltaConfig, SoftPromptConfig
from cpm_tune.delta.slots import slot_places
from cpm_tune.delta.soft import SoftSlots
from cpm_tune.engine.engine import Engine
from cpm_tune.errors import UserError, did_you_mean
from cpm_tune.schema.spec import Decoding, Encoding

Blanked = tuple[Blanks, list[tuple[Ids, tuple[int, ...]]], tuple[str, ...]]
MOST_TEXTS = 100_000  # of one call; half a GB, where each has 50 tokens
DRAWING = ("temperature", "top_k", "top_p")


@dataclass(frozen=True)
class Text:
    """A generated text; `str` returns it.

    `prompt` is what it continues, or the text whose blanks it fills, with `fills`; it is the
    `rank`-th text `of` that prompt, both from 0. `log_prob` is what the model gives its `n_tokens`
    tokens; `score` ranks. `finished`: it ended with a stop token. `left_out`: what of the prompt
    the vocabulary lacks.
    """

    prompt: str
    of: int
    rank: int
    text: str
    log_prob: float
    score: float
    n_tokens: int
    finished: bool
    fills: tuple[str, ...] = ()
    left_out: tuple[str, ...] = field(default=(), compare=False)

    def __str__(self) -> str:
        return self.text


def decoding(num: int = 1, **given: Any) -> Decoding:
    """The settings for `num` texts per prompt: fields of Decoding, with CPM-Ant's own defaults.

    Sampling (temperature 0.9, top_p 0.9) if `sample`, `temperature`, `top_k` or `top_p` is given;
    greedy with `beams=1`; otherwise beam search with 3 beams and length_penalty 1. If nothing is
    drawn, repetition_penalty is 1.2, and `seed` is accepted without effect. Raises UserError for
    conflicting settings.
    """
    given = {name: value for name, value in given.items() if value is not None}
    known = set(Decoding.model_fields) - {"n_best"}
    if unknown := [name for name in given if name not in known]:
        raise UserError(f"there is no setting '{unknown[0]}'.{did_you_mean(unknown[0], known)}")
    for name in ("beams", "seed"):
        if name in given and not isinstance(given[name], Integral):
            raise UserError(f"{name} is {given[name]!r}, expected a whole number.")
    whole_number(num, "num")
    sample, beams = given.pop("sample", None), given.get("beams")
    drawing = [name for name in DRAWING if name in given] + ["sample"] * bool(sample)
    if drawing and (sample is False or (beams or 1) > 1):
        asked = f"beams is {beams}" if (beams or 1) > 1 else "greedy decoding is asked for"
        raise UserError(f"{drawing[0]} is given, but {asked}, which draws nothing; give one only.")
    values: dict[str, Any] = {"min_new_tokens": 1, **given}
    if drawing:
        values = {"temperature": 0.9, "top_p": 0.9, **values, "sample": True}
    else:
        if beams is None and num > 1000:
            raise UserError(f"num is {num}, but beam search gives 1000 texts at most; sample.")
        beams = max(3, num) if beams is None else beams
        if 0 < beams < num:
            kind = "greedy decoding writes one" if beams == 1 else f"{beams} beams give {beams}"
            raise UserError(f"num is {num}, but {kind}; raise beams, or sample.")
        plain = {"length_penalty": 1.0 if beams > 1 else 0.0, "repetition_penalty": 1.2}
        values = {**plain, **values}
        values |= {"beams": beams, "n_best": num}
        if not 0 <= values.pop("seed", 0) < 2**32:
            raise UserError(f"seed is {given['seed']}, expected 0 to {2**32 - 1}.")
    try:
        return Decoding(**values)
    except ValidationError as error:
        raise UserError(f"{faults(error)[0]}.") from error


def whole_number(value: object, name: str) -> int:
    """The value, if it is a whole number from 1; raise UserError if not."""
    if not isinstance(value, Integral) or value < 1:
        raise UserError(f"{name} is {value!r}, expected a whole number from 1.")
    return int(value)


def check_number(num: int, prompts: int, ways: int) -> None:
    """Raise UserError if `num` texts for each of so many prompts, in so many `ways` together, are
    more than memory should hold: all stay there until the last is written."""
    if num > 1 and ways > MOST_TEXTS:
        raise UserError(
            f"num is {num}: for {counted(prompts, 'prompt')} that is {ways:,} texts to keep in "
            f"memory, more than {MOST_TEXTS:,}; ask for fewer at a time, with other seeds."
        )


class Writer:
    """Turns prompts into ids and tokens into texts, for one backbone and delta.

    `encoding` is the one a delta was trained with. `max_length` bounds soft prompt, prompt and what
    is written together; by default what the model tells positions apart in, at least 256. `chat` is
    the text of a chat template: a prompt is the user's turn, and what is written the answer to it.
    Raises UserError where backbone or delta cannot be used so.
    """

    def __init__(
        self,
        folder: BackboneFolder,
        tokenizer: Tokenizer,
        delta: DeltaConfig | None = None,
        encoding: Encoding | None = None,
        max_length: int | None = None,
        chat: str | None = None,
    ) -> None:
        self.folder, self.tokenizer, self.delta = folder, tokenizer, delta
        self.turns = None if chat is None else folder.turns(chat, tokenizer)
        least = Encoding.model_fields["max_length"].default
        shape = folder.config.shape
        self.max_length = max_length or shape.limit or max(least, shape.longest)
        check_length(self.max_length, folder.config, "max_length")
        given = encoding or Encoding()  # its length bounds no prompt: `_check_length` does
        self.layout = folder.layout(fitting(given, folder), tokenizer)
        self._before, self._after = tuple[int, ...](), tuple[int, ...]()  # of the soft prompt
        if isinstance(delta, SoftPromptConfig):
            self._place(delta)

    @cached_property
    def infilling(self) -> Infilling:
        """How texts with blanks look; UserError if the backbone fills none."""
        return self.folder.infilling(self.tokenizer)

    def _place(self, delta: SoftPromptConfig) -> None:
        """Put soft tokens where they stand in a template of one field and the answer."""
        if delta.option_token_num:
            raise UserError(
                "this soft prompt has tokens that stand before options, and a prompt has no "
                "options; only `predict` can use it."
            )
        soft, places = SoftSlots(delta, self.layout.first_free), slot_places(("field", "answer"))
        for name in soft.names:
            if name not in places:
                raise UserError(f"this soft prompt has the slot '{name}', which a prompt has not.")
            if places[name]:
                self._after += soft.slot_ids(name)
            else:
                self._before += soft.slot_ids(name)

    def _ids(self, text: str, *, opens: bool = True) -> tuple[Ids, tuple[str, ...]]:
        """The ids of a text that opens a context or is inside of one, and what of it the vocabulary
        lacks: <unk>, or left out in a family that does so."""
        unknown = tuple(self.tokenizer.unknown(text))
        encode = self.tokenizer.opening if opens else self.tokenizer.encode
        dropped = self.tokenizer.unk if self.tokenizer.drops_unknown else None
        return tuple(i for i in encode(text) if i != dropped), unknown

    def prefix(self, prompt: str, where: str, room: int) -> tuple[Ids, tuple[str, ...]]:
        """The ids before the continuation, and what was left out of the prompt; `room` is for the
        continuation. Raises UserError for a prompt that is empty or too long."""
        if not prompt.strip():
            raise UserError(f"{where}: the prompt is empty; give a text to continue.")
        ids, unknown = self._ids(prompt)
        if not ids:
            raise UserError(
                f"{where}: nothing of '{shortened(prompt, 20)}' is in this backbone's vocabulary."
            )
        whole = (*self.layout.start, *self._before, *ids, *self._after)
        if self.turns:
            turn: list[str | int] = [*self._before, prompt, *self._after]
            self.turns.strip(turn, turn)
            parts = (*self.turns.opening, *turn, *self.turns.ask)
            whole = joined(parts, self.tokenizer.encode, self.tokenizer.opening)
        self._check_length(where, len(ids), len(whole) - len(ids) + self.layout.around, room)
        return whole, unknown

    def _check_length(self, where: str, n: int, others: int, room: int) -> None:
        if n + others + room > self.max_length:
            raise UserError(
                f"{where}: the text has {counted(n, 'token')}; with {others} around it and {room} "
                f"to write that is {n + others + room:,}, more than max_length "
                f"{self.max_length:,}: shorten it, write less, or raise max_length."
            )

    def blanked(self, text: str, where: str, default: range | None) -> Blanked:
        """A text's blanks, for each choice of lengths its ids with the masked positions (or its
        ids with sentinels, once), and what was left out."""
        if isinstance(self.delta, SoftPromptConfig):
            raise UserError(
                "a soft prompt stands before a continuation, and blanks have no such place; fill "
                "them without this delta."
            )
        infilling = self.infilling
        if infilling.sentinels:
            return self._with_sentinels(text, where, default or infilling.lengths)
        blanks = parse_blanks(text, where, default or infilling.lengths)
        start = infilling.layout.start
        pieces = [self._ids(text, opens=not n) for n, text in enumerate(blanks.pieces)]
        n = sum(len(ids) for ids, _ in pieces)
        room = sum(length[-1] for length in blanks.lengths)
        self._check_length(where, n, len(start) + len(infilling.end), room)
        choices = []
        for lengths in blanks.choices():
            ids, masked = [*start, *pieces[0][0]], list[int]()
            for length, (piece, _) in zip(lengths, pieces[1:], strict=True):
                masked += range(len(ids), len(ids) + length)
                ids += [*[infilling.blank] * length, *piece]
            choices.append(((*ids, *infilling.end), tuple(masked)))
        return blanks, choices, tuple(text for _, unknown in pieces for text in unknown)

    def _with_sentinels(self, text: str, where: str, default: range) -> Blanked:
        """`blanked`, with a sentinel for each blank."""
        sentinels = self.infilling.sentinels
        blanks = parse_blanks(text, where, default, most=len(sentinels) - 1)
        pieces = [self._ids(piece, opens=not n) for n, piece in enumerate(blanks.pieces)]
        ids = [*pieces[0][0]]
        for sentinel, (piece, _) in zip(sentinels, pieces[1:], strict=False):
            ids += (sentinel, *piece)
        room = sum(length[-1] + 1 for length in blanks.lengths)
        self._check_length(where, len(ids), self.infilling.layout.around, room)
        unknown = tuple(text for _, unknown in pieces for text in unknown)
        return blanks, [(tuple(ids), ())], unknown

    def _request(self, settings: Decoding) -> Request:
        """The request for continuations, or for answers in a chat template."""
        newline, stop = self.tokenizer.newline, {self.tokenizer.eos}
        if self.turns:
            stop.add(self.turns.end)
        return Request(
            settings,
            self.layout,
            stop=frozenset(stop),
            banned=frozenset(self.tokenizer.never_written) - stop,
            not_first=frozenset() if newline is None else frozenset({newline}),
        )

    def encode(
        self, prompts: Sequence[str], settings: Decoding, where: Sequence[str]
    ) -> list[tuple[Ids, tuple[str, ...]]]:
        """All prompts' prefixes; see `prefix`."""
        return [
            self.prefix(prompt, place, settings.max_new_tokens)
            for prompt, place in zip(prompts, where, strict=True)
        ]

    def write(
        self,
        model: Backbone,
        engine: Engine,
        prompts: Sequence[str],
        encoded: Sequence[tuple[Ids, tuple[str, ...]]],
        settings: Decoding,
        num: int,
        micro_tokens: int,
    ) -> list[Text]:
        """`num` texts for each prompt, the best (or first drawn) first."""
        draws = num if settings.sample else 1
        prefixes = [ids for ids, _ in encoded for _ in range(draws)]
        request = self._request(settings)
        with engine.autocast():
            results = iter(generate(model, prefixes, request, micro_tokens=micro_tokens))
        made = []
        for of, (prompt, (_, left_out)) in enumerate(zip(prompts, encoded, strict=True)):
            for rank, one in enumerate(h for _ in range(draws) for h in next(results)):
                text, n = self.tokenizer.decode(one.ids), len(one.ids) + one.finished
                scores = one.log_prob, one.score, n, one.finished
                made.append(Text(prompt, of, rank, text, *scores, left_out=left_out))
        return made

    def stream(
        self, model: Backbone, engine: Engine, prefix: Ids, settings: Decoding
    ) -> Iterator[str]:
        """The pieces of one text, each when it is known."""
        tokens = stream(model, prefix, self._request(settings))

        def each() -> Iterator[int]:
            while True:
                with engine.autocast():
                    token = next(tokens, None)
                if token is None:
                    return
                yield token

        yield from self.tokenizer.pieces(each())

    def fill(
        self,
        model: Backbone,
        engine: Engine,
        texts: Sequence[str],
        blanked: Sequence[Blanked],
        settings: Decoding,
        num: int,
        micro_tokens: int,
    ) -> list[Text]:
        """The `num` best ways to fill the blanks of each text, over all lengths.

        If sampling: `num` times one fill for each choice of lengths, of which the best is kept.
        """
        if self.infilling.sentinels:
            return self._fill_in_parts(model, engine, texts, blanked, settings, num, micro_tokens)
        draws = num if settings.sample else 1
        choices = [choice for _, every, _ in blanked for choice in every for _ in range(draws)]
        request = Request(
            settings,
            self.infilling.layout,
            banned=frozenset(self.tokenizer.never_written),
        )
        with engine.autocast():
            results = iter(infill(model, choices, request, micro_tokens=micro_tokens))
        made = []
        for of, (text, (blanks, _, left_out)) in enumerate(zip(texts, blanked, strict=True)):
            rounds: list[list[tuple[Hypothesis, tuple[int, ...]]]] = [[] for _ in range(draws)]
            for lengths in blanks.choices():
                for drawn in rounds:
                    drawn += [(one, lengths) for one in next(results)]
            ranked = [sorted(drawn, key=lambda pair: -pair[0].score) for drawn in rounds]
            best = ranked[0][:num] if draws == 1 else [each[0] for each in ranked]
            for rank, (one, lengths) in enumerate(best):
                left = iter(one.ids)
                fills = tuple(self.tokenizer.decode(islice(left, length)) for length in lengths)
                scores = one.log_prob, one.score, len(one.ids), True
                filled = blanks.filled(fills)
                made.append(Text(text, of, rank, filled, *scores, fills, left_out))
        return made

    def _fill_in_parts(
        self,
        model: Backbone,
        engine: Engine,
        texts: Sequence[str],
        blanked: Sequence[Blanked],
        settings: Decoding,
        num: int,
        micro_tokens: int,
    ) -> list[Text]:
        """`fill` by sentinels; texts with blanks of the same lengths go together."""
        draws = num if settings.sample else 1
        banned = {*self.tokenizer.never_written, self.tokenizer.eos}
        plain = Request(settings, self.infilling.layout, banned=frozenset(banned))
        alike: dict[tuple[range, ...], list[int]] = {}
        for of, (blanks, _, _) in enumerate(blanked):
            alike.setdefault(blanks.lengths, []).append(of)
        made: dict[int, list[Text]] = {}
        for lengths, numbers in alike.items():
            ends = self.infilling.sentinels[1 : len(lengths) + 1]
            prefixes = [blanked[of][1][0][0] for of in numbers for _ in range(draws)]
            request = plain.in_parts(ends, lengths)
            with engine.autocast():
                results = iter(generate(model, prefixes, request, micro_tokens=micro_tokens))
            for of in numbers:
                blanks, _, left_out = blanked[of]
                made[of] = []
                for rank, one in enumerate(h for _ in range(draws) for h in next(results)):
                    fills = tuple(map(self.tokenizer.decode, parts_of(one.ids, ends)))
                    scores = one.log_prob, one.score, len(one.ids) + 1, True
                    filled = blanks.filled(fills)
                    made[of].append(Text(texts[of], of, rank, filled, *scores, fills, left_out))
        return [text for of in range(len(texts)) for text in made[of]]
