"""One process of a cell of several: what torch's agent starts for it, with the cell as JSON."""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path

from pydantic import TypeAdapter

from cpm_tune.bench.cells import Cell, plan_of
from cpm_tune.engine.launch import launch
from cpm_tune.engine.process import begin, work
from cpm_tune.errors import ProcessLostError, UserError
from cpm_tune.planning.inputs import read_inputs
from cpm_tune.runs.execute import execute

_CELL = TypeAdapter(Cell)


def run_group(cell: Cell, out: Path, threads: int, gpus: str | None) -> None:
    """Carry out a cell in its `nproc` processes, of so many threads each, on the GPUs that `gpus`
    names as CUDA_VISIBLE_DEVICES does (None: all). Raises what `launch` raises."""
    own = {"OMP_NUM_THREADS": str(threads)}
    if gpus is not None:
        own["CUDA_VISIBLE_DEVICES"] = gpus
    argv = [str(out.absolute()), _CELL.dump_json(cell).decode()]
    launch(argv, cell.nproc, module="cpm_tune.bench.member", environment=own)


def carry_out(argv: Sequence[str]) -> int:
    """Run the cell of the command line as one of its processes; what goes wrong is raised."""

    out, cell = Path(argv[0]), _CELL.validate_json(argv[1])
    try:
        plan = plan_of(cell)
        inputs, zero_shot = read_inputs(plan), None
        if cell.needs is not None:
            zero_shot = execute(plan.zero_shot(), out, inputs, wait=True)
        execute(plan, out, inputs, zero_shot=zero_shot, wait=True)
    except (UserError, ProcessLostError):
        raise
    except Exception as error:  # told, not printed into the table of the others
        told = UserError(f"{type(error).__name__}: {error}")
        told.add_note(traceback.format_exc())
        raise told from error
    return 0


if __name__ == "__main__":
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    argv, _ = begin()
    sys.exit(work(argv, main=False, run=carry_out))
