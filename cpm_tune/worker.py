"""One process of several, as `--nproc` starts it: the command line, said once.

A mistake is told to the launcher, in the form that torch's elastic agent reads.
"""

from __future__ import annotations

import json
import os
import sys
import time
import traceback
from collections.abc import Sequence
from pathlib import Path

from cpm_tune.cli import interruption, run
from cpm_tune.engine.place import end_with_parent, place
from cpm_tune.errors import ProcessLostError, UserError


def work(argv: Sequence[str], main: bool) -> int:
    """Run a command as one process of several; return its exit code."""
    try:
        return run(argv)
    except UserError as error:
        if "--debug" in argv:
            traceback.print_exc()
        _tell(str(error))
        return 2
    except KeyboardInterrupt as stop:
        if main:
            print(interruption(stop), file=sys.stderr)
        return int(getattr(stop, "exit_code", 130))
    except ProcessLostError as error:
        return error.exit_code  # the launcher knows which one


def _tell(sentence: str) -> None:
    said = {"message": sentence, "extraInfo": {"timestamp": int(time.time())}}
    file = Path(os.environ["TORCHELASTIC_ERROR_FILE"])
    file.write_text(json.dumps({"message": said}), encoding="utf-8")


if __name__ == "__main__":
    end_with_parent()
    rank = place(os.environ).rank
    if rank:
        sys.stdout = Path(os.devnull).open("w")  # noqa: SIM115
    sys.exit(work(sys.argv[1:], rank == 0))
