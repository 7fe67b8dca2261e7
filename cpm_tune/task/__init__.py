"""What a task file may say (`definition`, `template`); where task files are found (`registry`)."""

from cpm_tune.task.definition import (
    SPLITS,
    STEMS,
    Answer,
    BadRow,
    Choice,
    Files,
    Generate,
    NamedRecipe,
    Options,
    Rank,
    Row,
    Source,
    Submission,
    Task,
)
from cpm_tune.task.template import Template

__all__ = [
    "SPLITS",
    "STEMS",
    "Answer",
    "BadRow",
    "Choice",
    "Files",
    "Generate",
    "NamedRecipe",
    "Options",
    "Rank",
    "Row",
    "Source",
    "Submission",
    "Task",
    "Template",
]
