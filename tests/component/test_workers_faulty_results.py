"""A stored result that breaks a rule never leaves; what else there is goes out all the same."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from io import BytesIO
from pathlib import Path

import pytest
from pydicom import dcmread

from db.lifecycle import DeliveryState, JobKind
from db.tables import Delivery, ResultObject
from dicom_node.delivery.dimse import DeliveryTimeouts, Requestor
from dicom_node.results.builders import build_all
from tests import results_contexts as given
from tests.simulators.pacs import SimulatedPacs
from tests.steered_node import SteeredNode, four_views, on_sqlite, result_object
from workers.lease import Lease
from workers.retry import UndeliverableError
from workers.sending import Sender

TIMEOUTS = DeliveryTimeouts(connect_s=30, acse_s=30, dimse_s=30)


def unverified_no_more(content: bytes) -> bytes:
    report = dcmread(BytesIO(content))
    report.VerificationFlag = "VERIFIED"
    buffer = BytesIO()
    report.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()


def cut_short(content: bytes) -> bytes:
    return b"not a DICOM file" + content[200:]


def altered(content: bytes) -> bytes:
    """Another probability: every rule is kept, only the digest tells."""
    return content.replace(b" %", b"0%", 1)


@on_sqlite
@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (unverified_no_more, "SR-03"),
        (cut_short, "no DICOM file"),
        (altered, "not those that were built"),
    ],
)
def test_a_faulty_stored_report_is_refused_for_good_and_the_others_are_sent(
    node: SteeredNode, tmp_path: Path, spoil: Callable[[bytes], bytes], reason: str
) -> None:
    built = build_all(given.positive())
    for item in built:
        content = spoil(item.content) if item.kind == "text_report" else item.content
        (tmp_path / item.sop_instance_uid).write_bytes(content)
    results = [
        result_object(
            ordinal,
            kind=item.kind,
            sop_class_uid=item.sop_class_uid,
            sop_instance_uid=item.sop_instance_uid,
            file_name=item.sop_instance_uid,
            sha256=hashlib.sha256(item.content).hexdigest(),
        )
        for ordinal, item in enumerate(built)
    ]
    node.receive(*four_views())
    with SimulatedPacs() as pacs:
        node.finish_scoring(node.claimed(), results=results, destinations=[str(pacs.destination)])
        claim = node.claimed(JobKind.DELIVER)
        sender = Sender(node.database, lambda name: tmp_path / name, Requestor("AI_NODE", TIMEOUTS))
        with pytest.raises(UndeliverableError, match=reason):
            sender.deliver(claim, Lease(node.database, claim, lease_s=30, hard_limit_s=600))

    sound = [item for item in built if item.kind != "text_report"]
    assert [stored.sop_instance_uid for stored in pacs.stored] == [item.sop_instance_uid for item in sound]
    kinds = {row.id: row.kind for row in node.rows(ResultObject)}
    states = {kinds[row.result_id]: row.state for row in node.rows(Delivery)}
    assert states.pop("text_report") == DeliveryState.REFUSED
    assert set(states.values()) == {DeliveryState.DELIVERED}
