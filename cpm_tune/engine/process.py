"""One process of several, as `launch` starts it: what it was given, and how it ends.

A mistake is told to the launcher, in the form that torch's elastic agent reads.
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
        _tell(error)
        return 2
    except KeyboardInterrupt as stop:
        if main:
            print(interruption(stop), file=sys.stderr)
        return int(getattr(stop, "exit_code", 130))
    except ProcessLostError as error:
        return error.exit_code  # the launcher knows which one


def _tell(error: UserError) -> None:
    notes = "\n".join(getattr(error, "__notes__", ()))
    extra = {"timestamp": int(time.time()), **({"py_callstack": notes} if notes else {})}
    said = {"message": str(error), "extraInfo": extra}
    file = Path(os.environ["TORCHELASTIC_ERROR_FILE"])
    file.write_text(json.dumps({"message": said}), encoding="utf-8")


def begin() -> tuple[list[str], bool]:
    """The command line after the launcher's process id, with which this process ends; and whether
    this is the process that speaks."""
    end_with_parent(int(sys.argv[1]))
    main = rank_info(os.environ).rank == 0
    if not main:
        sys.stdout = Path(os.devnull).open("w")  # noqa: SIM115
    return sys.argv[2:], main
