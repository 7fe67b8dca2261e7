"""Values that cannot change: the bases of the run spec, and names that files may have."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    model_serializer,
)


def _name_part(text: str) -> str:
    """Folders, locks and figures are named after texts of records, which come from anybody."""
    if not text.strip(".") or re.search(r"[/\\\x00-\x1f]", text):
        raise ValueError("it cannot be part of a file's name")
    return text


NamePart = Annotated[str, Field(max_length=200), AfterValidator(_name_part)]
TaskName = Annotated[str, Field(max_length=120), AfterValidator(_name_part)]


class Frozen(BaseModel):
    """A value that cannot change, with no unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Extended(Frozen):
    """A value with fields that were added later: each is left out of the JSON where it has the
    value in `OMITTED`, which stands for what was meant before, so that older specs keep their
    hashes."""

    OMITTED: ClassVar[Mapping[str, Any]] = {}

    @model_serializer(mode="wrap")
    def _without_omitted(self, serialise: SerializerFunctionWrapHandler) -> dict[str, Any]:
        values: dict[str, Any] = serialise(self)
        for name, meant in self.OMITTED.items():
            if name in values and values[name] == meant:
                del values[name]
        return values


class Identified(Extended):
    """A spec whose hash identifies a result."""

    @property
    def sha256(self) -> str:
        """Hash of the canonical JSON of this spec."""
        canonical = json.dumps(self.model_dump(mode="json"), sort_keys=True, ensure_ascii=False)
        return hashlib.sha256(canonical.encode()).hexdigest()
