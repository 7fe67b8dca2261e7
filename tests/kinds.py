"""Task files of three answer kinds with data, for the tests that run them."""

from __future__ import annotations

from pathlib import Path

from conftest import CLI, write_jsonl

from cpm_tune.task import Row

FAST = ("--set", "train.max_steps=2", "--set", "train.eval_every=1", "--set", "train.dev_rows=2")
HEAD = """
from cpm_tune.task import Files, Generate, Options, Rank, Source, Submission, Task, Template

def fill(record, predictions):
    return {**record, "answer": predictions[0]}

TASK = Task(
    version=1, capability="test", kind="test",
    source=Source(title="test", paper="", licence="", obtain=""),
    submission=Submission("OFFICIAL.jsonl", fill),
"""
PICK = """
    name="pick",
    files=Files(columns=("text", "options", "answer"), texts=("options",)),
    answer=Options(most=3),
    templates=(
        Template("middle", "关于{option}的话：{text}[是否正确]"),
        Template("listed", "{options}。{text}，选{answer}", ("一", "二", "三")),
        Template("spoken", "{text}，{answer}"),
        Template("ends", "{text}，{answer}", keep_end=("text",)),
    ),
    metrics=("accuracy",),
)
"""
RANK = """
    name="rank",
    files=Files(
        columns=("query", "documents", "grades"), texts=("documents",), structures=("grades",)
    ),
    answer=Rank(),
    templates=(Template("t", "{query}，{option}[是否正确]"),),
    metrics=("ndcg_3", "mrr"),
)
"""
WRITE = """
    name="write",
    files=Files(columns=("text", "words"), structures=("words",), rows=rows),
    answer=Generate(column="written", gold="words", parse=parse, max_new_tokens=6, beams=2),
    templates=(Template("t", "{text}："+"{answer}"),),
    metrics=("word_f1", "word_recall"),
)
"""
FUNCTIONS = """
def rows(record):
    row = {"text": record["text"], "words": record.get("words")}
    if row["words"] is not None:
        if "".join(row["words"]) != row["text"]:
            raise ValueError("the words are not those of the text")
        row["written"] = " ".join(row["words"])
    yield row

def parse(text, row):
    if len(text) % 2:
        raise ValueError("an odd number of characters")
    return text.split() or None
"""
DATA: dict[str, list[Row]] = {
    "pick": [
        {"id": f"p{i}", "text": t, "options": o, "answer": a}
        for i, (t, o, a) in enumerate(
            [
                ("天地", ["山", "水火"], 1),
                ("玄黄", ["日", "月", "星"], 0),
                ("山", ["一", "二"], 1),
            ]
        )
    ],
    "rank": [
        {"query": "天", "documents": ["地", "人间"], "grades": [1, 0]},
        {"query": "山水", "documents": ["花", "草木", "树"], "grades": [0, 2, 2]},
    ],
    "write": [
        {"text": "天地人", "words": ["天地", "人"]},
        {"text": "山水", "words": ["山", "水"]},
        {"text": "花草", "words": ["花草"]},
    ],
}


def write_tasks(tmp_path: Path) -> Path:
    """Write a folder of task files, and DATA in official form beside it."""
    folder = tmp_path / "tasks"
    folder.mkdir()
    for name, source in (("pick", PICK), ("rank", RANK), ("write", WRITE)):
        text = HEAD.replace("TASK =", FUNCTIONS + "\nTASK =") + source
        text = text.replace('columns=("text", "words")', 'columns=("text", "written", "words")')
        (folder / f"{name}.py").write_text(text, encoding="utf-8")
        for split in ("train", "dev", "test"):
            (tmp_path / "data" / name).mkdir(parents=True, exist_ok=True)
            write_jsonl(tmp_path / "data" / name / f"{split}.jsonl", DATA[name])
    return folder


def tune(cli: CLI, tasks: Path, backbone: Path, name: str, *words: object) -> tuple[int, str, str]:
    data, out = tasks.parent / "data", tasks.parent / "out"
    return cli(
        *("--task", name, "--include", tasks, "--data", data, "--backbone", backbone),
        *("--delta", "lora", "--out", out, *FAST, *words),
    )
