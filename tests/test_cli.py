"""The command line: listings, cards, dry runs, and one clear sentence for each mistake."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import CLI, REPOSITORY, rows, write_jsonl


def test_help_names_every_command_and_exits_with_0(cli: CLI) -> None:
    code, said, _ = cli("--help")
    assert code == 0
    for word in ("list", "show", "doctor", "leaderboard", "--task lcqmc --delta lora"):
        assert word in said
    for command in ("list", "show", "doctor", "leaderboard"):
        assert cli(command, "--help")[0] == 0


def test_list_tasks_and_deltas(cli: CLI, tmp_path: Path) -> None:
    code, said, _ = cli("list", "tasks")
    assert code == 0
    (line,) = [line for line in said.splitlines() if line.startswith("lcqmc")]
    assert "accuracy" in line
    assert "238,766" in line
    assert line.endswith("sample")
    files = ["lcqmc/train.tsv", "lcqmc/dev.tsv", "lcqmc/test.tsv", "ccpm/valid.jsonl"]
    for name in (*files, "c3/c3-d-dev.json"):  # one of C3's two dev files
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("一\t二\t1\n", encoding="utf-8")
    verse = {"translation": "月", "choices": ["一", "二", "三", "四"], "answer": 0}
    write_jsonl(tmp_path / "ccpm/valid.jsonl", [verse])
    said = cli("list", "tasks", "--data", tmp_path)[1]
    listed, remarks = said.split("\n\n")
    found = {line.split()[0]: line.split("  ")[-1].strip() for line in listed.splitlines()[1:]}
    assert "c3-m-dev.json is missing (needed with c3-d-dev.json)" in remarks
    assert {k: v for k, v in found.items() if v != "no"} == {"lcqmc": "yes", "ccpm": "only dev"}
    code, said, _ = cli("list", "deltas")
    assert code == 0
    assert "6,291,456" in said


def test_show_renders_rows_tokens_targets_and_truncation(cli: CLI) -> None:
    code, said, _ = cli("show", "lcqmc", "--rows", "1")
    assert code == 0
    assert "[是否正确]" in said
    assert "scored: '是' after position" in said
    assert "truncated: no" in said
    code, said, _ = cli("show", "lcqmc", "--rows", "1", "--max-length", "38")
    assert "truncated: yes" in said
    code, said, _ = cli("show", "lcqmc", "--text", "--template", "cpm-2")
    assert "的意思相似" in said
    assert "position" not in said


def test_show_reads_a_users_data(cli: CLI, data: Path) -> None:
    _, said, _ = cli("show", "lcqmc", "--data", data, "--split", "test", "--text")
    assert "test.jsonl, first 2 rows" in said


def test_a_dry_run_says_what_would_happen_and_writes_nothing(
    cli: CLI, data: Path, small_backbone: Path, tmp_path: Path
) -> None:
    words = ("--task", "lcqmc", "--delta", "lora", "--data", data, "--backbone", small_backbone)
    code, said, _ = cli(*words, "--dry-run", "--out", tmp_path / "out")
    assert code == 0
    assert "4,096 values" in said
    assert "steps      20 at most" in said  # 40 rows, batches of 32, 10 epochs
    assert "memory" in said
    assert len(said.splitlines()) <= 10
    code, said, _ = cli(*words, "--dry-run", "--out", tmp_path / "out", "--json")
    plan = next(e for e in map(json.loads, said.splitlines()) if e["event"] == "plan")
    assert plan["spec"]["delta"]["lora_r"] == 8
    assert sum(plan["trained"].values()) == plan["trained_values"] == 4096
    assert (plan["steps"], plan["finished"]) == (20, False)
    assert not (tmp_path / "out").exists()


def test_the_doctor_finds_this_installation_in_order(cli: CLI) -> None:
    code, said, _ = cli("doctor", "--samples")
    assert code == 0, said
    for what in ("torch", "opendelta", "cuda", "bmtrain", "memory", "backbone", "lcqmc"):
        assert what in said
    assert "FAIL" not in said


def break_file(path: Path, content: str) -> None:
    path.write_text(content, encoding="utf-8")


MISTAKES = {
    "a wrong task": (["--task", "lcqmx"], "Did you mean 'lcqmc'"),
    "a wrong delta": (["--delta", "lorra"], "Did you mean 'lora'"),
    "a wrong delta key": (["--set", "delta.lora_rr=3"], "Did you mean 'lora_r'"),
    "a wrong delta value": (["--set", "delta.lora_r=none"], "lora_r is 'none'"),
    "a wrong setting": (["--set", "train.lrr=3"], "Did you mean 'train.lr'"),
    "a setting of another part": (["--set", "train.max_length=9"], "encode.max_length"),
    "a wrong section": (["--set", "trian.lr=3"], "Did you mean 'train.lr'"),
    "a wrong value": (["--set", "train.lr=fast"], "train.lr is 'fast'"),
    "a negative learning rate": (["--set", "train.lr=-1"], "train.lr is -1"),
    "not a number": (["--set", "train.lr=.nan"], "train.lr is nan"),
    "no value": (["--set", "train.lr"], "expected key=value"),
    "a wrong template": (["--template", "cpm2"], "Did you mean 'cpm-2'"),
    "an absent data folder": (["--data", "/nowhere"], "there is no such folder"),
    "an absent backbone": (["--backbone", "/nowhere"], "there is no such folder"),
    "a preset without weights": (["--backbone", "cpm-ant-10b"], "weights are not shipped"),
    "a negative seed": (["--seed", "-1"], "--seed is -1"),
    "a limit of zero": (["--limit", "0"], "--limit is 0"),
    "a wrong precision": (
        ["--precision", "fp8"],
        "expected fp32, bf16 or fp16",
    ),
    "an unknown option": (["--taks", "x"], "unrecognized arguments"),
    "a wrong device": (["--set", "run.device=gpux"], "run.device is 'gpux'"),
    "a device that is not there": (["--set", "run.device=cuda"], "no CUDA device"),
    "a length too short": (["--set", "encode.max_length=10"], "encode.max_length is 10"),
    "a prompt type too large": (["--set", "encode.prompt_type=40"], "encode.prompt_type is 40"),
    "no module matched": (["--set", "delta.modified_modules=[query]"], "named 'query'"),
    "training without a delta": (["--delta", "none", "--set", "train.lr=1"], "has no effect"),
    "no control and a control": (["--control", "zero-shot"], "excludes every other control"),
    "a seed too large": (["--seed", str(2**40)], "seed is"),
    "an absent config": (["--config", "/nowhere.yaml"], "--config /nowhere.yaml"),
    "an absent include": (["--include", "/nowhere"], "--include /nowhere"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_one_sentence_and_exit_code_2(
    cli: CLI, data: Path, small_backbone: Path, tmp_path: Path, mistake: str
) -> None:
    words, expected = MISTAKES[mistake]
    out = tmp_path / "out"
    base = ["--task", "lcqmc", "--delta", "lora", "--out", str(out), "--control", "none"]
    base += ["--data", str(data), "--backbone", str(small_backbone)]
    code, _, said = cli(*base, *words)
    assert code == 2
    assert expected in said
    assert said.startswith("error: ")
    assert said.count("\n") == 1
    assert "Traceback" not in said
    assert not out.exists()


CONFIGS = {
    "task: 3": "task is 3",
    "task: [lcqmc]": "task is ['lcqmc']",
    "delta: 4": "delta is 4",
    "data: 5": "data is 5",
    "seed: true": "seed is True",
    "overwrite: true": "no option 'overwrite'",
    "sed: 1": "Did you mean 'seed'",
    "set: [1]": "set is [1]",
    "set: {1: 2}": "there is no setting '1'",
    "set: {train: 3}": "train is 3, expected a mapping of its settings",
    "set: {train.batch_size: true}": "train.batch_size is true",
    "set: {train: {lrr: 1}}": "Did you mean 'train.lr'",
    "- task": "expected a mapping",
    "task: [": "not readable YAML",
}


@pytest.mark.parametrize("content", CONFIGS)
def test_a_mistake_in_a_config_file_is_one_sentence(cli: CLI, tmp_path: Path, content: str) -> None:
    config = tmp_path / "run.yaml"
    task = "" if content.startswith(("task", "-")) else "task: lcqmc\n"
    config.write_text(task + content, encoding="utf-8")
    code, _, said = cli("--config", config, "--dry-run")
    assert code == 2
    assert CONFIGS[content] in said
    assert said.count("\n") == 1


FILES = {
    "a missing column": ("train.tsv", "text_a\tlabel\n甲\t1\n", "train.tsv:1: no column"),
    "a truncated line": ("train.jsonl", '{"id": 0, "sent', "train.jsonl:1: not a whole JSON"),
    "a label outside the set": (
        "train.jsonl",
        json.dumps({**rows(1)[0], "label": 2}),
        "train.jsonl:1: label is 2, expected 0 or 1",
    ),
    "an empty split": ("train.jsonl", "", "the train split has no rows"),
}


@pytest.mark.parametrize("fault", FILES)
def test_a_fault_in_a_file_is_one_sentence_and_exit_code_2(
    cli: CLI, data: Path, small_backbone: Path, tmp_path: Path, fault: str
) -> None:
    name, content, expected = FILES[fault]
    (data / "train.jsonl").unlink()
    break_file(data / name, content)
    words = ("--task", "lcqmc", "--delta", "lora", "--data", data, "--backbone", small_backbone)
    code, _, said = cli(*words, "--out", tmp_path / "out", "--control", "none")
    assert code == 2
    assert expected in said
    assert said.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_several_mistakes_are_reported_at_once(cli: CLI) -> None:
    words = ("--task", "lcqmc", "--delta", "lorra", "--template", "x", "--set", "train.lr=-1")
    code, _, said = cli(*words)
    assert code == 2
    assert said.count("error: ") == 3


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_an_unwritable_output_is_one_sentence(
    cli: CLI, data: Path, small_backbone: Path, tmp_path: Path
) -> None:
    tmp_path.chmod(0o500)
    words = ("--task", "lcqmc", "--delta", "none", "--data", data, "--backbone", small_backbone)
    code, _, said = cli(*words, "--out", tmp_path / "out")
    assert code == 2
    assert "cannot be written" in said


def test_an_output_below_a_file_is_one_sentence(
    cli: CLI, data: Path, small_backbone: Path, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("", encoding="utf-8")
    words = ("--task", "lcqmc", "--delta", "none", "--data", data, "--backbone", small_backbone)
    code, _, said = cli(*words, "--out", tmp_path / "file" / "out")
    assert code == 2
    assert "cannot be written" in said
    assert said.count("\n") == 1


def test_a_command_without_events_refuses_json_in_a_plain_line(cli: CLI) -> None:
    code, output, said = cli("list", "backbones", "--json")
    assert (code, output) == (2, "")
    assert said.count("error: unrecognized arguments: --json") == said.count("\n") == 1


@pytest.mark.parametrize(
    ("words", "meant"),
    [
        (("estimate", "--task", "lcqmc"), None),
        (("runs", "tail", "x", "-n", "-1"), None),
        (("estimate", "--delt", "lora"), "--delta"),
        (("--lr", "1"), "--set train.lr=VALUE"),
    ],
)
def test_only_names_that_are_alike_are_proposed(
    cli: CLI, words: tuple[str, ...], meant: str | None
) -> None:
    code, _, said = cli(*words)
    assert code == 2
    assert re.findall("Did you mean '(.*?)'", said) == ([meant] if meant else [])


@pytest.mark.skipif(not Path("/proc/self").is_dir(), reason="a file system that takes no files")
def test_a_dry_run_refuses_an_output_that_cannot_be_made(
    cli: CLI, data: Path, small_backbone: Path
) -> None:
    words = ("--task", "lcqmc", "--delta", "none", "--data", data, "--backbone", small_backbone)
    code, _, said = cli(*words, "--out", "/proc/nowhere", "--dry-run")
    assert code == 2
    assert "--out /proc/nowhere: cannot be written (/proc: " in said


def test_a_foreign_command_is_answered_with_the_nearest(cli: CLI) -> None:
    code, _, said = cli("leaderbord")
    assert code == 2
    assert "Did you mean 'leaderboard'" in said


def test_debug_shows_the_traceback(data: Path) -> None:
    words = ["--task", "lcqmx", "--debug"]
    done = subprocess.run(
        [sys.executable, REPOSITORY / "tune.py", *words], capture_output=True, text=True
    )
    assert done.returncode != 0
    assert "Traceback" in done.stderr


def test_listings_and_mistakes_do_not_import_torch() -> None:
    code = """
import sys
from cpm_tune.commands.cli import main
for words in (
    ["--help"],
    ["list", "tasks"],
    ["list", "deltas"],
    ["show", "lcqmc", "--text"],
    ["--task", "lcqmc", "--delta", "nosuch"],
    ["bench", "--tasks", "lcqmc", "--deltas", "nosuch"],
    ["leaderboard", "nowhere"],
):
    try:
        main(words)
    except SystemExit:
        pass
assert not {"torch", "transformers", "datasets", "sklearn", "jieba"} & set(sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_a_mistake_in_a_request_is_reported_without_importing_torch() -> None:
    code = """
import sys
from cpm_tune.commands.cli import main
for words in (["--task", "lcqmx"], ["--task", "lcqmc", "--set", "train.lrr=1"], ["--task", "a,b"],
              ["bench", "--tasks", "ccpm", "--deltas", "lorra"], ["generate", "x", "--beams", "0"],
              ["predict", "x", "--limit", "0"], ["doctor", "--data", "/nowhere"]):
    try:
        assert main(words) == 2, words
    except SystemExit as end:
        assert end.code == 2
assert not {"torch", "transformers", "datasets"} & set(sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_the_doctor_reports_a_torch_that_cannot_be_imported(tmp_path: Path) -> None:
    for name in ("torch", "transformers", "datasets", "jieba", "opendelta"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text("raise ImportError('libc10.so: not found')")
    paths = os.pathsep.join([str(tmp_path), str(REPOSITORY)])
    done = subprocess.run(
        [sys.executable, REPOSITORY / "tune.py", "doctor"],
        env={**os.environ, "PYTHONPATH": paths},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1
    assert done.stderr == ""
    assert "FAIL  torch         ImportError: libc10.so: not found" in done.stdout
    assert "fix the checks marked FAIL" in done.stdout


def test_a_closed_pipe_is_no_traceback(tmp_path: Path) -> None:
    write_jsonl(tmp_path / "x.jsonl", rows(1))
    done = subprocess.run(
        f"{sys.executable} {REPOSITORY / 'tune.py'} show lcqmc --text | head -n 1",
        shell=True,
        capture_output=True,
        text=True,
    )
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("program", ["cpm-tune", "tune.py"])
def test_messages_name_the_program_that_was_called(
    program: str, cli: CLI, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.argv", [f"/usr/bin/{program}"])
    assert f"run `{program} --task" in cli("leaderboard", "/nowhere")[2]
