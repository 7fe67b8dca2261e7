"""What CPM-Ant's sequences have besides the text: its own soft prompt, `<s>`, and segments."""

from __future__ import annotations

from dataclasses import dataclass

from cpm_tune.backbone.ant.config import CPMAntConfig
from cpm_tune.backbone.ant.tokenizer import Tokenizer
from cpm_tune.backbone.example import Ids
from cpm_tune.errors import UserError
from cpm_tune.schema.spec import Encoding

PROMPT_SEGMENT = 0


@dataclass(frozen=True, slots=True)
class Frame:
    """The ids that every context begins with, and the segments.

    start: the rows of the backbone's soft prompt, as ids, then `<s>`. Its first `n_prompt` ids are
    in PROMPT_SEGMENT, all that follows is in `segment`. first_free: the first id that is neither a
    token nor such a row; the tokens of a soft prompt that is trained have ids from there on.
    """

    start: Ids
    n_prompt: int
    segment: int
    first_free: int


def make_frame(encoding: Encoding, config: CPMAntConfig, tokenizer: Tokenizer) -> Frame:
    """The frame that `encode.prompt_type` and `encode.segment` choose.

    Raises UserError if the backbone has no such prompt or segment.
    """
    prompt_type, segment = encoding.prompt_type, encoding.segment
    assert prompt_type is not None  # as RunSpec has checked
    assert segment is not None
    for setting, top in (("prompt_type", "prompt_types"), ("segment", "segment_types")):
        value, limit = getattr(encoding, setting), getattr(config, top)
        if value >= limit:
            raise UserError(
                f"encode.{setting} is {value}, but this backbone has {limit} ({top}); choose 0 to "
                f"{limit - 1}."
            )
    first, n = config.vocab_size, config.prompt_length
    start = first + prompt_type * n
    return Frame(
        start=(*range(start, start + n), tokenizer.bos),
        n_prompt=n,
        segment=segment,
        first_free=first + config.prompt_types * n,
    )
