"""The command line: finds the command; what goes wrong becomes a sentence and an exit code."""

from __future__ import annotations

import errno
import io
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from cpm_tune.commands import COMMANDS
from cpm_tune.common.door import load
from cpm_tune.common.interrupt import interruption
from cpm_tune.errors import ProcessLostError, UserError, did_you_mean, readable

_FULL = {errno.ENOSPC, errno.EDQUOT}


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command and return its exit code; mistakes are one sentence each on stderr."""
    argv = list(sys.argv[1:] if argv is None else argv)
    try:
        return run(argv)
    except UserError as error:
        if "--debug" in argv:
            raise
        print(
            "\n".join(f"error: {readable(line)}" for line in str(error).splitlines()),
            file=sys.stderr,
        )
        return 2
    except KeyboardInterrupt as stop:
        print(interruption(stop), file=sys.stderr)
        return int(getattr(stop, "exit_code", 130))
    except ProcessLostError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    except BrokenPipeError:
        sys.stderr.close()
        return 1
    except OSError as error:
        if "--debug" in argv or error.errno not in (*_FULL, errno.ENAMETOOLONG):
            raise
        if error.errno == errno.ENAMETOOLONG:
            said = f"error: {error.filename}: too long for the name of a file; give another."
            print(readable(said), file=sys.stderr)
            return 2
        where = f"{error.filename}: " if error.filename else "the output "
        print(f"error: {where}cannot be written ({error.strerror}); make room.", file=sys.stderr)
        return 1


def run(argv: Sequence[str]) -> int:
    """Run a command and return its exit code; what goes wrong is raised."""
    prog = Path(sys.argv[0]).name
    prog = "tune.py" if prog in ("tune.py", "__main__.py", "worker.py") else prog
    # Idle threads that spin make every thread wait where others share the cores: 5 to 10 times.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    for stream in (sys.stdout, sys.stderr):  # a terminal without Chinese gets escapes, no crash
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    if argv and argv[0] in COMMANDS:
        code: int = load(COMMANDS[argv[0]])(argv[1:], prog)
        return code
    if argv and not argv[0].startswith("-"):
        raise UserError(f"there is no command '{argv[0]}'.{did_you_mean(argv[0], COMMANDS)}")
    from cpm_tune.commands.tune import tune, tune_parser

    if not argv:
        tune_parser(prog).print_help()
        return 2
    return tune(argv, prog)
