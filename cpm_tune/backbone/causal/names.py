"""Which model types transformers has causal language models for: read from its source, because
importing it imports torch."""

from __future__ import annotations

import ast
from functools import cache
from importlib.util import find_spec
from pathlib import Path

_CAUSAL = "MODEL_FOR_CAUSAL_LM_MAPPING_NAMES"
# Types in these tables see both sides of a token, or have an encoder.
_OTHERS = (
    "MODEL_FOR_MASKED_LM_MAPPING_NAMES",
    "MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES",
    "MODEL_FOR_SPEECH_SEQ_2_SEQ_MAPPING_NAMES",
)
_NOT = {"cpmant", "xlnet"}  # a family of its own; sees both sides


@cache
def causal_types() -> frozenset[str]:
    """The model types (`model_type` of a config.json), without those that also see what follows."""
    tables = _tables()
    others = {name for table in _OTHERS for name in tables.get(table, ())}
    return frozenset(set(tables.get(_CAUSAL, ())) - others - _NOT)


def _tables() -> dict[str, list[str]]:
    """The model types in each table of `transformers.models.auto.modeling_auto`."""
    package = find_spec("transformers")
    if package is None or package.origin is None:
        return {}
    source = Path(package.origin).parent / "models" / "auto" / "modeling_auto.py"
    tables: dict[str, list[str]] = {}
    for node in ast.parse(source.read_text(encoding="utf-8")).body:
        if (
            isinstance(node, ast.Assign)
            and isinstance(node.targets[0], ast.Name)
            and isinstance(node.value, ast.Call)
            and node.value.args
            and isinstance(node.value.args[0], ast.List)
        ):
            pairs = [pair for pair in node.value.args[0].elts if isinstance(pair, ast.Tuple)]
            names = [pair.elts[0].value for pair in pairs if isinstance(pair.elts[0], ast.Constant)]
            tables[node.targets[0].id] = [name for name in names if isinstance(name, str)]
    return tables
