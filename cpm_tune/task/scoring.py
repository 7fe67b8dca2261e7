"""How answers are chosen: the scoring rules by name, and the rule of a template."""

from __future__ import annotations

from typing import Literal

from cpm_tune.schema.options import Scoring
from cpm_tune.task.definition import Generate, Task
from cpm_tune.task.template import Template

ScoringName = Scoring | Literal["generation"]


def scoring_of(task: Task, template: Template, chosen: Scoring | None = None) -> ScoringName:
    """The rule that a run uses: the chosen one, or else the template's own."""
    if isinstance(task.answer, Generate):
        return "generation"
    return chosen or own_scoring(template)


def own_scoring(template: Template) -> Scoring:
    """A template's own rule, which runs that choose none have. It never changes: specs of before
    mean it."""
    return "yes-logit" if template.scores_in_prompt else "verbaliser-sum"
