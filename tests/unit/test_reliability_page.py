"""The page of reliability names tests that exist, and leaves no stage out."""

from __future__ import annotations

import re
from pathlib import Path

TESTS = Path(__file__).resolve().parents[1]
PAGE = TESTS.parent / "docs" / "reliability.md"
STAGE = re.compile(r"^\| S(\d+) .*$", re.MULTILINE)
STAGES = 14


def test_every_stage_has_its_row_and_every_named_test_exists() -> None:
    page = PAGE.read_text()
    rows = list(STAGE.finditer(page))
    assert [int(row[1]) for row in rows] == list(range(1, STAGES + 1))
    defined = {
        name
        for path in TESTS.rglob("test_*.py")
        for name in re.findall(r"^ *def (test_\w+)\(", path.read_text(), re.MULTILINE)
    }
    assert set(re.findall(r"`(test_\w+)`", page)) - defined == set()
    for row in rows:
        assert "`test_" in row[0], row[1]
