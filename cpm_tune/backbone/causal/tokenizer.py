"""The tokenizer that a folder in Hugging Face's format has: tokenizer.json, read by `tokenizers`.

Texts are put together of pieces, so no piece gets a space of its own in front (a dummy prefix): if
the tokenizer has such a space as an entry, it comes once, at the start of a context: as the model's
own tokenizer has it, unless an entry is a space together with the first word. Special entries that
are written in a text are text. Without tokenizer.json, transformers
makes one of vocab.json, merges.txt or a sentencepiece model.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from cpm_tune.backbone.example import Ids
from cpm_tune.backbone.tokens import Parts, TokenizerDefaults
from cpm_tune.common.door import load
from cpm_tune.common.reading import read_json
from cpm_tune.errors import UserError

TOKENIZER = "tokenizer.json"
FILES = (
    *(TOKENIZER, "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json"),
    *("generation_config.json", "vocab.json", "merges.txt", "tokenizer.model", "spiece.model"),
)
_SPACE = "\u2581"  # sentencepiece's


class _Entries(Mapping[int, str]):
    """What each id is written as; made when asked for."""

    def __init__(self, backend: Any, n: int) -> None:
        self._backend, self._n = backend, n

    def __getitem__(self, index: int) -> str:
        if not 0 <= index < self._n:
            raise KeyError(index)
        text: str = self._backend.decode([index], skip_special_tokens=False)
        if text and "\ufffd" not in text:
            return text
        return str(self._backend.id_to_token(index) or "")

    def __iter__(self) -> Iterator[int]:
        return iter(range(self._n))

    def __len__(self) -> int:
        return self._n


class HFTokenizer(TokenizerDefaults):
    """`start`: the ids that begin a context, as the tokenizer's own template has them. `columns`:
    of the model's logits; ids beyond the tokenizer's are never written."""

    def __init__(self, values: dict[str, Any], special: Mapping[str, int], columns: int) -> None:
        from tokenizers import Tokenizer

        self._prefix = _dummy_prefix(values)
        spaced = _without_dummy_prefix(values)
        self._backend = Tokenizer.from_str(json.dumps(values, ensure_ascii=False))
        self._backend.no_truncation()
        self._backend.no_padding()
        size = max(self._backend.get_vocab().values(), default=-1) + 1
        self.entries: Mapping[int, str] = _Entries(self._backend, size)
        self.start = self._begins(special.get("bos") if special.get("add_bos") else None)
        space = self._backend.token_to_id(_SPACE)
        if spaced and space is not None:
            self.start = (*self.start, space)
        self._backend.encode_special_tokens = True
        self.eos = special["eos"]
        self.bos = special.get("bos", self.eos)
        self.pad = special.get("pad", self.eos)
        self.unk = special.get("unk", self.eos)
        added = self._backend.get_added_tokens_decoder()
        self._special = {token.content: (i, token) for i, token in added.items() if token.special}
        specials = {i for i, _ in self._special.values()}
        never = (specials | set(range(size, columns)) | set(special_ids(special))) - {self.eos}
        self.never_written = tuple(sorted(i for i in never if i < columns))
        newline = self.encode("\n")
        self.newline = newline[0] if len(newline) == 1 else None
        about = json.dumps([values, self.start, self.eos, self.pad, self.unk], sort_keys=True)
        self._sha256 = hashlib.sha256(about.encode()).hexdigest()

    def _begins(self, bos: int | None) -> Ids:
        """What the tokenizer's template puts before a text, or else the bos that it asks for."""
        plain = self._backend.encode("a", add_special_tokens=False).ids
        whole = self._backend.encode("a", add_special_tokens=True).ids
        for n in range(len(whole) - len(plain) + 1):
            if whole[n : n + len(plain)] == plain:
                if n:
                    return tuple(whole[:n])
                break
        return () if bos is None else (bos,)

    @property
    def sha256(self) -> str:
        return self._sha256

    def encode(self, text: str) -> list[int]:
        ids: list[int] = self._backend.encode(text, add_special_tokens=False).ids
        return ids

    def parts(self, text: str, *, first: bool = False) -> Parts:
        """A text that special entries may be written in, as ids and the texts between them; `first`
        if it begins a sequence."""
        parts: list[str | int] = []
        entries = sorted(self._special, key=len, reverse=True)
        pattern = "|".join(map(re.escape, entries)) or "(?!)"
        for number, piece in enumerate(re.split(f"({pattern})", text)):
            if number % 2:
                index, token = self._special[piece]
                if token.lstrip and parts and isinstance(parts[-1], str):
                    parts[-1] = parts[-1].rstrip()
                parts.append(index)
                continue
            begins = first if number == 0 else self._prefix == "always"
            whole = piece.lstrip() if self._stripping(parts) else piece
            dummy = begins and self._prefix and whole and not whole.startswith(" ")
            parts.append(f" {whole}" if dummy else whole)
        return tuple(part for part in parts if part != "")

    def _stripping(self, parts: Sequence[str | int]) -> bool:
        last = parts[-1] if parts else None
        return any(token.rstrip for i, token in self._special.values() if i == last)

    def strips_after(self, text: str) -> bool:
        """Whether a text loses blanks at its start that follows `text`."""
        bare = text.rstrip()
        return any(
            token.rstrip and bare.endswith(name) for name, (_, token) in self._special.items()
        )

    def strips_before(self, text: str) -> bool:
        """Whether a text loses blanks at its end that `text` follows."""
        bare = text.lstrip()
        return any(token.lstrip and bare.startswith(n) for n, (_, token) in self._special.items())

    def decode(self, ids: Iterable[int]) -> str:
        text: str = self._backend.decode(list(ids), skip_special_tokens=False)
        return text

    def pieces(self, ids: Iterable[int]) -> Iterator[str]:
        """The text of ids in pieces, each when it is known: a character can be several ids."""
        from tokenizers.decoders import DecodeStream

        stream = DecodeStream(skip_special_tokens=False)
        for index in ids:
            if piece := stream.step(self._backend, index):
                yield piece


def special_ids(special: Mapping[str, int]) -> list[int]:
    """The ids among `special`, which has flags as well."""
    return [special[name] for name in ("bos", "eos", "pad", "unk") if name in special]


def _dummy_prefix(values: Mapping[str, Any]) -> Literal["", "first", "always"]:
    """Where a tokenizer.json puts a space before a text: nowhere, at the start of a sequence, or
    after every special entry as well."""
    for part in _parts(values.get("pre_tokenizer"), "pretokenizers"):
        if part.get("type") == "Metaspace" and part.get("add_prefix_space", True):
            scheme = part.get("prepend_scheme", "always")
            return scheme if scheme in ("first", "always") else ""
        if part.get("type") == "ByteLevel" and part.get("add_prefix_space"):
            return "always"
    normalizers = _parts(values.get("normalizer"), "normalizers")
    return "always" if any(part.get("type") == "Prepend" for part in normalizers) else ""


def _without_dummy_prefix(values: dict[str, Any]) -> bool:
    """Change a tokenizer.json so that no space is put before a text, nor taken away when ids become
    a text; return whether there was one."""
    changed = False
    for part in _parts(values.get("pre_tokenizer"), "pretokenizers"):
        if part.get("type") == "Metaspace":
            if part.get("prepend_scheme", "always") != "never":
                changed = True
            part["prepend_scheme"] = "never"
            part.pop("add_prefix_space", None)
        if part.get("type") == "ByteLevel" and part.get("add_prefix_space"):
            part["add_prefix_space"] = False
    normalizer = values.get("normalizer")
    if isinstance(normalizer, dict):
        parts = list(_parts(normalizer, "normalizers"))
        if any(part.get("type") == "Prepend" for part in parts):
            changed = True
            kept = [part for part in parts if part.get("type") != "Prepend"]
            values["normalizer"] = {"type": "Sequence", "normalizers": kept} if kept else None
    decoder = values.get("decoder")
    if isinstance(decoder, dict):
        kept = [part for part in _parts(decoder, "decoders") if not _strips(part)]
        for part in kept:
            if part.get("type") == "Metaspace":
                part["prepend_scheme"] = "never"
                part.pop("add_prefix_space", None)
        if changed:
            values["decoder"] = {"type": "Sequence", "decoders": kept}
    return changed


def _strips(part: Mapping[str, Any]) -> bool:
    return part.get("type") == "Strip" and part.get("content") == " " and part.get("start") == 1


def _parts(value: Any, inner: str) -> Iterator[dict[str, Any]]:
    """A component of a tokenizer.json, or those that it is a sequence of."""
    if isinstance(value, dict):
        if value.get("type") == "Sequence":
            for part in value.get(inner) or ():
                yield from _parts(part, inner)
        else:
            yield value


def read_tokenizer(folder: Path, config: Mapping[str, Any]) -> HFTokenizer:
    """The tokenizer of a folder whose config.json has these values; raise UserError for a missing
    or broken one, or one that does not fit the model."""
    file = folder / TOKENIZER
    try:
        if file.is_file():
            values = read_json(file)
        else:
            values = json.loads(load("cpm_tune.backbone.causal.converted:tokenizer_json")(folder))
        if not isinstance(values, dict):
            raise TypeError("not an object")
        special = _specials(folder, config, values)
        columns = config.get("vocab_size")
        tokenizer = HFTokenizer(values, special, columns if isinstance(columns, int) else 0)
    except UserError:
        raise
    except Exception as error:  # tokenizers raises Exception itself
        raise UserError(
            f"{file}: not a tokenizer that can be read ({str(error)[:160]})."
        ) from error
    if isinstance(columns, int) and len(tokenizer) > columns:
        raise UserError(
            f"{file}: {len(tokenizer)} entries, but the config says vocab_size {columns}; use the "
            "tokenizer that belongs to this model."
        )
    return tokenizer


def tokenizer_about(folder: Path) -> dict[str, Any]:
    """The values of tokenizer_config.json, none if it is absent; raise UserError for a broken
    one."""
    return json_object(folder / "tokenizer_config.json")


def _specials(folder: Path, config: Mapping[str, Any], values: Mapping[str, Any]) -> dict[str, int]:
    """The ids of bos, eos, pad and unk: as tokenizer_config.json names them, or else as config.json
    numbers them. Raises UserError if nothing ends a text."""
    about = tokenizer_about(folder)
    numbers = {**config, **json_object(folder / "generation_config.json")}
    vocab = _vocabulary(values)
    size = config.get("vocab_size")
    special: dict[str, int] = {"add_bos": int(bool(about.get("add_bos_token")))}
    for name in ("bos", "eos", "pad", "unk"):
        entry = about.get(f"{name}_token")
        entry = entry.get("content") if isinstance(entry, dict) else entry
        index = vocab.get(entry) if isinstance(entry, str) else None
        if index is None:
            index = numbers.get(f"{name}_token_id")
            index = index[0] if isinstance(index, list) and index else index
        if isinstance(index, int) and 0 <= index < (size if isinstance(size, int) else 2**31):
            special[name] = index
    unk = values.get("model", {}).get("unk_token")
    if "unk" not in special and isinstance(unk, str) and unk in vocab:
        special["unk"] = vocab[unk]
    if "eos" not in special:
        raise UserError(
            f"{folder}: no token ends a text; set eos_token in tokenizer_config.json, or "
            "eos_token_id in config.json, to one that the model has."
        )
    return special


def _vocabulary(values: Mapping[str, Any]) -> dict[str, int]:
    """Entries by what they are written as."""
    vocab = values.get("model", {}).get("vocab")
    if isinstance(vocab, list):  # of a unigram model: entries with scores
        known = {entry[0]: index for index, entry in enumerate(vocab)}
    else:
        known = dict(vocab) if isinstance(vocab, dict) else {}
    for token in values.get("added_tokens") or ():
        known[token["content"]] = token["id"]
    return known


def json_object(file: Path) -> dict[str, Any]:
    """The values of a JSON file that may be absent; raise UserError for a broken one."""
    if not file.is_file():
        return {}
    try:
        values = read_json(file)
    except (OSError, ValueError) as error:
        raise UserError(f"{file}: not valid JSON ({error}).") from error
    return values if isinstance(values, dict) else {}
