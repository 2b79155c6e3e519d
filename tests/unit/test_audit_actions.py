"""What `audit query --action` may ask for is what the code writes."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from db.audit.actions import ACTIONS
from dicom_node.audit_messages.events import MESSAGES

ROOT = Path(__file__).parents[2]
PACKAGES = ("db", "dicom_node", "workers", "training")
WRITERS = {"audit", "audit_job", "_audit_later", "AuditEntry", "_on_event", "on_event", "_report"}


def written() -> Iterator[str]:
    """Every action that stands as text in a call that writes an event."""
    for package in PACKAGES:
        for path in (ROOT / package).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text())):
                if not isinstance(node, ast.Call):
                    continue
                name = getattr(node.func, "attr", getattr(node.func, "id", ""))
                if name in WRITERS:
                    for argument in node.args[:4]:
                        if isinstance(argument, ast.Constant) and "." in str(argument.value):
                            yield str(argument.value)


def test_every_written_action_can_be_asked_for() -> None:
    found = set(written())
    assert len(found) > 30
    assert sorted(found - ACTIONS) == []


def test_a_message_is_of_an_action_that_is_written_and_every_change_of_a_bundle_has_one() -> None:
    assert sorted(MESSAGES.keys() - ACTIONS) == []
    assert {action for action in ACTIONS if action.startswith("bundle.")} <= MESSAGES.keys()


@pytest.mark.parametrize("name", ["result.retry", "result.commit", "result.miss"])
def test_what_is_told_under_another_name_cannot_be_asked_for(name: str) -> None:
    assert name not in ACTIONS
