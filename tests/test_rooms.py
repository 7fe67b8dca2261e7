"""The rooms of the package: own modules are imported at the top of files, and late by one door."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "cpm_tune"
MODULES = sorted(PACKAGE.rglob("*.py"))
# The package's front door has to be light, and the other is the door itself.
DOORS = {PACKAGE / "common" / "door.py", PACKAGE / "__init__.py"}
# These import parts of OpenDelta and of BMTrain by name.
OTHERS_MODULES = {
    PACKAGE / "delta" / "opendelta_import.py",
    PACKAGE / "engine" / "bmtrain_found.py",
}
FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)


def late_imports(tree: ast.AST, inside: bool = False) -> Iterator[ast.stmt]:
    """Imports of own modules inside functions."""
    for node in ast.iter_child_nodes(tree):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = ["cpm_tune" if node.level else str(node.module)]
        if inside and any(name.split(".")[0] == "cpm_tune" for name in names):
            yield node  # type: ignore[misc]
        yield from late_imports(node, inside or isinstance(node, FUNCTIONS))


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_own_modules_are_imported_at_the_top(path: Path) -> None:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    assert [ast.unparse(node) for node in late_imports(tree)] == []


def names_import_module(path: Path) -> bool:
    """Whether a module imports modules by name."""
    return any(
        "import_module" in (getattr(node, "attr", ""), getattr(node, "id", ""))
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
    )


def test_one_door_leads_to_modules_that_are_imported_late() -> None:
    assert {path for path in MODULES if names_import_module(path)} == DOORS | OTHERS_MODULES


def test_the_search_sees_imports_inside_functions() -> None:
    code = (
        "import cpm_tune\ndef f():\n    if f:\n        from cpm_tune import api\n    import json\n"
    )
    assert [ast.unparse(node) for node in late_imports(ast.parse(code))] == [
        "from cpm_tune import api"
    ]
