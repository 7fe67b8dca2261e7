"""The study's page has what the committed records give (scripts/study_page.py)."""

from __future__ import annotations

from pathlib import Path

import pytest
import study_page

RECORDS = study_page.REPOSITORY / "examples" / "study"


def test_the_page_has_the_tables_of_its_records(monkeypatch: pytest.MonkeyPatch) -> None:
    """All tables but those of paired tests, which take a quarter of a minute; of these a task's,
    without the marks, which follow from all tasks together."""
    page = study_page.PAGE.read_text(encoding="utf-8")
    cells, bare = study_page.read_cells(RECORDS)
    assert len(cells) == 2 * 5 * 3 * 4
    assert len(bare) == 5 * 3
    assert study_page.costs(cells) in page
    assert study_page.curves(cells) in page
    assert "not finished" not in page
    monkeypatch.setattr(study_page, "TASKS", ("finre",))
    of_finre = {key: cell for key, cell in cells.items() if key[0] == "finre"}
    made = study_page.scores(of_finre, bare)
    assert without_marks(made) in without_marks(page)


def without_marks(text: str) -> str:
    return text.replace(" (worse*)", "").replace("*", "")


def test_records_are_kept_without_places_of_a_machine(tmp_path: Path) -> None:
    study_page.keep(RECORDS, tmp_path / "kept")
    kept = sorted(path.relative_to(tmp_path / "kept") for path in (tmp_path / "kept").rglob("*"))
    assert len(kept) == 375 * 3
    for path in (tmp_path / "kept").glob("*/run.json"):
        assert '"path": "/' not in path.read_text(encoding="utf-8")
