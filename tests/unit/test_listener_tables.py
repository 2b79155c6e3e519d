"""The listener's tables: which status answers which error, and what is accepted."""

from __future__ import annotations

import pytest
from pydicom.uid import UID

from db.errors import AuditError, DatabaseUnavailableError
from dicom_node.errors import SpoolError, SpoolFullError, UnfitObjectError
from dicom_node.listener.contexts import (
    STORAGE_CLASSES,
    TRANSFER_SYNTAXES,
    VERIFICATION,
    supported_contexts,
)
from dicom_node.listener.part10 import Origin, file_preface
from dicom_node.listener.status import MismatchedObjectError, Status, UnsupportedClassError, status_of
from tests.listening import encoded, mammogram, stored_dataset


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (SpoolFullError(""), 0xA700),
        (SpoolError(""), 0xA700),
        (DatabaseUnavailableError(""), 0xA700),
        (AuditError(""), 0xA700),
        (MismatchedObjectError(""), 0xA900),
        (UnsupportedClassError(""), 0x0122),
        (UnfitObjectError(""), 0xC000),
        (ZeroDivisionError(), 0xA700),
    ],
)
def test_every_error_has_its_status(error: Exception, status: int) -> None:
    assert status_of(error) == status


def test_no_error_is_answered_with_success() -> None:
    assert status_of(Exception()) != Status.SUCCESS


def test_tables_hold_each_uid_once_and_under_its_standard_name() -> None:
    uids = [each.uid for each in (*STORAGE_CLASSES, *TRANSFER_SYNTAXES)]
    assert len(set(uids)) == len(uids)
    for each in (*STORAGE_CLASSES, *TRANSFER_SYNTAXES):
        assert UID(each.uid).name.startswith(each.name.split(" (")[0].split(", ")[0])


def test_encodings_are_those_of_the_standard() -> None:
    for syntax in TRANSFER_SYNTAXES:
        uid = UID(syntax.uid)
        assert syntax.is_implicit == uid.is_implicit_VR, syntax.name
        assert syntax.is_little_endian == uid.is_little_endian, syntax.name
        assert syntax.is_encapsulated == uid.is_encapsulated, syntax.name
        assert not uid.is_deflated, syntax.name


def test_every_class_is_offered_with_every_syntax() -> None:
    contexts = {str(context.abstract_syntax): context for context in supported_contexts()}
    assert set(contexts) == {VERIFICATION, *(each.uid for each in STORAGE_CLASSES)}
    for storage_class in STORAGE_CLASSES:
        offered = [str(syntax) for syntax in contexts[storage_class.uid].transfer_syntax]
        assert offered == [syntax.uid for syntax in TRANSFER_SYNTAXES]


def test_the_head_of_a_file_is_read_by_others() -> None:
    dataset = mammogram()
    origin = Origin(dataset.SOPClassUID, dataset.SOPInstanceUID, TRANSFER_SYNTAXES[0].uid, "MAMMO1", "NODE")
    read = stored_dataset(file_preface(origin) + encoded(dataset))
    assert read.file_meta.MediaStorageSOPClassUID == dataset.SOPClassUID
    assert read.file_meta.FileMetaInformationVersion == b"\x00\x01"
    assert read.file_meta.SourceApplicationEntityTitle == "MAMMO1"
    assert read.file_meta.ReceivingApplicationEntityTitle == "NODE"
    assert read.PatientID == dataset.PatientID
