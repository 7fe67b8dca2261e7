"""The command line: finds the command, parses, runs; errors become a line and an exit code."""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from cpm_tune.commands.arguments import Parser, parse
from cpm_tune.commands.table import COMMANDS, TUNE, Command
from cpm_tune.common import events
from cpm_tune.common.allocator import set_allocator
from cpm_tune.common.door import load
from cpm_tune.common.interrupt import Interrupts, interruption
from cpm_tune.common.option import declared
from cpm_tune.common.progress import Lines, shown
from cpm_tune.common.terminal import safe_output
from cpm_tune.errors import ProcessLostError, UserError, did_you_mean, readable
from cpm_tune.version import VERSION

_FULL = {errno.ENOSPC, errno.EDQUOT}


@safe_output()
def main(argv: Sequence[str] | None = None) -> int:
    """Run a command and return its exit code; mistakes are one sentence each on stderr."""
    argv = list(sys.argv[1:] if argv is None else argv)
    with events.printed() if "--json" in argv and _has_json(argv) else nullcontext():
        code: object = 1
        try:
            code = _run(argv)
        except SystemExit as end:  # a mistake in the options, or --help
            code = end.code
            raise
        finally:
            events.emit("exit", code=code or 0)
        return code


def _has_json(argv: Sequence[str]) -> bool:
    """Whether the command that is asked for prints events; an unknown one has its error there."""
    try:
        _, command = _find(argv)
    except UserError:
        return True
    return any(option.name == "--json" for option in declared(command.options))


def _run(argv: Sequence[str]) -> int:
    """Run a command; mistakes become lines on stderr, and events."""
    try:
        return run(argv)
    except UserError as error:
        if "--debug" in argv:
            raise
        for line in str(error).split("\n"):
            _report(line)
        return 2
    except KeyboardInterrupt as stop:
        print(interruption(stop), file=sys.stderr)
        return int(getattr(stop, "exit_code", 130))
    except ProcessLostError as error:
        _report(str(error))
        return error.exit_code
    except BrokenPipeError:
        sys.stderr.close()
        return 1
    except OSError as error:
        if "--debug" in argv or error.errno not in (*_FULL, errno.ENAMETOOLONG):
            raise
        if error.errno == errno.ENAMETOOLONG:
            _report(f"{error.filename}: too long for a file name; give another.")
            return 2
        where = f"{error.filename}: " if error.filename else "the output "
        _report(f"{where}cannot be written ({error.strerror}); make room.")
        return 1


def _report(message: str) -> None:
    events.emit("error", text=readable(message))
    print(f"error: {readable(message)}", file=sys.stderr)


def run(argv: Sequence[str]) -> int:
    """Run a command and return its exit code; what goes wrong is raised."""
    program = Path(sys.argv[0]).name
    program = "tune.py" if program in ("tune.py", "__main__.py", "worker.py") else program
    # Idle threads that spin make every thread wait where others share the cores: 5 to 10 times.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    name, command = _find(argv)
    argv = argv[len(name.split()) :]
    prefix = f"{name} " if name else ""
    parser = Parser(command.options, f"{program} {name}".rstrip(), program)
    if command is TUNE:
        parser.add_argument("--version", action="version", version=f"cpm-tune {VERSION}")
    parser.list_commands({key: c.summary for key, c in COMMANDS.items() if key.startswith(prefix)})
    options: Any = parse(command.options, parser, argv)
    if not command.body or (command is TUNE and not argv):
        parser.print_help()
        return 2
    set_allocator(os.environ)
    module, _, function = command.body.partition(":")
    lines = Lines() if command.progress == "lines" else None
    events.emit("start", command=name or "tune", version=VERSION)
    quiet = bool(getattr(options, "quiet", False))
    with (
        Interrupts(message=command.stopped) if command.stopped else nullcontext(),
        nullcontext() if command.progress == "own" else shown(lines, unless=quiet),
    ):
        code: int = load(f"cpm_tune.commands.{module}:{function}")(options)
    return code


def _find(argv: Sequence[str]) -> tuple[str, Command]:
    """The command that the first words name, and its name; without one it is tune."""
    if not argv or argv[0].startswith("-"):
        return "", TUNE
    if argv[0] not in COMMANDS:
        raise UserError(f"there is no command '{argv[0]}'.{did_you_mean(argv[0], COMMANDS)}")
    name = " ".join(argv[:2])
    if name in COMMANDS:
        return name, COMMANDS[name]
    if not COMMANDS[argv[0]].body and len(argv) > 1 and not argv[1].startswith("-"):
        parts = [known.split()[1] for known in COMMANDS if known.startswith(f"{argv[0]} ")]
        raise UserError(f"{argv[0]} has no part '{argv[1]}'.{did_you_mean(argv[1], parts)}")
    return argv[0], COMMANDS[argv[0]]
