"""How far the numbers among the settings may go: beyond that a node would keep nothing, or wait for ever."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from pydantic import BaseModel, ValidationError

from dicom_node.settings import Settings

GIB = 1 << 30
# By name: the lowest and the highest value that a node is started with; None where there is no highest.
WHOLE_NUMBERS = {
    "port": (0, 65535),
    "listener.tls.port": (0, 65535),
    "listener.processes": (1, 64),
    "listener.max_associations": (1, 1000),
    "listener.max_associations_per_peer": (1, 1000),
    "listener.max_waiting_jobs": (1, None),
    "listener.max_pdu_bytes": (4096, 1048576),
    "listener.max_object_bytes": (1 << 20, None),
    "listener.minimum_free_bytes": (0, None),
    "listener.journal_bytes": (32 << 20, 8 << 30),
    "listener.quarantine_bytes": (0, None),
    "jobs.attempts": (1, None),
    "scoring.workers": (0, 64),
    "scoring.threads": (1, None),
    "scoring.recycle_after_jobs": (0, None),
    "scoring.recycle_above_bytes": (0, None),
    "scoring.decode_memory_bytes": (GIB // 4, None),
    "scoring.decode_cpu_s": (1, None),
    "delivery.workers": (0, 64),
    "delivery.refused_tries": (1, 100),
    "training.workers": (0, 8),
    "retention.received_days": (1, None),
    "metrics.port": (1, 65535),
    "audit.checkpoint_events": (1, None),
    "audit.retention_years": (6, None),
    "audit.syslog.port": (1, 65535),
}
LOWEST_SECONDS = {"jobs.lease_s": 1.0, "jobs.backoff_max_s": 1.0, "jobs.hard_limit_s": 10.0}
POSITIVE_SECONDS = [
    "listener.acse_timeout_s",
    "listener.message_timeout_s",
    "listener.network_timeout_s",
    "completeness.quiet_period_s",
    "jobs.stop_deadline_s",
    "delivery.connect_timeout_s",
    "delivery.acse_timeout_s",
    "delivery.dimse_timeout_s",
    "delivery.commitment_wait_s",
    "delivery.commitment_ask_again_s",
    "audit.checkpoint_period_s",
]
HIGHEST_SECONDS = {"jobs.stop_deadline_s": 25.0, "delivery.commitment_wait_s": 300.0}


def given(name: str, value: Any) -> dict[str, Any]:
    """Nest one value as a configuration file does."""
    for part in reversed(name.split(".")):
        value = {part: value}
    return value


def found(settings: BaseModel, name: str) -> Any:
    for part in name.split("."):
        settings = getattr(settings, part)
    return settings


def is_taken(name: str, value: float) -> bool:
    try:
        settings = Settings(**given(name, value))
    except ValidationError as error:
        (problem,) = error.errors()
        assert ".".join(map(str, problem["loc"])) == name
        return False
    assert found(settings, name) == value
    return True


def numbers(model: type[BaseModel], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, field in model.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            yield from numbers(field.annotation, f"{prefix}{name}.")
        elif field.annotation in (int, float, int | None, float | None):
            yield f"{prefix}{name}", field


@pytest.mark.parametrize(("name", "limits"), WHOLE_NUMBERS.items(), ids=list(WHOLE_NUMBERS))
def test_a_number_beyond_its_limits_stops_the_start(name: str, limits: tuple[int, int | None]) -> None:
    lowest, highest = limits
    assert is_taken(name, lowest)
    assert not is_taken(name, lowest - 1)
    assert is_taken(name, highest or lowest + (1 << 40))
    assert highest is None or not is_taken(name, highest + 1)


@pytest.mark.parametrize("name", POSITIVE_SECONDS)
def test_a_time_is_never_none_at_all(name: str) -> None:
    assert is_taken(name, 0.001)
    assert not is_taken(name, 0.0)
    assert not is_taken(name, -1.0)


@pytest.mark.parametrize(("name", "lowest"), LOWEST_SECONDS.items(), ids=list(LOWEST_SECONDS))
def test_a_time_that_work_needs_has_a_lowest_value(name: str, lowest: float) -> None:
    assert is_taken(name, lowest)
    assert not is_taken(name, lowest - 0.001)


@pytest.mark.parametrize(("name", "highest"), HIGHEST_SECONDS.items(), ids=list(HIGHEST_SECONDS))
def test_a_time_that_somebody_else_waits_out_has_a_highest_value(name: str, highest: float) -> None:
    assert is_taken(name, highest)
    assert not is_taken(name, highest + 0.001)


@pytest.mark.parametrize(
    ("name", "field"), list(numbers(Settings)), ids=[name for name, _ in numbers(Settings)]
)
def test_every_number_has_a_lowest_value(name: str, field: Any) -> None:
    assert any(getattr(limit, end, None) is not None for limit in field.metadata for end in ("ge", "gt"))


def test_the_name_of_an_institution_fits_into_its_element() -> None:
    """LO: 64 characters (PS3.5 6.2)."""
    assert Settings(institution="A" * 64).institution == "A" * 64
    with pytest.raises(ValidationError, match="institution"):
        Settings(institution="A" * 65)
