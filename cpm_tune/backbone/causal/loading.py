"""Opens a causal language model: weights read from the folder's files, or drawn at random."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from cpm_tune.backbone.causal import attention
from cpm_tune.backbone.causal.architecture import architecture, model_class, quiet, skeleton
from cpm_tune.backbone.causal.config import CausalConfig
from cpm_tune.backbone.causal.folder import CausalFolder
from cpm_tune.backbone.causal.megatron import read_checkpoint
from cpm_tune.backbone.causal.model import CausalLM, fill_buffers
from cpm_tune.backbone.causal.split import joined, sources
from cpm_tune.backbone.protocol import Materialise
from cpm_tune.backbone.quantize import quantize_int8
from cpm_tune.backbone.ranks.reading import Weight
from cpm_tune.backbone.storage.finite import check_finite
from cpm_tune.backbone.storage.shard_index import check_shards
from cpm_tune.backbone.storage.shards import allocate, fill
from cpm_tune.backbone.storage.stored import Stored, stored_tensors
from cpm_tune.common.door import load
from cpm_tune.errors import UserError

_MASKS = re.compile(r"(?:^|\.)(?:attn|attention)\.(?:masked_)?bias$")


def open_backbone(
    folder: CausalFolder,
    dtype: torch.dtype,
    *,
    random_seed: int | None = None,
    quantize: str | None = None,
    limit: int | None = None,
    device: torch.device | str = "cpu",
    materialise: Materialise | None = None,
) -> CausalLM:
    """See `cpm_tune.backbone.protocol.BackboneFolder.open`."""
    if limit is not None:
        raise UserError(
            f"{folder.path}: only CPM-Ant is read in parts; omit the memory limit, or use "
            "--quantize int8."
        )
    if torch.device(device).type != "cpu" and not quantize:
        materialise = _onto(device, materialise)
    if random_seed is not None:
        model = random_model(folder.config, random_seed, dtype, materialise)
    else:
        model = _read(folder, dtype, materialise)
    return quantize_int8(model) if quantize else model


def _onto(device: torch.device | str, engine: Materialise | None) -> Materialise:
    """What an engine does; if it leaves the model whole, parameters on a device, to which tensors
    go one by one: several processes do not have as many backbones in host memory."""

    def materialise(model: Any) -> bool:
        if engine is None or not engine(model):
            allocate(model, device)
        return True

    return materialise


def in_dtype(model: nn.Module, dtype: torch.dtype) -> None:
    """Convert parameters; buffers keep the precision of positions."""
    for parameter in model.parameters():
        parameter.data = parameter.data.to(dtype)


def random_model(
    config: CausalConfig, seed: int, dtype: torch.dtype, materialise: Materialise | None = None
) -> CausalLM:
    """A model with random weights, the same for a seed on every machine."""
    model = skeleton(config)
    in_dtype(model, dtype)
    if materialise is None or not materialise(model):
        model.to_empty(device="cpu")
    else:
        _complete(model)
    return model.init_weights(seed)


def _complete(model: CausalLM) -> None:
    """After an engine made the parameters: tie them, and allocate buffers."""
    model.model.tie_weights()
    for module in model.modules():
        for name, buffer in module._buffers.items():
            if buffer is not None and buffer.is_meta:
                module._buffers[name] = torch.empty_like(buffer, device="cpu")


def _read(folder: CausalFolder, dtype: torch.dtype, materialise: Materialise | None) -> CausalLM:
    if materialise is not None and (model := _in_parts(folder, dtype, materialise)) is not None:
        return model
    whole = _whole(folder, dtype)
    if materialise is None:
        return whole
    model = skeleton(folder.config)
    in_dtype(model, dtype)
    if not materialise(model):
        return whole
    _complete(model)
    values = dict(whole.named_parameters())
    for name, parameter in model.named_parameters():
        fill(parameter, values[name].detach())
    for name, buffer in whole.named_buffers():  # rotary positions'
        model.get_buffer(name).copy_(buffer)
    return model


def _in_parts(
    folder: CausalFolder, dtype: torch.dtype, materialise: Materialise
) -> CausalLM | None:
    """The model with this process's part of each tensor, which is read alone (of ranks, and of
    experts one by one: of one merged tensor at a time); None if the engine has whole ones, or if
    the files' tensors are not the model's, which transformers has to read as a whole."""
    model = skeleton(folder.config)
    in_dtype(model, dtype)
    if (stored := _named(folder, model.model)) is None:
        return None
    known = {name: tuple(tensor.shape) for name, tensor in joined(model.model).items()}
    parts = sources(model.model)
    needed = [parts.get(name, (name, _same)) for name, _ in model.model.named_parameters()]
    same = all(known.get(name) == tensor.shape for name, tensor in stored.items())
    if not same or not {name for name, _ in needed} <= stored.keys() or not materialise(model):
        return None
    _complete(model)
    fill_buffers(model.model)
    read, whole = "", torch.empty(0)
    for (source, part), (name, parameter) in zip(
        needed, model.model.named_parameters(), strict=True
    ):
        if source != read:
            read, whole = source, stored[source].whole()
        check_finite(folder.path, name, fill(parameter, part(whole)))
    return model


def _same(whole: Tensor) -> Tensor:
    return whole


def masks_in(folder: CausalFolder) -> re.Pattern[str] | None:
    """What names the masks that older files of GPT-2 and its kind have among their tensors."""
    gpt = str(folder.config.values["model_type"]).startswith("gpt")
    return _MASKS if gpt else None


def _named(folder: CausalFolder, model: Any) -> Mapping[str, Stored | Weight] | None:
    """The tensors of a folder by the names of transformers' model; None if its rules for names do
    not fit them, or are not those of this version of transformers."""
    if folder.format == "mp_rank":
        return read_checkpoint(folder.path)[1]
    tensors = list(stored_tensors(folder.weights, masks_in(folder)))
    try:
        made: Mapping[str, Stored | Weight] = load("cpm_tune.backbone.causal.conversion:named")(
            model, joined(model), tensors
        )
    except Exception:  # of any class; reading the whole says what is wrong
        return None
    return made


def _whole(folder: CausalFolder, dtype: torch.dtype) -> CausalLM:
    """Transformers' model with the tensors of the files, whose names transformers knows."""
    state: dict[str, Tensor] = {}
    ranks = folder.format == "mp_rank"
    masks = masks_in(folder)
    tensors = stored_tensors(folder.weights, masks)
    given = read_checkpoint(folder.path)[1].values() if ranks else tensors
    for stored in given:
        tensor = stored.whole()
        check_finite(folder.path, stored.name, tensor)
        state[stored.name] = tensor
    if not ranks:
        check_shards(folder.path, folder.weights, state, masks)
    made = architecture(folder.config)
    try:
        with quiet():
            model, report = model_class(made).from_pretrained(
                None,
                config=made,
                state_dict=state,
                dtype=dtype,
                output_loading_info=True,
                ignore_mismatched_sizes=True,  # reported below
            )
    except Exception as error:  # of any class
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0][:160]
        raise UserError(
            f"{folder.path}: transformers cannot load these weights ({reason}); get the files that "
            "belong to config.json."
        ) from error
    for kind, meaning in (("missing_keys", "is in none of"), ("unexpected_keys", "is unknown in")):
        if names := sorted(report[kind]):
            raise UserError(
                f"{folder.path}: tensor {names[0]} {meaning} the weights for a "
                f"{made.model_type} ({len(names)} in all); get the files that belong to "
                "config.json."
            )
    if report["mismatched_keys"]:
        name, theirs, expected = min(report["mismatched_keys"])
        raise UserError(
            f"{folder.path}: tensor {name} is {tuple(theirs)}, but config.json asks for the shape "
            f"{tuple(expected)}; get the files that belong together."
        )
    attention.use(model)
    causal = CausalLM(folder.config, model)
    in_dtype(causal, dtype)
    return causal
