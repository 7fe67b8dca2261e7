"""What a worker process does: one cell after another, on one backbone and one reading of the data.

Nothing here knows who sends the cells: `Worker.carry_out` is the one place where a cell is run, in
this process or in a group that it starts.
"""

from __future__ import annotations

import time
import traceback
import zlib
from pathlib import Path
from typing import Any

from cpm_tune.backbone.model import CPMAnt
from cpm_tune.backbone.shards import stored
from cpm_tune.bench.cells import Cell, Report, plan_of
from cpm_tune.bench.member import run_group
from cpm_tune.data.store import Split
from cpm_tune.engine import Engine
from cpm_tune.errors import ProcessLostError, UserError
from cpm_tune.planning.inputs import Inputs, load_backbone, read_inputs
from cpm_tune.planning.plan import Plan
from cpm_tune.runs.execute import Outcome, execute
from cpm_tune.runs.finished import finished


class Worker:
    """Carries out cells in this process, on `threads` threads unless run.threads says otherwise.
    Holds the last backbone and the last data it read."""

    def __init__(self, out: Path, threads: int) -> None:
        self._out, self._threads = out, threads
        self._backbone: tuple[Any, CPMAnt, int] | None = None
        self._splits: tuple[Any, dict[str, Split]] | None = None

    def carry_out(self, cell: Cell, gpus: str | None = None) -> Report:
        """Run a cell (what is finished already is not run again); its errors are in the report.

        A cell of several processes has them as children of this one, on the GPUs that `gpus`
        names as CUDA_VISIBLE_DEVICES does (None: all that this process sees).
        """
        import torch

        started = time.perf_counter()
        torch.set_num_threads(self._threads)
        try:
            if cell.nproc > 1:
                self._run_group(cell, gpus)
            else:
                self._run(cell)
        except ProcessLostError as error:  # of its group
            return Report(cell.run_id, "lost", time.perf_counter() - started, str(error))
        except Exception as error:  # the next cells are run, whatever this one met
            self._backbone = None  # it may carry a delta
            mine = isinstance(error, UserError)
            said = str(error) if mine else f"{type(error).__name__}: {error}"
            return Report(
                cell.run_id,
                "failed",
                time.perf_counter() - started,
                " ".join(said.split()),
                "\n".join(getattr(error, "__notes__", ())) if mine else traceback.format_exc(),
            )
        return Report(cell.run_id, "finished", time.perf_counter() - started)

    def _run_group(self, cell: Cell, gpus: str | None) -> None:
        import torch

        self._backbone = self._splits = None  # the group needs the memory
        torch.cuda.empty_cache()
        plan = plan_of(cell)
        if finished(self._out, cell.run_id) is None:
            run_group(cell, self._out, plan.execution.threads or self._threads, gpus)

    def _run(self, cell: Cell) -> None:
        plan = plan_of(cell)
        inputs = self._inputs(plan)
        zero_shot = None
        if cell.needs is not None:
            zero_shot = self._execute(plan.zero_shot(), inputs, None)
        self._execute(plan, inputs, zero_shot)

    def _execute(self, plan: Plan, inputs: Inputs, zero_shot: Outcome | None) -> Outcome:
        outcome = execute(plan, self._out, inputs, zero_shot=zero_shot, wait=True, load=self._load)
        if not outcome.reused and self._backbone is not None:
            _, model, checksum = self._backbone
            if _checksum(model) != checksum:
                self._backbone = None
                raise RuntimeError("the delta left a trace in the shared backbone; this is a bug")
        return outcome

    def _load(self, plan: Plan, engine: Engine) -> CPMAnt:
        """The plan's backbone as it was loaded, without a delta."""
        backbone, spec, how = plan.spec.backbone, plan.spec, plan.execution
        if how.memory_limit or how.offload or how.engine == "bmtrain":
            self._backbone = None  # layers come and go: nothing to compare and to share
            return load_backbone(plan, engine)
        seed = spec.seed if backbone.init == "random" else None
        key = (backbone.sha256, backbone.init, seed, spec.weights, plan.execution.device)
        if self._backbone is None or self._backbone[0] != key:
            self._backbone = None  # two do not have to fit into memory
            model = load_backbone(plan, engine)
            self._backbone = (key, model, _checksum(model))
        return self._backbone[1]

    def _inputs(self, plan: Plan) -> Inputs:
        key = (plan.spec.task, plan.spec.task_version, plan.spec.data)
        known = self._splits[1] if self._splits is not None and self._splits[0] == key else None
        inputs = read_inputs(plan, known)
        self._splits = (key, inputs.splits)
        return inputs


def _checksum(model: CPMAnt) -> int:
    """CRC-32 of every parameter and of its place in the state dict."""
    import torch

    total = 0
    for name, tensor in model.state_dict().items():
        total = zlib.crc32(name.encode(), total)
        for part in stored(tensor):
            raw = part.cpu().contiguous().flatten().view(torch.uint8)
            total = zlib.crc32(memoryview(raw.numpy()), total)  # type: ignore[arg-type]
    return total
