"""The tensors of files as those of transformers' network: renamed, or made of several (experts that
files have one by one), by the rules that transformers itself has for a type of model.

One of the network's tensors is made at a time, from those that it needs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from copy import deepcopy
from functools import partial
from typing import Any

import torch
from torch import Tensor
from transformers.conversion_mapping import get_model_conversion_mapping
from transformers.core_model_loading import (
    WeightConverter,
    WeightRenaming,
    dot_natural_key,
    rename_source_key,
)

from cpm_tune.backbone.ranks.reading import Weight
from cpm_tune.backbone.storage.stored import Stored


def named(
    model: Any, known: Mapping[str, Tensor], tensors: Iterable[Stored]
) -> dict[str, Stored | Weight]:
    """Tensors of files by the network's names; those that the network lacks keep their own.

    `model` is transformers', `known` its state by its own names; neither needs values. Raises
    whatever transformers' rules raise for tensors that they do not fit.
    """
    rules = get_model_conversion_mapping(model)
    renamings = [rule for rule in rules if isinstance(rule, WeightRenaming)]
    converters = [rule for rule in rules if isinstance(rule, WeightConverter)]
    of_pattern = {pattern: rule for rule in converters for pattern in rule.source_patterns}
    made: dict[str, Stored | Weight] = {}
    several: dict[str, list[tuple[str, Stored]]] = {}
    for tensor in sorted(tensors, key=lambda tensor: dot_natural_key(tensor.name)):
        name, pattern = rename_source_key(
            tensor.name, renamings, converters, model.base_model_prefix, known
        )
        if name in known and pattern is not None:
            several.setdefault(name, []).append((pattern, tensor))
        else:
            made[name if name in known else tensor.name] = tensor
    for name, sources in several.items():
        convert = partial(_converted, model, of_pattern[sources[0][0]], name, sources)
        for each, shaped in convert(_without_values).items():
            whole = partial(_one, convert, each)
            made[each] = Weight(each, tuple(shaped.shape), shaped.dtype, whole)
    return made


def _converted(
    model: Any,
    rule: Any,
    name: str,
    sources: Sequence[tuple[str, Stored]],
    values: Callable[[Stored], Tensor],
) -> dict[str, Tensor]:
    """What a rule makes of some tensors of files, by names of the network."""
    rule = deepcopy(rule)
    for pattern, tensor in sources:
        rule.add_tensor(name, tensor.name, pattern, values(tensor))
    made: dict[str, Tensor] = rule.convert(name, model=model, config=model.config)
    return made


def _one(convert: Callable[[Any], dict[str, Tensor]], name: str) -> Tensor:
    return convert(Stored.whole)[name]


def _without_values(tensor: Stored) -> Tensor:
    return torch.empty(tensor.shape, dtype=tensor.dtype, device="meta")
