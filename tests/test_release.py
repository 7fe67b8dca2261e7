"""What a release needs says the same everywhere."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from conftest import REPOSITORY

from cpm_tune.version import VERSION


def test_the_citation_has_the_version_and_the_licence() -> None:
    citation = yaml.safe_load((REPOSITORY / "CITATION.cff").read_text("utf-8"))
    assert (citation["version"], citation["license"]) == (VERSION, "Apache-2.0")


def test_the_package_says_that_it_has_types() -> None:
    assert (REPOSITORY / "cpm_tune" / "py.typed").read_bytes() == b""


def test_issue_templates_are_forms() -> None:
    for path in (REPOSITORY / ".github" / "ISSUE_TEMPLATE").glob("*.yml"):
        form = yaml.safe_load(path.read_text("utf-8"))
        assert {"name", "description", "body"} <= form.keys()
        assert all({"type", "attributes"} <= part.keys() for part in form["body"])


def test_the_image_installs_what_the_package_asks_for() -> None:
    text = (REPOSITORY / "docker" / "Dockerfile").read_text("utf-8")
    project = (REPOSITORY / "pyproject.toml").read_text("utf-8")
    (torch,) = re.findall(r'"(torch>=[^"]+)"', text)
    assert f'"{torch}"' in project
    opendelta = re.search(r"opendelta==\S+", text)
    assert opendelta is not None
    assert opendelta[0] in (REPOSITORY / "no-deps.txt").read_text("utf-8")


def test_hadolint_has_nothing_to_say_about_the_docker_file() -> None:
    hadolint = Path(sys.executable).with_name("hadolint")
    if not hadolint.exists():
        pytest.skip("hadolint is not installed")
    command = [hadolint, REPOSITORY / "docker" / "Dockerfile"]
    assert subprocess.run(command, capture_output=True, text=True).stdout == ""


def test_the_changelog_begins_with_this_version() -> None:
    text = (REPOSITORY / "CHANGELOG.md").read_text("utf-8")
    sections = re.findall(r"^## (\S+) \((unreleased|\d{4}-\d\d-\d\d)\)$", text, re.MULTILINE)
    assert sections[0][0] == VERSION
    assert len(sections) == len(re.findall("^## ", text, re.MULTILINE))


@pytest.mark.parametrize(
    ("version", "date", "message"),
    [
        ("99.0.0", "2027-01-31", "has another version than 99.0.0"),
        (VERSION, "unreleased", f"has no section '## {VERSION} (DATE)'"),
    ],
)
def test_a_release_that_is_not_described_is_refused(
    version: str, date: str, message: str, tmp_path: Path
) -> None:
    clone = tmp_path / "clone"
    (clone / "scripts").mkdir(parents=True)
    (clone / "cpm_tune").mkdir()
    for name in ("scripts/release.sh", "cpm_tune/version.py", "CITATION.cff"):
        (clone / name).write_bytes((REPOSITORY / name).read_bytes())
    (clone / "CHANGELOG.md").write_text(f"# Changelog\n\n## {version} ({date})\n", "utf-8")
    subprocess.run(["git", "init", "-q"], cwd=clone, check=True)
    subprocess.run(["git", "add", "-A"], cwd=clone, check=True)
    who = ["-c", "user.name=a", "-c", "user.email=a@b.invalid"]
    subprocess.run(["git", *who, "commit", "-q", "-m", "a"], cwd=clone, check=True)
    words = ["bash", "scripts/release.sh", version]
    done = subprocess.run(words, cwd=clone, capture_output=True, text=True)
    assert done.returncode == 2
    assert message in done.stderr
