"""The Python interface: backbones that write, deltas in and out of them, runs and their scores.

`import cpm_tune` offers what is here. The commands generate, predict, export and tune are these
calls. Every mistake of a caller is a `UserError` of one sentence.
"""

from cpm_tune.api.backbones import Backbone, load_backbone
from cpm_tune.api.runs import Run, load_run, tune

__all__ = ["Backbone", "Run", "load_backbone", "load_run", "tune"]
