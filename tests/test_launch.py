"""What the launcher of several processes says: of their mistakes, and of those in the command."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from collections import namedtuple
from pathlib import Path
from typing import Any

import pytest

from cpm_tune.commands.cli import run
from cpm_tune.engine.launch import cause, launch
from cpm_tune.engine.process import work
from cpm_tune.engine.rank import RankInfo, rank_info
from cpm_tune.errors import ProcessLostError, UserError

Failure = namedtuple("Failure", "exitcode timestamp pid message")  # of torch's ProcessFailure
LOST = Failure(ProcessLostError.exit_code, 1, 11, "")
ENDED = Failure(-signal.SIGTERM, 1, 12, "")
MISTAKE = Failure(2, 3, 13, {"message": "lower train.lr."})
CRASH = Failure(1, 3, 14, "")


@pytest.mark.parametrize(
    ("failures", "said"),
    [
        ((LOST, MISTAKE, ENDED), "lower train.lr."),
        ((ENDED, MISTAKE, MISTAKE), "lower train.lr."),
        ((LOST, ENDED, CRASH), "process 2 of 3 (pid 14) ended with exit code 1"),
        ((LOST, MISTAKE, CRASH), "lower train.lr."),
    ],
)
def test_the_cause_is_said_not_what_follows_from_it(
    failures: tuple[Failure, ...], said: str
) -> None:
    assert str(cause(dict(enumerate(failures)), 3)).startswith(said)


def test_a_process_tells_its_mistake_to_the_launcher(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "error.json"
    monkeypatch.setenv("TORCHELASTIC_ERROR_FILE", str(file))
    assert work(["--task", "lcqcm"], False, run) == 2
    assert "lcqmc" in json.loads(file.read_text())["message"]["message"]
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({}, RankInfo()),
        ({"RANK": "0", "WORLD_SIZE": "1", "LOCAL_RANK": "0"}, RankInfo()),
        ({"RANK": "5", "WORLD_SIZE": "8", "LOCAL_RANK": "1"}, RankInfo(5, 8, 1)),
        ({"SLURM_STEP_NUM_TASKS": "4", "SLURM_PROCID": "3", "SLURM_LOCALID": "1"}, RankInfo()),
        (
            {
                **{"SLURM_STEP_NUM_TASKS": "4", "SLURM_PROCID": "3", "SLURM_LOCALID": "1"},
                **{"MASTER_ADDR": "a", "MASTER_PORT": "1"},
            },
            RankInfo(3, 4, 1, slurm=True),
        ),
    ],
)
def test_the_place_of_a_process(environment: dict[str, str], expected: RankInfo) -> None:
    assert rank_info(environment) == expected


@pytest.mark.parametrize(
    ("environment", "said"),
    [
        ({"WORLD_SIZE": "x"}, "WORLD_SIZE=x, expected a whole number"),
        ({"WORLD_SIZE": "2", "RANK": "y"}, "RANK=y, expected a whole number"),
        ({"WORLD_SIZE": "2", "RANK": "2"}, "expected a rank from 0 to 1"),
    ],
)
def test_what_is_no_place(environment: dict[str, str], said: str) -> None:
    with pytest.raises(UserError, match=said):
        rank_info(environment)


@pytest.mark.parametrize(
    "words",
    [
        ("--nproc", "0"),
        ("--nproc", "x"),
        ("--nproc", "100000"),
        ("--nnodes", "2"),
        ("--rendezvous", "localhost:29500"),
        ("--rendezvous", "localhost", "--nnodes", "2"),
        ("--rendezvous", "localhost:99999", "--nnodes", "2"),
        ("--rendezvous", ":29500", "--nnodes", "2"),
        ("--rendezvous", "no.such.host.invalid:29500", "--nnodes", "2"),
    ],
)
def test_mistakes_in_the_number_of_processes(cli: Any, words: tuple[str, ...]) -> None:
    code, _, said = cli("--task", "lcqmc", *words)
    assert code == 2
    assert words[0] in said
    assert said.count("\n") == 1


def test_a_process_leaves_its_group_when_it_ends() -> None:
    """With the group's threads at work, one in three processes was aborted at its end."""
    program = (
        "import atexit, torch.distributed as dist\n"
        "atexit.register(lambda: print('member', dist.is_initialized(), flush=True))\n"
        "from cpm_tune.engine.pytorch import join_group\n"
        "print(join_group('cpu').world_size, dist.is_initialized(), flush=True)\n"
    )
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = str(free.getsockname()[1])
    launched = [
        subprocess.Popen(
            [sys.executable, "-c", program],
            env={
                **os.environ,
                **{"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2"},
                **{"MASTER_ADDR": "localhost", "MASTER_PORT": port},
            },
            stdout=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    for process in launched:
        said, _ = process.communicate(timeout=120)
        assert (said.split("\n")[:2], process.returncode) == (["2 True", "member False"], 0)


def test_machines_that_do_not_find_each_other(monkeypatch: pytest.MonkeyPatch) -> None:
    from torch.distributed.elastic.rendezvous import RendezvousTimeoutError
    from torch.distributed.launcher import api

    def late(*_: Any, **__: Any) -> Any:
        raise RendezvousTimeoutError

    monkeypatch.setattr(api, "launch_agent", late)
    with pytest.raises(UserError, match="--rendezvous localhost:29500: the 2 machines did not"):
        launch([], 1, 2, "localhost:29500")
