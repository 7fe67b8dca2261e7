"""A backbone that is larger than the memory it may use: its layers are read while others compute.

Embeddings and as many layers as fit stay in memory. The others, evenly spread among them, share two
buffers: while a layer computes in one, a thread reads the next layer into the other. What
is computed is what the whole backbone computes, bit for bit. On CUDA the thread reads into pinned
memory and copies from there on a stream of its own. Nothing here can be trained: a backward pass
would need layers that are gone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import torch
from torch import Tensor, nn

from cpm_tune.backbone.ant.checkpoint import load_weights
from cpm_tune.backbone.ant.folder import CPMAntFolder
from cpm_tune.backbone.ant.formats import Piece, pieces
from cpm_tune.backbone.ant.model import CPMAnt, skeleton
from cpm_tune.backbone.storage.finite import check_finite
from cpm_tune.common.sizes import size_text
from cpm_tune.errors import UserError

N_BUFFERS = 2
_ALIGNMENT = 64  # of a weight within a buffer
_LAYERS = "encoder.layers."


def open_streamed(
    folder: CPMAntFolder,
    dtype: torch.dtype,
    *,
    limit: int,
    device: torch.device | str = "cpu",
) -> CPMAnt:
    """Return a folder's backbone in `dtype`, with at most `limit` bytes of it in memory at a time.

    The weights are on `device` already. If all fits, this is `load_weights`. Otherwise the layers
    that come and go are read again in every forward pass; a delta may be inserted and a text
    generated as usual, but nothing trained. Raises UserError as `load_weights` does, and for a
    limit below what two layers and the embeddings take.
    """
    layers: list[dict[str, Piece]] = [{} for _ in range(folder.config.num_layers)]
    fixed: dict[str, Piece] = {}
    for name, piece in pieces(folder).items():
        if name.startswith(_LAYERS):
            layers[int(name.removeprefix(_LAYERS).partition(".")[0])][name] = piece
        else:
            fixed[name] = piece
    sizes = [_size(layer, dtype) for layer in layers]
    base, largest = _size(fixed, dtype), max(sizes)
    if base + sum(sizes) <= limit:
        return load_weights(folder, dtype, device=device)
    least = base + N_BUFFERS * largest
    if limit < least:
        name = str(dtype).removeprefix("torch.")
        raise UserError(
            f"--memory-limit is {size_text(limit)}, but {folder.name} in {name} needs "
            f"{size_text(least)}, for embeddings and two layers; raise the limit."
        )
    streamed = _chosen(sizes, (limit - least) // largest)
    return _build(folder, dtype, torch.device(device), fixed, layers, streamed)


def _chosen(sizes: Sequence[int], resident: int) -> list[int]:
    """Numbers of the layers that come and go, spread evenly; empty ones do not."""
    real = [number for number, size in enumerate(sizes) if size]
    n = max(len(real) - resident, N_BUFFERS)
    return [real[k * len(real) // n] for k in range(n)]


def _build(
    folder: CPMAntFolder,
    dtype: torch.dtype,
    device: torch.device,
    fixed: Mapping[str, Piece],
    layers: Sequence[dict[str, Piece]],
    streamed: Sequence[int],
) -> CPMAnt:
    model = skeleton(folder.config)
    buffers = [
        _Buffer(max(_size(layers[n], dtype) for n in streamed), device) for _ in range(N_BUFFERS)
    ]
    state: dict[str, Tensor] = {}
    for number, weights in enumerate([*layers, fixed]):
        if number not in streamed:
            memory = torch.empty(_size(weights, dtype), dtype=torch.uint8)
            stays = _views(memory, weights, dtype)
            _read(folder, weights, stays, check=True)
            state |= {name: values.to(device) for name, values in stays.items()}
    contents = [layers[number] for number in streamed]
    for place, layer in enumerate(contents):
        state |= _views(buffers[place % N_BUFFERS].memory, layer, dtype)
    model.load_state_dict(state, strict=True, assign=True)
    model.streamed = True
    stream = _Stream(folder, dtype, buffers, contents)
    for place, number in enumerate(streamed):
        stream.attach(model.encoder.layers[number], place)
    return model


def _size(layer: Mapping[str, Piece], dtype: torch.dtype) -> int:
    return max((end for _, end in _places(layer, dtype).values()), default=0)


def _places(layer: Mapping[str, Piece], dtype: torch.dtype) -> dict[str, tuple[int, int]]:
    """Where a layer's weights are in a buffer: the first byte of each, and the one after its last.

    Each begins as far from a cache line's start as `load_weights` has it: a matrix product may
    round differently for another alignment.
    """
    places, end = {}, 0
    for name, piece in layer.items():
        begin = end + (piece.phase(dtype, _ALIGNMENT) - end) % _ALIGNMENT
        end = begin + piece.numel * dtype.itemsize
        places[name] = begin, end
    return places


def _views(memory: Tensor, layer: Mapping[str, Piece], dtype: torch.dtype) -> dict[str, Tensor]:
    """Tensors for a layer's weights in a buffer's memory, or in its image."""
    return {
        name: memory[begin:end].view(dtype).view(layer[name].shape)
        for name, (begin, end) in _places(layer, dtype).items()
    }


def _read(
    folder: CPMAntFolder, weights: Mapping[str, Piece], out: Mapping[str, Tensor], *, check: bool
) -> None:
    for name, piece in weights.items():
        piece.read_into(out[name])
        if check:
            check_finite(folder.path, name, out[name])


class _Buffer:
    """Memory for one layer. On CUDA `staging` is its pinned image on the host, `copied` when the
    copy from there is done, `free` when the layer in it has computed."""

    def __init__(self, size: int, device: torch.device) -> None:
        self.memory = torch.empty(size, dtype=torch.uint8, device=device)
        self.loading: tuple[int, Future[None]] | None = None
        self.cuda = device.type == "cuda"
        if self.cuda:
            self.staging = torch.empty(size, dtype=torch.uint8, pin_memory=True)
            self.copied = torch.cuda.Event()  # type: ignore[no-untyped-call]
            self.free = torch.cuda.Event()  # type: ignore[no-untyped-call]


class _Stream:
    """Brings the layers that come and go into their buffers, in turn: the first follows the last.

    `place` is a layer's number among them; it belongs in buffer `place` modulo N_BUFFERS.
    """

    def __init__(
        self,
        folder: CPMAntFolder,
        dtype: torch.dtype,
        buffers: Sequence[_Buffer],
        contents: Sequence[dict[str, Piece]],
    ) -> None:
        self.folder, self.dtype, self.buffers, self.contents = folder, dtype, buffers, contents
        self._checked: set[int] = set()
        self._thread = ThreadPoolExecutor(1, "layers")
        self._copies: torch.cuda.Stream | None = None
        self._device = buffers[0].memory.device
        if buffers[0].cuda:
            self._copies = torch.cuda.Stream(self._device)  # type: ignore[no-untyped-call]

    def attach(self, layer: nn.Module, place: int) -> None:
        """Have a layer's weights ready before it computes, and its buffer free afterwards."""

        def before(module: nn.Module, given: tuple[Any, ...]) -> None:
            if torch.is_grad_enabled() and given[0].requires_grad:
                raise UserError(
                    "a backbone with a memory limit cannot be trained: its layers come and go; "
                    "leave the limit out."
                )
            self._ready(place)

        layer.register_forward_pre_hook(before)
        layer.register_forward_hook(lambda *_: self._done(place), always_call=True)

    def _ready(self, place: int) -> None:
        buffer = self._want(place)
        assert buffer.loading is not None
        buffer.loading[1].result()
        if self._copies is not None:
            torch.cuda.current_stream(self._device).wait_event(buffer.copied)
        following = (place + 1) % len(self.contents)
        if following % N_BUFFERS != place % N_BUFFERS:
            self._want(following)

    def _done(self, place: int) -> None:
        buffer = self.buffers[place % N_BUFFERS]
        if self._copies is not None:
            buffer.free.record(torch.cuda.current_stream(self._device))
        following = (place + 1) % len(self.contents)
        if following % N_BUFFERS == place % N_BUFFERS:  # odd in number: last and first share
            self._want(following)

    def _want(self, place: int) -> _Buffer:
        """Begin to read a layer, unless it is there or on its way. One thread: in this order."""
        buffer = self.buffers[place % N_BUFFERS]
        if buffer.loading is None or buffer.loading[0] != place or _failed(buffer.loading[1]):
            buffer.loading = place, self._thread.submit(self._load, place, buffer)
        return buffer

    def _load(self, place: int, buffer: _Buffer) -> None:
        if self._copies is None:
            self._fill(place, buffer.memory)
            return
        buffer.copied.synchronize()  # the copy before has left the pinned memory
        self._fill(place, buffer.staging)
        with torch.cuda.stream(self._copies):
            self._copies.wait_event(buffer.free)
            buffer.memory.copy_(buffer.staging, non_blocking=True)
            buffer.copied.record(self._copies)

    def _fill(self, place: int, memory: Tensor) -> None:
        layer = self.contents[place]
        out = _views(memory, layer, self.dtype)
        _read(self.folder, layer, out, check=place not in self._checked)
        self._checked.add(place)


def _failed(future: Future[None]) -> bool:
    return future.done() and future.exception() is not None
