"""The data sets of storage commitment: what is written is read again, rubbish ends in one kind of error."""

from __future__ import annotations

import struct
from io import BytesIO

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydicom.dataset import Dataset
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_dataset
from pynetdicom.dsutils import decode

from dicom_node.commitment.references import (
    MOST_REFERENCES,
    CommitmentReport,
    FailureReason,
    MalformedReferencesError,
    decoded_report,
    decoded_request,
    encoded_report,
    encoded_request,
)

SR, MG = "1.2.840.10008.5.1.4.1.1.88.33", "1.2.840.10008.5.1.4.1.1.1.2"
REPORT = CommitmentReport(
    "2.25.1", ((SR, "2.25.10"), (MG, "2.25.11")), {(MG, "2.25.12"): FailureReason.NO_SUCH_INSTANCE}
)


def reference(sop_class_uid: str, sop_instance_uid: str, reason: int | None = None) -> Dataset:
    item = Dataset()
    item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = sop_class_uid, sop_instance_uid
    if reason is not None:
        item.FailureReason = reason
    return item


def written(dataset: Dataset, *, undefined_lengths: bool) -> bytes:
    """Encode as another implementation does, once with and once without stated lengths."""
    for element in dataset:
        if element.VR == "SQ":
            element.is_undefined_length = undefined_lengths
            for item in element.value:
                item.is_undefined_length_sequence_item = undefined_lengths
    target = DicomBytesIO()
    target.is_implicit_VR, target.is_little_endian = True, True
    write_dataset(target, dataset)
    return target.getvalue()


def nested(depth: int) -> bytes:
    """Return sequences in sequences, each of undefined length."""
    head = struct.pack("<HHL", 0x0008, 0x1199, 0xFFFFFFFF) + struct.pack("<HHL", 0xFFFE, 0xE000, 0xFFFFFFFF)
    return head * depth


def test_a_report_is_read_as_it_was_written() -> None:
    assert decoded_report(encoded_report(REPORT)) == REPORT
    assert REPORT.event_type == 2
    assert CommitmentReport("2.25.1", REPORT.committed).event_type == 1


def test_a_request_is_read_as_it_was_written() -> None:
    assert decoded_request(encoded_request("2.25.1", REPORT.committed)) == ("2.25.1", REPORT.committed)


def test_another_implementation_reads_what_the_node_writes() -> None:
    report = decode(BytesIO(encoded_report(REPORT)), True, True)

    assert report.TransactionUID == "2.25.1"
    assert [item.ReferencedSOPInstanceUID for item in report.ReferencedSOPSequence] == ["2.25.10", "2.25.11"]
    (failed,) = report.FailedSOPSequence
    assert (failed.ReferencedSOPClassUID, failed.FailureReason) == (MG, 0x0112)


@pytest.mark.parametrize("undefined_lengths", [False, True])
def test_the_node_reads_what_another_implementation_writes(undefined_lengths: bool) -> None:
    dataset = Dataset()
    dataset.TransactionUID = "2.25.1"
    dataset.RetrieveAETitle = "ARCHIVE"
    dataset.ReferencedSOPSequence = [reference(SR, "2.25.10"), reference(MG, "2.25.11")]
    dataset.FailedSOPSequence = [reference(MG, "2.25.12", 0x0112)]

    assert decoded_report(written(dataset, undefined_lengths=undefined_lengths)) == REPORT


def test_what_is_named_as_failed_and_as_committed_counts_as_failed() -> None:
    both = encoded_report(CommitmentReport("2.25.1", ((SR, "2.25.10"),), {(SR, "2.25.10"): 0x0110}))

    assert decoded_report(both).committed == ()
    assert decoded_report(both).failed == {(SR, "2.25.10"): 0x0110}


@pytest.mark.parametrize(
    "encoded",
    [
        b"",
        encoded_report(REPORT)[:-3],
        encoded_request("2.25.1", REPORT.committed)[20:],
        encoded_request("1.2.x", REPORT.committed),
        encoded_request("2.25.1", [(SR, "2.25." + "1" * 60)]),
        encoded_request("2.25.1", [(SR, "2.25.1")]).replace(b"2.25.1", b"2.25.\n"),
        nested(9),
        nested(100_000),
        encoded_request("2.25.1", [(SR, "2.25.1")] * (MOST_REFERENCES + 1)),
        bytes(5 << 20),
    ],
    ids=[
        "empty",
        "cut short",
        "no transaction",
        "letter in a UID",
        "long UID",
        "line in a UID",
        "nested too deep",
        "nested without end",
        "too many",
        "too long",
    ],
)
def test_damaged_bytes_are_one_kind_of_error(encoded: bytes) -> None:
    with pytest.raises(MalformedReferencesError):
        decoded_report(encoded)


def test_a_request_without_objects_is_refused() -> None:
    with pytest.raises(MalformedReferencesError, match="no object"):
        decoded_request(encoded_request("2.25.1", []))


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.binary(max_size=300), st.integers(0, 200), st.binary(max_size=20))
def test_whatever_bytes_come_they_are_read_or_refused(rubbish: bytes, at: int, replaced: bytes) -> None:
    whole = encoded_report(REPORT)
    for encoded in (rubbish, whole[:at] + replaced + whole[at + len(replaced) :]):
        try:
            assert decoded_report(encoded).transaction_uid
        except MalformedReferencesError as refusal:
            assert str(refusal)
