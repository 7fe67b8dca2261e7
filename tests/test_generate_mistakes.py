"""`generate`, misused: options, prompts and files; each mistake is one sentence."""

from __future__ import annotations

from pathlib import Path

import pytest
from backbone_oracle import talkative_hugging_face, write_hugging_face
from conftest import CLI

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    theirs = talkative_hugging_face()
    return write_hugging_face(tmp_path_factory.mktemp("backbone") / "hf", theirs)


MISTAKES = {
    "no memory": (["今天", "--memory-limit", "-1GB"], "--memory-limit is '-1GB'"),
    "beams and temperature": (["今天", "--beams", "4", "--temperature", "0.5"], "beams is 4"),
    "greedy and sampling": (["今天", "--greedy", "--top-k", "5"], "greedy decoding is asked for"),
    "greedy and beams": (
        ["今天", "--greedy", "--beams", "2"],
        "--greedy and --beams exclude",
    ),
    "no beams": (["今天", "--beams", "0"], "beams is 0"),
    "negative top-k": (["今天", "--top-k", "-1"], "--top-k is -1, expected a whole"),
    "a probability above 1": (
        ["今天", "--top-p", "1.5"],
        "--top-p is 1.5, expected",
    ),
    "a temperature past any": (
        ["今天", "--temperature", "1e300"],
        "--temperature is 1e300",
    ),
    "a temperature of nothing": (
        ["今天", "--temperature", "1e-320"],
        "--temperature is 1e-320",
    ),
    "a length penalty past any": (
        ["今天", "--length-penalty", "1000"],
        "--length-penalty is 1000",
    ),
    "more texts than beams there are": (["今天", "--num", "5000"], "num is 5000, but beam search"),
    "more texts than memory": (["今天", "--sample", "--num", "100001"], "1 prompt that is 100,001"),
    "more fills than memory": (
        ["--infill", "今____，我____", "--sample", "--num", "7000"],  # 16 choices of lengths
        "for 1 prompt that is 112,000 texts",
    ),
    "a blank of any length": (["--infill", "____{1-900}"], "900 choices of lengths for 1 blank,"),
    "a blank of a word": (["--infill", "今____{" + "a" * 900 + "}"], f"'{'a' * 40}…', expected"),
    "a long word": (["今天", "a" * 900], f"unrecognized arguments: {'a' * 60}… (see"),
    "a long name": (["今天", "--delta-from", "a" * 900], f"error: {'a' * 60}… too long for a"),
    "no temperature": (
        ["今天", "--temperature", "0"],
        "from 0.001 to 1000",
    ),
    "nothing to write": (["今天", "--max-new-tokens", "0"], "--max-new-tokens is 0"),
    "a window for nothing": (
        ["今天", "--sample", "--repetition-window", "3"],
        "repetition_window has no effect",
    ),
    "no texts": (["今天", "--num", "0"], "num is 0"),
    "several greedy texts": (["今天", "--num", "2", "--greedy"], "num is 2, but greedy"),
    "more texts than beams": (["今天", "--num", "3", "--beams", "2"], "num is 3, but 2 beams"),
    "a negative seed": (["今天", "--seed", "-1"], "seed is -1"),
    "an empty prompt": ([" "], "the prompt is empty"),
    "a prompt of nothing known": (["龘€"], "nothing of '龘€' is in this backbone's vocabulary"),
    "a prompt that is too long": (["今天" * 300], "more than max_length 256"),
    "a length that is too short": (["今天", "--max-length", "20"], "more than max_length 20"),
    "two prompts": (["今天", "--infill", "今天____"], "only one can be given"),
    "two words": (["今天", "天气"], "unrecognized arguments: 天气"),
    "an absent file": (["--input", "/nowhere.txt"], "--input /nowhere.txt: cannot be read"),
    "no blank": (["--infill", "今天"], "there is no blank"),
    "a blank of no length": (["--infill", "今____", "--blank-tokens", "0"], "--blank-tokens"),
    "a length without blanks": (["今天", "--blank-tokens", "2"], "no effect without --infill"),
    "new tokens in blanks": (["--infill", "____", "--max-new-tokens", "3"], "--blank-tokens"),
    "a stream of beams": (["今天", "--stream"], "--stream shows one text"),
    "a device that is none": (["今天", "--device", "tpu9"], "run.device is 'tpu9'"),
    "no folder for the output": (["今天", "--out", "/nowhere/x"], "there is no folder /nowhere"),
    "a folder as output": (["今天", "--out", "/tmp"], "--out /tmp is a folder"),
    "an absent delta": (["今天", "--delta-from", "/nowhere"], "there is no such folder"),
    "a folder without a delta": (
        ["今天", "--delta-from", "/usr"],
        "no readable delta, delta.json is missing",
    ),
    "no batch": (["今天", "--batch-tokens", "0"], "--batch-tokens is 0"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_one_sentence(cli: CLI, folder: Path, mistake: str) -> None:
    words, expected = MISTAKES[mistake]
    code, said, error = cli("generate", "--backbone", folder, *words)
    assert (code, said) == (2, "")
    assert error.startswith("error: ")
    assert expected in error
    assert error.count("\n") == 1


FILES = {
    "an empty file": (b"", "contains no prompts"),
    "blank lines only": (b"\n \n\t\n", "contains no prompts"),
    "JSON in a text file": (b'[{"prompt": "x"}]', "prompts.txt:1: this looks like JSON"),
    "JSON over several lines": (b'[\n  {"prompt": "x"}\n]', "prompts.txt:1: this looks like JSON"),
    "another encoding": ("今天\n".encode("gb18030"), "prompts.txt:1: not UTF-8"),
    "no prompt": (b'{"text": "x"}\n', 'prompts.jsonl:1: {"text": "x"} has no text "prompt"'),
    "half a line": (b'{"prompt": "x"}\n{"pro', "prompts.jsonl:2: not a whole JSON object"),
    "half a character": (b'{"prompt": "\\ud83d"}\n', "half a surrogate pair"),
}


@pytest.mark.parametrize("fault", FILES)
def test_a_fault_in_a_file_is_one_sentence(
    cli: CLI, folder: Path, tmp_path: Path, fault: str
) -> None:
    content, expected = FILES[fault]
    path = tmp_path / f"prompts.{'jsonl' if content.startswith(b'{') else 'txt'}"
    path.write_bytes(content)
    code, _, error = cli("generate", "--backbone", folder, "--input", path, "--out", tmp_path / "o")
    assert code == 2
    assert expected in error
    assert error.count("\n") == 1
    assert not (tmp_path / "o").exists()
