"""The ids of a soft prompt's tokens, by slot and option."""

from __future__ import annotations

from cpm_tune.delta.config import SoftPromptConfig
from cpm_tune.delta.slots import apportion
from cpm_tune.errors import UserError, did_you_mean


class SoftSlots:
    """The ids of a soft prompt's tokens, by slot and option.

    Token k has the id `first_free` + k; ids below are the backbone's.
    `n_options` is the number of options in one sequence (one for `{option}` templates, where each
    option has its own sequence). Raises UserError if the first slot cannot give them all
    their tokens.
    """

    def __init__(self, config: SoftPromptConfig, first_free: int, n_options: int = 0) -> None:
        divided = apportion(config.soft_token_num, config.slots, config.ratio_list)
        each, slot = config.option_token_num, config.slots[0]
        if n_options * each > len(divided[slot]):
            raise UserError(
                f"delta.option_token_num is {each}: {n_options} options need {n_options * each} "
                f"tokens, but slot '{slot}' has {len(divided[slot])}; raise soft_token_num."
            )
        self.options = tuple(
            tuple(range(first_free + k * each, first_free + (k + 1) * each))
            for k in range(n_options)
        )
        divided[slot] = divided[slot][n_options * each :]
        self._ids = {name: tuple(first_free + k for k in part) for name, part in divided.items()}

    def slot_ids(self, slot: str) -> tuple[int, ...]:
        """The ids of a slot, in order; empty if its ratio is 0."""
        if slot not in self._ids:
            raise UserError(f"the soft prompt has no slot '{slot}'.{did_you_mean(slot, self._ids)}")
        return self._ids[slot]

    @property
    def names(self) -> tuple[str, ...]:
        """The slots with tokens."""
        return tuple(name for name, ids in self._ids.items() if ids)
