"""Measures what a pre-trained backbone is worth, always beside a random one of the same shape.

    python scripts/worth.py --backbone DIR --corpus PREPARED --out DIR

Held-out loss against a unigram baseline, the form of generated quatrains, and LoRA probes with the
same recipe on the pre-trained and on a random frozen backbone. The probes' rows are made here from
held-out documents of the prepared corpus (nothing of it is kept in the repository) and run by
tune.py like any task. Finished runs are not run again, so this can be interrupted.
"""

from __future__ import annotations

import argparse
import json
import random
import re
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from cpm_tune.backbone.checkpoint import load_weights, open_folder
from cpm_tune.backbone.model import CPMAnt
from cpm_tune.backbone.tokenizer import Tokenizer
from cpm_tune.pretrain.evaluate import HeldOut, generate
from cpm_tune.pretrain.objective import Layout
from cpm_tune.pretrain.store import Corpus

TUNE = Path(__file__).resolve().parent.parent / "tune.py"
VERSE = ("tang", "song", "ci", "qu")
MODERN = ("office-help", "linux", "electron")
SHORTEST, WIDTH = 8, 256
Row = dict[str, Any]
Texts = dict[str, list[str]]

LORA = {
    "delta_type": "lora",
    "lora_r": 8,
    "lora_alpha": 16,
    "modified_modules": [
        *("project_q", "project_k", "project_v", "attention_out", "w_0", "w_1", "w_out"),
    ],
}
RECIPE = {
    "train.lr": 3e-3,
    "train.schedule": "linear",
    "train.warmup": 20,
    "train.batch_size": 64,
    "train.epochs": 6,
    "train.eval_every": 50,
    "train.patience": 0,
    "encode.max_length": 200,
}
TASK = '''
"""Made by scripts/worth.py."""

from cpm_tune.task import Choice, Files, Source, Task, Template

TASK = Task(
    name={name!r},
    version=1,
    capability="probe",
    kind={about!r},
    source=Source(title={about!r}, paper="", licence="not distributed", obtain="scripts/worth.py"),
    files=Files(columns={columns!r}),
    answer=Choice(labels=(0, 1)),
    templates=(Template("probe", {template!r}, ("否", "是")),),
    metrics=("accuracy",),
)
'''


@dataclass(frozen=True)
class Probe:
    """A yes-or-no task; `rows` makes its rows, without repeats of a group across splits.

    `sizes`: rows of train, dev and test.
    """

    name: str
    about: str
    template: str
    rows: Callable[[Texts, random.Random], list[list[Row]]]
    sizes: tuple[int, int, int]


# --- rows from held-out documents ---------------------------------------------------------------

_COUPLET = re.compile(r"([\u4e00-\u9fff]{5}|[\u4e00-\u9fff]{7})，([\u4e00-\u9fff]{5,7})。")


def heldout_texts(corpus: Corpus, tokenizer: Tokenizer) -> Texts:
    """Every source's held-out documents, decoded."""
    result = {}
    for name in corpus.sources:
        split = corpus.split(name, "heldout")
        result[name] = [tokenizer.decode(split.document(i).tolist()) for i in range(len(split))]
    return result


def next_lines(texts: Texts, drawn: random.Random) -> list[list[Row]]:
    """Does the second line of a couplet follow the first? Wrong ones come from other poems."""
    groups = []
    for text in [*texts["tang"], *texts["song"]]:
        found = [m.groups() for line in text.split("\n") if (m := _COUPLET.fullmatch(line))]
        groups.append([(a, b) for a, b in found if len(a) == len(b)])
    pool: dict[int, list[tuple[int, str]]] = {5: [], 7: []}
    for number, group in enumerate(groups):
        for _, second in group:
            pool[len(second)].append((number, second))
    result = []
    for number, group in enumerate(groups):
        rows = []
        for first, second in group:
            label = drawn.randrange(2)
            shown = second
            while not label and (shown == second):
                other, candidate = drawn.choice(pool[len(second)])
                shown = candidate if other != number else second
            rows.append({"first": first, "second": shown, "label": label})
        result.append(rows)
    return result


def pairs(texts: Texts, drawn: random.Random) -> list[list[Row]]:
    """Is the Chinese string the translation? Wrong ones are other strings of similar length."""
    found = []
    for text in [*texts["office-pairs"], *texts["jupyter-pairs"]]:
        lines = text.split("\n")
        for a, b in zip(lines[::2], lines[1::2], strict=False):
            en, zh = (b, a) if re.search("[\u4e00-\u9fff]", a) else (a, b)
            if re.search("[\u4e00-\u9fff]", zh) and len(en) + len(zh) < 100:
                found.append((en, zh))
    result = []
    for en, zh in found:
        near = [z for _, z in found if z != zh and abs(len(z) - len(zh)) <= 2]
        rows = [{"en": en, "zh": zh, "label": 1}]
        if near:
            rows.append({"en": en, "zh": drawn.choice(near), "label": 0})
        result.append(rows)
    return result


def boundaries(texts: Texts, drawn: random.Random) -> list[list[Row]]:
    """Does a word end here? The words are those that jieba cuts: agreement, not gold."""
    import jieba

    jieba.setLogLevel(60)
    result = []
    for text in [t for name in (*MODERN, "novel") for t in texts[name]]:
        rows = []
        for line in re.findall(r"[\u4e00-\u9fff]{8,40}", text):
            ends = set(np.cumsum([len(word) for word in jieba.cut(line)])[:-1].tolist())
            inside = set(range(1, len(line))) - ends
            for label, places in ((1, ends), (0, inside)):
                for at in drawn.sample(sorted(places), min(2, len(ends), len(inside))):
                    rows.append({"before": line[:at], "after": line[at:], "label": label})
        if rows:
            result.append(rows)
    return result


PROBES = (
    Probe(
        "next-line",
        "couplets of held-out poems: does the second line follow the first?",
        "{first}，{second}。[是否正确]{answer}",
        next_lines,
        (6000, 600, 1600),
    ),
    Probe(
        "en-zh",
        "held-out user-interface strings: is the Chinese the translation?",
        "{en}\n{zh}[是否正确]{answer}",
        pairs,
        (640, 120, 400),
    ),
    Probe(
        "word-boundary",
        "held-out modern text: does a word end at the stroke (by jieba)?",
        "{before}/{after}[是否正确]{answer}",
        boundaries,
        (2400, 300, 900),
    ),
)


def write_probe(probe: Probe, texts: Texts, folder: Path) -> None:
    """Write task file and data; rows of one document stay in one split."""
    drawn = random.Random(f"{probe.name} 1")
    groups = probe.rows(texts, drawn)
    drawn.shuffle(groups)
    total, left = sum(map(len, groups)), sum(probe.sizes)
    scale = min(1.0, total / left)
    data = folder / probe.name
    data.mkdir(parents=True, exist_ok=True)
    stream: Iterator[list[Row]] = iter(groups)
    for split, size in zip(("test", "dev", "train"), reversed(probe.sizes), strict=True):
        rows: list[Row] = []
        while len(rows) < int(size * scale) and (group := next(stream, None)) is not None:
            rows += group
        lines = [json.dumps({"id": i, **row}, ensure_ascii=False) for i, row in enumerate(rows)]
        (data / f"{split}.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    columns = tuple(groups[0][0])
    tasks = folder / "tasks"
    tasks.mkdir(exist_ok=True)
    text = TASK.format(
        name=probe.name, about=probe.about, columns=columns, template=probe.template
    ).lstrip()
    (tasks / f"{probe.name}.py").write_text(text, encoding="utf-8")


def write_lcqmc(file: Path, folder: Path) -> None:
    """Split a real LCQMC file into 7,000 / 800 / the rest, in its own order."""
    lines = [line for line in file.read_text(encoding="utf-8").splitlines() if line.strip()]
    folder.mkdir(parents=True, exist_ok=True)
    for split, part in (
        ("train", lines[:7000]),
        ("dev", lines[7000:7800]),
        ("test", lines[7800:8800]),
    ):
        (folder / f"{split}.jsonl").write_text("\n".join(part) + "\n", encoding="utf-8")


# --- measurements -------------------------------------------------------------------------------


def heldout_losses(corpus: Corpus, model: CPMAnt, tokenizer: Tokenizer) -> dict[str, Any]:
    """Per source and objective, and for verse and modern text together (by tokens)."""
    layout = Layout.of(model.config, tokenizer, WIDTH)
    heldout = HeldOut(corpus, corpus.sources, tokenizer, layout, SHORTEST)
    losses = heldout.losses(model, batch=16, bf16=False)
    groups: dict[str, Any] = {}
    for label, names in (("verse", VERSE), ("modern", MODERN)):
        parts = [part for name in names if name in losses for part in losses[name].values()]
        tokens = sum(part["tokens"] for part in parts)
        if tokens:
            groups[label] = {
                key: sum(part[key] * part["tokens"] for part in parts) / tokens
                for key in ("nats_per_character", "unigram_nats_per_character")
            }
    return {"sources": losses, "groups": groups}


def quatrain_form(texts: Texts, model: CPMAnt, tokenizer: Tokenizer) -> dict[str, Any]:
    """Titles of 100 held-out quatrains, one poem sampled for each; how many have a verse form.

    The form: the first four clauses are Chinese characters only and all five, or all seven, long.
    """
    titles = []
    for text in [*texts["tang"], *texts["song"]]:
        title, _, body = text.partition("\n")
        if title.startswith("《") and _form(body) and len(_clauses(body)) == 4:
            titles.append(title)
    titles = sorted(set(titles))
    random.Random(1).shuffle(titles)
    good, examples = 0, []
    for number, title in enumerate(titles[:100]):
        text = generate(model, tokenizer, title + "\n", length=40, seed=number)[0]
        good += _form(text)
        if number < 5:
            examples.append(f"{title}\n{text}")
    return {"samples": len(titles[:100]), "with_form": good, "examples": examples}


def _clauses(text: str) -> list[str]:
    return [clause for clause in re.split(r"[，。！？；\n]+", text) if clause]


def _form(text: str) -> bool:
    first = _clauses(text)[:4]
    return (
        len(first) == 4
        and len({len(clause) for clause in first}) == 1
        and len(first[0]) in (5, 7)
        and all(re.fullmatch(r"[\u4e00-\u9fff]+", clause) for clause in first)
    )


def run_probe(name: str, folder: Path, backbone: Path, seed: int, arguments: Sequence[str]) -> None:
    """Run tune.py for one seed on the backbone and on its random control."""
    lora = folder / "lora.json"
    lora.write_text(json.dumps(LORA), encoding="utf-8")
    command = [sys.executable, str(TUNE), "--task", name, "--delta", str(lora)]
    command += ["--backbone", str(backbone), "--seed", str(seed), "--quiet"]
    command += ["--control", "zero-shot", "--control", "random-backbone"]
    command += ["--out", str(folder / "results" / name), *arguments]
    for key, value in RECIPE.items():
        command += ["--set", f"{key}={value}"]
    subprocess.run(command, check=True)


def summary(folder: Path, seeds: Sequence[int]) -> dict[str, Any] | None:
    """Mean test accuracies, and their difference with a 95% interval over test rows."""
    right: dict[str, dict[int, Any]] = {"checkpoint": {}, "random": {}}
    zero_shot, majority = None, 0.0
    for file in sorted(folder.glob("*/run.json")):
        record = json.loads(file.read_text(encoding="utf-8"))
        rows = [json.loads(x) for x in (file.parent / "predictions.test.jsonl").open()]
        hits = np.array([row["prediction"] == row["target"] for row in rows], dtype=float)
        targets = [row["target"] for row in rows]
        majority = max(targets.count(t) for t in set(targets)) / len(targets)
        init = record["spec"]["backbone"]["init"]
        if record["status"] != "finished":
            continue
        if record["spec"]["delta"]["delta_type"] == "none":
            zero_shot = float(hits.mean()) if init == "checkpoint" else zero_shot
        elif record["spec"]["seed"] in seeds:
            right[init][record["spec"]["seed"]] = hits
    both = sorted(right["checkpoint"].keys() & right["random"].keys())
    if not both:
        return None
    trained = np.mean([right["checkpoint"][seed] for seed in both], axis=0)
    control = np.mean([right["random"][seed] for seed in both], axis=0)
    difference = trained - control
    generator = np.random.default_rng(1)
    drawn = [
        difference[generator.integers(len(difference), size=len(difference))].mean()
        for _ in range(2000)
    ]
    return {
        "n_test": len(difference),
        "seeds": both,
        "majority": majority,
        "zero_shot": zero_shot,
        "pretrained": [float(right["checkpoint"][seed].mean()) for seed in both],
        "random": [float(right["random"][seed].mean()) for seed in both],
        "difference": float(difference.mean()),
        "low": float(np.quantile(drawn, 0.025)),
        "high": float(np.quantile(drawn, 0.975)),
    }


def main() -> None:
    """Run what is asked for; print a table and write worth.json."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--backbone", metavar="DIR", type=Path, required=True)
    parser.add_argument("--corpus", metavar="DIR", type=Path, required=True)
    parser.add_argument("--out", metavar="DIR", type=Path, required=True)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument(
        "--lcqmc", metavar="FILE", type=Path, help="LCQMC's dev.jsonl, if you have it"
    )
    parser.add_argument("--only", metavar="NAME", nargs="+", help="loss, form, or probes by name")
    args = parser.parse_args()
    wanted = set(args.only or ["loss", "form", "lcqmc", *(p.name for p in PROBES)])
    folder = open_folder(args.backbone)
    tokenizer, model = folder.tokenizer(), load_weights(folder, torch.float32).eval()
    corpus = Corpus.open(args.corpus)
    texts = heldout_texts(corpus, tokenizer)
    args.out.mkdir(parents=True, exist_ok=True)
    file = args.out / "worth.json"
    result: dict[str, Any] = json.loads(file.read_text()) if file.is_file() else {}
    if "loss" in wanted:
        result["heldout"] = heldout_losses(corpus, model, tokenizer)
        print(json.dumps(result["heldout"]["groups"], indent=1))
    if "form" in wanted:
        result["quatrains"] = quatrain_form(texts, model, tokenizer)
        print(json.dumps(result["quatrains"], ensure_ascii=False, indent=1))
    jobs: dict[str, list[str]] = {}
    for probe in PROBES:
        if probe.name in wanted:
            write_probe(probe, texts, args.out)
            jobs[probe.name] = ["--include", str(args.out / "tasks")]
            jobs[probe.name] += ["--data", str(args.out / probe.name)]
    if "lcqmc" in wanted:
        jobs["lcqmc"] = []
        if args.lcqmc:
            write_lcqmc(args.lcqmc, args.out / "lcqmc-real")
            jobs["lcqmc"] = ["--data", str(args.out / "lcqmc-real")]
    for seed in args.seeds:
        for name, arguments in jobs.items():
            run_probe(name, args.out, args.backbone, seed, arguments)
            found = summary(args.out / "results" / name, args.seeds)
            result.setdefault("probes", {})[name] = found
            print(name, json.dumps(found), flush=True)
            file.write_text(json.dumps(result, ensure_ascii=False, indent=1) + "\n")
    file.write_text(json.dumps(result, ensure_ascii=False, indent=1) + "\n")


if __name__ == "__main__":
    main()
