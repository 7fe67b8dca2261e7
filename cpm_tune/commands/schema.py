"""The command `schema`: JSON Schemas of --config and suite files, which editors use for YAML."""

from __future__ import annotations

import json
from dataclasses import MISSING
from math import inf
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from cpm_tune.bench.suite import Suite
from cpm_tune.commands.options.look import Schema
from cpm_tune.commands.options.search import Search
from cpm_tune.commands.options.tune import Tune
from cpm_tune.common.option import Declared, declared
from cpm_tune.delta.config import CONFIGS
from cpm_tune.planning.settings import PARTS

_TYPES = {str: "string", Path: "string", int: "integer", float: "number", bool: "boolean"}
_DRAFT = "https://json-schema.org/draft/2020-12/schema"


def run(options: Schema) -> int:
    """Print the schema."""
    configs = {"config": (Tune, ""), "search": (Search, "search ")}
    schema = _config(*configs[options.of]) if options.of in configs else _suite()
    print(json.dumps({"$schema": _DRAFT, **schema}, indent=1, ensure_ascii=False))
    return 0


def _config(options: type, command: str) -> dict[str, Any]:
    properties: dict[str, Any] = {"set": _settings()}
    if options is Search:
        properties["space"] = {"type": "object", "description": "values by setting"}
    for option in declared(options):
        if option.option.in_file and not option.option.hidden:
            for name in {option.field, option.field.replace("_", "-")}:
                properties[name] = _option(option)
    return {
        "title": f"options of tune.py {command}--config",
        "type": "object",
        "properties": dict(sorted(properties.items())),
        "additionalProperties": False,
    }


def _option(option: Declared) -> dict[str, Any]:
    about = option.option
    value: dict[str, Any] = {"type": _TYPES[option.kind]}
    if option.choices:
        value["enum"] = list(option.choices)
    bounds = {"minimum": about.least, "maximum": about.most, "exclusiveMinimum": about.above}
    value |= {key: bound for key, bound in bounds.items() if abs(bound) < inf}
    if option.many:
        value = {"anyOf": [value, {"type": "array", "items": value}]}
    else:  # null leaves the default
        value = {"anyOf": [value, {"type": "null"}]}
    value["description"] = about.help
    if option.default not in (None, MISSING, (), ""):
        default = option.default
        value["default"] = str(default) if isinstance(default, Path) else default
    return value


def _settings() -> dict[str, Any]:
    """Settings by part, {"train": {"lr": 1}}, or with dots, {"train.lr": 1}."""
    parts: dict[str, dict[str, Any]] = {}
    for part, model in PARTS.items():
        parts[part] = model.model_json_schema()
    properties: dict[str, Any] = {}
    for config in CONFIGS.values():
        own = config.model_json_schema()["properties"]
        own.pop("delta_type")
        properties |= {name: value for name, value in own.items() if name not in properties}
    parts["delta"] = {"type": "object", "properties": properties, "additionalProperties": False}
    dotted = {
        f"{part}.{name}": _loose(value)
        for part, schema in parts.items()
        for name, value in schema["properties"].items()
    }
    nested = {part: _loose(schema) for part, schema in parts.items()}
    return {"type": "object", "properties": nested | dotted, "additionalProperties": False}


def _suite() -> dict[str, Any]:
    schema: dict[str, Any] = _loose(TypeAdapter(Suite).json_schema())
    settings = _settings()
    grid = {
        "type": "object",
        "additionalProperties": {"type": ["array", "object"]},
        "description": "lists of values by setting, all combinations of which are run",
    }
    for part in (schema, schema["$defs"]["Override"]):
        part["properties"] |= {"set": settings, "grid": grid}
    schema["properties"]["cells"] = schema["properties"]["trials"]  # their older name
    return schema


def _loose(schema: Any) -> Any:
    """A schema that takes one value, or a text with commas, for a list as well, as we do."""
    if isinstance(schema, list):
        return [_loose(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    loose = {key: _loose(value) for key, value in schema.items() if key != "title"}
    if schema.get("type") != "array":
        return loose
    about = {key: loose.pop(key) for key in ("description", "default") if key in loose}
    return {"anyOf": [loose, {"type": ["string", "integer"]}], **about}
