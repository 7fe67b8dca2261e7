"""The places of soft-prompt tokens: pure arithmetic, no tensors.

A soft prompt's N tokens are numbered 0 to N - 1 and divided over the named slots of a template in
proportion to `ratio_list`, as CPM-2 does: slot k ends after floor(N * (share of slots 0 to k))
tokens. Tokens before the options are the first of the first slot.
"""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from itertools import accumulate

from cpm_tune.common.sizes import counted


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
    total = sum(exact)
    if total <= 0:
        raise ValueError("ratio_list gives no slot a token")
    ends = [int(n * part / total) for part in accumulate(exact)]
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


def slot_places(kinds: Sequence[str]) -> dict[str, int]:
    """The number of the template's piece that each slot precedes.

    `kinds` are the kinds of the template's pieces (text, field, option, answer). Front: before all.
    Middle: before the last field; a template with one field has its middle before its option, or
    else before that field. Second: before the second field, in a template of three or more. Back:
    where the model begins to answer, that is before an answer, or after everything if options are
    put into the text. Slots may share a place.
    """
    fields = [place for place, kind in enumerate(kinds) if kind == "field"]
    places = {"front": 0, "back": len(kinds) - ("answer" in kinds)}
    if len(fields) == 1 and "option" in kinds:
        places["middle"] = kinds.index("option")
    elif fields:
        places["middle"] = fields[-1]
    if len(fields) > 2:
        places["second"] = fields[1]
    return places
