"""What only Linux has is not needed to start: an import blocker takes it away. Neither macOS nor
Windows runs here, so this shows no more than that nothing else is missing."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest
from conftest import CLI, REPOSITORY
from same_runs import in_one_process

from cpm_tune.common.extras import EXTRAS

# Modules and names that Windows lacks (os.fork and termios aside, which other packages
# decide on by sys.platform), and the C library that `ctypes.CDLL(None)` opens elsewhere.
WINDOWS = """
import ctypes, multiprocessing, os, signal, sys
for name in ("resource", "fcntl", "pwd", "grp"):
    sys.modules[name] = None
for name in ("sched_getaffinity", "sched_setaffinity", "sysconf"):
    delattr(os, name)
for name in ("pthread_sigmask", "SIGHUP", "SIGUSR1", "SIGUSR2", "SIGALRM"):
    delattr(signal, name)
loaded = ctypes.CDLL
class CDLL(loaded):
    def __init__(self, name=None, *rest, **named):
        if name is None:
            raise TypeError("bad argument type for built-in operation")
        super().__init__(name, *rest, **named)
ctypes.CDLL = CDLL
get = multiprocessing.get_context
def get_context(method=None):
    if method in ("fork", "forkserver"):
        raise ValueError(f"cannot find context for {method!r}")
    return get(method)
multiprocessing.get_context = get_context
multiprocessing.get_all_start_methods = lambda: ["spawn"]
"""
MACOS = """
import ctypes, os, sys
for name in ("sched_getaffinity", "sched_setaffinity"):
    delattr(os, name)
loaded = ctypes.CDLL
class CDLL(loaded):
    def __getattr__(self, name):
        if name in ("malloc_trim", "mallopt", "renameat2", "prctl"):
            raise AttributeError(name)
        return super().__getattr__(name)
ctypes.CDLL = CDLL
"""


@pytest.mark.slow
@pytest.mark.parametrize("lacks", [WINDOWS, MACOS], ids=["windows", "macos"])
def test_commands_start_without_what_only_linux_has(
    lacks: str, data: Path, small_backbone: Path, tmp_path: Path
) -> None:
    blocked = tmp_path / "blocked"
    blocked.mkdir()
    (blocked / "sitecustomize.py").write_text(lacks)
    few = ["--data", data, "--set", "train.max_steps=2", "--control", "none"]
    one = ["--task", "lcqmc", "--delta", "lora", "--backbone", small_backbone, *few]
    many = ["bench", "--tasks", "lcqmc", "--deltas", "bitfit", "--backbones", small_backbone, *few]
    lines = [
        ["list", "tasks"],
        ["doctor"],
        [*one, "--dry-run"],
        [*one, "--out", tmp_path / "out"],
        [*many, "--out", tmp_path / "out"],
        ["leaderboard", tmp_path / "out"],
        ["generate", "--backbone", small_backbone, "秋", "--max-new-tokens", "2"],
    ]
    in_one_process(lines, blocked)
    assert len(list((tmp_path / "out").glob("*/run.json"))) == 2


# --- extras ---


def test_the_extras_are_those_of_the_package_and_the_page() -> None:
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text("utf-8"))["project"]
    extras = project["optional-dependencies"]
    assert EXTRAS.keys() == extras.keys() - {"test", "bmtrain"}
    page = (REPOSITORY / "docs" / "install.md").read_text("utf-8")
    for name, (package, _) in EXTRAS.items():
        assert extras[name][0].startswith(package)
        assert f"| `{name}` | {package} |" in page
    for name in extras:
        assert f"| `{name}` |" in page


def test_the_doctor_lists_extras_and_sample_data_if_asked(cli: CLI) -> None:
    code, text, _ = cli("doctor")
    assert code == 0
    assert all(f"extra {name}" in text for name in EXTRAS)
    assert "lcqmc" not in text
    assert "sample data" in text
    assert "lcqmc: " in cli("doctor", "--samples")[1]
