"""New folders: complete or as before, one process at a time, nothing of a killed one stays."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import REPOSITORY

from cpm_tune.common.folders import new_folder
from cpm_tune.errors import UserError


def tree(folder: Path) -> dict[str, str | None]:
    """Every path below a folder, and what the files contain."""
    return {
        str(path.relative_to(folder)): path.read_text() if path.is_file() else None
        for path in sorted(folder.rglob("*"))
    }


@pytest.fixture(params=["absent", "empty", "full"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """Where a folder is to be made, in each state that it can be in."""
    place = tmp_path / "deep" / "place"
    if request.param != "absent":
        place.mkdir(parents=True)
    if request.param == "full":
        (place / "old.txt").write_text("old")
    return place


def test_a_folder_is_made_whole(place: Path, tmp_path: Path) -> None:
    overwrite = (place / "old.txt").exists()
    inode = place.stat().st_ino if place.is_dir() and not overwrite else None
    with new_folder(place, overwrite=overwrite) as part:
        (part / "a").mkdir()
        (part / "a" / "b.txt").write_text("new")
    assert tree(tmp_path) == {
        "deep": None,
        "deep/place": None,
        "deep/place/a": None,
        "deep/place/a/b.txt": "new",
    }
    if inode:  # an empty folder is filled: it may be mounted, or the working directory
        assert place.stat().st_ino == inode


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_after_an_error_all_is_as_before(
    place: Path, tmp_path: Path, error: type[BaseException]
) -> None:
    def fail() -> None:
        with new_folder(place, overwrite=True) as part:
            (part / "half.txt").write_text("half")
            raise error

    before = tree(tmp_path)
    with pytest.raises(error):
        fail()
    assert tree(tmp_path) == before


def test_what_is_there_is_named_and_kept(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "notes").write_text("mine")
    before = tree(tmp_path)
    with pytest.raises(UserError, match=r"folder already exists and contains notes; choose"):
        new_folder(tmp_path / "folder").__enter__()
    with pytest.raises(UserError, match=r"--to .*file already exists; choose another path"):
        new_folder(tmp_path / "file", "--to ").__enter__()
    with pytest.raises(UserError, match="cannot be written"):
        new_folder(tmp_path / "file" / "x").__enter__()
    assert tree(tmp_path) == before


def test_two_processes_never_make_one_folder(place: Path) -> None:
    with new_folder(place, overwrite=True):
        before = tree(place.parent)
        with pytest.raises(UserError, match="another process is working there"):
            new_folder(place, overwrite=True).__enter__()
        assert tree(place.parent) == before


KILLED = """
import os, sys
from pathlib import Path
from cpm_tune.common.folders import new_folder
left, real = int(sys.argv[2]), os.replace
def replace(*paths):
    global left
    left -= 1
    if left < 0: os.kill(os.getpid(), 9)
    real(*paths)
os.replace = replace
with new_folder(Path(sys.argv[1]), overwrite=True) as part:
    (part / "half.txt").write_text("half")
"""


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals")
@pytest.mark.parametrize("renames", [0, 1])
def test_after_a_kill_the_next_attempt_clears_up(place: Path, tmp_path: Path, renames: int) -> None:
    """The kill falls before a rename; where a folder is replaced, between the two, too."""
    full = (place / "old.txt").exists()
    if renames and not full:
        pytest.skip("there is one rename")
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    killed = subprocess.run(
        [sys.executable, "-c", KILLED, str(place), str(renames)], env=environment
    )
    assert killed.returncode == -signal.SIGKILL
    if full:  # what was there is put back
        with pytest.raises(UserError, match=r"already exists and contains old\.txt"):
            new_folder(place).__enter__()
        assert (place / "old.txt").read_text() == "old"
    with new_folder(place, overwrite=full) as part:
        assert not list(part.iterdir())
        (part / "new.txt").write_text("new")
    assert tree(tmp_path) == {"deep": None, "deep/place": None, "deep/place/new.txt": "new"}


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_leaves_nothing_and_says_so(place: Path, tmp_path: Path, number: int) -> None:
    before = tree(tmp_path)
    with pytest.raises(KeyboardInterrupt, match="nothing was written"):  # noqa: SIM117
        with new_folder(place, overwrite=True):
            signal.raise_signal(number)
    assert tree(tmp_path) == before
