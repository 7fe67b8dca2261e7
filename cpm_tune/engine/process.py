"""One process of several, as `launch` starts it: its command line and how it ends.

A UserError is reported to the launcher in the form that torch's elastic agent reads.
"""

from __future__ import annotations

import json
import os
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path

from cpm_tune.common.interrupt import interruption
from cpm_tune.engine.rank import end_with_parent, rank_info
from cpm_tune.errors import ProcessLostError, UserError


def work(argv: Sequence[str], main: bool, run: Callable[[Sequence[str]], int]) -> int:
    """Call `run` as one process of several; return its exit code."""
    try:
        return run(argv)
    except UserError as error:
        if "--debug" in argv:
            traceback.print_exc()
        _report(error)
        return 2
    except KeyboardInterrupt as stop:
        if main:
            print(interruption(stop), file=sys.stderr)
        return int(getattr(stop, "exit_code", 130))
    except ProcessLostError as error:
        return error.exit_code  # the launcher knows which process


def _report(error: UserError) -> None:
    notes = "\n".join(getattr(error, "__notes__", ()))
    extra = {"timestamp": int(time.time()), **({"py_callstack": notes} if notes else {})}
    content = {"message": {"message": str(error), "extraInfo": extra}}
    Path(os.environ["TORCHELASTIC_ERROR_FILE"]).write_text(json.dumps(content), encoding="utf-8")


def begin() -> tuple[list[str], bool]:
    """End with the launcher, whose process id comes first on the command line; return the rest of
    it, and whether this is the process that prints."""
    end_with_parent(int(sys.argv[1]))
    main = rank_info(os.environ).rank == 0
    if not main:
        sys.stdout = Path(os.devnull).open("w")  # noqa: SIM115
    return sys.argv[2:], main
