"""Shots: answered rows of train before a prompt, the same however a run is carried out."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from chat_folders import CHATML, TEMPLATES, chat_folder
from conftest import CLI, write_jsonl
from kills import FORKS
from same_runs import in_two

from cpm_tune.backbone.bundled import FOLDER
from cpm_tune.backbone.families import open_folder
from cpm_tune.data.encode import Encoder
from cpm_tune.data.shots import Shots
from cpm_tune.data.splits import find_splits
from cpm_tune.data.store import RowDataset, read_split
from cpm_tune.errors import UserError
from cpm_tune.schema.record import read_record
from cpm_tune.schema.spec import Encoding
from cpm_tune.task import Task
from cpm_tune.task.registry import load_task

WORDS = ("月亮", "太阳", "小鱼", "大山", "河水", "花草")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """LCQMC of 30 rows with 20 of label 0; the first row of dev is a copy of one of train."""
    folder = tmp_path_factory.mktemp("lcqmc")

    def row(split: str, n: int) -> dict[str, Any]:
        a, b = WORDS[n % 6], WORDS[n // 6]
        return {"sentence1": f"{split}{a}{n}吗", "sentence2": f"{b}呢", "label": int(n % 3 == 0)}

    for split, n in (("train", 30), ("dev", 12), ("test", 12)):
        rows = [row(split, k) for k in range(n)]
        if split != "train":
            rows[0] = row("train", 3)
        write_jsonl(folder / f"{split}.jsonl", rows)
    return folder


def rows_of(task: Task, folder: Path, split: str) -> RowDataset:
    return read_split(task, find_splits(task, folder)[split]).rows


def encoder_of(
    task: Task, template: str | None, model: Path = FOLDER, chat: str = "", length: int = 256
) -> Encoder:
    folder = open_folder(model)
    tokenizer = folder.tokenizer()
    of_ant = {} if folder.settings else {"prompt_type": None, "segment": None}
    layout = folder.layout(Encoding(max_length=length, **of_ant), tokenizer)
    form = task.template(template)
    assert form is not None
    answer_tokens = getattr(task.answer, "max_new_tokens", 0)
    turns = folder.turns(chat, tokenizer) if chat else None
    return Encoder(task, form, layout, tokenizer, length, answer_tokens, turns=turns)


@pytest.mark.parametrize("choice", ["balanced", "nearest"])
def test_no_shot_comes_from_dev_or_test_nor_answers_its_own_row(choice: Any, data: Path) -> None:
    task = load_task("lcqmc")
    train = rows_of(task, data, "train")
    shots = Shots(task, train, 4, choice, seed=1)
    known = {(row["sentence1"], row["sentence2"]) for row in train}
    for split in ("train", "dev", "test"):
        for row in rows_of(task, data, split):
            chosen = [shots.pool[number] for number in shots.of(row)]
            texts = [(shot["sentence1"], shot["sentence2"]) for shot in chosen]
            assert len(set(texts)) == 4
            assert set(texts) <= known
            assert (row["sentence1"], row["sentence2"]) not in texts


def test_balanced_shots_have_each_label_as_often_and_follow_the_seed(data: Path) -> None:
    task = load_task("lcqmc")
    train = rows_of(task, data, "train")
    row = rows_of(task, data, "test").at([5])[0]
    drawn = set()
    for seed in range(8):
        shots = Shots(task, train, 6, "balanced", seed)
        chosen = [shots.pool[n] for n in shots.of(row)]
        assert Counter(shot["target"] for shot in chosen) == {0: 3, 1: 3}
        again = Shots(task, train, 6, "balanced", seed)
        assert again.sha256 == shots.sha256
        drawn.add(shots.sha256)
    assert len(drawn) == 8


def test_nearest_shots_are_those_of_an_independent_search(data: Path) -> None:
    task = load_task("lcqmc")
    train = list(rows_of(task, data, "train"))
    shots = Shots(task, rows_of(task, data, "train"), 3, "nearest", seed=1)
    row = {**train[7], "sentence1": train[7]["sentence1"] + "呀", "id": "x"}
    chosen = [shots.pool[n]["id"] for n in shots.of(row)]
    assert chosen[-1] == train[7]["id"]  # the most alike is the last

    def grams(of: dict[str, Any]) -> Counter[str]:
        text = json.dumps([of["sentence1"], of["sentence2"]], ensure_ascii=False).lower()
        return Counter([*text, *(text[i : i + 2] for i in range(len(text) - 1))])

    import math

    every = [grams(one) for one in train]
    found = Counter(gram for one in every for gram in one)
    idf = {g: math.log((1 + 30) / (1 + sum(g in one for one in every))) + 1 for g in found}

    def vector(of: Counter[str]) -> dict[str, float]:
        raw = {g: (1 + math.log(n)) * idf[g] for g, n in of.items() if g in idf}
        norm = math.sqrt(sum(v * v for v in raw.values()))
        return {g: v / norm for g, v in raw.items()}

    mine = vector(grams(row))
    scores = [sum(mine.get(g, 0) * v for g, v in vector(one).items()) for one in every]
    best = sorted(range(30), key=lambda k: -scores[k])[:3]
    assert [train[k]["id"] for k in best[::-1]] == chosen


def test_shots_are_prompts_with_their_answers_before_the_row(data: Path) -> None:
    task = load_task("lcqmc")
    train, row = rows_of(task, data, "train"), rows_of(task, data, "dev").at([4])[0]
    for template, answers in (("cpm-2", ("矛盾", "相似")), (None, None)):
        encoder = encoder_of(task, template)
        plain = encoder.encode(row)
        shots = Shots(task, train, 2, "balanced", seed=1)
        encoder.add_shots(shots)
        example = encoder.encode(row)
        assert example.dropped == 0
        assert example.candidates == plain.candidates
        for context, bare in zip(example.contexts, plain.contexts, strict=True):
            n = len(encoder.layout.start)
            head = encoder.tokenizer.decode(context[n : len(context) - len(bare) + n])
            assert context[len(context) - len(bare) + n :] == bare[n:]
            texts = ""
            for number in shots.of(row):
                shot = shots.pool[number]
                option = encoder.template.options[shot["target"]]
                before, option, after = encoder.template.render(shot, option)
                texts += before + option + after + ("" if answers else "是") + "\n"
            assert head == texts


@pytest.mark.parametrize("name", TEMPLATES)
def test_in_a_chat_template_shots_are_turns_as_transformers_has_them(
    name: str, data: Path, tmp_path_factory: pytest.TempPathFactory, tmp_path: Path
) -> None:
    from transformers import AutoTokenizer

    model = chat_folder(tmp_path / "llama", TEMPLATES[name])
    task = load_task("lcqmc")
    row = rows_of(task, data, "dev").at([4])[0]
    encoder = encoder_of(task, "cpm-2", model, TEMPLATES[name])
    shots = Shots(task, rows_of(task, data, "train"), 3, "balanced", seed=1)
    encoder.add_shots(shots)
    turns = []
    for shot in (*(shots.pool[number] for number in shots.of(row)), row):
        before, _, _ = encoder.template.render(shot, "")
        turns += [
            {"role": "user", "content": before},
            {"role": "assistant", "content": encoder.template.options[shot["target"]]},
        ]
    theirs = AutoTokenizer.from_pretrained(model).apply_chat_template(
        turns[:-1], add_generation_prompt=True, return_dict=False, date_string="二"
    )
    assert list(encoder.encode(row).contexts[0]) == list(theirs)


def test_a_template_that_treats_turns_unequally_has_no_shots(data: Path, tmp_path: Path) -> None:
    chat = CHATML.replace(
        "{{ '<|im_start|>' + message", "{{ loop.index }}{{ '<|im_start|>' + message"
    )
    assert chat != CHATML
    encoder = encoder_of(load_task("lcqmc"), "cpm-2", chat_folder(tmp_path / "m"), chat)
    with pytest.raises(UserError, match="unlike the first"):
        encoder.add_shots(
            Shots(load_task("lcqmc"), rows_of(load_task("lcqmc"), data, "train"), 2, "balanced", 1)
        )


def test_shots_without_room_are_dropped_whole_before_a_text_is_cut(data: Path) -> None:
    task = load_task("lcqmc")
    row = rows_of(task, data, "dev").at([4])[0]
    shots = Shots(task, rows_of(task, data, "train"), 4, "balanced", seed=1)
    every = []
    for length in range(40, 180, 4):
        encoder = encoder_of(task, "cpm-2", length=length)
        bare = encoder.encode(row)
        encoder.add_shots(shots)
        example = encoder.encode(row)
        kept = shots.of(row)[example.dropped :]
        room = len(example.contexts[0]) + max(len(a.ids) for a in example.candidates)
        assert room <= length
        assert example.truncated == bare.truncated
        text = encoder.tokenizer.decode(example.contexts[0][len(encoder.layout.start) :])
        assert text.count("\n") == len(kept)
        for number in kept:
            assert encoder.template.render(shots.pool[number], "")[0] in text
        every.append(example.dropped)
    assert every == sorted(every, reverse=True)
    assert {0, 4} <= set(every)


@pytest.mark.parametrize("name", ["ccpm", "sogou_log", "lcsts", "c3", "chid"])
def test_every_kind_of_answer_has_shots(name: str) -> None:
    task = load_task(name)
    folder = Path("tasks/sample") / name
    train, row = rows_of(task, folder, "train"), rows_of(task, folder, "dev").at([0])[0]
    encoder = encoder_of(task, None, length=900)
    encoder.add_shots(Shots(task, train, 2, "balanced", seed=1))
    example = encoder.encode(row)
    assert example.dropped == 0
    (prefix,) = encoder.prefix(row).contexts if encoder.generates else (example.contexts[0],)
    text = encoder.tokenizer.decode(prefix[len(encoder.layout.start) :])
    assert text.count("\n") >= 2


def words_of(data: Path, out: Path, *words: object) -> tuple[object, ...]:
    given = ("--task", "lcqmc", "--data", data, "--out", out, "--shots", 4, "--template", "cpm-2")
    small = ("--set", "train.max_steps=2", "--set", "train.batch_size=4")
    return (*given, "--limit", 12, *(() if "none" in words else small), *words)


def tune(cli: CLI, data: Path, out: Path, *words: object) -> Path:
    code, _, error = cli(*words_of(data, out, *words))
    assert code == 0, error
    (run,) = [
        p.parent for p in out.glob("*/run.json") if p.parent.name.split(".")[1] != "none"
    ] or [p.parent for p in out.glob("*/run.json")]
    return run


@FORKS
@pytest.mark.usefixtures("one_thread")
def test_scores_with_shots_are_the_same_for_any_processes_and_batches(
    cli: CLI, data: Path, tmp_path: Path
) -> None:
    one = tune(cli, data, tmp_path / "one")
    in_two(*words_of(data, tmp_path / "two"))
    runs = [
        one,
        tmp_path / "two" / one.name,
        tune(cli, data, tmp_path / "small", "--set", "run.micro_tokens=256"),
    ]
    scores = [
        [
            [round(score, 4) for score in json.loads(line)["scores"]]
            for line in (run / "predictions.test.jsonl").read_text().splitlines()
        ]
        for run in runs
    ]
    for other in scores[1:]:
        for mine, theirs in zip(scores[0], other, strict=True):
            assert mine == pytest.approx(theirs, abs=2e-4)
    record = read_record(runs[0] / "run.json")
    assert record.spec.shots == 4
    assert record.controls["zero-shot"].run_id is not None
    zero = read_record(tmp_path / "one" / record.controls["zero-shot"].run_id / "run.json")
    assert (zero.spec.shots, zero.spec.seed, zero.spec.recipe) == (4, 1, None)
    out = tmp_path / "again"
    assert cli("predict", runs[0], "--data", data, "--limit", 12, "--out", out)[0] == 0
    name = "predictions.test.jsonl"
    assert (out / name).read_bytes() == (runs[0] / name).read_bytes()


def test_shots_choice_and_seed_make_runs_of_their_own(cli: CLI, data: Path, tmp_path: Path) -> None:
    specs = []
    for n, words in enumerate(
        [(), ("--seed", 2), ("--shot-choice", "nearest"), ("--shots", 2), ("--shots", 0)]
    ):
        run = tune(cli, data, tmp_path / str(n), "--delta", "none", *words)
        specs.append(read_record(run / "run.json").spec)
    assert len({spec.sha256 for spec in specs}) == 5
    assert specs[-1].data.train is None
    assert "shots" not in specs[-1].model_dump(mode="json")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--shots", 12), "train has 12 different rows, expected more than 12"),
        (("--scoring", "mean-nll", "--shots", 2), "shots would be scored with the passage"),
        (("--shots", 0, "--shot-choice", "nearest"), "no effect without --shots"),
    ],
)
def test_what_cannot_be_is_refused(
    cli: CLI, data: Path, words: tuple[object, ...], message: str
) -> None:
    given = ("--task", "lcqmc", "--data", data, "--template", "cpm-2", "--limit", 12)
    code, _, error = cli(*given, *words)
    assert code == 2
    assert message in error


def test_show_prints_shots(cli: CLI, data: Path) -> None:
    code, out, _ = cli("show", "lcqmc", "--data", data, "--rows", 1, "--shots", 2)
    assert code == 0
    assert out.count("'</n>'") + out.count("'\\n'") >= 4
