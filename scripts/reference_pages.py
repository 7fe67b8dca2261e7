"""Writes docs/api.md, the Python interface from its docstrings, and docs/record.md, the run record
from its JSON Schema.

    python scripts/reference_pages.py

The test suite checks that both pages are up to date.
"""

from __future__ import annotations

import ast
import json
import re
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).resolve().parent.parent
PACKAGE = REPOSITORY / "cpm_tune"
DOCS = REPOSITORY / "docs"
# The public names, in the order of the page: the module of each.
PUBLIC = {
    "load_backbone": "api/backbones.py",
    "Backbone": "api/backbones.py",
    "tune": "api/runs.py",
    "load_run": "api/runs.py",
    "Run": "api/runs.py",
    "as_dataframe": "leaderboard/frame.py",
    "UserError": "errors.py",
}
API = """# Python interface

`python scripts/reference_pages.py` generates this page from the docstrings of the public names,
those of `import cpm_tune as ct`. [From Python](python.md) has examples.
"""
RECORD = """# The record, field by field

`python scripts/reference_pages.py` generates this page from `cpm_tune/schema/run.schema.json`, the
JSON Schema of `run.json`. A run's record is a [RunRecord](#runrecord); that of a scored system is a
[SystemRecord](#systemrecord).
"""
FIRST = ("RunRecord", "SystemRecord", "RunSpec", "SystemSpec")

Function = ast.FunctionDef


def api_page() -> str:
    """The whole page of the Python interface."""
    sections = [API]
    for name, module in PUBLIC.items():
        tree = ast.parse((PACKAGE / module).read_text("utf-8"))
        (node,) = (
            n for n in tree.body if isinstance(n, Function | ast.ClassDef) and n.name == name
        )
        sections.append(f"## {name}\n\n{_code(node)}{_docstring(node)}")
        if isinstance(node, ast.ClassDef):
            sections += [
                f"### {name}.{member.name}\n\n{_code(member)}{_docstring(member)}"
                for member in node.body
                if isinstance(member, Function) and not member.name.startswith("_")
            ]
    return "\n".join(sections)


def _code(node: Function | ast.ClassDef) -> str:
    """The signature of a function as a block; nothing for a class or a property."""
    if isinstance(node, ast.ClassDef) or node.decorator_list:
        return ""
    arguments = ast.unparse(node.args).removeprefix("self, ").removeprefix("self")
    returns = f" -> {ast.unparse(node.returns)}" if node.returns else ""
    line = f"{node.name}({arguments}){returns}"
    if len(line) > 88:  # an argument per line; no annotation or default has ", " outside brackets
        parts = re.split(r", (?![^\[(]*[\])])", arguments)
        line = "\n    ".join([f"{node.name}(", *(f"{part}," for part in parts)]) + f"\n){returns}"
    return f"```text\n{line}\n```\n\n"


def _docstring(node: Function | ast.ClassDef) -> str:
    text = ast.get_docstring(node) or ""
    return _prose(re.sub(r"docs/([\w-]+)\.md", r"[\1](\1.md)", text)) + "\n"


def _prose(text: str) -> str:
    """A docstring as Markdown: its paragraphs and its indented examples stay."""
    return text.replace("<", "&lt;") if "<" in text else text


def record_page() -> str:
    """The whole page of the record."""
    schema = json.loads((PACKAGE / "schema" / "run.schema.json").read_text("utf-8"))
    parts = schema["$defs"]
    names = [*FIRST, *sorted(set(parts) - {*FIRST})]
    return "\n".join([RECORD, *(_object(name, parts[name]) for name in names if name in parts)])


def _object(name: str, part: dict[str, Any]) -> str:
    lines = [f"## {name}", "", _prose(part.get("description", "")), ""]
    if part.get("properties"):
        lines += ["| field | type | default |", "|---|---|---|"]
        required = part.get("required", [])
        for field, value in part["properties"].items():
            default = "required" if field in required else _default(value)
            lines.append(f"| `{field}` | {_type(value)} | {default} |")
        lines.append("")
    return "\n".join(lines)


def _default(value: dict[str, Any]) -> str:
    return f"`{json.dumps(value['default'], ensure_ascii=False)}`" if "default" in value else ""


def _type(value: dict[str, Any]) -> str:
    """A type in words, with links to the objects of the page."""
    if "$ref" in value:
        name = value["$ref"].rpartition("/")[2]
        return f"[{name}](#{name.lower()})"
    if "const" in value or "enum" in value:
        values = value.get("enum", [value.get("const")])
        return ", ".join(f"`{json.dumps(v, ensure_ascii=False)}`" for v in values)
    if "anyOf" in value or "oneOf" in value:
        kinds = [_type(v) for v in value.get("anyOf") or value["oneOf"]]
        return " or ".join(dict.fromkeys(kinds))
    if value.get("type") == "array":
        items = value.get("items") or {"anyOf": value.get("prefixItems", [{}])}
        return f"list of {_type(items)}"
    if value.get("type") == "object" and isinstance(value.get("additionalProperties"), dict):
        return f"mapping to {_type(value['additionalProperties'])}"
    return str(value.get("type", "any"))


def pages() -> dict[Path, str]:
    """The text of each page, by its path."""
    return {DOCS / "api.md": api_page(), DOCS / "record.md": record_page()}


if __name__ == "__main__":
    for path, text in pages().items():
        path.write_text(text, encoding="utf-8")
