"""Which soft-prompt tokens stand where: pure arithmetic, no tensors.

A soft prompt's N tokens are numbered 0 to N - 1 and divided over the named slots of a template in
proportion to `ratio_list`, as CPM-2 does: slot k ends after floor(N * (share of slots 0 to k))
tokens. Tokens that stand before the options are the first of the first slot.
"""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from itertools import accumulate
from typing import TYPE_CHECKING

from cpm_tune.common.sizes import counted
from cpm_tune.errors import UserError, did_you_mean

if TYPE_CHECKING:
    from cpm_tune.backbone.config import CPMAntConfig
    from cpm_tune.delta.config import SoftPromptConfig


def apportion(n: int, slots: Sequence[str], ratios: Sequence[float]) -> dict[str, range]:
    """Divide tokens 0 to n - 1 over the slots; ratios need not sum to one.

    Raises ValueError if names and ratios do not match, or a slot with a ratio gets no token.
    """
    if len(slots) != len(ratios) or len(set(slots)) != len(slots):
        raise ValueError(
            f"ratio_list has {counted(len(ratios), 'number')} for the slots {', '.join(slots)}; "
            "give each slot one name and one ratio"
        )
    exact = [Fraction(str(ratio)) for ratio in ratios]  # 0.29 means 29/100
    whole = sum(exact)
    if whole <= 0:
        raise ValueError("ratio_list gives no slot a token")
    ends = [int(n * part / whole) for part in accumulate(exact)]
    divided = {
        slot: range(start, end)
        for slot, start, end in zip(slots, [0, *ends[:-1]], ends, strict=True)
    }
    for slot, ratio in zip(slots, ratios, strict=True):
        if ratio and not divided[slot]:
            raise ValueError(
                f"slot '{slot}' with ratio {ratio} gets none of {n} tokens; raise soft_token_num"
            )
    return divided


class SoftSlots:
    """The ids of a soft prompt's tokens, by slot and option.

    They follow the backbone's own prompt rows: vocab_size + prompt_types * prompt_length + k.
    `n_options` is how many options stand in one sequence (one for `{option}` templates, where each
    option has a sequence of its own). Raises UserError if the first slot cannot give them all
    their tokens.
    """

    def __init__(self, config: SoftPromptConfig, shape: CPMAntConfig, n_options: int = 0) -> None:
        first = shape.vocab_size + shape.prompt_types * shape.prompt_length
        divided = apportion(config.soft_token_num, config.slots, config.ratio_list)
        each, slot = config.option_token_num, config.slots[0]
        if n_options * each > len(divided[slot]):
            raise UserError(
                f"delta.option_token_num is {each}: {n_options} options need {n_options * each} "
                f"tokens, but slot '{slot}' has {len(divided[slot])}; raise soft_token_num."
            )
        self.options = tuple(
            tuple(range(first + k * each, first + (k + 1) * each)) for k in range(n_options)
        )
        divided[slot] = divided[slot][n_options * each :]
        self._ids = {name: tuple(first + k for k in part) for name, part in divided.items()}

    def slot_ids(self, slot: str) -> tuple[int, ...]:
        """The ids that stand in a slot, in order; empty if its ratio is 0."""
        if slot not in self._ids:
            raise UserError(f"the soft prompt has no slot '{slot}'.{did_you_mean(slot, self._ids)}")
        return self._ids[slot]

    @property
    def names(self) -> tuple[str, ...]:
        """The slots that hold tokens."""
        return tuple(name for name, ids in self._ids.items() if ids)


def slot_places(kinds: Sequence[str]) -> dict[str, int]:
    """Before which piece of a template each slot stands.

    `kinds` are the kinds of the template's pieces (text, field, option, answer). Front: before all.
    Middle: before the last field; a template with one field has its middle before its option, or
    else before that field. Back: where the model begins to answer, that is before an answer, or
    behind everything if options are written into the text. Slots may share a place.
    """
    fields = [place for place, kind in enumerate(kinds) if kind == "field"]
    places = {"front": 0, "back": len(kinds) - ("answer" in kinds)}
    if len(fields) == 1 and "option" in kinds:
        places["middle"] = kinds.index("option")
    elif fields:
        places["middle"] = fields[-1]
    return places
