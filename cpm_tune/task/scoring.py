"""How answers are chosen: the scoring rules by name, and where each can be used.

docs/scoring.md describes the rules; `cpm_tune.tuning.scoring` computes them.
"""

from __future__ import annotations

from typing import Literal

from cpm_tune.schema.options import Scoring
from cpm_tune.task.definition import Generate, Task
from cpm_tune.task.template import Template

ScoringName = Scoring | Literal["generation"]

# The slot that a rule needs in the template; mean-nll takes either.
_SLOTS: dict[Scoring, Literal["option", "answer"]] = {
    "yes-logit": "option",
    "verbaliser-sum": "answer",
    "verbaliser-mean": "answer",
    "verbaliser-relative": "answer",
    "argmax-vocabulary": "answer",
}


def scoring_of(task: Task, template: Template, chosen: Scoring | None = None) -> ScoringName:
    """The rule that a run uses: the chosen one, or else the template's own."""
    if isinstance(task.answer, Generate):
        return "generation"
    return chosen or template.own_scoring


def unfit(task: Task, template: Template, rule: Scoring) -> str:
    """Why a rule cannot be used with a template, in one sentence; "" if it can."""
    if isinstance(task.answer, Generate):
        return f"scoring {rule} has no effect: task {task.name} generates its answers."
    if not (reason := _lacks(template, rule)):
        return ""
    fit = [other.name for other in task.templates if not _lacks(other, rule)]
    templates = f"choose {' or '.join(fit)} (--template)" if fit else "no template of it fits"
    return f"scoring {rule}: template '{template.name}' of task {task.name} {reason}; {templates}."


def _lacks(template: Template, rule: Scoring) -> str:
    """What a template lacks for a rule; "" if nothing."""
    slot = _SLOTS.get(rule)
    if slot is not None and (slot == "option") != template.scores_in_prompt:
        return f"has no {{{slot}}}"
    if rule == "argmax-vocabulary" and not template.options:
        return "has no option words of its own"
    return ""
