"""Starts the processes of a run on this machine, watches them, and says why one ended.

torch's elastic agent does the work that `torchrun` does: a free port, ranks, and the end of all
when one ends. Every process runs `cpm_tune.worker` with the command line that was given here.
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import sys
import uuid
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from cpm_tune.errors import ProcessLostError, UserError
from cpm_tune.paths import PACKAGE

if TYPE_CHECKING:
    from torch.distributed.elastic.multiprocessing.errors import ProcessFailure

USER_ERROR = 2
_GRACE = 120  # seconds that processes have to finish their step and save


def launch(argv: Sequence[str], nproc: int, nnodes: int = 1, rendezvous: str | None = None) -> None:
    """Run the command `argv` in `nproc` processes here (and on `nnodes` - 1 other machines).

    `rendezvous` is host:port on one of the machines, the same for all of them. Raises UserError
    with a process's own sentence, ProcessLostError, or Interrupted for a signal.
    """
    if nnodes > 1 and not rendezvous:
        raise UserError(
            f"--nnodes {nnodes}: expected --rendezvous HOST:PORT, one of the machines and a free "
            "port, the same on every machine."
        )
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    from cpm_tune.interrupt import Interrupted

    config = LaunchConfig(
        min_nodes=nnodes,
        max_nodes=nnodes,
        nproc_per_node=nproc,
        run_id="cpm-tune" if nnodes > 1 else uuid.uuid4().hex,
        rdzv_backend="c10d",
        rdzv_endpoint=rendezvous or "localhost:0",
        max_restarts=0,
        shutdown_timeout=_GRACE,
    )
    with _environment(nproc):
        try:
            elastic_launch(config, sys.executable)("-m", "cpm_tune.worker", *argv)
        except ChildFailedError as error:
            raise cause(error.failures, nproc * nnodes) from error
        except SignalException as error:
            raise Interrupted(int(error.sigval), "all processes have ended") from error


@contextlib.contextmanager
def _environment(nproc: int) -> Iterator[None]:
    """What the processes inherit: this package, wherever it lies, and their share of the cores."""
    before = dict(os.environ)
    path = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, (str(PACKAGE.parent), path)))
    logging.disable(logging.CRITICAL)  # the agent's: what went wrong is said here
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // nproc)))
    try:
        yield
    finally:
        logging.disable(logging.NOTSET)
        os.environ.clear()
        os.environ.update(before)


def cause(failures: Mapping[int, ProcessFailure], world_size: int) -> Exception:
    """What the failure that came first was: the others, and the agent's SIGTERM, follow from it."""

    def order(rank: int) -> tuple[int, float, int]:
        code = failures[rank].exitcode
        follows = code in (ProcessLostError.exit_code, -signal.SIGTERM, 128 + signal.SIGTERM)
        return 2 if follows else int(code >= 0), failures[rank].timestamp, rank

    rank = min(failures, key=order)
    failure = failures[rank]
    if failure.exitcode == USER_ERROR:
        said: Any = failure.message
        return UserError(said["message"] if isinstance(said, dict) else said)
    how = f"ended with exit code {failure.exitcode}"
    if failure.exitcode < 0:
        how = f"was killed by {failure.signal_name()}"
    return ProcessLostError(
        f"process {rank} of {world_size} (pid {failure.pid}) {how}, so all were ended; the same "
        "command goes on from the last checkpoint."
    )
