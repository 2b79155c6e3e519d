"""A few seconds of random faults over a whole node; `python -m benchmarks.chaos` does it for longer."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.chaos.__main__ import described, run

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]  # starts six processes again and again

SECONDS, FAULTS_PER_SECOND = 8.0, 1.0


def test_nothing_is_lost_or_doubled_by_random_faults(tmp_path: Path) -> None:
    figures = run(tmp_path, database="sqlite", seconds=SECONDS, seed=5, per_second=FAULTS_PER_SECOND)
    assert figures["ok"], described(figures)
    assert figures["kills"] >= 1
    assert figures["instances"] == 4 * figures["studies"] > 0
