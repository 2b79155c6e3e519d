"""The head of a stored file: preamble and file meta information, written by us (PS3.10 section 7).

The data set behind it is the sender's, byte for byte.
"""

from __future__ import annotations

import struct
from functools import lru_cache
from io import BytesIO
from typing import NamedTuple

from pydicom import dcmread
from pydicom.errors import InvalidDicomError

from dicom_node.errors import UnfitObjectError
from dicom_node.implementation import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME

# 128 zero bytes: a preamble can make a file run as a program, so nothing received is ever put there.
_PREAMBLE = bytes(128) + b"DICM"
_BEFORE_LENGTH = _PREAMBLE + struct.pack("<HH2sH", 0x0002, 0x0000, b"UL", 4)
_LENGTH = struct.Struct("<L")
_VERSION = struct.pack("<HH2sHL2s", 0x0002, 0x0001, b"OB", 0, 2, b"\x00\x01")
_TEXT_HEAD = struct.Struct("<HH2sH")


class Origin(NamedTuple):
    """What the file meta information says of an instance and of who sent it.

    Attributes
    ----------
    sop_class_uid, sop_instance_uid, transfer_syntax_uid : str
        Its identity and encoding.
    calling_ae_title, called_ae_title : str
        The association's AE titles.
    """

    sop_class_uid: str
    sop_instance_uid: str
    transfer_syntax_uid: str
    calling_ae_title: str
    called_ae_title: str


def file_preface(origin: Origin) -> bytes:
    """Everything of a Part 10 file that comes before the data set.

    Parameters
    ----------
    origin : Origin
        What to write.

    Returns
    -------
    bytes
        Preamble, prefix and file meta information in Explicit VR Little Endian.
    """
    sop_class, same = _same_for_all(
        origin.sop_class_uid, origin.transfer_syntax_uid, origin.calling_ae_title, origin.called_ae_title
    )
    instance = _text(0x0003, b"UI", origin.sop_instance_uid)
    length = len(sop_class) + len(instance) + len(same)
    return b"".join((_BEFORE_LENGTH, _LENGTH.pack(length), sop_class, instance, same))


def origin_of(preface: bytes) -> Origin:
    """Read back what :func:`file_preface` wrote.

    Parameters
    ----------
    preface : bytes
        Everything before the data set.

    Raises
    ------
    UnfitObjectError
        If it is none.
    """
    try:
        meta = dcmread(BytesIO(preface)).file_meta
        return Origin(
            sop_class_uid=str(meta.MediaStorageSOPClassUID),
            sop_instance_uid=str(meta.MediaStorageSOPInstanceUID),
            transfer_syntax_uid=str(meta.TransferSyntaxUID),
            calling_ae_title=str(meta.SourceApplicationEntityTitle).strip(),
            called_ae_title=str(meta.ReceivingApplicationEntityTitle).strip(),
        )
    except (AttributeError, EOFError, InvalidDicomError, ValueError):
        raise UnfitObjectError("a stored file's head is damaged; have its sender send it again") from None


# Of an association; many objects come over each.
@lru_cache(maxsize=64)
def _same_for_all(
    sop_class_uid: str, transfer_syntax_uid: str, calling_ae_title: str, called_ae_title: str
) -> tuple[bytes, bytes]:
    """Encode what stands between group length and SOP instance, and what follows that."""
    return (
        _VERSION + _text(0x0002, b"UI", sop_class_uid),
        b"".join(
            (
                _text(0x0010, b"UI", transfer_syntax_uid),
                _text(0x0012, b"UI", IMPLEMENTATION_CLASS_UID),
                _text(0x0013, b"SH", IMPLEMENTATION_VERSION_NAME),
                _text(0x0016, b"AE", calling_ae_title),
                _text(0x0018, b"AE", called_ae_title),
            )
        ),
    )


def _text(number: int, vr: bytes, text: str) -> bytes:
    value = text.encode("ascii", "replace")
    if len(value) % 2:
        value += b"\x00" if vr == b"UI" else b" "
    return _TEXT_HEAD.pack(0x0002, number, vr, len(value)) + value
