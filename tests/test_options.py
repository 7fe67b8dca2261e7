"""Options are declared once: what the command line, --config files, suites and Python take agrees;
each has a help text, and messages and help name its bounds."""

from __future__ import annotations

import re
import subprocess
import sys
from dataclasses import MISSING, dataclass, fields
from pathlib import Path
from typing import Annotated, Literal, get_args

import pytest
from conftest import CLI, REPOSITORY
from hypothesis import given
from hypothesis import strategies as st

import cpm_tune as ct
from cpm_tune.bench.suite import Override, Suite, make_suite
from cpm_tune.commands.options.generate import DecodingOptions
from cpm_tune.commands.options.tune import Tune
from cpm_tune.commands.table import COMMANDS, TUNE
from cpm_tune.common.option import Option, checked, declared
from cpm_tune.planning.plan import Request
from cpm_tune.pretrain.options import PretrainRequest
from cpm_tune.pretrain.train import Intervals, Settings
from cpm_tune.runs.export import FORMATS
from cpm_tune.schema.options import MOST, Precision, RunOptions, TrialOptions
from cpm_tune.schema.spec import Decoding

ALL = {"": TUNE, **COMMANDS}


@pytest.mark.parametrize("name", ALL)
def test_every_option_has_a_help_text_with_its_bounds_and_default(name: str) -> None:
    for option in declared(ALL[name].options):
        if not option.option.hidden:
            assert option.option.help, option.name
            assert not option.option.help.endswith("."), option.name


@pytest.mark.parametrize("name", ALL)
def test_help_of_every_command(cli: CLI, name: str) -> None:
    code, said, _ = cli(*name.split(), "--help")
    assert code == 0
    words = " ".join(said.split()).replace("- ", "-")
    for option in declared(ALL[name].options):
        if option.option.hidden:
            assert option.name not in said
            continue
        assert option.name in said
        assert option.option.bounds.removesuffix(f" to {MOST}") in words
        if option.default not in (None, (), "", MISSING) and option.kind is not bool:
            assert "default: " in words
    assert "{prog}" not in said


def test_help_lists_every_command_with_a_line(cli: CLI) -> None:
    _, said, _ = cli("--help")
    for name, command in COMMANDS.items():
        assert re.search(rf"^  {name} +{re.escape(command.summary)}$", said, re.MULTILINE)


IMPORTS = """
import sys
from cpm_tune.commands.cli import main
try:
    main(sys.argv[1:])
except SystemExit:
    pass
heavy = {"torch", "transformers", "datasets", "pyarrow", "scipy", "sklearn", "jieba", "numpy"}
print(len(sys.modules), *sorted({*heavy, "pydantic"} & set(sys.modules)), file=sys.stderr)
"""


@pytest.mark.parametrize(
    ("line", "most", "allowed"),
    [
        ("--help", 180, set()),
        ("generate --help", 180, set()),
        ("list tasks", 420, {"pydantic"}),
        ("list deltas", 420, {"pydantic"}),
        ("show lcqmc --text", 420, {"pydantic"}),
    ],
)
def test_help_and_listings_import_little(line: str, most: int, allowed: set[str]) -> None:
    """So they answer at once (benchmarks/startup.py times them)."""
    command = [sys.executable, "-c", IMPORTS, *line.split()]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=REPOSITORY)
    count, *heavy = done.stderr.split()
    assert set(heavy) <= allowed
    assert int(count) <= most


BOUNDS = {
    "--task lcqmc --set run.threads=100000": "run.threads is 100000, expected at most 1024",
    "--seed 99999999999999999999": "expected a whole number from 0 to 4294967295",
    "--seed -1": "--seed is -1, expected a whole number from 0 to 4294967295",
    "--seed 1.5": "--seed is 1.5, expected a whole number",
    "--limit 0": "--limit is 0, expected a whole number from 1",
    "--nproc 0": "--nproc is 0, expected a whole number from 1",
    "--nnodes -3": "--nnodes is -3, expected a whole number from 1",
    "--limit 99999999999": "--limit is 99999999999, expected a whole number from 1 to 2147483647",
    "generate x --top-k 99999999999": "expected a whole number from 0 to 2147483647",
    "--quantize int4": "--quantize is 'int4', expected int8",
    "show lcqmc --rows -1": "--rows is -1, expected a whole number from 0",
    "show lcqmc --max-length 7": "--max-length is 7, expected a whole number from 8",
    "predict x --limit 0": "--limit is 0, expected a whole number from 1",
    "score --task x --predictions x --name x --seed -1": "from 0 to 4294967295",
    "estimate --micro-tokens 1": "--micro-tokens is 1, expected a whole number from 256",
    "estimate --zero 1": "--zero is 1, expected 2 or 3",
    "bench --tasks ccpm --jobs 0": "--jobs is 0, expected a whole number from 1",
    "bench --tasks ccpm --nproc 0": "--nproc is 0, expected a whole number from 1",
    "bench --tasks ccpm --seeds 1,x": "--seeds is x, expected a whole number from 0 to 4294967295",
    "bench --tasks ccpm --executor ray --cpus-per-process 0": "expected a whole number from 1",
    "leaderboard --predictions -1": "--predictions is -1, expected a whole number from 0",
    "leaderboard compare a b --resamples 9": "--resamples is 9, expected a whole number from 100",
    "prune a b --attention-layers 1 --ffn-layers 1 --text x --pieces 1": "from 2",
    "pretrain vocab x --out y --size 0": "--size is 0, expected a whole number from 1",
    "pretrain run --out x --lr 0": "--lr is 0, expected a number above 0, at most 1e+30",
    "pretrain run --out x --threads 2000": "expected a whole number from 1 to 1024",
    "generate x --top-p nan": "--top-p is nan, expected a number above 0, at most 1",
    "generate x --sample --greedy": "--sample and --greedy exclude each other",
    "pretrain run --out x --steps 1 --seconds 1": "--seconds and --steps exclude each other",
}


@pytest.mark.parametrize("line", BOUNDS)
def test_a_value_out_of_bounds_is_a_sentence_with_the_bounds(cli: CLI, line: str) -> None:
    code, said, error = cli(*line.split())
    assert (code, said) == (2, "")
    assert BOUNDS[line] in error
    assert error.count("\n") == 1


def test_every_value_that_is_wrong_is_reported(cli: CLI) -> None:
    code, _, error = cli("--seed", "x", "--limit", "0", "--precision", "fp8")
    assert code == 2
    assert [line.split(" is ")[0] for line in error.splitlines()] == [
        "error: --seed",
        "error: --precision",
        "error: --limit",
    ] or error.count("error: ") == 3


def test_a_suite_takes_what_a_run_takes() -> None:
    shared = {field.name for field in fields(TrialOptions)}
    assert shared <= {field.name for field in fields(Suite)}
    assert {"precision", "quantize", "template", "limit"} <= set(Override.model_fields)
    assert shared < {field.name for field in fields(Request)}
    for precision in get_args(get_args(Precision)[0]):
        assert make_suite(None, {"tasks": "ccpm", "precision": precision}).precision == precision


def test_suites_have_fp16_and_8_bits(cli: CLI, tmp_path: Path) -> None:
    options = ("--tasks", "ccpm", "--out", tmp_path, "--control", "none", "--dry-run")
    code, plain, _ = cli("bench", *options)
    assert code == 0
    seen = {plain}
    for words in (("--precision", "fp16"), ("--quantize", "int8")):
        code, said, error = cli("bench", *options, *words)
        assert code == 0, error
        assert said not in seen  # another run id
        seen.add(said)
    suite = tmp_path / "suite.yaml"
    suite.write_text("tasks: [ccpm]\ntrials: [{match: {}, precision: fp16, quantize: int8}]\n")
    code, said, error = cli("bench", "--suite", suite, *options[2:])
    assert code == 0, error
    assert said not in seen


def test_a_config_file_gives_options_and_the_command_line_wins(cli: CLI, tmp_path: Path) -> None:
    config = tmp_path / "run.yaml"
    config.write_text(
        "task: ccpm\nprecision: fp16\nseed: 3\nlimit: 7\nskip-bad-rows: true\ncontrol: [none]\n"
        "engine: torch\nset: {train: {lr: 1e-3}, encode.max_length: 99}\n",
        encoding="utf-8",
    )
    words = ("--config", config, "--dry-run", "--json", "--seed", "1", "--set", "train.lr=2e-3")
    code, said, error = cli(*words)
    assert code == 0, error
    for part in ('"precision": "fp16"', '"seed": 1', '"limit": 7', '"lr": 0.002'):
        assert part in said
    assert '"max_length": 99' in said
    code, _, error = cli("--config", config, "--dry-run", "--limit", "x")
    assert code == 2
    config.write_text("task: 3\nseed: -1\nsedd: 1\n", encoding="utf-8")
    code, _, error = cli("--config", config)
    assert code == 2
    assert error.count("error: --config") == 3


def test_only_what_describes_a_run_may_stand_in_a_config_file() -> None:
    in_file = {option.field for option in declared(Tune) if option.option.in_file}
    assert {field.name for field in fields(RunOptions)} <= in_file
    assert not in_file & {"config", "overwrite", "resume", "dry_run", "quiet", "only", "settings"}


def test_python_takes_the_same_bounds() -> None:
    for name, value in (("limit", 0), ("seed", "1"), ("precision", "fp8"), ("include", [3])):
        with pytest.raises(ct.UserError, match=f"{name} is .*, expected"):
            ct.tune("ccpm", **{name: value})
    with pytest.raises(ct.UserError) as caught:
        ct.tune("ccpm", limit=0, sed=1)
    assert len(str(caught.value).splitlines()) == 2


def test_defaults_that_help_describes_are_those_of_the_code() -> None:
    settings = {field.name: field.default for field in fields(Settings)}
    settings |= {field.name: field.default for field in fields(Intervals)}
    for option in declared(PretrainRequest):
        default = settings.get(option.field, MISSING)
        if option.option.default and default is not MISSING and option.kind in (int, float):
            assert float(option.option.default) == default, option.name
    for field in fields(DecodingOptions):
        assert field.name in Decoding.model_fields


def test_formats_of_export_are_those_of_the_code() -> None:
    (to,) = (o for o in declared(COMMANDS["export"].options) if o.field == "to")
    assert set(to.choices) == set(FORMATS)


# --- declarations ---


@dataclass(frozen=True, kw_only=True)
class Example:
    number: Annotated[int | None, Option("a number", least=1, most=3)] = None
    share: Annotated[float, Option("a share", above=0, most=1)] = 0.5
    names: Annotated[tuple[str, ...], Option("names", commas=True)] = ()
    seeds: Annotated[tuple[int, ...], Option("seeds", commas=True, ranges=True)] = ()
    kind: Literal["a"] = "a"  # not an option
    mode: Annotated[Annotated[Literal["a", "b"], Option("mode", "M")], Option("kind")] = "a"


def test_a_declaration_is_read_from_a_field() -> None:
    known = {option.field: option for option in declared(Example)}
    assert list(known) == ["number", "share", "names", "seeds", "mode"]
    assert known["number"].expected == "a whole number from 1 to 3"
    assert known["share"].expected == "a number above 0, at most 1"
    assert (known["mode"].option.help, known["mode"].option.metavar) == ("kind", "M")
    assert known["mode"].expected == "a or b"
    assert known["names"].parse(" a, b,,") == ("a", "b")
    assert known["seeds"].parse("1-3,7") == (1, 2, 3, 7)
    for text in ("3-1", "1-99999"):
        with pytest.raises(ValueError, match="expected a range"):
            known["seeds"].parse(text)


@given(st.text() | st.integers().map(str) | st.floats().map(str))
def test_parsing_a_text_gives_a_value_within_bounds_or_a_value_error(text: str) -> None:
    for option in declared(Example):
        try:
            value = option.parse(text)
        except ValueError:
            continue
        if option.field == "number":
            assert 1 <= value <= 3
        if option.field == "share":
            assert 0 < value <= 1


@given(st.recursive(st.none() | st.booleans() | st.integers() | st.floats() | st.text(), st.lists))
def test_checking_a_value_gives_one_within_bounds_or_a_value_error(value: object) -> None:
    for name in ("number", "share", "names", "seeds", "mode"):
        try:
            chosen = checked(Example, {name: value})
        except ValueError:
            continue
        assert value is None or chosen[name] in (value, (value,), tuple(_listed(value)))
        assert not (name == "number" and isinstance(value, bool))


def _listed(value: object) -> list[object]:
    return value if isinstance(value, list) else []
