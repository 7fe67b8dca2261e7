"""Chat templates: the checkpoint's own, and what a template puts around turns.

A template is rendered once, in a process of its own that is bounded in time, memory and output
(`cpm_tune.backbone.causal.rendering`), with signs in place of the turns' texts. What is around the
signs is then put around every row, so no row's text is ever seen by the template.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from cpm_tune.backbone.causal.tokenizer import HFTokenizer, json_object, tokenizer_about
from cpm_tune.backbone.tokens import Parts, Turns
from cpm_tune.common.reading import MOST_TEMPLATE, read_text
from cpm_tune.errors import UserError

FILE = "chat_template.jinja"
_LIMITS = {"seconds": 10, "memory": 2**30, "characters": 2**20}
_WAIT = 120  # seconds, also of a busy machine
_SCRIPT = Path(__file__).with_name("rendering.py")
_SIGNS = ("Qz甲a", "Qz乙b", "Qz丙c", "Qz丁d", "Qz戊e")  # of user and assistant in turn


def own_template(folder: Path) -> str:
    """The chat template of a folder in Hugging Face's format: chat_template.jinja, or that of
    tokenizer_config.json. Raises UserError if there is none."""
    if (folder / FILE).is_file():
        return read_text(folder / FILE, "chat template", MOST_TEMPLATE)
    value = tokenizer_about(folder).get("chat_template")
    if isinstance(value, list):  # of several, by name
        named = {v.get("name"): v.get("template") for v in value if isinstance(v, dict)}
        value = named.get("default")
    if not isinstance(value, str) or not value:
        raise UserError(
            f"{folder}: this checkpoint has no chat template of its own; give one as a file "
            "(--chat-template FILE), or omit the option."
        )
    return value


def special_names(folder: Path) -> dict[str, Any]:
    """The special tokens by the names that templates know them by (bos_token, …)."""
    values = {**json_object(folder / "special_tokens_map.json"), **tokenizer_about(folder)}
    names: dict[str, Any] = {}
    for key, value in values.items():
        text = value.get("content") if isinstance(value, dict) else value
        if key.endswith("_token") and isinstance(text, str):
            names[key] = text
    return names


def make_turns(
    template: str, names: Mapping[str, Any], tokenizer: HFTokenizer, where: str
) -> Turns:
    """What a template puts around turns, with special entries as ids.

    Raises UserError, which begins with `where`, for a template that cannot be rendered within the
    limits, drops or changes a turn's text, or writes it more than once.
    """
    user, answer, *_ = _SIGNS
    asked, left, right, closed, many = _rendered(
        template,
        json.dumps(names, sort_keys=True),
        where,
        (
            (_turns(user), True),
            (_turns(f" {user}"), True),
            (_turns(f"{user} "), True),
            (_turns(user, answer), False),
            (_turns(*_SIGNS), True),
        ),
    )
    opening, ask = _around(asked, (user,), where)
    strips_left = left == asked
    strips_right = right == asked
    if not (strips_left or f" {user}" in left) or not (strips_right or f"{user} " in right):
        raise UserError(f"{where} changes the user's text; use another one.")
    _, _, after = _around(closed, (user, answer), where)
    parts = [tokenizer.parts(text, first=not n) for n, text in enumerate((opening, ask, after))]
    end = parts[2][0] if parts[2] and isinstance(parts[2][0], int) else tokenizer.eos
    again: Parts | None = None
    answered: Parts = ()
    pieces = _split(many, _SIGNS)
    if pieces is not None and pieces[0] == opening and pieces[-1] == ask:
        turns, betweens = {*pieces[1:-1:2]}, {*pieces[2:-1:2]}
        if len(turns) == len(betweens) == 1:
            answered, again = tokenizer.parts(turns.pop()), tokenizer.parts(betweens.pop())
    return Turns(
        opening=parts[0],
        ask=parts[1],
        answered=answered,
        again=again,
        end=end,
        strips=(
            strips_left or tokenizer.strips_after(opening),
            strips_right or tokenizer.strips_before(ask),
        ),
    )


def _turns(*texts: str) -> list[dict[str, str]]:
    roles = ("user", "assistant")
    return [{"role": roles[n % 2], "content": text} for n, text in enumerate(texts)]


def _around(text: str, signs: Sequence[str], where: str) -> list[str]:
    """The texts before, between and after the signs."""
    pieces = _split(text, signs)
    if pieces is None:
        raise UserError(f"{where} does not write each turn's text once, as it is; use another one.")
    return pieces


def _split(text: str, signs: Sequence[str]) -> list[str] | None:
    """The texts around signs that are there once each, in this order; None otherwise."""
    places = [text.find(sign) for sign in signs]
    if any(text.count(sign) != 1 for sign in signs) or places != sorted(places):
        return None
    ends = [0, *(place + len(sign) for place, sign in zip(places, signs, strict=True))]
    starts = [*places, len(text)]
    return [text[end:start] for end, start in zip(ends, starts, strict=True)]


@lru_cache(16)
def _output(request: str) -> tuple[str, str]:
    """What the script answers to a request, and why there is no answer."""
    try:
        done = subprocess.run(
            [sys.executable, "-P", str(_SCRIPT)],
            input=request.encode(),
            capture_output=True,
            timeout=_WAIT,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return "", "takes too long"
    if done.returncode < 0:  # a signal: that of the limit
        return "", "takes too long"
    return done.stdout.decode(errors="replace"), ""


def _rendered(template: str, names: str, where: str, turns: Any) -> list[str]:
    if len(template) > MOST_TEMPLATE:
        raise UserError(f"{where} is longer than {MOST_TEMPLATE:,} characters; use another one.")
    request = {
        "template": template,
        "names": json.loads(names),
        "limits": _LIMITS,
        "turns": turns,
    }
    output, trouble = _output(json.dumps(request))
    try:
        answer = json.loads(output)
    except ValueError:
        answer = {"error": "cannot be rendered"}
    trouble = trouble or answer.get("error", "")
    if trouble:
        raise UserError(f"{where} {trouble}; use another one.")
    texts: list[str] = answer["texts"]
    return texts
