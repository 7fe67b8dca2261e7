"""New folders: complete or as before, one process at a time, nothing of a killed one stays."""

import os
import shutil
import signal
import sys
from pathlib import Path

import pytest
from kills import Counted, killed_within

from cpm_tune.common import folders
from cpm_tune.common.folders import FULL, clear_up, new_folder
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


def killed_at(step: int, place: Path, exchange: bool) -> bool:
    """Replace a folder in a process that is killed before its n-th change of a name (or removal of
    a folder); whether it was."""

    def action(counted: Counted) -> None:
        os.replace, shutil.rmtree = counted(os.replace), counted(shutil.rmtree)
        Path.rmdir = counted(Path.rmdir)  # type: ignore[method-assign]
        step = counted(folders._exchange) if exchange else lambda first, second: False
        folders._exchange = step
        with new_folder(place, overwrite=True) as part:
            (part / "a.txt").write_text("new a")
            (part / "b.txt").write_text("new b")

    return killed_within(action, step)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="forks")
@pytest.mark.parametrize("exchange", [True, False])
def test_after_a_kill_the_old_folder_or_the_new_one_is_there_and_nothing_else(
    place: Path, tmp_path: Path, exchange: bool
) -> None:
    full, new = (place / "old.txt").exists(), {"a.txt": "new a", "b.txt": "new b"}
    before, existed = tree(place), place.exists()
    for step in range(10):
        killed = killed_at(step, place, exchange)
        if full and exchange:  # never gone, not even before the next command
            assert tree(place) in (before, new)
        clear_up(place)
        assert set(tree(tmp_path)) - {f"deep/place/{name}" for name in ("old.txt", *new)} <= {
            "deep",
            "deep/place",
        }
        assert tree(place) in (before, new)
        if not killed:
            assert tree(place) == new
            break
        shutil.rmtree(place, ignore_errors=True)
        if existed:
            place.mkdir()
        for name, text in before.items():
            (place / name).write_text(str(text))
    else:
        pytest.fail("the process does not end")


@pytest.mark.skipif(not hasattr(os, "fork"), reason="forks")
def test_a_refused_command_clears_up_as_well(tmp_path: Path) -> None:
    place = tmp_path / "place"
    place.mkdir()
    (place / "old.txt").write_text("old")
    assert killed_at(0, place, exchange=False)
    assert len(list(tmp_path.iterdir())) > 1
    with pytest.raises(UserError, match=r"already exists and contains old\.txt"):
        new_folder(place).__enter__()
    assert tree(tmp_path) == {"place": None, "place/old.txt": "old"}


@pytest.mark.parametrize("error", sorted(FULL))
def test_a_full_disk_is_one_sentence_and_leaves_nothing(
    place: Path, tmp_path: Path, error: int
) -> None:
    def fail() -> None:
        with new_folder(place, "--out ", overwrite=True) as part:
            (part / "half.txt").write_text("half")
            raise OSError(error, os.strerror(error))

    before = tree(tmp_path)
    with pytest.raises(UserError, match=rf"^--out {place}: cannot be written \(.*\); make room"):
        fail()
    assert tree(tmp_path) == before


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_leaves_nothing_and_says_so(place: Path, tmp_path: Path, number: int) -> None:
    before = tree(tmp_path)
    with pytest.raises(KeyboardInterrupt, match="nothing was written"):  # noqa: SIM117
        with new_folder(place, overwrite=True):
            signal.raise_signal(number)
    assert tree(tmp_path) == before
