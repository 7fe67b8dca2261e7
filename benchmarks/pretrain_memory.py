"""Peak memory and speed of `tune.py pretrain prepare` on large inputs.

    python benchmarks/pretrain_memory.py --gigabytes 0.3 5

For each size, writes seeded synthetic text to a temporary folder (documents of ten paragraphs of
forty characters, nearly all distinct, so that the set of hashes is used; every twentieth
document repeats the one before), prepares it in a separate process and prints that process's peak
resident memory and speed. On a shared machine, CPU seconds are more reliable. The default
vocabulary is the bundled backbone's, which has no Chinese words; with one that has them (--vocab),
jieba cuts every line and preparation is many times slower.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path

import numpy as np
from timing import TUNE, Usage, usage

from cpm_tune.backbone.bundled import FOLDER
from cpm_tune.pretrain.vocabulary import gb2312_level_1

PARAGRAPHS, CHARACTERS, BLOCK = 10, 40, 2_000
HASH = 8  # bytes kept of a distinct paragraph


def write_input(path: Path, size: int) -> None:
    """Write at least `size` bytes of documents, the same for the same size."""
    generator = np.random.default_rng(1)
    characters = np.array([ord(c) for c in gb2312_level_1()], dtype="<u4")
    with path.open("wb") as file:
        while file.tell() < size:
            text = generator.choice(characters, (BLOCK, PARAGRAPHS, CHARACTERS + 1))
            text[:, :, -1] = ord("\n")
            text[19::20] = text[18::20]
            documents = text.reshape(BLOCK, -1)
            blank = np.full((BLOCK, 1), ord("\n"), dtype="<u4")
            file.write(np.hstack([documents, blank]).tobytes().decode("utf-32-le").encode())


def prepare(text: Path, vocabulary: Path, out: Path) -> Usage:
    """Prepare a file in a separate process."""
    words = ["pretrain", "prepare", str(text), "--vocab", str(vocabulary), "--out", str(out)]
    return usage([TUNE, *words])


def measure(gigabytes: float, vocabulary: Path, folder: Path) -> str:
    """Prepare an input of that size; return a line of figures. Leaves nothing behind."""
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        text, out = Path(scratch) / "text.txt", Path(scratch) / "prepared"
        write_input(text, int(gigabytes * 1e9))
        peak, seconds, cpu = prepare(text, vocabulary, out)
        about = json.loads((out / "corpus.json").read_text(encoding="utf-8"))
        size, paragraphs = text.stat().st_size, about["distinct_paragraphs"]
    return (
        f"{size / 1e9:8.2f} {paragraphs:12,} {HASH * paragraphs / 1e6:10.0f} "
        f"{peak / 1e6:10.0f} {seconds:9.0f} {cpu:9.0f} {size / 1e6 / cpu:13.2f}"
    )


def main() -> None:
    """Measure every size asked for."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--gigabytes", metavar="X", type=float, nargs="+", default=[5.0])
    parser.add_argument("--vocab", metavar="FILE", type=Path, default=FOLDER / "vocab.txt")
    parser.add_argument("--dir", metavar="DIR", type=Path, help="where the temporary files go")
    args = parser.parse_args()
    print("input GB   paragraphs  hashes MB   peak MB   seconds   CPU s  MB a CPU second")
    for gigabytes in args.gigabytes:
        print(measure(gigabytes, args.vocab, args.dir), flush=True)


if __name__ == "__main__":
    main()
