"""Every command that writes, killed before each of its writes, renames and removals.

What it writes is whole or as it was, and nothing of the dead process stays after the next command.
"""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path
from typing import NamedTuple

import board_records as made
import pytest
from kills import Counted, killed_within
from test_full_disk import run  # noqa: F401  (a fixture)

from cpm_tune.commands.cli import main
from cpm_tune.common import folders

pytestmark = [
    pytest.mark.usefixtures("one_thread"),
    pytest.mark.skipif(not hasattr(os, "fork"), reason="POSIX"),
]
MOST = 120  # writes, renames and removals of a command
LEFT = ("*.partial", "*.old", "*.part", "*.tmp*", "*cpm-tune*", "scratch-*", "new-*", "archive.pt")


class Writer(NamedTuple):
    """A command: words with OUT, RUN, BACKBONE and RESULTS for paths. `again`: its exit code when
    its output is there already."""

    words: str
    again: int = 0


COMMANDS = {
    **{
        f"convert {to}": Writer(f"convert BACKBONE OUT/b --to {to}", 2)
        for to in ("native", "hf", "reference")
    },
    "convert over": Writer("convert BACKBONE OUT/b --to native --overwrite"),
    **{
        f"export {to}": Writer(f"export RUN --to {to} --out OUT/e", 2)
        for to in ("peft", "opendelta", "hf", "merged")
    },
    "predict": Writer("predict RUN --out OUT/p", 2),
    "score": Writer(
        "score --task lcqmc --predictions DATA/test.jsonl --name s --data DATA --out OUT"
    ),
    "leaderboard": Writer("leaderboard RESULTS --out OUT/board.html"),
    "generate": Writer("generate 我 --backbone BACKBONE --max-new-tokens 1 --out OUT/t.jsonl"),
    "rescore": Writer("rescore RESULTS --write", 1),
    "vocab": Writer("pretrain vocab TEXT --size 4000 --out OUT/v.txt", 2),
    "prepare": Writer("pretrain prepare TEXT --vocab VOCAB --out OUT/c", 2),
    "prune": Writer(
        "prune BACKBONE OUT/b --text TEXT --attention-layers 1 --ffn-layers 1 --to native "
        "--pieces 4",
        2,
    ),
    "csv": Writer("leaderboard RESULTS --out OUT/board.csv"),
    "plot": Writer("leaderboard plot RESULTS --out OUT"),
}


def killed_at(step: int, words: list[str]) -> bool:
    """Run a command that is killed before its n-th write, rename or removal; whether it was."""

    def action(counted: Counted) -> None:
        os.replace, shutil.rmtree = counted(os.replace), counted(shutil.rmtree)
        os.fsync, shutil.copyfile = counted(os.fsync), counted(shutil.copyfile)
        for name in ("mkdir", "write_text", "write_bytes", "unlink"):
            setattr(Path, name, counted(getattr(Path, name)))
        folders._exchange = counted(folders._exchange)
        main(words)

    return killed_within(action, step)


def files(folder: Path) -> dict[str, bytes]:
    """What the files below a folder contain, but for the time in a record."""
    return {
        str(path.relative_to(folder)): re.sub(rb'"scored_at":.*', b"", path.read_bytes())
        for path in sorted(folder.rglob("*"))
        if path.is_file() and ".locks" not in path.parts
    }


def leftovers(folder: Path) -> list[Path]:
    paths = [path for pattern in LEFT for path in folder.rglob(pattern)]
    return [path for path in paths if ".locks" not in path.parts and path.name != "cpm-tune"]


@pytest.mark.parametrize("name", COMMANDS)
def test_a_killed_command_leaves_whole_files_and_the_next_one_nothing_else(
    name: str,
    run: Path,  # noqa: F811
    small_backbone: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    command, out, results = COMMANDS[name], tmp_path / "out", tmp_path / "results"
    made.store(results, made.make_record("ccpm", "small", "lora", 1))
    text = tmp_path / "text.txt"
    text.write_text("\n\n".join("天地玄黄宇宙洪荒。" * n for n in range(1, 9)), encoding="utf-8")
    places = {"BACKBONE": small_backbone, "RUN": run, "DATA": run.parent.parent, "TEXT": text}
    places |= {"VOCAB": small_backbone / "vocab.txt", "RESULTS": results}
    words = [str(places.get(word, word)) for word in command.words.replace("OUT", str(out)).split()]
    words = [word.replace("DATA", str(places["DATA"])) for word in words]
    out.mkdir()
    assert main(words) in (0, command.again)
    expected = files(out)
    assert expected or name == "rescore"
    for step in range(MOST):
        if "over" not in name:
            shutil.rmtree(out)
            out.mkdir()
        killed = killed_at(step, words)
        written = files(out)
        assert all(written[path] == expected[path] for path in written.keys() & expected.keys())
        assert main(words) in (0, command.again)
        assert leftovers(tmp_path) == []
        assert files(out) == expected
        if not killed:
            break
    else:
        pytest.fail("the command does not end")
    assert step or name == "rescore"
