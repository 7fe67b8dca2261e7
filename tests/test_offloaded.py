"""Layers that come from host memory while others compute: the values and gradients of layers that
stay, two at a time, and what waits for what on the streams of a GPU."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from cpm_tune.backbone.storage.shards import local_values
from cpm_tune.engine.offloaded import BACKWARD, FORWARD, SCORING, OffloadedEngine, Transfer, Weight

CPU = torch.device("cpu")
DEPTH = 5


class Layer(nn.Module):
    """A frozen product with a trained one of low rank beside it, as LoRA's, and a buffer."""

    def __init__(self) -> None:
        super().__init__()
        self.frozen = nn.Linear(8, 8).requires_grad_(False)
        self.low = nn.Linear(8, 2, bias=False)
        self.high = nn.Linear(2, 8, bias=False)
        self.register_buffer("scale", torch.full((8,), 0.5))

    def forward(self, x: Tensor) -> Tensor:
        return x + torch.tanh(self.frozen(x) + self.high(self.low(x))) * self.scale


class Stack(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(10, 8).requires_grad_(False)
        self.stack = nn.ModuleList(Layer() for _ in range(DEPTH))

    @property
    def layers(self) -> list[nn.ModuleList]:
        return [self.stack]

    def forward(self, ids: Tensor) -> Tensor:
        x = self.table(ids)
        for layer in self.stack:
            x = layer(x)
        return x


def gradients(model: Stack) -> dict[str, Tensor]:
    """After two passes, as of two micro-batches."""
    model.zero_grad()
    for ids in (torch.arange(10), torch.arange(4)):
        (model(ids) ** 3).mean().backward()
    return {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}


@pytest.fixture
def transfer(monkeypatch: pytest.MonkeyPatch) -> list[Transfer]:
    made: list[Transfer] = []
    real = Transfer.__init__

    def init(self: Transfer, *given: Any) -> None:
        real(self, *given)
        made.append(self)

    monkeypatch.setattr(Transfer, "__init__", init)
    return made


@pytest.mark.parametrize("checkpointing", [False, True])
def test_values_and_gradients_are_those_of_layers_that_stay(
    checkpointing: bool, transfer: list[Transfer]
) -> None:
    torch.manual_seed(0)
    plain = Stack()
    model = Stack()
    model.load_state_dict(plain.state_dict())
    OffloadedEngine(CPU, "fp32", checkpointing=checkpointing).prepare(model)
    with torch.no_grad():
        scores = plain(torch.arange(10))
        for _ in range(2):
            assert torch.equal(model(torch.arange(10)), scores)
    expected = gradients(plain)
    for _ in range(2):
        found = gradients(model)
        assert found.keys() == expected.keys()
        assert all(torch.equal(found[name], expected[name]) for name in found)
    assert transfer[0].copied
    values = dict(plain.named_parameters())
    for name, parameter in model.named_parameters():
        assert torch.equal(local_values(parameter), values[name])
    with torch.inference_mode():
        assert torch.equal(model(torch.arange(10)), scores)


def test_a_layer_is_copied_while_the_one_before_it_computes(transfer: list[Transfer]) -> None:
    """From the second pass on; each is copied once a pass and direction, and two are there."""
    torch.manual_seed(0)
    model = Stack()
    OffloadedEngine(CPU, "fp32").prepare(model)
    here: list[int] = []
    for layer in model.stack:
        layer.frozen.register_forward_hook(
            lambda *_: here.append(sum(bool(_size(one)) for one in model.stack))
        )
    gradients(model)
    (one,) = transfer
    one.copied.clear()
    gradients(model)
    forward = [(place, FORWARD, True) for place in range(1, DEPTH)]
    backward = [(place, BACKWARD, True) for place in range(DEPTH - 2, -1, -1)]
    assert one.copied == 2 * (forward + backward)  # the first and the last one are there already
    assert max(here) == 2
    one.copied.clear()
    with torch.no_grad():
        for _ in range(3):
            model(torch.arange(3))
    passes = [place for place, direction, _ in one.copied if direction == SCORING]
    assert passes[: DEPTH - 1] == list(range(1, DEPTH))
    assert all(ahead for _, _, ahead in one.copied[DEPTH:])


def _size(layer: nn.Module) -> int:
    return layer.frozen.weight.untyped_storage().nbytes()


def test_copies_wait_for_layers_that_left_and_layers_for_their_copies(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """On streams that note it: the second GPU's, also if the first is the current one."""
    log: list[tuple[Any, ...]] = []
    device = torch.device("cuda", 1)

    class Stream:
        def __init__(self, of: Any = None) -> None:
            assert of == device
            self.events = 0

        def record_event(self) -> int:
            self.events += 1
            log.append(("copied", self.events))
            return self.events

        def wait_stream(self, other: Any) -> None:
            assert other.of == device
            log.append(("copies wait",))

    @contextlib.contextmanager
    def stream(chosen: Stream) -> Iterator[None]:
        log.append(("begin",))
        yield
        log.append(("end",))

    def current_stream(of: Any = None) -> Any:
        return SimpleNamespace(
            of=of, wait_event=lambda event: log.append(("computing waits", event))
        )

    monkeypatch.setattr(torch.cuda, "Stream", Stream)
    monkeypatch.setattr(torch.cuda, "stream", stream)
    monkeypatch.setattr(torch.cuda, "current_stream", current_stream)
    monkeypatch.setattr(Weight, "free", lambda weight: log.append(("free",)))
    parameters = [nn.Parameter(torch.ones(4), requires_grad=False) for _ in range(3)]
    transfer = Transfer([[Weight.take(p, CPU)] for p in parameters], device)
    for _ in range(2):
        for place in range(3):
            transfer._use(place, SCORING)
    copy = [("begin",), ("end",)]
    # 0 is copied and used; it leaves, 1 is copied and used, ...
    expected: list[tuple[Any, ...]] = [*copy, ("copied", 1), ("computing waits", 1)]
    for number in (2, 3):
        expected += [("copies wait",), ("free",), *copy, ("copied", number)]
        expected += [("computing waits", number)]
    assert log[: len(expected)] == expected
    # ... and the second time, while one computes, the next is copied into what is free.
    again = log[-6:]
    assert again == [("copies wait",), ("free",), ("computing waits", 6), *copy, ("copied", 7)]
