"""Imports OpenDelta 0.3.2 (2022) on today's transformers, without its web and hub parts.

OpenDelta imports names that are gone (`transformers.deepspeed`, DistilBERT's old attention class),
clients for its model hub and its interactive web page, and models of transformers that only its own
prefix tuning asks for (ours is another). All of them get stand-ins that live only while it is
imported: nothing here can open a connection, and transformers, seconds of imports, is left alone.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import sys
import types
import warnings
from collections.abc import Iterator, Mapping
from importlib.metadata import version
from typing import Any

from cpm_tune.errors import UserError

INSTALL = "pip install --no-deps opendelta==0.3.2"
_MODELS = {
    "distilbert": ("MultiHeadSelfAttention",),
    "t5": ("T5Attention", "T5LayerSelfAttention"),
    "bert": ("BertAttention",),
    "gpt2": ("GPT2Attention",),
    "bart": ("BartAttention",),
    "roberta": ("RobertaAttention",),
}


def _stand_ins() -> dict[str, types.ModuleType]:
    """Modules that have no more than the names that OpenDelta imports from them."""
    contents: dict[str, dict[str, Any]] = {
        "turtle": {"back": None},
        "DeltaCenter": {"OssClient": None},
        "opendelta.utils.interactive.web": {"interactive": None},
        "transformers": {"__version__": version("transformers")},
        "transformers.activations": {"get_activation": None},  # for names that no config may have
        "transformers.file_utils": {"PushToHubMixin": _empty("PushToHubMixin")},
        "transformers.deepspeed": {  # imported, never called
            "deepspeed_config": None,
            "is_deepspeed_zero3_enabled": None,
        },
        "transformers.models.t5": {"T5ForConditionalGeneration": _empty("T5")},
    }
    for model, classes in _MODELS.items():
        contents[f"transformers.models.{model}.modeling_{model}"] = {c: _empty(c) for c in classes}
    modules = {name: types.ModuleType(name) for name in contents}
    for name, module in modules.items():
        vars(module).update(contents[name])
    return modules


def _empty(name: str) -> type:
    return type(name, (), {})


@contextlib.contextmanager
def _instead(modules: Mapping[str, types.ModuleType | None]) -> Iterator[None]:
    """Have these modules in place of what is imported under their names; None is an absent one."""
    replaced = {name: sys.modules.get(name) for name in modules}
    sys.modules.update(modules)  # type: ignore[arg-type]  # None is what importlib takes for absent
    try:
        yield
    finally:
        for name, module in replaced.items():
            if module is None:
                sys.modules.pop(name, None)
            else:
                sys.modules[name] = module


def opendelta() -> Any:
    """Return the opendelta package; raise UserError with the install command if it is missing."""
    if sys.modules.get("opendelta") is not None:
        return sys.modules["opendelta"]
    if importlib.util.find_spec("opendelta") is None:
        raise UserError(
            "OpenDelta is not installed, and this delta needs it (lora, adapter, bitfit, prefix "
            f"and soft_prompt do not); run: {INSTALL}"
        )
    path = list(sys.path)
    try:
        with warnings.catch_warnings(action="ignore"), _instead(_stand_ins()):
            return importlib.import_module("opendelta")
    except ImportError as error:
        for name in [name for name in sys.modules if name.split(".")[0] == "opendelta"]:
            del sys.modules[name]
        raise UserError(
            f"OpenDelta does not import here ({error}); run: {INSTALL} transformers==5.23.0"
        ) from error
    finally:
        sys.path[:] = path  # it puts its own folder in front
