"""How a run is carried out: nothing here decides its result or is part of its hash."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, Field

from cpm_tune.common.option import Option
from cpm_tune.common.sizes import checked_size, parse_size
from cpm_tune.schema.frozen import Frozen
from cpm_tune.schema.options import MOST, Engine, Zero


def _listed(value: Any) -> Any:
    return [part.strip() for part in value.split(",")] if isinstance(value, str) else value


def _size(value: str | None) -> str | None:
    return None if value is None else checked_size(value, "--memory-limit")


class Execution(Frozen):
    """How a run is carried out; nothing here decides its result.

    `engine` "auto" is torch, which needs nothing else.
    `micro_tokens` bounds the tokens of one forward pass; larger batches are accumulated.
    `auto_batch` halves that if memory runs out. `checkpointing` recomputes activations instead of
    keeping them. `shard` divides the frozen backbone over the processes; `offload` keeps it in host
    memory. `zero` is bmtrain's level. `checkpoint_minutes` is the time between two checkpoints of a
    run in training. `track` names services of `tracking.sinks` in addition to TensorBoard (a list,
    or a text with commas). `memory_limit` (such as 4GB): the most of the backbone in memory at a
    time; only without training. `shortcuts`: score the shortcut controls as well.
    """

    engine: Engine = "auto"
    device: str = "auto"
    threads: Annotated[int, Option(least=0, most=1024)] = 0
    micro_tokens: Annotated[int, Field(ge=256, le=MOST)] = 8192
    checkpointing: bool = False
    shard: bool = False
    offload: bool = False
    zero: Zero = 3
    auto_batch: bool = False
    checkpoint_minutes: Annotated[float, Field(ge=0)] = 5.0
    track: Annotated[tuple[str, ...], BeforeValidator(_listed)] = ()
    memory_limit: Annotated[str | None, AfterValidator(_size)] = None
    shortcuts: bool = True

    @property
    def memory_bytes(self) -> int | None:
        """The memory limit in bytes."""
        return None if self.memory_limit is None else parse_size(self.memory_limit, "")
