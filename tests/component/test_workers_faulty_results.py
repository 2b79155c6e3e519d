"""A stored result that breaks a rule never leaves; what else there is goes out all the same."""

from __future__ import annotations

from collections.abc import Callable
from io import BytesIO
from pathlib import Path

import pytest
from pydicom import dcmread

from db.lifecycle import DeliveryState, JobKind
from db.tables import Delivery, ResultObject
from dicom_node.delivery.dimse import DeliveryTimeouts, Requestor
from tests.simulators.pacs import SimulatedPacs
from tests.steered_node import SteeredNode, on_sqlite
from tests.stored_results import score_a_study
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
    with SimulatedPacs() as pacs:
        results = score_a_study(node, tmp_path, str(pacs.destination))
        (report,) = [tmp_path / result.file_name for result in results if result.kind == "text_report"]
        report.write_bytes(spoil(report.read_bytes()))
        claim = node.claimed(JobKind.DELIVER)
        sender = Sender(node.database, tmp_path.joinpath, Requestor("AI_NODE", TIMEOUTS))
        with pytest.raises(UndeliverableError, match=reason):
            sender.deliver(claim, Lease(node.database, claim, lease_s=30, hard_limit_s=600))

    sound = [result.sop_instance_uid for result in results if result.kind != "text_report"]
    assert [stored.sop_instance_uid for stored in pacs.stored] == sound
    kinds = {row.id: row.kind for row in node.rows(ResultObject)}
    states = {kinds[row.result_id]: row.state for row in node.rows(Delivery)}
    assert states.pop("text_report") == DeliveryState.REFUSED
    assert set(states.values()) == {DeliveryState.DELIVERED}
