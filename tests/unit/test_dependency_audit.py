"""The audit of dependencies never says that all is well where nobody was asked."""

from __future__ import annotations

import runpy
from pathlib import Path
from typing import Any

import pytest

SCRIPT = Path(__file__).resolve().parents[2] / ".ci" / "audit_dependencies.py"
GOOD = {"name": "numpy", "version": "2.0", "vulns": []}
BAD = {"name": "jinja2", "version": "2.0", "vulns": [{"id": "CVE-2024-1", "fix_versions": ["3.1"]}]}
UNKNOWN = {"name": "torch", "skip_reason": "Dependency not found on PyPI"}


def verdict(*dependencies: dict[str, Any]) -> tuple[int, str]:
    report = {"dependencies": list(dependencies), "fixes": []}
    judged: tuple[int, str] = runpy.run_path(str(SCRIPT))["verdict"](report)
    return judged


@pytest.mark.parametrize(
    ("dependencies", "status", "words"),
    [
        ([GOOD], 0, "1 packages, no known vulnerability"),
        ([GOOD, BAD], 1, "jinja2 2.0: CVE-2024-1, fixed in 3.1"),
        ([BAD, UNKNOWN], 1, "CVE-2024-1"),
        ([GOOD, UNKNOWN], 2, "1 were NOT AUDITED: torch"),
        ([UNKNOWN, UNKNOWN], 2, "NOT AUDITED: no vulnerability service"),
        ([], 2, "NOT AUDITED: no vulnerability service"),
    ],
)
def test_the_verdict_tells_clean_vulnerable_and_unknown_apart(
    dependencies: list[dict[str, Any]], status: int, words: str
) -> None:
    found = verdict(*dependencies)
    assert found[0] == status
    assert words in found[1]


def test_no_answer_at_all_is_no_success() -> None:
    assert runpy.run_path(str(SCRIPT))["verdict"](None)[0] == 2
