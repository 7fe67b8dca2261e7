"""CPM-1's checkpoints as TsinghuaAI published them: one file per model-parallel rank.

    latest_checkpointed_iteration.txt      80000
    80000/mp_rank_00_model_states.pt       the first of N files, the weights under `module`

A linear layer is divided over the ranks by its outputs or its inputs, the token embedding by its
rows; layer norms, positions and the biases of layers that are divided by inputs are in every file.
Each rank's query_key_value is its queries, then its keys, then its values. Merged and under the
names of transformers' GPT-2, whose Conv1D weights are transposed, they give GPT2LMHeadModel's
logits. Source: TsinghuaAI/CPM-1-Generate (MIT), the files' listing and the model's code; no
published file has been opened.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from cpm_tune.backbone.storage.stored import Stored, state_of, tensors_of
from cpm_tune.common.saved import write_pickled
from cpm_tune.errors import UserError

LATEST = "latest_checkpointed_iteration.txt"
STATE = "module"
MAX_RANKS = 64
_FILE = re.compile(r"mp_rank_(\d\d)_model_states\.pt")
_EOD, _PAD = 7, 5  # ids of CPM-1's vocabulary
_HEADS = {(32, 2560): 32, (24, 1024): 16, (12, 768): 12}  # (layers, width) -> attention heads

ROWS, COLUMNS, THIRDS, SAME = "rows", "columns", "thirds of rows", "same"
# CPM-1's name -> (GPT-2's, how it is divided, its rows and columns in widths).
_AROUND = {
    "word_embeddings.weight": ("transformer.wte.weight", ROWS),
    "position_embeddings.weight": ("transformer.wpe.weight", SAME),
    "transformer.final_layernorm.weight": ("transformer.ln_f.weight", SAME),
    "transformer.final_layernorm.bias": ("transformer.ln_f.bias", SAME),
}
_LAYER: dict[str, tuple[str, str, tuple[int, ...]]] = {
    "input_layernorm.weight": ("ln_1.weight", SAME, (1,)),
    "input_layernorm.bias": ("ln_1.bias", SAME, (1,)),
    "attention.query_key_value.weight": ("attn.c_attn.weight", THIRDS, (3, 1)),
    "attention.query_key_value.bias": ("attn.c_attn.bias", THIRDS, (3,)),
    "attention.dense.weight": ("attn.c_proj.weight", COLUMNS, (1, 1)),
    "attention.dense.bias": ("attn.c_proj.bias", SAME, (1,)),
    "post_attention_layernorm.weight": ("ln_2.weight", SAME, (1,)),
    "post_attention_layernorm.bias": ("ln_2.bias", SAME, (1,)),
    "mlp.dense_h_to_4h.weight": ("mlp.c_fc.weight", ROWS, (4, 1)),
    "mlp.dense_h_to_4h.bias": ("mlp.c_fc.bias", ROWS, (4,)),
    "mlp.dense_4h_to_h.weight": ("mlp.c_proj.weight", COLUMNS, (1, 4)),
    "mlp.dense_4h_to_h.bias": ("mlp.c_proj.bias", SAME, (1,)),
}


@dataclass(frozen=True)
class Shape:
    """The size of a CPM-1, as its weights have it."""

    vocabulary: int
    positions: int
    width: int
    layers: int


@dataclass(frozen=True)
class Weight:
    """A weight of GPT-2, made of every rank's part when it is asked for."""

    name: str
    shape: tuple[int, ...]
    dtype: torch.dtype
    whole: Callable[[], Tensor]


@dataclass(frozen=True)
class _Entry:
    """Where a tensor of a checkpoint belongs in GPT-2."""

    name: str
    rule: str
    shape: tuple[int, ...]  # of all ranks together, as the checkpoint has it
    transposed: bool


# --- files ---


def recognises(folder: Path) -> bool:
    """Whether a folder has the files of model-parallel ranks, by their names."""
    return (folder / LATEST).is_file() or any(map(_is_rank, _listed(folder)))


def rank_files(folder: Path) -> tuple[Path, ...]:
    """The files of all ranks in order: of the iteration that `folder` names, or in `folder` itself.

    Raises UserError if one is missing.
    """
    place = folder
    if (folder / LATEST).is_file():
        place = folder / _iteration(folder / LATEST)
    files = sorted(file for file in _listed(place) if _is_rank(file))
    if not files:
        raise UserError(f"{place}: no checkpoint here, expected mp_rank_00_model_states.pt.")
    if len(files) > MAX_RANKS:
        raise UserError(f"{place}: {len(files)} ranks, at most {MAX_RANKS} are read.")
    for number, file in enumerate(files):
        if file.name != _rank_name(number):
            raise UserError(
                f"{place}: {_rank_name(number)} is missing, but {files[-1].name} is there; get "
                "every rank's file."
            )
    return tuple(files)


def _listed(folder: Path) -> list[Path]:
    try:
        return list(folder.iterdir())
    except OSError:
        return []


def _is_rank(file: Path) -> bool:
    return _FILE.fullmatch(file.name) is not None and file.is_file()


def _rank_name(number: int) -> str:
    return f"mp_rank_{number:02}_model_states.pt"


def _iteration(file: Path) -> str:
    """The name of the folder that the newest checkpoint is in."""
    with file.open("rb") as raw:
        text = raw.read(100).decode("ascii", "replace").strip()
    if not re.fullmatch(r"\d{1,18}|release", text):
        raise UserError(f"{file}: contains {text[:40]!r}, expected an iteration such as 80000.")
    return text


# --- reading ---


def read_checkpoint(folder: Path) -> tuple[Shape, dict[str, Weight]]:
    """The shape of a checkpoint, and its weights under GPT-2's names; lm_head is tied to wte.

    Reads no values before a weight's `whole`. Raises UserError for broken files, and with what is
    missing, unexpected or of another shape.
    """
    files = rank_files(folder)
    ranks = [_state(file) for file in files]
    shape = _shape(files[0], ranks)
    entries = _entries(shape)
    _check(files, ranks, entries)

    def weight(name: str, entry: _Entry) -> Weight:
        parts = [state[name] for state in ranks]

        def whole() -> Tensor:
            merged = merge(entry.rule, [part.whole() for part in parts], str(files[0]), name)
            return merged.t().contiguous() if entry.transposed else merged

        size = entry.shape[::-1] if entry.transposed else entry.shape
        return Weight(entry.name, size, parts[0].dtype, whole)

    return shape, {entry.name: weight(name, entry) for name, entry in entries.items()}


def _state(file: Path) -> dict[str, Stored]:
    """The tensors under `module`, by their names without a wrapper's."""
    state = state_of(file)
    module = state.get(STATE) if isinstance(state, dict) else None
    if not isinstance(module, dict) or not module:
        raise UserError(f"{file}: no weights under '{STATE}', expected a rank of CPM-1's.")
    tensors = {stored.name: stored for stored in tensors_of(file, module)}
    if any(name.endswith("word_embeds.weight") for name in tensors):
        raise UserError(f"{file}: a checkpoint of CPM-2 (encoder and decoder), expected CPM-1's.")
    wrapper = "module." if all(name.startswith("module.") for name in tensors) else ""
    return {name.removeprefix(wrapper): stored for name, stored in tensors.items()}


def _shape(file: Path, ranks: Sequence[Mapping[str, Stored]]) -> Shape:
    """The sizes that the embeddings and the names of layers say."""
    sizes = []
    for name in ("word_embeddings.weight", "position_embeddings.weight"):
        if name not in ranks[0] or len(ranks[0][name].shape) != 2:
            raise UserError(f"{file}: no {name} of two dimensions, expected a rank of CPM-1's.")
        sizes.append(ranks[0][name].shape)
    (rows, width), (positions, _) = sizes
    layers = {match[1] for name in ranks[0] if (match := re.match(_NUMBERED, name))}
    return Shape(rows * len(ranks), positions, width, len(layers))


_NUMBERED = re.compile(r"transformer\.layers\.(0|[1-9]\d{0,8})\.")


def _entries(shape: Shape) -> dict[str, _Entry]:
    """CPM-1's names in the order of the network -> where each belongs, and its shape."""
    width = shape.width
    around = ((shape.vocabulary, width), (shape.positions, width), (width,), (width,))
    outer = {
        name: _Entry(theirs, rule, size, False)
        for (name, (theirs, rule)), size in zip(_AROUND.items(), around, strict=True)
    }
    entries = {name: entry for name, entry in outer.items() if "embeddings" in name}
    for number in range(shape.layers):
        for name, (theirs, rule, factors) in _LAYER.items():
            size = tuple(width * factor for factor in factors)
            entries[f"transformer.layers.{number}.{name}"] = _Entry(
                f"transformer.h.{number}.{theirs}", rule, size, len(size) == 2
            )
    return {**entries, **outer}


def _part(entry: _Entry, n: int) -> tuple[int, ...] | None:
    """The shape of a rank's part; None if it cannot be divided so."""
    sizes = list(entry.shape)
    if entry.rule != SAME:
        dimension = 1 if entry.rule == COLUMNS else 0
        parts = 3 * n if entry.rule == THIRDS else n
        if sizes[dimension] % parts:
            return None
        sizes[dimension] //= n
    return tuple(sizes)


def _check(
    files: Sequence[Path], ranks: Sequence[Mapping[str, Stored]], entries: Mapping[str, _Entry]
) -> None:
    """Raise UserError unless every rank has exactly its parts, of one dtype."""
    for file, state in zip(files, ranks, strict=True):
        wrong = [f"missing {name}" for name in entries if name not in state]
        wrong += [f"unexpected {name}" for name in state if name not in entries]
        for name, entry in entries.items():
            if name in state and state[name].shape != _part(entry, len(ranks)):
                shape, whole = state[name].shape, entry.shape
                wrong.append(f"{name} has shape {shape}, a part of {len(ranks)} of {whole}")
            elif name in state and state[name].dtype != ranks[0][name].dtype:
                wrong.append(f"{name} is {state[name].dtype}, in rank 0 {ranks[0][name].dtype}")
        if wrong:
            more = f" and {len(wrong) - 4} more" if len(wrong) > 4 else ""
            shown = "; ".join(fault[:200] for fault in wrong[:4])
            raise UserError(f"{file}: not a rank of CPM-1's: {shown}{more}.")


# --- dividing and merging ---


def merge(rule: str, parts: Sequence[Tensor], where: str = "", name: str = "") -> Tensor:
    """All ranks' parts of a tensor as one. Raises UserError if what should be the same is not."""
    if rule == SAME:
        if any(not torch.equal(part, parts[0]) for part in parts):
            raise UserError(
                f"{where}: {name} differs between the ranks, which have copies of it; the files "
                "are not of one checkpoint."
            )
        return parts[0]
    if rule == THIRDS:
        thirds = [part.chunk(3) for part in parts]
        return torch.cat([third[kind] for kind in range(3) for third in thirds])
    return torch.cat(list(parts), 1 if rule == COLUMNS else 0)


def divide(rule: str, whole: Tensor, n: int) -> list[Tensor]:
    """The parts of `n` ranks."""
    if rule == SAME:
        return [whole] * n
    if rule == THIRDS:
        kinds = [third.chunk(n) for third in whole.chunk(3)]
        return [torch.cat([kind[rank] for kind in kinds]) for rank in range(n)]
    return list(whole.chunk(n, 1 if rule == COLUMNS else 0))


def gpt2_config(shape: Shape, heads: int | None = None, dtype: str = "float16") -> dict[str, Any]:
    """The values of a config.json for transformers' GPT2LMHeadModel.

    `heads`: the number of attention heads, which the weights do not say; default: that of the
    published sizes. Raises UserError if there is none for this size, or it does not divide it.
    """
    heads = heads or _HEADS.get((shape.layers, shape.width))
    if heads is None:
        raise UserError(
            f"a CPM-1 of {shape.layers} layers and width {shape.width} is none of the published "
            "sizes, and weights do not say how many attention heads it has; give their number."
        )
    if heads < 1 or shape.width % heads:
        raise UserError(f"{heads} attention heads do not divide the width {shape.width}.")
    return {
        "architectures": ["GPT2LMHeadModel"],
        "model_type": "gpt2",
        "vocab_size": shape.vocabulary,
        "n_positions": shape.positions,
        "n_embd": shape.width,
        "n_layer": shape.layers,
        "n_head": heads,
        "activation_function": "gelu_new",
        "layer_norm_epsilon": 1e-5,
        "attn_pdrop": 0.1,
        "embd_pdrop": 0.1,
        "resid_pdrop": 0.1,
        "bos_token_id": _EOD,
        "eos_token_id": _EOD,
        "pad_token_id": _PAD,
        "tie_word_embeddings": True,
        "torch_dtype": dtype,
    }


# --- writing ---


def write_checkpoint(
    folder: Path, weights: Mapping[str, Weight], heads: int, n: int, iteration: int = 1
) -> None:
    """Write GPT-2's weights as a checkpoint of `n` ranks into an empty folder, a rank at a time.

    A head that is a copy of the token embedding is left out. Raises UserError if the weights are
    not those of a CPM-1, or cannot be divided over `n` ranks.
    """
    shape = _shape_of(weights)
    entries = _entries(shape)
    names = {entry.name for entry in entries.values()}
    wrong = [f"missing {name}" for name in names - weights.keys()]
    wrong += [f"unexpected {name}" for name in weights.keys() - names - {"lm_head.weight"}]
    for entry in entries.values():
        size = entry.shape[::-1] if entry.transposed else entry.shape
        if entry.name in weights and tuple(weights[entry.name].shape) != size:
            wrong.append(f"{entry.name} has shape {tuple(weights[entry.name].shape)}, not {size}")
    if wrong:
        raise UserError(f"{folder}: not the weights of a CPM-1: {'; '.join(sorted(wrong)[:4])}.")
    if not 0 < n <= MAX_RANKS or heads % n or shape.vocabulary % n:
        raise UserError(
            f"{folder}: {heads} attention heads and {shape.vocabulary} tokens cannot be divided "
            f"over {n} ranks; give a number that divides both."
        )
    place = folder / str(iteration)
    place.mkdir()
    for rank in range(n):
        state: dict[str, Tensor] = {}
        for name, entry in entries.items():
            whole = weights[entry.name].whole()
            whole = whole.t() if entry.transposed else whole
            state[name] = divide(entry.rule, whole, n)[rank].contiguous().clone()
        write_pickled(place / _rank_name(rank), {STATE: state, "iteration": iteration})
    (folder / LATEST).write_text(f"{iteration}\n", encoding="ascii")


def _shape_of(weights: Mapping[str, Weight]) -> Shape:
    """The sizes of GPT-2's weights; 0 where they say none."""
    tokens, positions = (
        weights[name].shape if name in weights and len(weights[name].shape) == 2 else (0, 0)
        for name in ("transformer.wte.weight", "transformer.wpe.weight")
    )
    layers = {match[1] for name in weights if (match := re.match(r"transformer\.h\.(\d+)\.", name))}
    return Shape(tokens[0], positions[0], tokens[1], len(layers))
