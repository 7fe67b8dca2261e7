"""The reader of users' YAML and JSON: whatever a text contains, it is a value or one short line."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from cpm_tune.common.reading import MAX_DEPTH, parse_json, parse_yaml, read_json, read_mapping
from cpm_tune.errors import UserError

VALUES: dict[str, Any] = {
    "1": 1,
    "1e-3": 1e-3,
    "-1E5": -1e5,
    "1e-": "1e-",
    ".5": 0.5,
    ".nan": float("nan"),
    "2001-01-01": "2001-01-01",
    "2024-13-45": "2024-13-45",
    "true": True,
    "null": None,
    "": None,
    "今天": "今天",
    "[1, a]": [1, "a"],
    "{a: {b: 1}}": {"a": {"b": 1}},
    "&a [1]": [1],
    "{a: &x [1], b: *x}": {"a": [1], "b": [1]},
    '{"a": "\\u4eca"}': {"a": "今"},
}


@pytest.mark.parametrize("text", VALUES)
def test_a_text_becomes_a_value(text: str) -> None:
    assert repr(parse_yaml(text)) == repr(VALUES[text])


BOMB = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{b}: &{b} [{', '.join([f'*{a}'] * 9)}]\n" for a, b in zip("abcdefgh", "bcdefghi", strict=True)
)
WRONG = {
    "a bomb of aliases": (BOMB, "aliases"),
    "an alias of itself": ("&a [*a]", "contains itself"),
    "an unknown alias": ("*a", "undefined alias"),
    "unclosed brackets": ("[" * 1500, "nested more than"),
    "many brackets": ("[" * 60 + "]" * 60, "nested more than"),
    "deep mappings": ("{a: " * 60 + "1" + "}" * 60, "nested more than"),
    "a tag of Python": ("!!python/object:os.system x", "could not determine a constructor"),
    "no whole number": ("!!int x", "does not fit its tag"),
    "no time": ("!!timestamp x", "does not fit its tag"),
    "no number": ("!!float x", "does not fit its tag"),
    "no bytes": ("!!binary x", "failed to decode"),
    "no boolean": ("!!bool x", "does not fit its tag"),
    "a mapping as key": ("{? {a: b} : c}", "unhashable"),
    "two documents": ("a\n---\nb", "another document"),
    "a control character": ("\x00", "unacceptable character"),
    "a merge of nothing": ("{<<: 3}", "expected a mapping"),
    "a number without end": ("0x" + "f" * 5000, "more than 1024 bits"),
    "more digits than Python reads": ("9" * 5000, "more than 1024 bits"),
    "too many values": ("[" + "1," * 100_001 + "]", "values"),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_is_wrong_is_one_short_line(name: str) -> None:
    text, message = WRONG[name]
    started = time.monotonic()
    with pytest.raises(ValueError, match=message) as caught:
        parse_yaml(text)
    assert "\n" not in str(caught.value)
    assert 0 < len(str(caught.value)) < 250
    assert time.monotonic() - started < 20


def test_depth_up_to_the_bound_is_read() -> None:
    deep = "[" * MAX_DEPTH + "]" * MAX_DEPTH
    assert parse_yaml(deep) == json.loads(deep)


# Pieces of YAML in any order, as well as any text.
PIECES = st.sampled_from(
    [*"[]{}:,-?&*!|>'\"%@`#~ \n\t", "a", "1", "&a ", "*a", "!!int ", "!!timestamp ", "!!set ",
     "!!omap ", "!!pairs ", "!!binary ", "!!map ", "<<: ", "? ", "- ", ": ", "---\n", "2024-13-45",
     "1e400", "0o8", "0b", "1_", ":60", ".inf", "\u2028", "\ud800", "\ufeff", "今"]
)  # fmt: skip


@settings(max_examples=600)
@given(st.lists(PIECES, max_size=25).map("".join) | st.text())
def test_any_text_is_a_value_or_one_short_line(text: str) -> None:
    try:
        parse_yaml(text)
    except ValueError as error:
        line = str(error)
        assert "\n" not in line and 0 < len(line) < 300  # noqa: PT018


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**60), 2**60)
    | st.text(st.characters(codec="ascii")),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=20,
)


@given(JSON)
def test_what_yaml_writes_is_read_back(value: Any) -> None:
    # In quotes: PyYAML writes the text 0E0 without them, which it does not read as a number.
    assert parse_yaml(yaml.safe_dump(value, default_style='"')) == value


@pytest.mark.parametrize("content", [b"\xff\xfe", b"\xbd\xf1: 1", b"[" * 10**5, b"{", b""])
def test_a_file_that_cannot_be_read_is_one_sentence(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "file"
    path.write_bytes(content)
    with pytest.raises(UserError, match=f"--config {path}: ") as caught:
        read_mapping(path, "--config", "task: lcqmc")
    assert "\n" not in str(caught.value)
    with pytest.raises(ValueError, match=r".") as wrong:
        read_json(path)
    assert "\n" not in str(wrong.value)


def test_a_file_of_windows_is_read(tmp_path: Path) -> None:
    path = tmp_path / "run.yaml"
    path.write_bytes("\ufefftask: lcqmc\r\nset: {train.lr: 1e-3}\r\n".encode())
    assert read_mapping(path, "--config", "") == {"task": "lcqmc", "set": {"train.lr": 1e-3}}


def test_json_that_is_nested_too_deep_is_a_value_error() -> None:
    for text in ("[" * 10**5, '{"a":' * 10**5):
        with pytest.raises(ValueError, match="nested too deep"):
            parse_json(text)
