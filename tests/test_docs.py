"""The documentation is true: its commands run, its links lead somewhere, its two READMEs agree."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from conftest import CLI, REPOSITORY, rows, write_jsonl

from cpm_tune.data.splits import sample_folder
from cpm_tune.task.registry import load_task

READMES = [REPOSITORY / "README.md", REPOSITORY / "README.zh.md"]
PAGES = [*READMES, REPOSITORY / "CONTRIBUTING.md", *sorted((REPOSITORY / "docs").rglob("*.md"))]
TUTORIALS = REPOSITORY / "docs" / "tutorials"  # run from their first to their last command
LIMIT = '"lora", limit=12, settings'
SMALL = ["--limit", "12", "--set", "train.max_steps=2", "--set", "train.eval_every=2"]


def blocks(page: Path, language: str) -> list[str]:
    text = page.read_text(encoding="utf-8")
    fenced = re.findall(r'^```(\w*)(?: title=".*?")?\n(.*?)^```', text, re.DOTALL | re.MULTILINE)
    return [code for name, code in fenced if name == language]


def titled(page: Path) -> dict[str, str]:
    """The files that a page tells its reader to save: blocks with a title."""
    text = page.read_text(encoding="utf-8")
    found = re.findall(r'^```\w+ title="(.*?)"\n(.*?)^```', text, re.DOTALL | re.MULTILINE)
    return dict(found)


def commands(page: Path) -> list[str]:
    lines = [
        line.split("  # ")[0].rstrip() for b in blocks(page, "bash") for line in b.splitlines()
    ]
    return [re.sub(r"\s+# .*", "", line) for line in lines if line]


def tune_commands() -> list[str]:
    from cpm_tune.commands.options.generate import Generate
    from cpm_tune.commands.options.tune import Tune
    from cpm_tune.task.registry import load_preset, preset_files

    pages = [page for page in PAGES if TUTORIALS not in page.parents]
    shown = [c for page in pages for c in commands(page) if c.startswith("python tune.py")]
    examples = f"{Tune.__doc__}\n{Generate.__doc__}"
    lines = [line.strip() for line in examples.splitlines()]
    shown += [f"python {line}" for line in lines if line.startswith("tune.py")]
    shown += [str(load_preset(name)["about"]["run"]) for name in preset_files()]
    return sorted(set(shown))


@pytest.fixture(scope="module")
def workplace(tmp_path_factory: pytest.TempPathFactory, small_backbone: Path) -> Path:
    """A folder to run the commands in, with DATA, BACKBONE, RUN and DIR as they name them."""
    from cpm_tune.commands.cli import main

    folder = tmp_path_factory.mktemp("docs")
    (folder / "DATA").mkdir()
    for split in ("train", "dev", "test"):
        write_jsonl(folder / "DATA" / f"{split}.jsonl", rows(16))
    (folder / "BACKBONE").symlink_to(small_backbone)
    (folder / "texts.txt").write_text(
        "白日依山尽，黄河入海流。\n\n单击保存按钮以保存文件。\n", encoding="utf-8"
    )
    (folder / "prompts.txt").write_text("《秋夜》\n孤舟\n", encoding="utf-8")
    (folder / "suites").symlink_to(REPOSITORY / "suites")
    words = ["--task", "ccpm", "--delta", "lora", "--control", "none", *SMALL, "--quiet"]
    assert main([*words, "--backbone", str(small_backbone), "--out", str(folder / "runs")]) == 0
    (run,) = (folder / "runs").glob("ccpm.*")
    for name in ("RUN", "OTHER"):
        (folder / name).symlink_to(run)
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("command", tune_commands())
def test_every_tune_command_of_the_docs_runs(
    command: str, workplace: Path, cli: CLI, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Tuning commands run shortened (few rows and steps, no control unless asked for), everything
    else as it stands."""
    words = shlex.split(command)
    words = ["DATA" if w == "DIR" and words[i - 1] == "--data" else w for i, w in enumerate(words)]
    words = ["BACKBONE" if w == "DIR" else w for w in words]
    assert words[:2] == ["python", "tune.py"]
    if "score" in words:  # the tour's file is of ccpm
        sample = sample_folder(load_task("ccpm"))
        words = [str(sample) if w == "DATA" else w for w in words]
        words = [str(sample / "test.jsonl") if w == "CCPM.jsonl" else w for w in words]
    if "predict" in words:  # RUN is one of another task than DATA's
        words = ["RUN" if w.endswith("RUN") else w for w in words]
        words = [str(sample_folder(load_task("ccpm"))) if w == "DATA" else w for w in words]
        words += ["--out", str(workplace / f"predicted-{len(list(workplace.iterdir()))}")]
    if "--task" in words and not {"score", "data"} & {*words}:
        words += SMALL[:2] if "none" in words else SMALL
        words += [] if "--control" in words else ["--control", "none"]
    if "leaderboard" in words or "rescore" in words:
        (workplace / "results").mkdir(exist_ok=True)
    if "serve" in words:  # all but the waiting
        pytest.importorskip("uvicorn")
        monkeypatch.setattr("uvicorn.Server.run", lambda self, sockets: None)
        words += ["--port", "0"]
    monkeypatch.chdir(workplace)
    code, output, error = cli(*words[2:])
    assert code == 0, error
    assert output.strip()


def notebook_code() -> str:
    """The code cells of the notebook."""
    notebook = json.loads((REPOSITORY / "examples" / "first_run.ipynb").read_text("utf-8"))
    cells = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    return "\n".join("".join(cell["source"]) for cell in cells)


def test_the_python_examples_and_the_notebook_run(tmp_path: Path) -> None:
    """Shortened, as the commands are; the two READMEs have the same (below)."""
    assert len(blocks(READMES[0], "python")) == 1
    pages = [READMES[0], REPOSITORY / "docs" / "python.md"]
    code = "\n".join(block for page in pages for block in blocks(page, "python"))
    code += notebook_code()
    few = '"train.max_steps": 2, "train.eval_every": 2'
    code = re.sub('"train.max_steps": (50|300)', few, code).replace('"lora", settings', LIMIT)
    assert code.count(few) == code.count(LIMIT) == 3
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path, timeout=300
    )
    assert done.returncode == 0, done.stderr


def test_the_set_up_by_hand_is_that_of_the_makefile() -> None:
    made = re.sub(
        r" --quiet| --disable-pip-version-check", "", (REPOSITORY / "Makefile").read_text()
    )
    for page in READMES:
        installs = [c for c in commands(page) if "pip install" in c]
        assert len(installs) == 2
        for command in installs:
            assert command.removeprefix(".venv/bin/python ") in made
        for target in re.findall(r"make (\w+)", "\n".join(commands(page))):
            assert f"\n{target}:" in made


def test_the_two_readmes_have_the_same_commands_and_code() -> None:
    english, chinese = READMES
    assert commands(english) == commands(chinese)
    assert blocks(english, "python") == blocks(chinese, "python")


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading).lower().replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_leads_to_a_file_and_a_heading_in_it(page: Path) -> None:
    for link in re.findall(r"\]\(([^)]+)\)", page.read_text(encoding="utf-8")):
        if not link.startswith("http"):
            name, _, anchor = link.partition("#")
            target = page.parent / name if name else page
            assert target.exists(), link
            assert not anchor or anchor in anchors(target), link


def test_every_page_is_linked_from_the_readmes() -> None:
    """Directly, or from a page that is."""
    for readme in READMES:
        reached, new = set[Path](), {readme}
        while new:
            reached |= new
            links = {
                (page.parent / link).resolve()
                for page in new
                for link in re.findall(r"\]\(([^)#]+\.md)", page.read_text(encoding="utf-8"))
                if not link.startswith("http")
            }
            new = links - reached
        assert reached >= {page.resolve() for page in PAGES}


@pytest.fixture
def own_tasks(tmp_path: Path) -> dict[str, Path]:
    """The task files of docs/own-data.md, by name, and made-up rows in their form in DIR."""
    files = {}
    for block in blocks(REPOSITORY / "docs" / "own-data.md", "python"):
        (name,) = re.findall(r'^    name="(\w+)"', block, re.MULTILINE)
        files[name] = tmp_path / f"{name}.py"
        files[name].write_text(block, encoding="utf-8")
        (tmp_path / name).mkdir()
    for split in ("train", "dev", "test"):
        months = [f"第{i}个月" for i in range(2, 14)]
        texts = [{"input": f"{split}：{month}的后一个月是", "target": month} for month in months]
        write_jsonl(tmp_path / "dialogue" / f"{split}.jsonl", texts)
    return files


@pytest.mark.parametrize("name", ["dialogue"])
def test_the_task_files_for_prompts_that_are_written_already(
    name: str, own_tasks: dict[str, Path], tmp_path: Path, cli: CLI
) -> None:
    """The model sees the file's own words and nothing else (docs/own-data.md)."""
    words = ["--include", str(own_tasks[name]), "--data", str(tmp_path / name)]
    code, output, error = cli("show", name, *words, "--rows", "1")
    assert code == 0, error
    assert "  dev：第2个月的后一个月是第2个月" + "\n" in output
    code, output, error = cli(
        *("--task", name, "--delta", "lora", "--control", "none", "--out", str(tmp_path / "runs")),
        *(*words, *SMALL),
    )
    assert code == 0, error
    assert re.search(r"test (rouge_l_char_f|accuracy) \d", output)


def test_the_pages_that_code_mentions_exist() -> None:
    for folder in ("cpm_tune", "scripts", "benchmarks", "tasks", "tests"):
        for module in (REPOSITORY / folder).rglob("*.py"):
            for name in re.findall(r"docs/[\w/-]+\.md", module.read_text(encoding="utf-8")):
                assert (REPOSITORY / name).exists(), (module, name)


def map_of(page: Path) -> tuple[list[str], dict[str, int]]:
    """The names of the repository's root in a README's map, and the package's with their layer."""
    (plan,) = [b for b in blocks(page, "") if "cpm_tune/" in b]
    root = re.findall(r"^(\S+)", plan, re.MULTILINE)
    rooms = re.findall(r"^  (\S+) +(\d+) +\S", plan, re.MULTILINE)
    assert len(root) + len(rooms) == len(plan.splitlines())
    return root, {name: int(layer) for name, layer in rooms}


@pytest.mark.parametrize("page", READMES, ids=lambda page: page.name)
def test_the_map_is_the_tree_of_rooms(page: Path) -> None:
    root, rooms = map_of(page)
    package = REPOSITORY / "cpm_tune"
    inner = {f"{f.parent.name}/" for f in package.glob("*/__init__.py")}
    assert set(rooms) == inner | {f.name for f in package.glob("*.py")}
    folders = {f.name: f for f in REPOSITORY.iterdir() if f.is_dir() and f.name[0] != "."}
    assert set(root) <= {"tune.py"} | {f"{name}/" for name in folders}
    code = {f"{name}/" for name, folder in folders.items() if any(folder.glob("*.py"))}
    assert set(root) >= code | {"tune.py", "docs/", "suites/", "delta_configs/", "results/"}


@pytest.mark.parametrize("page", READMES, ids=lambda page: page.name)
def test_the_map_has_the_layers_that_import_linter_checks(page: Path) -> None:
    """A room that may import another has a smaller number."""
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))
    contracts = project["tool"]["importlinter"]["contracts"]
    (layers,) = (c["layers"] for c in contracts if c["type"] == "layers")
    _, rooms = map_of(page)
    assert {re.sub(r"/$|\.py$", "", name): layer for name, layer in rooms.items() if layer} == {
        room.strip(): number
        for number, layer in enumerate(layers, start=1)
        for room in layer.split("|")
    }
    assert list(rooms.values()) == sorted(rooms.values())


def test_the_places_where_things_go_exist_and_have_the_names_given_there() -> None:
    page = (REPOSITORY / "CONTRIBUTING.md").read_text(encoding="utf-8")
    table = page.split("## Where things go\n")[1].split("\n## ")[0]
    entries = [line for line in table.splitlines() if line.startswith("| ")][1:]
    assert len(entries) > 20
    for entry in entries:
        names = re.findall(r"`([^`]+)`", entry)
        paths = [name for name in names if re.fullmatch(r"[\w*/-]+/[\w.*-]*", name)]
        assert all("NAME" in path or list(REPOSITORY.glob(path)) for path in paths), entry
        modules = [REPOSITORY / path for path in paths if path.startswith("cpm_tune")]
        text = "".join(m.read_text(encoding="utf-8") for m in modules if m.is_file())
        for name in names:  # of a table, a class or a function of these modules
            if text and re.fullmatch(r"[A-Z]\w+|[a-z]+_[a-z]+", name):
                assert re.search(rf"^(class |def )?{name}\b", text, re.MULTILINE), (name, entry)


def test_the_files_of_options_in_the_docs_are_accepted(tmp_path: Path, cli: CLI) -> None:
    (config,) = blocks(REPOSITORY / "docs" / "settings.md", "yaml")
    (suite,) = blocks(REPOSITORY / "docs" / "bench.md", "yaml")
    (tmp_path / "config.yaml").write_text(config, encoding="utf-8")
    (tmp_path / "suite.yaml").write_text(suite, encoding="utf-8")
    words = ["--limit", "12", "--dry-run", "--out", str(tmp_path / "runs")]
    code, _, error = cli("--config", str(tmp_path / "config.yaml"), *words)
    assert code == 0, error
    code, _, error = cli("bench", "--suite", str(tmp_path / "suite.yaml"), "--jobs", "2", *words)
    assert code == 0, error


def test_settings_in_the_docs_exist_and_all_are_named() -> None:
    from cpm_tune.schema.spec import Decoding, Encoding, Execution, Recipe

    page = (REPOSITORY / "docs" / "settings.md").read_text(encoding="utf-8")
    named = set(re.findall(r"\b((?:train|encode|run)\.\w+)", page)) - {"run.json", "run.schema"}
    parts = {"train": Recipe, "encode": Encoding, "run": Execution}
    known = {f"{part}.{name}" for part, model in parts.items() for name in model.model_fields}
    assert named == known
    (decoding,) = (line for line in page.splitlines() if line.startswith("| decode.*"))
    assert set(re.findall(r"\w+", decoding)) >= set(Decoding.model_fields)


def test_the_page_of_commands_is_that_of_their_options() -> None:
    import commands_page

    page = (REPOSITORY / "docs" / "commands.md").read_text(encoding="utf-8")
    assert page == commands_page.page(), "run python scripts/commands_page.py"


def test_the_pages_of_tasks_are_those_of_the_task_files() -> None:
    import tasks_page

    pages = tasks_page.pages()
    assert set(pages) == {tasks_page.DOCS / "tasks.md", *(tasks_page.DOCS / "tasks").iterdir()}
    for path, text in pages.items():
        written = path.read_text(encoding="utf-8")
        assert written == text, "run python scripts/tasks_page.py"


def test_the_pages_of_reference_are_those_of_docstrings_and_schema() -> None:
    import reference_pages

    import cpm_tune

    assert set(reference_pages.PUBLIC) == set(cpm_tune.__all__)
    for path, text in reference_pages.pages().items():
        written = path.read_text(encoding="utf-8")
        assert written == text, "run python scripts/reference_pages.py"
