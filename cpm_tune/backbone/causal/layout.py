"""A causal language model's sequences: what begins a context, the text, padding on the right."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from cpm_tune.backbone.example import Example
from cpm_tune.backbone.padded import PaddedLayout
from cpm_tune.errors import UserError


@dataclass(frozen=True)
class CausalLayout(PaddedLayout):
    """`rows`: of the model's table of embeddings; it may have more than the tokenizer entries."""

    rows: int = 0

    @property
    def first_free(self) -> int:
        return self.rows

    def collate(self, examples: Sequence[Example]) -> Any:
        """One PaddedBatch of whole examples. Raises UserError for a context without ids, after
        which nothing can be predicted."""
        for example in examples:
            if not all(example.contexts):
                raise UserError(
                    f"example {example.id or 'without id'}: its context has no token, and this "
                    "model's tokenizer begins texts with none; use a template with text before "
                    "the answer."
                )
        return super().collate(examples)
