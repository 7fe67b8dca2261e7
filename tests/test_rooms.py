"""The rooms of the package: own modules are imported at the top of files, and late by one door; few
modules know what CPM-Ant's sequences look like."""

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
# How CPM-Ant lays out a sequence: its own soft prompt, segments, spans, positions and masks.
LAYOUT = {
    *("PROMPT_SEGMENT", "n_prompt", "prompt_length", "prompt_type", "prompt_types"),
    *("segment", "segment_types", "span", "SpanBias", "attention_allowed", "position_bias"),
    "target_index",
}
# Pruning is CPM-Ant's alone; the spec has fields for its sequences. Nothing else knows.
KNOW_LAYOUT = {"schema/spec.py", "pretrain/prune.py"}
# Who imports CPM-Ant: the list of families, and what it alone can do.
KNOW_ANT = {"backbone/families.py", "commands/prune.py", "pretrain/prune.py"}
OF_TEXTS = {"metrics/kinds.py", "metrics/spans.py"}  # spans of characters
# What tasks and data may see of a backbone.
FOR_DATA = {f"cpm_tune.backbone.{name}" for name in ("example", "protocol", "tokens")}
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


def words_of(tree: ast.AST) -> Iterator[str]:
    """Every name, attribute, parameter, keyword and string of a module."""
    for node in ast.walk(tree):
        for field in ("id", "attr", "arg", "name", "value"):
            if isinstance(word := getattr(node, field, None), str):
                yield word


def test_only_cpm_ant_and_pruning_know_how_cpm_ant_lays_out_a_sequence() -> None:
    know = {
        path.relative_to(PACKAGE).as_posix()
        for path in MODULES
        if LAYOUT & set(words_of(ast.parse(path.read_text(encoding="utf-8"))))
    }
    outside = {name for name in know if not name.startswith("backbone/ant/")}
    assert outside == KNOW_LAYOUT | OF_TEXTS


def test_few_modules_import_cpm_ant() -> None:
    importers = {
        path.relative_to(PACKAGE).as_posix()
        for path in MODULES
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if (
            isinstance(node, ast.ImportFrom)
            and str(node.module).startswith("cpm_tune.backbone.ant")
        )
        or (isinstance(node, ast.Constant) and str(node.value).startswith("cpm_tune.backbone.ant"))
    }
    assert {n for n in importers if not n.startswith("backbone/ant/")} == KNOW_ANT


@pytest.mark.parametrize("room", ["data", "task"])
def test_data_and_tasks_see_a_backbones_examples_and_ids_alone(room: str) -> None:
    seen = {
        node.module
        for path in (PACKAGE / room).rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.ImportFrom) and str(node.module).startswith("cpm_tune.backbone")
    }
    assert seen == (FOR_DATA if room == "data" else set())


def test_the_search_sees_names_parameters_attributes_keywords_and_strings() -> None:
    for code in ("span", "def f(span): 1", "a.span", "f(span=1)", "getattr(a, 'span')"):
        assert "span" in set(words_of(ast.parse(code)))


def test_the_search_sees_imports_inside_functions() -> None:
    code = (
        "import cpm_tune\ndef f():\n    if f:\n        from cpm_tune import api\n    import json\n"
    )
    assert [ast.unparse(node) for node in late_imports(ast.parse(code))] == [
        "from cpm_tune import api"
    ]
