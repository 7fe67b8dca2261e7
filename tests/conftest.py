"""Shared fixtures: a small data folder, a very small backbone, the command line in-process."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from browser import chromium
from hypothesis import HealthCheck, settings

from cpm_tune.backbone.ant.config import CPMAntConfig
from cpm_tune.backbone.ant.layout import make_layout
from cpm_tune.backbone.ant.tokenizer import SPECIALS, Tokenizer
from cpm_tune.data.encode import Encoder
from cpm_tune.delta.soft import SoftSlots
from cpm_tune.schema.options import Scoring
from cpm_tune.schema.spec import Encoding
from cpm_tune.task import Task, Template

os.environ.setdefault(
    "OMP_WAIT_POLICY", "PASSIVE"
)  # as cpm_tune.commands.cli does, before torch loads
if "PYTEST_XDIST_WORKER" in os.environ:  # one worker a core: no threads beside them
    os.environ.setdefault("OMP_NUM_THREADS", "1")

settings.register_profile(
    "a busy machine", deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("a busy machine")
REPOSITORY = Path(__file__).resolve().parent.parent
REAL_DATA = REPOSITORY.parent / "shared" / "data"


def vocabulary() -> list[str]:
    """Special entries, printable ASCII, Chinese punctuation and the characters of GB 2312."""
    ascii_marks = [chr(code) for code in range(0x21, 0x7F)]
    marks = list("，。、；：？！“”‘’（）《》〈〉【】…—·～￥％")
    rows = (bytes((high, low)) for high in range(0xB0, 0xF8) for low in range(0xA1, 0xFF))
    characters = [c for row in rows if (c := row.decode("gb2312", errors="ignore"))]
    return ["<pad>", *(s for s in SPECIALS if s != "<pad>"), "</n>", "</_>"] + (
        ascii_marks + marks + characters
    )


def encoder_of(
    task: Task,
    template: Template,
    encoding: Encoding,
    config: CPMAntConfig,
    tokenizer: Tokenizer,
    answer_tokens: int = 0,
    soft: SoftSlots | None = None,
    kind: type[Encoder] = Encoder,
    scoring: Scoring | None = None,
) -> Encoder:
    """The encoder for a backbone of this configuration."""
    layout, length = make_layout(encoding, config, tokenizer), encoding.max_length
    return kind(task, template, layout, tokenizer, length, answer_tokens, soft, scoring)


def small_config(**changes: object) -> CPMAntConfig:
    """A two-layer CPM-Ant over a vocabulary of characters: 0.5 million parameters."""
    values = {
        "vocab_size": len(vocabulary()),
        "dim_model": 64,
        "dim_ff": 128,
        "num_layers": 2,
        "num_heads": 2,
        "dim_head": 32,
        "position_bias_num_buckets": 32,
        "position_bias_max_distance": 128,
        "prompt_types": 4,
        "prompt_length": 4,
        "segment_types": 4,
    }
    return CPMAntConfig(**{**values, **changes})  # type: ignore[arg-type]


@pytest.fixture(scope="session")
def small_backbone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a small backbone whose random weights count as trained."""
    import torch

    from cpm_tune.backbone.ant.checkpoint import save_native
    from cpm_tune.backbone.opening import random_backbone

    folder = tmp_path_factory.mktemp("backbone") / "small"
    model = random_backbone(small_config(), 7, torch.float32)
    save_native(folder, model, "\n".join(vocabulary()) + "\n", trained=True)
    return folder


@pytest.fixture(scope="session")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """One browser for all tests of pages."""
    with chromium(tmp_path_factory.mktemp("profile")) as opened:
        yield opened


def rows(n: int, start: int = 0) -> list[dict[str, object]]:
    """LCQMC rows that a model can learn: label 1 when both sentences name the same thing."""
    things = "猫狗鱼鸟花草树山水火"
    made = []
    for i in range(start, start + n):
        first = things[i % 10]
        second = first if i % 2 else things[(i + 3) % 10]
        made.append(
            {"id": i, "sentence1": f"{first}怎么养", "sentence2": f"如何养{second}", "label": i % 2}
        )
    return made


def write_jsonl(path: Path, content: list[dict[str, object]]) -> Path:
    path.write_text(
        "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in content), encoding="utf-8"
    )
    return path


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """An LCQMC folder with 40 / 16 / 16 rows."""
    folder = tmp_path / "data"
    folder.mkdir()
    for split, n, start in (("train", 40, 0), ("dev", 16, 100), ("test", 16, 200)):
        write_jsonl(folder / f"{split}.jsonl", rows(n, start))
    return folder


@pytest.fixture(autouse=True, scope="session")
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Keep the user's cache out of the tests."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="module")
def one_thread() -> Iterator[None]:
    """Tiny tensors: on a busy machine threads cost more than they give."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def oracle() -> object:
    """A small CpmAnt of transformers with random weights."""
    import backbone_oracle

    return backbone_oracle.random_hugging_face()


@pytest.fixture
def hugging_face(oracle: object, tmp_path: Path) -> Path:
    import backbone_oracle

    return backbone_oracle.write_hugging_face(tmp_path / "hf", oracle)


@pytest.fixture
def reference(oracle: object, tmp_path: Path) -> Path:
    import backbone_oracle

    return backbone_oracle.write_reference(tmp_path / "reference", oracle)


@pytest.fixture
def native(tmp_path: Path) -> Path:
    import backbone_oracle

    return backbone_oracle.write_native(tmp_path / "native")


@pytest.fixture
def folder(request: pytest.FixtureRequest) -> Path:
    """One of the three backbone folders, by the name of its layout."""
    return request.getfixturevalue(request.param)


CLI = Callable[..., tuple[int, str, str]]


@pytest.fixture
def cli(capfd: pytest.CaptureFixture[str]) -> CLI:
    """Run a command line in this process; return exit code, stdout, stderr (its children's too)."""
    from cpm_tune.commands.cli import main

    def run(*words: object) -> tuple[int, str, str]:
        capfd.readouterr()
        try:
            code = main([str(word) for word in words])
        except SystemExit as stop:
            code = int(stop.code or 0)
        said = capfd.readouterr()
        return code, said.out, said.err

    return run


@pytest.fixture
def jsonl(tmp_path: Path) -> Callable[[str, list[str]], Path]:
    """Write texts as the documents name-0, name-1, ... of a file for pre-training."""

    def write(name: str, texts: list[str]) -> Path:
        content = [{"id": f"{name}-{i}", "text": text} for i, text in enumerate(texts)]
        return write_jsonl(tmp_path / f"{name}.jsonl", content)  # type: ignore[arg-type]

    return write


@pytest.fixture(name="vocabulary")
def _vocabulary_file(tmp_path: Path, jsonl: Callable[[str, list[str]], Path]) -> Path:
    """A vocabulary file built from one document."""
    from pretrain_runs import TEXT_CHARACTERS

    from cpm_tune.backbone.ant.pretraining import PRETRAINING as ANT
    from cpm_tune.pretrain.sources import TextSource
    from cpm_tune.pretrain.vocabulary import build_vocabulary

    source = TextSource("a", (jsonl("words", [TEXT_CHARACTERS + "Save the file, save the day"]),))
    path = tmp_path / "vocab.txt"
    path.write_text("\n".join(build_vocabulary([source], 300, front=ANT.front, pieces=5)) + "\n")
    return path


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--kills", type=int, default=12, help="how many moments a run is killed at")


@pytest.fixture
def scored(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The splits that runs of this test score, in their order."""
    from cpm_tune.runs import execute

    splits: list[str] = []
    real = execute.score_split

    def counted(predictor: Any, split: Any, *rest: Any) -> Any:
        splits.append(split.file.split)
        return real(predictor, split, *rest)

    monkeypatch.setattr(execute, "score_split", counted)
    return splits
