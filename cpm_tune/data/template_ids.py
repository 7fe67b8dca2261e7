"""What a template and a soft prompt have as ids in one vocabulary, whatever the row."""

from __future__ import annotations

from cpm_tune.backbone.example import Ids
from cpm_tune.backbone.tokens import Tokenizer
from cpm_tune.delta.slots import slot_places
from cpm_tune.delta.soft import SoftSlots
from cpm_tune.errors import UserError
from cpm_tune.task import Template


def special_ids(template: Template, tokenizer: Tokenizer) -> dict[str, Ids]:
    """The id of each special entry that the template names; none for an optional one that this
    vocabulary lacks. Raises UserError for another one that it lacks."""
    entries, special = tokenizer.entries, (*tokenizer.never_written, tokenizer.eos)
    there = {entries[i]: i for i in special if i in entries}  # a head may have more columns
    for entry, optional in template.specials.items():
        if entry not in there and not optional:
            raise UserError(
                f"template '{template.name}' has the special entry {entry}, which this "
                "vocabulary lacks; use another template or backbone."
            )
    return {e: (there[e],) if e in there else () for e in template.specials}


def known_ids(template: Template, tokenizer: Tokenizer, text: str, what: str) -> Ids:
    """The ids of an answer's word (`what` in messages); raise UserError if one is unknown."""
    ids = tuple(tokenizer.encode(text))
    if not ids or tokenizer.unk in ids:
        raise UserError(
            f"{what} '{text}' of template '{template.name}' cannot be written in this "
            "vocabulary; use another template or backbone."
        )
    return ids


def placed_ids(
    template: Template, soft: SoftSlots | None
) -> tuple[dict[int, Ids], tuple[Ids, ...]]:
    """A soft prompt's ids by the piece of the template that they precede, and those before each
    option. Raises UserError if the template lacks a slot."""
    if soft is None:
        return {}, ()
    places = slot_places([piece.kind for piece in template.pieces])
    absent = [name for name in soft.names if name not in places]
    if absent:
        raise UserError(
            f"delta.slots: template '{template.name}' has no slot '{absent[0]}' (it has "
            f"{', '.join(places)}); set its ratio to 0 (--set 'delta.ratio_list=[…]') or choose "
            "another template."
        )
    placed: dict[int, Ids] = {}
    for name in soft.names:
        placed[places[name]] = (*placed.get(places[name], ()), *soft.slot_ids(name))
    return placed, soft.options
