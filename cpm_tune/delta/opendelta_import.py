"""Imports OpenDelta 0.3.2 (2022) on today's transformers, without its web and hub parts.

OpenDelta imports names that are gone (`transformers.deepspeed`, DistilBERT's old attention class),
clients for its model hub and its interactive web page, and six transformers models that only its
own prefix tuning asks for (ours is another). `transformers.deepspeed` gets today's equivalent, the
others stand-ins that live only while it is imported: nothing here can open a connection, and the
models, seconds of imports, are not read.
"""

from __future__ import annotations

import importlib
import importlib.util
import logging
import sys
import types
from typing import Any

from cpm_tune.errors import UserError

INSTALL = "pip install --no-deps opendelta==0.3.2"
_NOT_NEEDED = "torchao"  # transformers imports it where it is installed: seconds, and noise
_MODELS = {
    "distilbert": ("MultiHeadSelfAttention",),
    "t5": ("T5Attention", "T5LayerSelfAttention"),
    "bert": ("BertAttention",),
    "gpt2": ("GPT2Attention",),
    "bart": ("BartAttention",),
    "roberta": ("RobertaAttention",),
}


def _activation(name: str) -> Any:
    """transformers' activation of this name, imported when an adapter asks for one."""
    return importlib.import_module("transformers.activations").get_activation(name)


def _absent(name: str) -> type:
    return type(name, (), {})


_STAND_INS: dict[str, dict[str, Any]] = {
    "turtle": {"back": None},
    "DeltaCenter": {"OssClient": None},
    "opendelta.utils.interactive.web": {"interactive": None},
    "transformers.activations": {"get_activation": _activation},
    "transformers.models.t5": {"T5ForConditionalGeneration": _absent("T5ForConditionalGeneration")},
    **{
        f"transformers.models.{model}.modeling_{model}": {name: _absent(name) for name in names}
        for model, names in _MODELS.items()
    },
}


def opendelta() -> Any:
    """Return the opendelta package; raise UserError with the install command if it is missing."""
    if "opendelta" in sys.modules:
        return sys.modules["opendelta"]
    if importlib.util.find_spec("opendelta") is None:
        raise UserError(f"OpenDelta is not installed, and this delta needs it; run: {INSTALL}")
    path = list(sys.path)
    replaced = {name: sys.modules.get(name) for name in (*_STAND_INS, _NOT_NEEDED)}
    sys.modules[_NOT_NEEDED] = None  # type: ignore[assignment]  # what importlib takes for absent
    try:
        _alias_transformers()
        for name, content in _STAND_INS.items():
            sys.modules[name] = _stand_in(name, content)
        return importlib.import_module("opendelta")
    except ImportError as error:
        for name in [name for name in sys.modules if name.split(".")[0] == "opendelta"]:
            del sys.modules[name]
        raise UserError(
            f"OpenDelta does not import here ({error}); run: {INSTALL} transformers==5.23.0"
        ) from error
    finally:
        sys.path[:] = path  # it puts its own folder in front
        for name, module in replaced.items():
            if module is None:
                sys.modules.pop(name, None)
            else:
                sys.modules[name] = module


def _stand_in(name: str, content: dict[str, Any]) -> types.ModuleType:
    """A module with the names that OpenDelta imports from it."""
    module = types.ModuleType(name)
    vars(module).update(content)
    return module


def _alias_transformers() -> None:
    logging.getLogger("transformers").setLevel(logging.ERROR)
    deepspeed = importlib.import_module("transformers.integrations.deepspeed")
    sys.modules.setdefault("transformers.deepspeed", deepspeed)
