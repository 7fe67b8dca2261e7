"""Recipes by name: settings, template and rule as published; shares of rows and of steps."""

from __future__ import annotations

import pytest
from conftest import CLI

from cpm_tune.errors import UserError
from cpm_tune.planning.plan import Request, make_plan
from cpm_tune.schema.lr_schedule import SCHEDULES
from cpm_tune.schema.spec import Recipe
from cpm_tune.task.registry import load_tasks


def test_a_recipe_is_the_settings_template_and_rule_of_its_publication() -> None:
    spec = make_plan(Request(task="chid", recipe="cpm-1")).spec
    recipe = spec.recipe
    assert recipe is not None
    assert (spec.template, spec.encoding.max_length) == ("cpm-1", 1024)
    assert (recipe.lr, recipe.batch_size, recipe.epochs, recipe.clip) == (1e-5, 64, 10, 1.0)
    assert (recipe.weight_decay, recipe.warmup_share, recipe.schedule) == (0.01, 0.1, "cpm-1")
    written = {f"train.{name}": value for name, value in recipe.model_dump().items()}
    by_hand = Request(
        task="chid", template="cpm-1", settings={**written, "encode.max_length": 1024}
    )
    assert make_plan(by_hand).spec == spec, "the name is in no hash"
    changed = Request(task="chid", recipe="cpm-1", settings={"train.batch_size": 8})
    chosen = make_plan(changed).spec.recipe
    assert chosen is not None
    assert (chosen.batch_size, chosen.lr) == (8, 1e-5)
    other = make_plan(Request(task="chid", recipe="cpm-1", template="numbered")).spec
    assert (other.template, other.recipe) == ("numbered", recipe)


def test_a_recipe_that_is_not_there_is_refused() -> None:
    with pytest.raises(UserError, match=r"no recipe 'cpm1'\. Did you mean 'cpm-1'"):
        make_plan(Request(task="chid", recipe="cpm1"))
    with pytest.raises(UserError, match="task prompted_text has no recipe 'x'"):
        make_plan(Request(task="prompted_text", recipe="x"))


def test_every_recipe_of_every_task_makes_a_plan() -> None:
    names = [(task.name, name) for task in load_tasks() for name in task.recipes]
    assert names
    for task, name in names:
        plan = make_plan(Request(task=task, recipe=name, delta="bitfit"))
        assert plan.spec.recipe is not None


def test_what_is_left_out_of_older_specs_stays_out() -> None:
    assert {"warmup_share", "rows_share"}.isdisjoint(Recipe().model_dump(mode="json"))
    assert Recipe.model_validate(Recipe(rows_share=0.1).model_dump()).rows_share == 0.1
    assert [Recipe(rows_share=0.1).rows_used(n) for n in (0, 1, 29, 30)] == [0, 1, 2, 3]


def test_a_share_of_the_steps_warms_up() -> None:
    recipe = Recipe(lr=1.0, schedule="cpm-1", warmup_share=0.1)
    rates = [recipe.learning_rate(step, 100) for step in (1, 10, 11, 60, 100)]
    assert rates == pytest.approx([0.1, 1.0, 0.99, 0.5, 0.1])
    assert SCHEDULES["linear"](1.0, 100, 10, 100) == 0.0


def test_a_share_of_the_rows_is_trained_on(cli: CLI, tmp_path: object) -> None:
    given = ("--task", "lcqmc", "--delta", "bitfit", "--limit", 30, "--set", "train.batch_size=2")
    code, out, error = cli(*given, "--set", "train.rows_share=0.2", "--dry-run")
    assert code == 0, error
    assert "24 at most, of 2 examples" in out, "8 epochs of 6 rows"


def test_an_earlier_version_of_a_template_is_chosen_by_its_number() -> None:
    first = make_plan(Request(task="lcqmc", template="cpm-2@1"))
    assert (first.spec.template, first.spec.template_version) == ("cpm-2", 1)
    assert "的关系是：" in first.template.text
    with pytest.raises(UserError, match="has no template 'cpm-2@9'"):
        make_plan(Request(task="lcqmc", template="cpm-2@9"))
