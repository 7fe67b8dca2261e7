"""cpm-tune: delta tuning of CPM-Ant on the Chinese CUGE benchmark, with comparable results.

import cpm_tune as ct

backbone = ct.load_backbone()
print(backbone.generate("床前明月光，")[0])
run = ct.tune("lcqmc", "lora")
print(run.test.value, run.folder)

docs/python.md has an example of each. Nothing heavy is imported before it is used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from cpm_tune.version import VERSION

if TYPE_CHECKING:
    from cpm_tune.api import Backbone, Run, load_backbone, load_run, tune
    from cpm_tune.errors import UserError
    from cpm_tune.leaderboard.frame import as_dataframe

__version__ = VERSION
__all__ = ["Backbone", "Run", "UserError", "as_dataframe", "load_backbone", "load_run", "tune"]


def __getattr__(name: str) -> Any:
    import importlib
    import os

    if name not in __all__:
        raise AttributeError(f"module 'cpm_tune' has no attribute '{name}'")
    importlib.import_module("cpm_tune.common.allocator").set_allocator(os.environ)
    homes = {"UserError": "cpm_tune.errors", "as_dataframe": "cpm_tune.leaderboard.frame"}
    return getattr(importlib.import_module(homes.get(name, "cpm_tune.api")), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
