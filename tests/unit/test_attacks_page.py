"""The page of attacks names tests that exist, and leaves no attack out."""

from __future__ import annotations

import re
from pathlib import Path

TESTS = Path(__file__).resolve().parents[1]
PAGE = TESTS.parent / "docs" / "reference" / "attacks.md"
ROW = re.compile(r"^\| (?P<id>[TD]\d+) \|.*\| (?P<tests>[^|]+) \|$", re.MULTILINE)
IDS = [f"T{number}" for number in range(1, 31)] + [f"D{number}" for number in range(1, 9)]


def test_every_attack_has_its_row_and_every_named_test_exists() -> None:
    rows = {
        found["id"]: re.findall(r"`(test_\w+)`", found["tests"]) for found in ROW.finditer(PAGE.read_text())
    }
    assert list(rows) == IDS
    defined = {
        name
        for path in TESTS.rglob("test_*.py")
        for name in re.findall(r"^ *def (test_\w+)\(", path.read_text(), re.MULTILINE)
    }
    for attack, tests in rows.items():
        assert tests, attack
        assert set(tests) - defined == set(), attack


def test_a_test_that_names_an_attack_is_on_the_page() -> None:
    named = set(re.findall(r"`(test_\w+)`", PAGE.read_text()))
    of_attacks = {
        name
        for path in (TESTS / "system").glob("test_attacks_*.py")
        for name in re.findall(r"^def (test_\w+)\(", path.read_text(), re.MULTILINE)
    }
    assert of_attacks - named == set()
