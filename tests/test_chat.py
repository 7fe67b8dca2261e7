"""Chat templates: what a model reads is what transformers gives it, and no template does harm."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from chat_folders import CHATML, ENDS, LLAMA, TEMPLATES, chat_folder
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import cpm_tune as ct
from cpm_tune.backbone.families import open_folder
from cpm_tune.commands.cli import main
from cpm_tune.data.encode import Encoder
from cpm_tune.decode.texts import Writer
from cpm_tune.delta.config import SoftPromptConfig
from cpm_tune.errors import UserError
from cpm_tune.planning.plan import chat_template
from cpm_tune.schema.record import read_record
from cpm_tune.schema.spec import Encoding
from cpm_tune.task.registry import load_task
from cpm_tune.tuning.predict import Predictor

GREEDY: dict[str, Any] = {"beams": 1, "max_new_tokens": 6}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return chat_folder(tmp_path_factory.mktemp("chat") / "llama")


def encoder_of(folder: Path, template: str, task: str = "lcsts", **how: Any) -> Encoder:
    opened = open_folder(folder)
    tokenizer = opened.tokenizer()
    length = how.pop("max_length", 256)
    encoding = Encoding(max_length=length, prompt_type=None, segment=None)
    layout = opened.layout(encoding, tokenizer)
    chosen, turns = load_task(task), opened.turns(template, tokenizer)
    form = chosen.template(how.pop("form", None))
    assert form is not None
    answer_tokens = getattr(chosen.answer, "max_new_tokens", 0)
    return Encoder(chosen, form, layout, tokenizer, length, answer_tokens, turns=turns, **how)


def theirs(folder: Path, template: str, *texts: str) -> list[int]:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    roles = ("user", "assistant")
    turns = [{"role": roles[n % 2], "content": text} for n, text in enumerate(texts)]
    if len(turns) % 2 == 0:
        turns.pop()
    how = {"chat_template": template, "add_generation_prompt": True, "return_dict": False}
    out = tokenizer.apply_chat_template(turns, date_string="二", **how)
    return list(out)


def prompt_of(encoder: Encoder, row: dict[str, Any]) -> str:
    before, _, _ = encoder.template.render(row, "")
    return before


@pytest.mark.parametrize("name", TEMPLATES)
@settings(max_examples=15, deadline=None, suppress_health_check=[*HealthCheck])
@given(text=st.text("月亮 \n很好<|im_end>。", min_size=1, max_size=30))
def test_a_prompt_has_the_ids_that_transformers_gives_it(
    name: str, folder: Path, text: str, cached: dict[str, Encoder]
) -> None:
    template = TEMPLATES[name]
    encoder = cached.setdefault(name, encoder_of(folder, template))
    row = {"id": "1", "text": text, "target": None}
    example = encoder.prefix(row)
    assert not example.truncated
    (ids,) = example.contexts
    assert list(ids) == theirs(folder, template, prompt_of(encoder, row))
    assert encoder.tokenizer.entries[encoder.end] == ENDS[name]


@pytest.fixture(scope="module")
def cached() -> dict[str, Encoder]:
    return {}


@pytest.mark.parametrize("prefix", ["first", "always", "Prepend"])
def test_a_tokenizer_that_begins_texts_with_a_space_does_so_in_a_chat_template(
    folder: Path, prefix: str, tmp_path: Path
) -> None:
    place = chat_folder(tmp_path / "spaced", TEMPLATES["inst"])
    file = place / "tokenizer.json"
    values = json.loads(file.read_text())
    split = values["pre_tokenizer"]
    values["model"]["vocab"]["\u2581"] = values["model"]["vocab"].pop(" ")
    spaces = {"type": "Metaspace", "replacement": "\u2581", "split": False}
    if prefix == "Prepend":
        replace = {"type": "Replace", "pattern": {"String": " "}, "content": "\u2581"}
        first = {"type": "Prepend", "prepend": "\u2581"}
        values["normalizer"] = {"type": "Sequence", "normalizers": [first, replace]}
    else:
        parts = [{**spaces, "prepend_scheme": prefix}, split]
        values["pre_tokenizer"] = {"type": "Sequence", "pretokenizers": parts}
    file.write_text(json.dumps(values))
    for template in TEMPLATES.values():
        encoder = encoder_of(place, template)
        row = {"id": "1", "text": "月亮 很好", "target": None}
        (ids,) = encoder.prefix(row).contexts
        assert list(ids) == theirs(place, template, prompt_of(encoder, row))


def test_what_a_row_says_is_text_whatever_marks_it_has(folder: Path) -> None:
    encoder = encoder_of(folder, CHATML)
    (plain,) = encoder.prefix({"id": "1", "text": "月", "target": None}).contexts
    (marked,) = encoder.prefix({"id": "1", "text": "月<|im_end|>", "target": None}).contexts
    end = encoder.end
    assert plain.count(end) == marked.count(end) == 2


def test_an_answer_ends_as_the_template_ends_it(folder: Path) -> None:
    encoder = encoder_of(folder, LLAMA)
    example = encoder.encode({"id": "1", "text": "月", "target": "亮"})
    assert encoder.tokenizer.decode(example.candidates[0].ids) == "亮<|eot|>"
    assert encoder.tokenizer.eos in encoder.stop
    assert encoder.end in encoder.stop


@pytest.mark.parametrize("name", TEMPLATES)
def test_texts_are_cut_and_never_what_is_around_them(folder: Path, name: str) -> None:
    for length in (60, 90):
        encoder = encoder_of(folder, TEMPLATES[name], "lcqmc", form="cpm-2", max_length=length)
        long = encoder.encode({"id": "1", "sentence1": "月" * 99, "sentence2": "好", "target": 1})
        short = encoder.encode({"id": "1", "sentence1": "", "sentence2": "", "target": 1})
        assert long.truncated
        longest = max(len(answer.ids) for answer in long.candidates)
        assert length - 4 < len(long.contexts[0]) + longest <= length
        opening = short.contexts[0].index(encoder.tokenizer.encode("“")[0])
        assert long.contexts[0][:opening] == short.contexts[0][:opening]
        assert long.contexts[0][-5:] == short.contexts[0][-5:]


def test_a_length_without_room_for_the_template_is_refused(folder: Path) -> None:
    with pytest.raises(UserError, match="alone need"):
        encoder_of(folder, CHATML, "lcqmc", form="cpm-2", max_length=16)


LOOP = "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}"
SAME = "{{ messages[0].content }}"
HOSTILE = {
    "a loop": (LOOP + SAME, "takes too long"),
    "a range": ("{% for i in range(10**9) %}{% endfor %}" + SAME, "fails .*OverflowError"),
    "a power": ("{{ (10 ** (10 ** 9)) % 7 }}" + SAME, "takes too long|fails"),
    "memory": ("{{ ('a' * 10**10) | length }}" + SAME, "too much memory"),
    "output": ("{% for i in range(9999) %}{{ 'a' * 9999 }}{% endfor %}" + SAME, "too much memory"),
    "attributes": ("{{ ''.__class__.__mro__ }}" + SAME, "SecurityError"),
    "globals": ("{{ raise_exception.__globals__['json'] }}" + SAME, "SecurityError"),
    "format": ("{{ '{0.__class__.__mro__}'.format(1) }}" + SAME, "SecurityError"),
    "changing": ("{% set _ = messages.append(1) %}" + SAME, "SecurityError"),
    "a file": ("{% include '/etc/passwd' %}" + SAME, "fails"),
    "recursion": ("{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}" + SAME, "fails"),
    "nesting": ("{{ " + "(" * 5000 + "1" + ")" * 5000 + " }}" + SAME, "fails|cannot be rendered"),
    "no text": ("你好", "does not write"),
    "twice": (SAME + SAME, "does not write"),
    "upper case": ("{{ messages[0].content | upper }}", "does not write"),
    "no answer": (SAME, "does not write"),
    "an error": ("{{ raise_exception('只有\n一轮') }}", "只有 一轮"),
    "syntax": ("{% if %}", "TemplateSyntaxError"),
    "a date": ("{{ strftime_now('%d') }}" + SAME, "strftime_now"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_template_that_does_harm_is_refused_in_one_sentence(
    folder: Path,
    name: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from cpm_tune.backbone.causal import chat

    monkeypatch.setitem(chat._LIMITS, "seconds", 1)
    template, message = HOSTILE[name]
    file = tmp_path / "chat.jinja"
    file.write_text(template)
    args = ["show", "lcqmc", "--template", "cpm-2", "--backbone", str(folder)]
    assert main([*args, "--chat-template", str(file)]) == 2
    error = capsys.readouterr().err.strip()
    assert error.count("\n") == 0
    import re

    assert re.search(message, error)


@pytest.mark.parametrize(
    ("content", "message"),
    [(None, "no chat template can be read"), (b"\xff", "not UTF-8"), (b"a" * 2**19, "longer")],
)
def test_a_file_that_is_no_template_is_refused(
    folder: Path, tmp_path: Path, content: bytes | None, message: str
) -> None:
    file = tmp_path / "chat.jinja"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(UserError, match=message):
        chat_template(open_folder(folder), str(file))


def test_a_folder_of_its_own_template_has_it_in_one_of_three_places(tmp_path: Path) -> None:
    place = chat_folder(tmp_path / "model", None)
    opened = open_folder(place)
    with pytest.raises(UserError, match="no chat template of its own"):
        opened.chat_template()
    before = opened.sha256()
    about = place / "tokenizer_config.json"
    values = json.loads(about.read_text())
    several = [{"name": "tool", "template": "x"}, {"name": "default", "template": CHATML}]
    about.write_text(json.dumps({**values, "chat_template": several}))
    assert open_folder(place).chat_template() == CHATML
    about.write_text(json.dumps({**values, "chat_template": "y"}))
    assert open_folder(place).chat_template() == "y"
    (place / "chat_template.jinja").write_text(LLAMA)
    assert open_folder(place).chat_template() == LLAMA
    about.write_text(json.dumps(values))
    assert open_folder(place).sha256() != "" != before


def test_show_prints_the_chat_template(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    args = ["show", "lcqmc", "--template", "cpm-2", "--rows", "1", "--backbone", str(folder)]
    assert main([*args, "--chat-template", "own"]) == 0
    out = capsys.readouterr().out
    assert "'<|im_start|>' 'u' 's' 'e' 'r' '\\n' '“'" in out
    assert "after position" in out


@pytest.mark.parametrize("backbone", [[], ["--backbone", "cpm-ant-tiny"]])
def test_a_family_without_chat_templates_says_so(
    backbone: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--task", "lcqmc", "--chat-template", "own", *backbone]) == 2
    assert "have no chat template" in capsys.readouterr().err


def test_mean_nll_has_no_place_in_a_chat_template(folder: Path) -> None:
    with pytest.raises(UserError, match="no place for a whole passage"):
        encoder_of(folder, CHATML, "lcqmc", form="cpm-2", scoring="mean-nll")


def test_a_run_with_a_chat_template_is_another_run_and_predicts_with_it(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    args = ["--task", "lcqmc", "--template", "cpm-2", "--backbone", str(folder), "--limit", "8"]
    args += ["--set", "train.epochs=1", "--set", "train.batch_size=4", "--control", "none"]
    args += ["--out", str(tmp_path / "r"), "--delta", "lora"]
    assert main(args) == 0
    assert main([*args, "--chat-template", "own"]) == 0
    runs = {read_record(p).spec.chat_template: p.parent for p in tmp_path.glob("r/*/run.json")}
    assert len(runs) == 2
    run = runs.pop(next(sha for sha in runs if sha is not None))
    assert (run / "chat_template.jinja").read_text() == CHATML
    out = tmp_path / "again"
    assert main(["predict", str(run), "--limit", "8", "--out", str(out)]) == 0
    name = "predictions.test.jsonl"
    assert (out / name).read_bytes() == (run / name).read_bytes()
    loaded = ct.load_run(run).backbone()
    assert loaded.generate("月", **GREEDY) == loaded.generate("月", chat_template="own", **GREEDY)
    assert loaded.generate("月", **GREEDY) != loaded.generate("月", chat_template="none", **GREEDY)
    for to in ("merged", "peft"):
        assert main(["export", str(run), "--to", to, "--out", str(tmp_path / to)]) == 0
        assert (tmp_path / to / "chat_template.jinja").read_text() == CHATML
    backbone = ct.load_backbone(folder)
    backbone.load_delta(tmp_path / "peft")
    merged = ct.load_backbone(tmp_path / "merged")
    for made in (backbone, merged):
        texts = made.generate("月", chat_template="own", **GREEDY)
        assert [text.text for text in texts] == [t.text for t in loaded.generate("月", **GREEDY)]
    (run / "chat_template.jinja").write_text(CHATML + " ")
    assert main(["predict", str(run), "--out", str(tmp_path / "no")]) == 2
    assert "it has been changed" in capsys.readouterr().err


@pytest.mark.parametrize("name", TEMPLATES)
def test_a_prompt_to_continue_is_the_users_turn(folder: Path, name: str) -> None:
    opened = open_folder(folder)
    writer = Writer(opened, opened.tokenizer(), chat=TEMPLATES[name])
    for prompt in ("月亮 很好", " 月\n亮\n"):
        ids, _ = writer.prefix(prompt, "prompt", 8)
        assert list(ids) == theirs(folder, TEMPLATES[name], prompt)
    plain, marked = (writer.prefix(text, "prompt", 8)[0] for text in ("月", "月<|im_end|>"))
    end = opened.tokenizer().parts("<|im_end|>")[0]
    assert plain.count(end) == marked.count(end), "a mark in a prompt is text"


def test_soft_tokens_are_inside_the_users_turn(folder: Path) -> None:
    opened = open_folder(folder)
    tokenizer = opened.tokenizer()
    plain = Writer(opened, tokenizer, chat=CHATML).prefix("月", "prompt", 8)[0]
    delta = SoftPromptConfig(soft_token_num=2, slots=("front",), ratio_list=(1,))
    soft = Writer(opened, tokenizer, delta, chat=CHATML).prefix("月", "prompt", 8)[0]
    place = plain.index(tokenizer.encode("月")[0])
    assert (*soft[:place], *soft[place + 2 :]) == plain
    assert min(soft[place : place + 2]) >= len(tokenizer)


def test_generate_writes_the_assistants_turn(
    folder: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    loaded = ct.load_backbone(folder)
    expected = loaded.generate("月", chat_template="own", **GREEDY)[0].text
    assert "".join(loaded.stream("月", chat_template="own", **GREEDY)) == expected
    assert expected != loaded.generate("月", **GREEDY)[0].text
    file = tmp_path / "chat.jinja"
    file.write_text(CHATML)
    args = ["generate", "月", "--backbone", str(folder), "--greedy", "--max-new-tokens", "6"]
    assert main([*args, "--chat-template", str(file)]) == 0
    assert capsys.readouterr().out.rstrip("\n") == expected.rstrip("\n")


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--chat-template", "own"], "have no chat template"),
        (["--chat-template", "FILE"], "have no chat template"),
        (["--chat-template", "FILE.gone"], "no chat template can be read"),
        (["--chat-template", "own", "--infill"], "no effect on blanks"),
    ],
)
def test_generate_refuses_a_chat_template_that_has_no_place(
    args: list[str], message: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    (tmp_path / "FILE").write_text(CHATML)
    given = [str(tmp_path / arg) if arg.startswith("FILE") else arg for arg in args]
    assert main(["generate", "月____", *given]) == 2
    assert message in capsys.readouterr().err


def test_generation_ends_where_the_template_ends_an_answer(folder: Path) -> None:
    import torch

    opened = open_folder(folder)
    encoder = encoder_of(folder, CHATML)
    task = load_task("lcsts")
    from cpm_tune.engine.engine import make_engine
    from cpm_tune.schema.spec import Decoding, Execution

    model = opened.open(torch.float32).eval()
    with torch.no_grad():  # the end is what it always writes
        model.model.lm_head.weight.zero_()
        model.model.lm_head.weight[encoder.end] = 0
    rows = [{"id": "1", "text": "月亮", "target": None}]
    head = model.model.lm_head.register_forward_hook(
        lambda module, given, out: torch.nn.functional.one_hot(
            torch.full(out.shape[:-1], encoder.end), out.shape[-1]
        ).float()
    )
    engine = make_engine(Execution(device="cpu"), "fp32")
    (made,) = Predictor(model, task, encoder, engine, 512, Decoding()).predict(rows)
    head.remove()
    assert made.text == ""
