"""Of two classes with the same content the destination gets the one that it accepts."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from dicom_node.delivery.dimse import DeliveryTimeouts, Requestor, SendResult, SendState, send
from tests.simulators.pacs import SimulatedPacs
from tests.simulators.stored_objects import (
    COMPREHENSIVE_3D_SR,
    COMPREHENSIVE_SR,
    SEGMENTATION,
    store_result,
)

TIMEOUTS = DeliveryTimeouts(connect_s=60, acse_s=60, dimse_s=60)


def deliver(folder: Path, pacs: SimulatedPacs) -> tuple[SendResult, ...]:
    """Send an overlay, a report, and the same report in the class that it falls back to."""
    overlay = store_result(folder, 1, sop_class_uid=SEGMENTATION).outgoing
    report = store_result(folder, 2, sop_class_uid=COMPREHENSIVE_3D_SR).outgoing
    fallback = store_result(folder, 3, sop_class_uid=COMPREHENSIVE_SR).outgoing
    fallback = replace(fallback, fallback_for=report.sop_instance_uid)
    return send(
        [overlay, report, fallback],
        pacs.destination,
        Requestor("DICOM_NODE", TIMEOUTS),
        on_result=lambda _uid, _result: None,
    )


@pytest.mark.parametrize(
    ("accepted", "states"),
    [
        ({COMPREHENSIVE_3D_SR, COMPREHENSIVE_SR}, ["delivered", "delivered", "not_needed"]),
        ({COMPREHENSIVE_3D_SR}, ["delivered", "delivered", "not_needed"]),
        ({COMPREHENSIVE_SR}, ["delivered", "not_needed", "delivered"]),
        (set(), ["delivered", "refused", "refused"]),
    ],
)
def test_the_association_decides_which_class_is_sent(
    accepted: set[str], states: list[str], tmp_path: Path
) -> None:
    with SimulatedPacs(sop_class_uids=frozenset({SEGMENTATION, *accepted})) as pacs:
        results = deliver(tmp_path, pacs)

    assert [result.state.value for result in results] == states
    sent = [r.sop_instance_uid for r in results if r.state is SendState.DELIVERED]
    assert [stored.sop_instance_uid for stored in pacs.stored] == sent
    assert len(pacs.calling_ae_titles) == 1


def test_a_pacs_that_is_away_needs_both_later(tmp_path: Path) -> None:
    with SimulatedPacs() as pacs:
        pass
    assert {r.state for r in deliver(tmp_path, pacs)} == {SendState.TRY_AGAIN}
