"""An absence of the database is told, but not ten times a second."""

from __future__ import annotations

import pytest
from structlog.testing import capture_logs

from db.errors import DatabaseUnavailableError
from workers import absence
from workers.absence import Absence

AWAY = DatabaseUnavailableError("the database cannot be used now")


def test_an_absence_is_told_once_and_so_is_its_end() -> None:
    with capture_logs() as told:
        watched = Absence("worker")
        watched.end()
        for _ in range(100):
            watched.note(AWAY)
        watched.end()
        watched.end()
    assert [(each["event"], each["log_level"]) for each in told] == [
        ("worker.database_away", "warning"),
        ("worker.database_back", "info"),
    ]
    assert told[0]["reason"] == str(AWAY)
    assert told[1]["away_s"] >= 0


def test_a_second_absence_is_told_again() -> None:
    with capture_logs() as told:
        watched = Absence("dispatcher")
        for _ in range(2):
            watched.note(AWAY)
            watched.end()
    assert [each["event"].partition(".")[2] for each in told] == ["database_away", "database_back"] * 2


def test_a_long_absence_is_told_again_and_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(absence, "AGAIN_AFTER_S", 0.0)
    with capture_logs() as told:
        watched = Absence("worker")
        for _ in range(3):
            watched.note(AWAY)
    assert len(told) == 3
