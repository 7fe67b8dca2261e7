"""The settings of runs as texts, and those in which runs differ, for rows and selectors."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from cpm_tune.schema.spec import FAMILY, RunSpec, flattened

# What keeps runs in columns of their own, and the seed; training data is added under a short name.
_NOT_SETTINGS = (
    *("data", "task", "task_version", "template_sha256", "seed", "schema_version", "backbone"),
    "search",
)
# Parts of a spec by the names that options and config files use.
_PARTS = {"recipe": "train", "encoding": "encode", "decoding": "decode"}


def settings_of(spec: RunSpec) -> dict[str, str]:
    """Everything but seed and backbone that may differ between runs of a column, by dotted key."""
    settings = {"data.train": (spec.data.seen[0] or "none")[:8]}
    for key, value in flattened(spec).items():
        part, _, name = key.partition(".")
        if part in _NOT_SETTINGS or (value is None and not name):
            continue
        part = _PARTS.get(part, part)
        text = ",".join(map(str, value)) if isinstance(value, list) else f"{value}"
        settings[f"{part}.{name}" if name else part] = text
    if spec.backbone.family != FAMILY:
        settings["family"] = spec.backbone.family
    if spec.backbone.tokenizer is not None:
        settings["tokenizer"] = spec.backbone.tokenizer[:8]
    if spec.search is not None:
        settings["search"] = str(spec.search)
    return {**settings, "precision": spec.weights}


def differing_settings(settings: Iterable[Mapping[str, str]]) -> set[str]:
    """The keys whose values are not equal in all of these settings; a missing one is a value."""
    settings = list(settings)
    keys = {key for one in settings for key in one}
    return {key for key in keys if len({one.get(key) for one in settings}) > 1}
