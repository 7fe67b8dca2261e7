"""Files of torch.save are interpreted, not unpickled: equal to torch's reading, safe, bounded."""

from __future__ import annotations

import io
import os
import pickle
import pickletools
import tempfile
import zipfile
from collections import OrderedDict
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from cpm_tune.backbone.storage.pickled import Opaque, Placed, read_pickled
from cpm_tune.backbone.storage.stored import stored_tensors
from cpm_tune.errors import UserError

both_formats = pytest.mark.parametrize("zipped", [True, False])


def save(path: Path, value: Any, zipped: bool = True) -> Path:
    torch.save(value, path, _use_new_zipfile_serialization=zipped)
    return path


def with_pickle(operations: bytes) -> bytes:
    """torch's zip file with these operations for its pickle."""
    file, made = io.BytesIO(), io.BytesIO()
    torch.save({"a": torch.ones(3)}, file)
    with zipfile.ZipFile(file) as old, zipfile.ZipFile(made, "w") as new:
        for record in old.infolist():
            main = record.filename.endswith("data.pkl")
            new.writestr(record.filename, operations if main else old.read(record))
    return made.getvalue()


@st.composite
def tensors(draw: st.DrawFn) -> torch.Tensor:
    shape = draw(st.lists(st.integers(0, 4), max_size=3))
    dtype = draw(st.sampled_from([torch.float32, torch.float16, torch.bfloat16, torch.float64]))
    values = torch.arange(torch.Size(shape).numel()).reshape(shape).to(dtype)
    if values.dim() > 1 and draw(st.booleans()):
        values = values.transpose(0, 1)
    if values.dim() and draw(st.booleans()):
        values = values[1:] if len(values) else values
    return nn.Parameter(values) if draw(st.booleans()) else values


@settings(max_examples=100, deadline=None)
@given(st.dictionaries(st.text(max_size=5), tensors(), max_size=4), st.booleans(), st.booleans())
def test_every_state_dict_reads_as_torch_reads_it(
    state: dict[str, torch.Tensor], zipped: bool, ordered: bool
) -> None:
    made = io.BytesIO()
    torch.save(
        OrderedDict(state) if ordered else state, made, _use_new_zipfile_serialization=zipped
    )
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "state.pt"
        path.write_bytes(made.getvalue())
        theirs = torch.load(path, weights_only=True)
        ours = {stored.name: stored for stored in stored_tensors([path])}
        assert list(ours) == list(theirs)
        for name, stored in ours.items():
            assert torch.equal(stored.whole(), theirs[name])
            part = torch.empty(max(stored.numel - 1, 0), dtype=stored.dtype)
            if len(part):
                stored.read_into(part, 1)
                assert torch.equal(part, theirs[name].reshape(-1)[1:])


@both_formats
def test_tensors_are_found_next_to_anything(tmp_path: Path, zipped: bool) -> None:
    """As in a training checkpoint: random states, arguments, sets, a module's class."""
    shared = torch.arange(6.0)
    value = {
        "module": OrderedDict(a=shared.view(2, 3), b=shared[2:4]),
        "np_rng_state": np.random.RandomState(0).get_state(),
        "args": SimpleNamespace(lr=0.1),
        "names": {"x", "y"},
        "model": nn.Linear(2, 2),
        "scheduler": {"step": 3, "lr": 0.5, "done": [True, None, b"x"], (1, 2): 0},
        "itself": [],
    }
    value["itself"].append(value)
    found = read_pickled(save(tmp_path / "a.pt", value, zipped))
    assert isinstance(found["args"], Opaque)
    assert isinstance(found["model"], Opaque)
    assert found["scheduler"] == {"step": 3, "lr": 0.5, "done": [True, None, found_bytes(found)]}
    assert isinstance(found["module"]["a"], Placed)
    assert found["module"]["a"].shape == (2, 3)
    assert found["module"]["b"].offset == found["module"]["a"].offset + 8


def found_bytes(found: Any) -> Any:
    """Bytes are made by a call in protocol 2, so they are opaque."""
    return found["scheduler"]["done"][2]


class Evil:
    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.marker),)


@both_formats
@pytest.mark.parametrize("protocol", [2, 4])
def test_code_is_never_run(tmp_path: Path, zipped: bool, protocol: int) -> None:
    value = {"a": torch.ones(2), "evil": Evil(tmp_path / "marker")}
    path = tmp_path / "a.pt"
    torch.save(value, path, pickle_protocol=protocol, _use_new_zipfile_serialization=zipped)
    assert isinstance(read_pickled(path)["evil"], Opaque)
    assert not (tmp_path / "marker").exists()
    with pytest.raises(UserError, match="more than tensors"):
        list(stored_tensors([path]))


def rebuilt(numel: int, start: Any, shape: Any, stride: Any, key: str = "0") -> bytes:
    """A state dict of one tensor with these numbers, for a storage that has 12 bytes."""

    class Storage:
        pass

    class Pickler(pickle._Pickler):  # type: ignore[name-defined,misc]
        def persistent_id(self, obj: Any) -> Any:
            if isinstance(obj, Storage):
                return ("storage", torch.FloatStorage, key, "cpu", numel)
            return None

    class Tensor:
        def __reduce__(self) -> Any:
            return torch._utils._rebuild_tensor_v2, (Storage(), start, shape, stride, False, {})

    file = io.BytesIO()
    Pickler(file, protocol=2).dump({"a": Tensor()})
    return file.getvalue()


def doubling(n: int) -> bytes:
    """A dict of dicts, each twice in the next: 2^n paths."""
    value: Any = {}
    for _ in range(n):
        value = {"a": value, "b": value}
    return pickle.dumps(value, protocol=2)


def tuples(n: int) -> bytes:
    """A key that takes 2^n steps to hash, and a value that is not a tensor."""
    return b"\x80\x02}" + b")" + b"q\x01h\x01\x86" * n + b"K\x01sK\x02K\x03s."


@pytest.mark.parametrize(
    "operations",
    [
        b"",
        b".",
        b"\x80\x02}" + b"q\x00" * 10,
        b"\x80\x02" + b"(" * 3_000_000 + b".",
        b"\x80\x02" + b"]" * 3_000_000 + b".",
        b"\x80\x02" + b"]" + b"(" * 200_000 + b"e" * 200_000 + b".",
        b"\x80\x02r\xff\xff\xff\x7f.",  # a memo of 2^31 entries
        b"\x80\x04\x8d\xff\xff\xff\xff\xff\xff\xff\x7f.",  # a text of 2^63 bytes
        b"\x80\x02U\xff.",
        b"\x80\x02cbuiltins\nbytearray\nJ\xff\xff\xff\x7f\x85R.",
        b"I" + b"9" * 100_000 + b"\n.",
        doubling(60),
        tuples(60),
        rebuilt(3, 0, (2**40, 2**40), (0, 0)),
        rebuilt(3, 0, (3, 3), (0, 1)),
        rebuilt(3, 1, (3,), (1,)),
        rebuilt(3, -1, (1,), (1,)),
        rebuilt(3, 0, (True,), (1,)),
        rebuilt(3, 0, (2**61,) * 60, (1,) * 60),
        rebuilt(3, 0, (1,) * 100_000, (1,) * 100_000),
        rebuilt(3, 0, (3,), (1, 1)),
        rebuilt(3, 0, 3, 1),
        rebuilt(4, 0, (4,), (1,)),  # the record has 3 values
        rebuilt(3, 0, (3,), (1,), "../data.pkl"),
        rebuilt(3, 0, (3,), (1,), "9"),
    ],
    ids=range(25),
)
@pytest.mark.parametrize("zipped", [True, False])
def test_hostile_pickles_are_one_sentence(tmp_path: Path, operations: bytes, zipped: bool) -> None:
    path = tmp_path / "a.pt"
    heads = b"".join(
        pickle.dumps(value, 2) for value in (0x1950A86A20F9469CFC6C, 1001, {"little_endian": True})
    )
    tail = pickle.dumps(["0"], 2) + (3).to_bytes(8, "little") + b"\0" * 12
    path.write_bytes(with_pickle(operations) if zipped else heads + operations + tail)
    with pytest.raises(UserError) as caught:
        list(stored_tensors([path]))
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 500


def test_compressed_records_are_refused(tmp_path: Path) -> None:
    path = save(tmp_path / "a.pt", {"a": torch.zeros(1000)})
    made = io.BytesIO()
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(made, "w", zipfile.ZIP_DEFLATED) as new:
        for record in old.infolist():
            new.writestr(record.filename, old.read(record))
    path.write_bytes(made.getvalue())
    with pytest.raises(UserError, match="compressed or encrypted"):
        list(stored_tensors([path]))


def test_a_pickle_that_grows_when_it_is_unpacked_is_refused(tmp_path: Path) -> None:
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w", zipfile.ZIP_DEFLATED) as new:
        new.writestr("archive/data.pkl", b"\0" * (65 * 2**20))
    (tmp_path / "a.pt").write_bytes(made.getvalue())
    with pytest.raises(UserError, match="larger than 64 MiB"):
        list(stored_tensors([tmp_path / "a.pt"]))


def test_a_header_of_many_tensors_is_refused_early(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    path.write_bytes((17 * 2**20).to_bytes(8, "little") + b"{" + b" " * 100)
    with pytest.raises(UserError, match="a header of 17,825,792 bytes"):
        list(stored_tensors([path]))


def test_the_operations_that_torch_writes_are_known(tmp_path: Path) -> None:
    """Every operation of pickletools has a place, so that no name is reached by accident."""
    from cpm_tune.backbone.storage import operations

    strange = {"EXT1", "EXT2", "EXT4", "NEXT_BUFFER", "READONLY_BUFFER", "PERSID", "STOP"}
    named = operations._PUT | operations._GET | operations._PLAIN | {*operations._CONSTANTS}
    for operation in pickletools.opcodes:
        method = f"op_{operation.name.lower()}"
        known = operation.name in named or hasattr(operations._Machine, method)
        assert known or operation.name in strange, operation.name
