"""Check the page's scripts: types (TypeScript reads their JSDoc) and lint (Biome).

    python scripts/page_lint.py

The two tools come from npm, in fixed versions, into npm's own cache; nothing of them is kept here.
Without node or npm, or without a registry that has them, the check is skipped with a note.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

TYPESCRIPT = "typescript@5.9.3"
BIOME = "@biomejs/biome@2.6.8"
ROOT = Path(__file__).resolve().parent.parent
CONFIG = Path("scripts/page")
PAGE = "cpm_tune/leaderboard/page"


def npx(package: str, *command: str) -> list[str]:
    """The command line that runs a package's program."""
    return ["npx", "--yes", "--package", package, *command]


def missing(package: str, program: str) -> str:
    """Why the program cannot run here; "" if it can."""
    if shutil.which("npx") is None:
        return "there is no npx (node and npm)"
    tried = subprocess.run(
        npx(package, program, "--version"), cwd=ROOT, capture_output=True, text=True, check=False
    )
    return "" if tried.returncode == 0 else f"npm does not give {package}"


def main() -> int:
    """Run both; the exit status is 1 if one of them finds a fault."""
    checks = {
        TYPESCRIPT: ("tsc", "--project", str(CONFIG / "tsconfig.json")),
        BIOME: ("biome", "lint", f"--config-path={CONFIG / 'biome.json'}", PAGE),
    }
    failed = False
    for package, command in checks.items():
        if reason := missing(package, command[0]):
            print(f"note: the page's scripts are not checked by {command[0]}: {reason}")
            continue
        failed |= subprocess.run(npx(package, *command), cwd=ROOT, check=False).returncode != 0
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
