"""Stored result files for delivery tests, whose data sets no library would write in just this way."""

from __future__ import annotations

import hashlib
import struct
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

from pydicom.dataset import FileMetaDataset
from pydicom.filewriter import write_file_meta_info
from pydicom.uid import ExplicitVRLittleEndian

from dicom_node.delivery.dimse import Outgoing

COMPREHENSIVE_SR = "1.2.840.10008.5.1.4.1.1.88.33"
COMPREHENSIVE_3D_SR = "1.2.840.10008.5.1.4.1.1.88.34"
SEGMENTATION = "1.2.840.10008.5.1.4.1.1.66.4"
PATIENT_NAME = "ZZCANARY^NAME"


@dataclass(frozen=True)
class StoredResult:
    """A file to send and what must arrive of it."""

    outgoing: Outgoing
    sha256: str
    """Of the data set's bytes."""

    @property
    def uid(self) -> str:
        """Its SOP Instance UID."""
        return self.outgoing.sop_instance_uid


def store_result(
    folder: Path,
    ordinal: int = 1,
    *,
    sop_class_uid: str = COMPREHENSIVE_SR,
    transfer_syntax_uid: str = ExplicitVRLittleEndian,
    payload_bytes: int = 0,
) -> StoredResult:
    """Write one Part 10 file.

    Parameters
    ----------
    folder : Path
        Where.
    ordinal : int
        Makes the SOP Instance UID.
    sop_class_uid, transfer_syntax_uid : str
        What it says it is; the data set is Explicit VR Little Endian in any case.
    payload_bytes : int
        Size of a pseudo-random value in it, an even number.
    """
    uid = f"2.25.{10**30 + ordinal}"
    payload = (hashlib.sha256(uid.encode()).digest() * (payload_bytes // 32 + 1))[:payload_bytes]
    data_set = b"".join(
        [
            _short(0x0008, 0x0016, b"UI", sop_class_uid.encode()),
            _short(0x0008, 0x0018, b"UI", uid.encode()),
            # Undefined lengths, and a value padded more than needed: encoding again would change both.
            struct.pack("<HH2sxxI", 0x0008, 0x1115, b"SQ", 0xFFFFFFFF),
            struct.pack("<HHI", 0xFFFE, 0xE000, 0xFFFFFFFF),
            _short(0x0020, 0x000E, b"UI", b"2.25.7"),
            struct.pack("<HHIHHI", 0xFFFE, 0xE00D, 0, 0xFFFE, 0xE0DD, 0),
            _short(0x0010, 0x0010, b"PN", PATIENT_NAME.encode() + b"   "),
            struct.pack("<HH2sxxI", 0x0011, 0x1010, b"OB", len(payload)) + payload,
        ]
    )
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = sop_class_uid
    meta.MediaStorageSOPInstanceUID = uid
    meta.TransferSyntaxUID = transfer_syntax_uid
    buffer = BytesIO()
    write_file_meta_info(buffer, meta, enforce_standard=True)
    path = folder / f"{ordinal:04d}.dcm"
    path.write_bytes(bytes(128) + b"DICM" + buffer.getvalue() + data_set)
    outgoing = Outgoing(uid, sop_class_uid, transfer_syntax_uid, path)
    return StoredResult(outgoing, hashlib.sha256(data_set).hexdigest())


def _short(group: int, element: int, vr: bytes, value: bytes) -> bytes:
    padded = value + (b"\0" if vr == b"UI" else b" ") * (len(value) % 2)
    return struct.pack("<HH2sH", group, element, vr, len(padded)) + padded
