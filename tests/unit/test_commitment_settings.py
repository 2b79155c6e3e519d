"""How destinations and callers of storage commitment are configured."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from dicom_node.settings import Settings


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ("PACS@10.0.0.5:104+commitment", "PACS@10.0.0.5:104+commitment"),
        ("PACS@10.0.0.5:104/ohif+commitment", "PACS@10.0.0.5:104/ohif+commitment"),
        ({"address": "PACS@10.0.0.5:104", "commitment": True}, "PACS@10.0.0.5:104+commitment"),
        (
            {"address": "PACS@10.0.0.5:104", "profile": "ohif", "commitment": True},
            "PACS@10.0.0.5:104/ohif+commitment",
        ),
    ],
)
def test_a_destination_with_the_option_is_asked_to_commit(given: Any, kept: str) -> None:
    settings = Settings(destinations=[given, "OTHER@10.0.0.6:104"])

    assert settings.destinations == [kept, "OTHER@10.0.0.6:104"]
    assert settings.committing_destinations == {"PACS@10.0.0.5:104"}
    assert [str(route.destination) for route in settings.routes] == [
        "PACS@10.0.0.5:104",
        "OTHER@10.0.0.6:104",
    ]
    assert settings.uses_commitment


def test_without_the_option_nothing_is_asked_and_no_worker_runs() -> None:
    settings = Settings(destinations=["PACS@10.0.0.5:104", {"address": "B@h:1", "commitment": False}])

    assert settings.destinations == ["PACS@10.0.0.5:104", "B@h:1"]
    assert settings.committing_destinations == frozenset()
    assert not settings.uses_commitment


@pytest.mark.parametrize(
    "given",
    [
        "PACS@10.0.0.5:104+commit",
        "+commitment",
        {"address": "PACS@10.0.0.5:104", "commitment": "yes"},
        {"commitment": True},
    ],
)
def test_a_misspelt_option_is_refused(given: Any) -> None:
    with pytest.raises(ValidationError):
        Settings(destinations=[given])


def test_callers_say_where_they_take_late_answers() -> None:
    callers = [{"title": "MAMMO1", "commitment_address": "MAMMO1@10.1.2.3:104"}, {"title": "MAMMO2"}]
    settings = Settings(callers=callers, listener={"commitment": True})

    assert settings.commitment_addresses == {"MAMMO1": "MAMMO1@10.1.2.3:104"}
    assert settings.uses_commitment
    with pytest.raises(ValidationError, match="commitment_address"):
        Settings(callers=[{"title": "MAMMO1", "commitment_address": "10.1.2.3"}])
