"""Try the package with other versions of Python and of its dependencies: an environment each, and
the fast tests in it. Takes minutes and gigabytes per environment, so CI does not run it.

    python scripts/try_versions.py --python python3.11 --python python3.13 --set oldest --set newest
    python scripts/try_versions.py --set newest --pin torch==2.13.0 -- tests/test_run.py

`oldest` installs the lower bound of every dependency in pyproject.toml, `newest` what pip finds;
`--pin` changes single packages of both. OpenDelta is installed unless `--plain` is given: then the
environment is what `pip install cpm-tune` makes, and tests that need OpenDelta fail. With `--keep`
the next call of the same versions runs its tests in the environment that is there. uv installs, if
it is on the path, otherwise pip.
"""

from __future__ import annotations

import argparse
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Sequence
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parent.parent
# The fast tests: those of what a dependency can break, by the dependency.
FAST = {
    "torch, transformers": (
        *("backbone", "causal", "causal_parts", "causal_tokenizer", "chat", "checkpoint"),
        *("checkpoint_forms", "convert", "cpm1", "cpm2", "encdec", "decode", "export", "quantize"),
        *("pretrain_spans",),
    ),
    "OpenDelta, peft": ("causal_deltas", "delta", "delta_foreign"),
    "sentencepiece, jieba, regex": ("cpm1_tokenizer", "cpm2_tokenizer", "tokenizer"),
    "sacrebleu, rouge-score, nltk, scikit-learn, scipy": (
        *("metrics", "metrics_text", "scorers", "statistics", "shortcuts", "overlap"),
    ),
    "datasets, pyarrow, ijson": ("table_files", "files_as_they_are", "data_faults"),
    "pydantic, PyYAML, rich, Python": (
        *("record", "recorded_ids", "settings", "bench_suite", "cli", "errors", "daily", "run"),
    ),
}
NEEDED_BY_TESTS = (
    *("pytest", "hypothesis", "peft", "statsmodels", "rjieba", "jsonschema", "torchao", "ray"),
)


def dependencies() -> list[str]:
    """The requirements of the package, and of `NEEDED_BY_TESTS`, in pyproject.toml."""
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text("utf-8"))["project"]
    tests = project["optional-dependencies"]["test"]
    return [
        *project["dependencies"],
        *(line for line in tests if line.partition(">")[0] in NEEDED_BY_TESTS),
    ]


def requirements(versions: str, pins: Sequence[str]) -> list[str]:
    """What pip is asked for: "oldest" has lower bounds, "newest" has none; a pin replaces both."""
    pinned = {re.split("[=<>]", pin)[0]: pin for pin in pins}
    lines = []
    for line in dependencies():
        name, _, least = line.partition(">=")
        if name in pinned:
            line = pinned.pop(name)
        elif versions == "oldest" and least:
            line = f"{name}=={least}"
        else:
            line = name
        lines.append(line)
    return [*lines, *pinned.values()]


def attempt(
    python: str, versions: str, pins: Sequence[str], tests: Sequence[str], plain: bool, where: Path
) -> str:
    """Make an environment, unless it is there, and run tests in it; the last line of output."""
    environment = where / f"{Path(python).name}-{versions}{'-plain' if plain else ''}"
    asked = environment / "asked.txt"
    wanted = "\n".join(requirements(versions, pins))
    run = environment / "bin" / "python"
    install = [str(run), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    if uv := shutil.which("uv"):  # environments of equal versions share their files
        install = [uv, "pip", "install", "--quiet", "--python", str(run)]
    no_deps = [*install, "--no-deps"]
    steps: list[list[str]] = [[str(run), "-m", "pytest", "-p", "no:cacheprovider", *tests]]
    if not asked.is_file() or asked.read_text("utf-8") != wanted:
        steps = [
            [python, "-m", "venv", "--clear", str(environment)],
            [*install, *requirements(versions, pins)],
            [*no_deps, "-e", str(REPOSITORY), *([] if plain else ["opendelta==0.3.2"])],
            *steps,
        ]
    lines = [""]
    for words in steps:
        if "pytest" in words:
            asked.write_text(wanted, "utf-8")
        done = subprocess.run(words, cwd=REPOSITORY, capture_output=True, text=True)
        (where / f"{environment.name}.log").write_text(done.stdout + done.stderr, "utf-8")
        lines = (done.stdout or done.stderr).strip().splitlines() or [""]
        if done.returncode:
            return f"FAILED  {' '.join(words[:6])} ...: {lines[-1]}"
    return lines[-1]


def main(argv: Sequence[str]) -> int:
    about, _, usage = (__doc__ or "").partition("\n\n")
    parser = argparse.ArgumentParser(
        description=about, epilog=usage, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--python", action="append", help="an interpreter (default: this one)")
    parser.add_argument("--set", action="append", choices=["oldest", "newest"], dest="versions")
    parser.add_argument("--pin", action="append", default=[], metavar="NAME==VERSION")
    parser.add_argument("--plain", action="store_true", help="without OpenDelta")
    parser.add_argument("--keep", type=Path, metavar="DIR", help="keep environments and logs here")
    parser.add_argument("tests", nargs="*", help="arguments of pytest (default: the fast tests)")
    options = parser.parse_args(argv)
    signal.signal(signal.SIGINT, signal.default_int_handler)  # in the background it is ignored
    fast = [f"tests/test_{name}.py" for names in FAST.values() for name in names]
    failed = False
    with tempfile.TemporaryDirectory() as scratch:
        where = options.keep or Path(scratch)
        where.mkdir(parents=True, exist_ok=True)
        for python in options.python or [sys.executable]:
            for versions in options.versions or ["oldest", "newest"]:
                tests = options.tests or ["-m", "not slow", *fast]
                result = attempt(python, versions, options.pin, tests, options.plain, where)
                print(f"{Path(python).name}  {versions:6}  {result}", flush=True)
                failed |= result.startswith("FAILED")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
