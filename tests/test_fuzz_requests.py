"""A few hundred senseless requests; `python tests/fuzz_requests.py` makes thousands."""

from __future__ import annotations

from fuzz_requests import run


def test_whatever_is_asked_for_is_planned_or_answered_with_sentences() -> None:
    assert run(100, seed=1) == []
