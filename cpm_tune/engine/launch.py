"""Starts the processes of a run on this machine, watches them, and reports why one ended.

torch's elastic agent does the work of `torchrun`: a free port, ranks, and the end of all processes
when one ends. Every process runs `cpm_tune.commands.worker` with the command line that was given
here, or another module (`bench.group`).
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import socket
import sys
import tempfile
import threading
import uuid
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from cpm_tune.common.interrupt import Interrupted
from cpm_tune.common.paths import PACKAGE
from cpm_tune.errors import ProcessLostError, UserError

if TYPE_CHECKING:
    from torch.distributed.elastic.multiprocessing.errors import ProcessFailure

USER_ERROR = 2
_PER_CORE = 4  # processes; more exhaust memory and machine before anything is trained
# Seconds that processes have to finish their step and save after a signal. After one has died the
# others have torch's 30 (SubprocessContext closes with its default), then they are killed.
_GRACE = 120


def launch(
    argv: Sequence[str],
    nproc: int,
    nnodes: int = 1,
    rendezvous: str | None = None,
    *,
    module: str = "cpm_tune.commands.worker",
    environment: Mapping[str, str] | None = None,
) -> None:
    """Run the command `argv` in `nproc` processes here (and on `nnodes` - 1 other machines).

    `rendezvous` is host:port on one of the machines, the same for all of them; `environment` adds
    to this process's variables. Raises the UserError of a process (with its traceback, if it
    reported one, as a note), ProcessLostError, or Interrupted for a signal.
    """
    check_number(nproc, os.cpu_count() or 1)
    if nnodes > 1:
        check_rendezvous(nnodes, rendezvous)
        waiting = f"waiting for {nnodes} machines at {rendezvous}, ten minutes at most"
        print(waiting, file=sys.stderr, flush=True)
    from torch.distributed.elastic.multiprocessing.api import DefaultLogsSpecs, SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.elastic.rendezvous import RendezvousError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    reports = tempfile.TemporaryDirectory(prefix="cpm-tune.", ignore_cleanup_errors=True)
    with _environment(nproc, environment or {}), _signals_as_before(), reports as logs:
        config = LaunchConfig(
            min_nodes=nnodes,
            max_nodes=nnodes,
            nproc_per_node=nproc,
            logs_specs=DefaultLogsSpecs(log_dir=logs),
            run_id="cpm-tune" if nnodes > 1 else uuid.uuid4().hex,
            rdzv_backend="c10d",
            rdzv_endpoint=rendezvous or "localhost:0",
            max_restarts=0,
            shutdown_timeout=_GRACE,
        )
        try:
            elastic_launch(config, sys.executable)("-m", module, str(os.getpid()), *argv)
        except ChildFailedError as error:
            raise cause(error.failures, nproc * nnodes) from error
        except SignalException as error:
            raise Interrupted(int(error.sigval), "all processes have ended") from error
        except RendezvousError as error:
            raise UserError(
                f"--rendezvous {rendezvous}: the {nnodes} machines did not find each other; run "
                "the same command on each, with the name of one of them and a free port there that "
                "all can reach."
            ) from error


def check_number(nproc: int, cores: int) -> None:
    """Raise UserError for more processes than a machine with this number of cores can run."""
    if nproc > _PER_CORE * cores:
        raise UserError(
            f"--nproc {nproc}: this machine has {cores} {'core' if cores == 1 else 'cores'}, "
            f"expected at most {_PER_CORE} processes per core; use one per GPU, or on CPUs one per "
            "several cores."
        )


def check_rendezvous(nnodes: int, rendezvous: str | None) -> None:
    """Raise UserError unless `--rendezvous` is HOST:PORT with a host that resolves here."""
    host, _, port = (rendezvous or "").rpartition(":")
    if not (host and port.isascii() and port.isdigit() and 0 < int(port) < 2**16):
        given = f", not '{rendezvous}'" if rendezvous else ""
        raise UserError(
            f"--nnodes {nnodes}: expected --rendezvous HOST:PORT{given}: one of the machines and "
            "a free port there, the same on every machine."
        )
    try:
        socket.getaddrinfo(host.strip("[]"), int(port), type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        raise UserError(
            f"--rendezvous {rendezvous}: the host '{host}' is not known here; expected the name or "
            "address of one of the machines."
        ) from error


@contextlib.contextmanager
def _signals_as_before() -> Iterator[None]:
    """Restore the signal handlers: the agent replaces those of four signals and leaves its own.
    (`Interrupts` restores only the two that it set itself.)"""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {n: signal.getsignal(n) for n in signal.valid_signals()}
    try:
        yield
    finally:
        for number, handler in before.items():
            if handler is not None and signal.getsignal(number) is not handler:
                signal.signal(number, handler)


@contextlib.contextmanager
def _environment(nproc: int, more: Mapping[str, str]) -> Iterator[None]:
    """What the processes inherit: this package, wherever it is, and their share of the cores."""
    before = dict(os.environ)
    path = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, (str(PACKAGE.parent), path)))
    logging.disable(logging.CRITICAL)  # the agent's: errors are reported here
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // nproc)))
    os.environ.update(more)
    try:
        yield
    finally:
        logging.disable(logging.NOTSET)
        os.environ.clear()
        os.environ.update(before)


def cause(failures: Mapping[int, ProcessFailure], world_size: int) -> Exception:
    """The failure that came first; the others, and the agent's SIGTERM, follow from it."""

    def order(rank: int) -> tuple[int, float, int]:
        code = failures[rank].exitcode
        follows = code in (ProcessLostError.exit_code, -signal.SIGTERM, 128 + signal.SIGTERM)
        return 2 if follows else int(code >= 0), failures[rank].timestamp, rank

    rank = min(failures, key=order)
    failure = failures[rank]
    if failure.exitcode == USER_ERROR:
        report: Any = failure.message
        if not isinstance(report, dict):
            return UserError(report)
        error = UserError(report["message"])
        if trace := report.get("extraInfo", {}).get("py_callstack"):
            error.add_note(trace)
        return error
    how = f"ended with exit code {failure.exitcode}"
    if failure.exitcode < 0:
        how = f"was killed by {failure.signal_name()}"
    return ProcessLostError(
        f"process {rank} of {world_size} (pid {failure.pid}) {how}, so all were ended; repeat "
        "the command to resume from the last checkpoint."
    )
