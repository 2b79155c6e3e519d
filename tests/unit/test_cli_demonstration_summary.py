"""What the demonstration prints at its end agrees with the reports, word and number."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from dicom_node.cli.demonstration.summary import ScoredStudy, print_summary

THRESHOLD = 0.5136


def study(probability: float, title: str = "normal") -> ScoredStudy:
    analysis: dict[str, Any] = {
        "threshold": THRESHOLD,
        "study_probability": probability,
        "images": [
            {"laterality": side, "view": view, "probability": probability if side == "L" else 0.012}
            for side in "RL"
            for view in ("CC", "MLO")
        ],
        "breasts": [
            {"laterality": "R", "probability": 0.012},
            {"laterality": "L", "probability": probability},
        ],
    }
    return ScoredStudy(title, analysis, "AI result: POSITIVE.", 3.5)


def test_the_table_says_what_the_reports_say(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    print_summary([study(0.9946), study(0.0204), study(0.51358)], tmp_path)
    printed = capsys.readouterr().out
    rows = [line.split() for line in printed.splitlines()]
    right, left = ["1.2"] * 2, ["99.5"] * 2
    assert ["1", "normal", *right, *left, "1.2", "99.5", "99.5", "POSITIVE", "3.50"] in rows
    assert next(row for row in rows if row[:1] == ["2"])[-3:] == ["2.0", "NEGATIVE", "3.50"]
    just_below = next(row for row in rows if row[:1] == ["3"])
    assert just_below[-3:-1] == ["51.358", "NEGATIVE"], "printed so that it is below the threshold printed"
    assert "probability of cancer in %" in printed
    assert "threshold 51.4 %" in printed
