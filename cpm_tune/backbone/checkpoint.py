"""Opens a backbone folder: our own, the reference's (.pt) or Hugging Face's, whichever it is.

All weights come out folded (see `cpm_tune.backbone.model`), strictly checked, in one dtype. Pickled
files are only ever read with torch's weights_only loader.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from cpm_tune.backbone.config import CPMAntConfig
from cpm_tune.backbone.tokenizer import Tokenizer
from cpm_tune.errors import UserError
from cpm_tune.paths import input_sha256

if TYPE_CHECKING:
    import torch

    from cpm_tune.backbone.model import CPMAnt

_VOCABULARIES = ("vocab.txt", "ant.txt")


@dataclass(frozen=True)
class BackboneFolder:
    """What is in a backbone folder, before any weight is read.

    `layout` is native, reference or hf; `weights` are the files that hold tensors.
    """

    path: Path
    layout: str
    config: CPMAntConfig
    weights: tuple[Path, ...]
    vocabulary: Path
    trained: bool

    @property
    def name(self) -> str:
        """The folder's name."""
        return self.path.name

    def tokenizer(self) -> Tokenizer:
        """Read the vocabulary and check its size against the config."""
        tokenizer = Tokenizer.from_file(self.vocabulary)
        if len(tokenizer) != self.config.vocab_size:
            raise UserError(
                f"{self.vocabulary}: {len(tokenizer)} entries, but the config says vocab_size "
                f"{self.config.vocab_size}; use the vocabulary that belongs to this checkpoint."
            )
        return tokenizer

    def sha256(self) -> str:
        """Fingerprint of config, vocabulary and weight files."""
        digest = hashlib.sha256(json.dumps(self.config.to_dict(), sort_keys=True).encode())
        for path in (self.vocabulary, *self.weights):
            digest.update(bytes.fromhex(input_sha256(path)))
        return digest.hexdigest()


def open_folder(path: Path) -> BackboneFolder:
    """Recognise a backbone folder; raise UserError saying what is missing."""
    if not path.is_dir():
        raise UserError(f"--backbone {path}: there is no such folder.")
    vocabulary = next((path / name for name in _VOCABULARIES if (path / name).is_file()), None)
    if vocabulary is None:
        raise UserError(f"{path}: no vocabulary; put the checkpoint's ant.txt there as vocab.txt.")
    configs = [p for p in [path / "config.json", *sorted(path.glob("*.json"))] if p.is_file()]
    for file in configs:
        try:
            raw = json.loads(file.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise UserError(f"{file}: not valid JSON ({error}).") from error
        if isinstance(raw, dict) and ("dim_model" in raw or "hidden_size" in raw):
            break
    else:
        raise UserError(f"{path}: no CPM-Ant config (a .json file with dim_model or hidden_size).")
    if raw.get("format") == "cpm-tune":
        layout, patterns = "native", ["*.safetensors"]
    elif raw.get("model_type") == "cpmant":
        layout, patterns = "hf", ["*.safetensors", "pytorch_model*.bin"]
    else:
        layout, patterns = "reference", ["*.pt", "*.bin"]
    found = ([f for f in sorted(path.glob(pattern)) if f.is_file()] for pattern in patterns)
    weights = next(filter(None, found), [])
    if not weights:
        raise UserError(f"{path}: no weights ({' or '.join(patterns)}) beside {file.name}.")
    if layout == "reference" and len(weights) > 1:
        names = ", ".join(p.name for p in weights)
        raise UserError(
            f"{path}: several checkpoints ({names}); keep the one to use in the folder."
        )
    config = CPMAntConfig.from_file(file)
    trained = bool(raw.get("trained", True))
    return BackboneFolder(path, layout, config, tuple(weights), vocabulary, trained)


LayOut = Callable[["CPMAnt"], bool]  # gives a model without values memory, if it keeps parts


def load_weights(
    folder: BackboneFolder, dtype: torch.dtype, lay_out: LayOut | None = None
) -> CPMAnt:
    """Return the backbone with the folder's weights, folded, in `dtype` on the CPU.

    Where `lay_out` is given and true, it has made the model's parameters, of which every process
    may hold a part: tensors are then read from the (memory-mapped) files one at a time and only
    that part is kept. Raises UserError with what is missing, unexpected or of another shape.
    """
    import torch

    from cpm_tune.backbone.shards import fill

    model = _empty(folder.config, dtype)
    expected = {name: tensor.shape for name, tensor in model.state_dict().items()}
    laid_out = lay_out is not None and lay_out(model)
    parts = dict(model.named_parameters()) if laid_out else {}
    state: dict[str, torch.Tensor] = {}
    for name, tensor in _folded(_read(folder.weights), folder):
        if name in state:
            raise UserError(f"{folder.path}: tensor {name} is there twice; keep one checkpoint.")
        if name in parts and tensor.shape == expected[name]:
            state[name], kept = parts[name], fill(parts[name], tensor)
        else:
            state[name] = kept = tensor.to(dtype)
        if not bool(torch.isfinite(kept).all()):
            raise UserError(f"{folder.path}: tensor {name} is not finite in {dtype}.")
    head = state.pop("lm_head.weight", None)
    _check_fit(folder, state, expected)
    table = state["input_embedding.weight"]
    if head is not None and not torch.equal(head, table.cpu()):
        raise UserError(
            f"{folder.path}: lm_head differs from the token embedding, but CPM-Ant's head is tied "
            "to it; this checkpoint was tuned with an untied head and cannot be used."
        )
    if not laid_out:
        model.load_state_dict(state, strict=True, assign=True)
    return model


def _empty(config: CPMAntConfig, dtype: torch.dtype) -> CPMAnt:
    """A model without values."""
    import torch

    from cpm_tune.backbone.model import CPMAnt

    with torch.device("meta"):
        return CPMAnt(config).to(dtype)


def random_backbone(
    config: CPMAntConfig, seed: int, dtype: torch.dtype, lay_out: LayOut | None = None
) -> CPMAnt:
    """Return a backbone of that shape with random weights: the control for a trained one."""
    model = _empty(config, dtype)
    if lay_out is None or not lay_out(model):
        model.to_empty(device="cpu")
    return model.init_weights(seed)


def _read(files: Iterable[Path]) -> Iterator[tuple[str, torch.Tensor]]:
    """Yield the floating-point tensors of weight files; raise UserError for anything else."""
    from safetensors import SafetensorError, safe_open

    for path in files:
        if path.suffix == ".safetensors":
            try:
                with safe_open(path, framework="pt") as file:
                    for name in file.keys():  # noqa: SIM118 (not a mapping)
                        yield name, _tensor(path, name, file.get_tensor(name))
            except (SafetensorError, OSError) as error:
                raise UserError(f"{path}: not a readable checkpoint ({_line(error)}).") from error
            continue
        state = _load_pickled(path)
        if not isinstance(state, Mapping):
            raise UserError(f"{path}: expected a state dict, found {type(state).__name__}.")
        for name, tensor in state.items():
            yield str(name), _tensor(path, str(name), tensor)


def _load_pickled(path: Path) -> object:
    """torch.load of tensors only. A broken file can make it raise anything."""
    import pickle

    import torch

    try:
        try:
            return torch.load(path, map_location="cpu", weights_only=True, mmap=True)
        except RuntimeError as error:
            if "mmap can only be used" not in str(error):  # written by torch before 1.6
                raise
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise UserError(
            f"{path}: not a readable checkpoint: corrupt, or a pickle of more than "
            "tensors (refused)."
        ) from error
    except Exception as error:
        raise UserError(f"{path}: not a readable checkpoint ({_line(error)}).") from error


def _tensor(path: Path, name: str, value: object) -> torch.Tensor:
    import torch

    if not isinstance(value, torch.Tensor) or not value.is_floating_point():
        kind = str(value.dtype) if isinstance(value, torch.Tensor) else type(value).__name__
        raise UserError(
            f"{path}: '{name}' is {kind}, expected a floating-point tensor; give a state dict."
        )
    return value


def _line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:160]


def _folded(
    tensors: Iterable[tuple[str, torch.Tensor]], folder: BackboneFolder
) -> Iterator[tuple[str, torch.Tensor]]:
    """Bring names and scales of a layout to ours; fold in fp32."""
    vocab, width = folder.config.vocab_size, math.sqrt(folder.config.dim_model)
    for name, tensor in tensors:
        if folder.layout == "hf":
            name = name.removeprefix("cpmant.")
            if name == "input_embedding.weight" and tensor.dim() == 2:  # tokens, soft prompts
                yield name, tensor[:vocab]
                name, tensor = "prompt_embedding.weight", tensor[vocab:]
        elif folder.layout == "reference" and tensor.dim() == 2:
            if name.endswith(("_embedding.weight", "lm_head.weight")):
                tensor = tensor.float() / width
            elif name.startswith("encoder."):
                tensor = tensor.float() / math.sqrt(tensor.shape[1])
        yield name, tensor


def _check_fit(
    folder: BackboneFolder,
    state: Mapping[str, torch.Tensor],
    expected: Mapping[str, torch.Size],
) -> None:
    from cpm_tune.backbone.shards import whole_shape

    wrong = [f"missing {name}" for name in expected if name not in state]
    wrong += [f"unexpected {name}" for name in state if name not in expected]
    wrong += [
        f"{name} has shape {tuple(whole_shape(state[name]))}, expected {tuple(shape)}"
        for name, shape in expected.items()
        if name in state and whole_shape(state[name]) != shape
    ]
    if wrong:
        more = f" and {len(wrong) - 4} more" if len(wrong) > 4 else ""
        raise UserError(
            f"{folder.path}: the checkpoint does not fit its config: {'; '.join(wrong[:4])}{more}."
        )


def save_native(path: Path, model: CPMAnt, vocabulary: str, *, trained: bool) -> None:
    """Write a folder in our own layout: config.json, vocab.txt, model.safetensors (folded).

    Written beside and renamed, so that the folder is either complete or absent. Raises UserError
    if something is there already (but for an empty folder), or nothing can be written there.
    """
    import os
    import tempfile

    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"{path}: cannot be written ({error.strerror}).") from error
    with tempfile.TemporaryDirectory(dir=path.parent) as scratch:
        staged = Path(scratch) / "backbone"
        staged.mkdir()
        write_native(staged, model, vocabulary, trained=trained)
        try:
            os.replace(staged, path)
        except OSError as error:
            if not path.exists():
                raise
            raise UserError(f"{path}: is there already; give another folder.") from error


def write_native(folder: Path, model: CPMAnt, vocabulary: str, *, trained: bool) -> None:
    """Write the files of our own layout into an empty folder."""
    from safetensors.torch import save_file

    config = {"format": "cpm-tune", "trained": trained, **model.config.to_dict()}
    (folder / "config.json").write_text(json.dumps(config, indent=1) + "\n", encoding="utf-8")
    (folder / "vocab.txt").write_text(vocabulary, encoding="utf-8")
    state = {name: value.contiguous() for name, value in model.state_dict().items()}
    save_file(state, folder / "model.safetensors")
