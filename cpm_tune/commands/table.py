"""Every command: its options, and the function that gets them, which is imported when it is run."""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from typing import Literal

from cpm_tune.commands.options.backbone import Convert, Prune
from cpm_tune.commands.options.bench import Bench
from cpm_tune.commands.options.generate import Generate
from cpm_tune.commands.options.leaderboard import Compare, Leaderboard, Plot, Serve, Verify
from cpm_tune.commands.options.look import (
    Completion,
    DataCard,
    Doctor,
    Estimate,
    List,
    Schema,
    Show,
)
from cpm_tune.commands.options.pretrain import Prepare, Pretrain, Run, Vocab
from cpm_tune.commands.options.records import (
    Open,
    Runs,
    RunsDu,
    RunsList,
    RunsRemove,
    RunsShow,
    RunsTail,
)
from cpm_tune.commands.options.runs import (
    Diff,
    Errors,
    Export,
    Forgetting,
    Predict,
    Rescore,
    Scale,
    Score,
)
from cpm_tune.commands.options.search import Search
from cpm_tune.commands.options.tune import Tune
from cpm_tune.common.interrupt import NOTHING_WRITTEN


@dataclass(frozen=True)
class Command:
    """`options` is a class of options, `body` "module:function" below this package. `stopped` is
    what Ctrl-C leaves; by default finished runs stay and unfinished ones can be resumed.
    `progress` is how it shows its progress: on a terminal with bars ("auto"), always with lines,
    which do not disturb what it prints meanwhile, or in its own way."""

    options: type
    body: str
    stopped: str = ""
    progress: Literal["auto", "lines", "own"] = "auto"

    @property
    def summary(self) -> str:
        """The first sentence of the description."""
        text = (inspect.getdoc(self.options) or "").partition("\n\n")[0].replace("\n", " ")
        return text.removesuffix(".")


TUNE = Command(Tune, "tune:run", progress="own")
# A command's name may have two words; its first word alone may be a command as well.
COMMANDS = {
    "list": Command(List, "list_:run"),
    "show": Command(Show, "show:run"),
    "data": Command(DataCard, "data:run"),
    "doctor": Command(Doctor, "doctor:run"),
    "estimate": Command(Estimate, "estimate:run"),
    "completion": Command(Completion, "completion:run"),
    "schema": Command(Schema, "schema:run"),
    "runs": Command(Runs, ""),
    "runs list": Command(RunsList, "runs:list_"),
    "runs show": Command(RunsShow, "runs:show"),
    "runs tail": Command(RunsTail, "runs:tail"),
    "runs rm": Command(RunsRemove, "runs:remove_"),
    "runs du": Command(RunsDu, "runs:du"),
    "open": Command(Open, "open_:run"),
    "bench": Command(Bench, "bench:run", progress="own"),
    "search": Command(Search, "search:run", progress="own"),
    "predict": Command(Predict, "predict:run"),
    "scale": Command(Scale, "scale:run"),
    "generate": Command(Generate, "generate:run", "what is not printed yet is lost"),
    "score": Command(Score, "score:run"),
    "errors": Command(Errors, "errors:run"),
    "diff": Command(Diff, "errors:compare"),
    "forgetting": Command(Forgetting, "forgetting:run"),
    "rescore": Command(Rescore, "rescore:run"),
    "leaderboard": Command(Leaderboard, "leaderboard:run"),
    "leaderboard compare": Command(Compare, "compare:run"),
    "leaderboard verify": Command(Verify, "verify:run"),
    "leaderboard plot": Command(Plot, "plot:run"),
    "leaderboard serve": Command(Serve, "serve:run", progress="own"),
    "export": Command(Export, "export:run"),
    "convert": Command(Convert, "convert:run", NOTHING_WRITTEN),
    "prune": Command(Prune, "prune:run", NOTHING_WRITTEN),
    "pretrain": Command(Pretrain, ""),
    "pretrain vocab": Command(Vocab, "pretrain:vocab", NOTHING_WRITTEN, "lines"),
    "pretrain prepare": Command(Prepare, "pretrain:prepare", NOTHING_WRITTEN, "lines"),
    # NOTHING_WRITTEN until it has started.
    "pretrain run": Command(Run, "pretrain:run", NOTHING_WRITTEN, "lines"),
}
