"""Runs by each scoring rule: the command line, records, warnings, suites and submissions."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import pytest
from conftest import CLI

from cpm_tune.planning.plan import Request, make_plan
from cpm_tune.schema.options import Scoring
from cpm_tune.schema.record import read_record

RULES: tuple[Scoring, ...] = get_args(Scoring)


def tune(cli: CLI, data: Path, backbone: Path, out: Path, *words: object) -> tuple[int, str, str]:
    common = ("--task", "lcqmc", "--data", data, "--backbone", backbone, "--out", out)
    return cli(*common, "--set", "train.max_steps=2", "--control", "none", *words)


def lines(out: Path, pattern: str) -> Iterator[dict[str, Any]]:
    (path,) = out.glob(f"{pattern}/predictions.test.jsonl")
    return map(json.loads, path.read_text().splitlines())


@pytest.mark.parametrize("rule", [rule for rule in RULES if rule != "yes-logit"])
def test_a_run_is_tuned_and_scored_by_every_rule_and_named_after_it(
    rule: Scoring, cli: CLI, data: Path, small_backbone: Path, tmp_path: Path
) -> None:
    words = ("--template", "cpm-2", "--scoring", rule)
    code, out, error = tune(cli, data, small_backbone, tmp_path, *words)
    assert code == 0, error
    assert f"scoring    {rule}" in out
    (path,) = tmp_path.glob("lcqmc.lora*/run.json")
    record = read_record(path)
    assert record.scoring == rule
    assert record.spec.scoring == (None if rule == "verbaliser-sum" else rule)
    code, out, error = cli("predict", path.parent, "--data", data, "--out", tmp_path / "again")
    assert code == 0, error
    again = (tmp_path / "again" / "predictions.test.jsonl").read_text()
    assert again == (path.parent / "predictions.test.jsonl").read_text()


def test_the_templates_own_rule_is_the_same_run_as_none_and_another_is_not(
    data: Path, small_backbone: Path
) -> None:
    def run_id(**request: Any) -> str:
        words = {"data": data, "backbone": str(small_backbone), **request}
        return make_plan(Request("lcqmc", **words)).spec.run_id

    assert run_id() == run_id(scoring="yes-logit")
    ids = {rule: run_id(template="cpm-2", scoring=rule) for rule in RULES if rule != "yes-logit"}
    assert len(set(ids.values())) == len(ids)
    assert ids["verbaliser-sum"] == run_id(template="cpm-2")


def test_a_rule_that_does_not_fit_is_one_sentence_with_what_fits(
    cli: CLI, data: Path, small_backbone: Path, tmp_path: Path
) -> None:
    code, _, error = tune(cli, data, small_backbone, tmp_path, "--scoring", "verbaliser-mean")
    assert code == 2
    assert (
        "scoring verbaliser-mean: template 'cpm-ant' of task lcqmc has no {answer}; choose cpm-2 "
        "or cpm-2-prompt (--template)." in error
    )
    code, _, error = cli("--task", "lcsts", "--scoring", "mean-nll", "--dry-run")
    assert code == 2
    assert "scoring mean-nll has no effect: task lcsts generates its answers." in error
    assert cli("--task", "lcqmc", "--scoring", "sum", "--dry-run")[0] == 2


def test_a_list_of_tasks_is_scored_by_a_rule_where_there_are_options(cli: CLI) -> None:
    words = ("--scoring", "mean-nll", "--dry-run", "--delta", "none")
    code, out, error = cli("--task", "lcqmc,lcsts", *words)
    assert code == 0, error
    assert [line.split()[1] for line in out.splitlines() if line.startswith("scoring  ")] == [
        "mean-nll",
        "generation",
    ]


def test_options_of_several_lengths_under_the_plain_sum_are_a_warning(
    cli: CLI, data: Path, small_backbone: Path, tmp_path: Path
) -> None:
    task = tmp_path / "uneven.py"
    task.write_text(
        "from dataclasses import replace\n"
        "from cpm_tune.task import Template\n"
        "from cpm_tune.task.registry import load_task\n"
        'TEMPLATE = Template("t", "{sentence1}{sentence2}{answer}", ("不同", "意思是一"))\n'
        'EVEN = Template("even", "{sentence1}{sentence2}{answer}", ("不同", "相同"))\n'
        'TASK = replace(load_task("lcqmc"), name="uneven", templates=(TEMPLATE, EVEN))\n'
    )
    words = ("--task", "uneven", "--include", task, "--data", data, "--backbone", small_backbone)
    said = "differ in number of tokens, and verbaliser-sum favours short ones; --scoring"
    for more, warned in (
        ((), True),
        (("--template", "even"), False),
        (("--scoring", "verbaliser-mean"), False),
        (("--scoring", "verbaliser-relative"), False),
    ):
        code, out, error = cli(*words, *more, "--dry-run")
        assert code == 0, error
        assert (said in out) == warned, more
    code, out, error = cli(*words, "--delta", "none", "--out", tmp_path / "out")
    assert code == 0, error
    assert said in out
    (path,) = (tmp_path / "out").glob("uneven*/run.json")
    assert any(said in warning for warning in read_record(path).warnings)


def test_rows_without_a_prediction_are_counted_and_wrong(
    cli: CLI, data: Path, small_backbone: Path, tmp_path: Path
) -> None:
    """Random weights prefer other tokens of the vocabulary."""
    words = ("--template", "cpm-2", "--scoring", "argmax-vocabulary", "--delta", "none")
    code, out, error = cli(
        *("--task", "lcqmc", "--data", data, "--backbone", small_backbone, "--out", tmp_path),
        *words,
    )
    assert code == 0, error
    (path,) = tmp_path.glob("lcqmc.none*/run.json")
    record, given = read_record(path), list(lines(tmp_path, "lcqmc.none*"))
    absent = sum(line["prediction"] is None for line in given)
    assert absent > 0
    assert record.data["test"].n_unparsed == absent
    assert record.test.value == sum(a["prediction"] == a["target"] for a in given) / len(given)
    assert f"{absent:,} of {len(given):,} rows on test have no prediction" in out
    assert cli("leaderboard", "verify", tmp_path)[0] == 0


def test_show_names_the_rule_and_shows_what_it_scores(cli: CLI) -> None:
    code, out, _ = cli("show", "lcqmc", "--rows", "1")
    assert code == 0
    assert "(yes-logit, options 不同 / 相同)" in out
    code, out, _ = cli("show", "chid", "--template", "filled", "--rows", "1")
    assert code == 0
    assert "{before}{option}{after}  (mean-nll)" in out
    code, out, _ = cli(
        "show", "lcqmc", "--template", "cpm-2", "--scoring", "argmax-vocabulary", "--rows", "1"
    )
    assert code == 0
    assert "(argmax-vocabulary, options" in out
    assert cli("show", "lcqmc", "--scoring", "verbaliser-mean")[0] == 2


def test_a_suite_may_choose_the_rule_and_change_it_for_some_trials(
    cli: CLI, data: Path, small_backbone: Path, tmp_path: Path
) -> None:
    suite = tmp_path / "suite.yaml"
    suite.write_text(
        "tasks: [lcqmc, lcsts]\ndeltas: [none]\ncontrols: []\nscoring: mean-nll\n"
        "trials:\n- {match: {task: lcqmc}, template: cpm-2, scoring: verbaliser-mean}\n"
    )
    code, out, error = cli("bench", "--suite", suite, "--dry-run", "--out", tmp_path / "out")
    assert code == 0, out + error


def test_a_submission_has_the_best_option_where_there_is_no_prediction(
    cli: CLI, small_backbone: Path, tmp_path: Path
) -> None:
    data = tmp_path / "ccpm"
    data.mkdir()
    row = {"translation": "今天气不错", "choices": ["今天", "天气", "不错", "好"]}
    for split in ("train", "valid", "test"):
        lines = [{**row, **({} if split == "test" else {"answer": i % 4})} for i in range(8)]
        text = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)
        (data / f"{split}.jsonl").write_text(text)
    words = ("--template", "cpm-2", "--scoring", "argmax-vocabulary", "--delta", "none")
    where = ("--data", data, "--backbone", small_backbone, "--out", tmp_path / "out")
    code, _, error = cli("--task", "ccpm", *where, *words)
    assert code == 0, error
    (run,) = (tmp_path / "out").glob("ccpm.none*")
    given = [json.loads(line) for line in (run / "predictions.test.jsonl").open()]
    assert any(line["prediction"] is None for line in given)
    submitted = [json.loads(line)["answer"] for line in (run / "CCPM.jsonl").open()]
    assert submitted == [line["scores"].index(max(line["scores"])) for line in given]
