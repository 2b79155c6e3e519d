"""DICOM messages as bytes, for simulators: written against the standard, not with the node's code."""

from __future__ import annotations

import struct


def item(kind: int, body: bytes) -> bytes:
    """Encode one item of an association PDU (PS3.8 9.3.2)."""
    return struct.pack(">BxH", kind, len(body)) + body


def associate_acceptance(*results: tuple[int, int, str], maximum_length: int | None = 16384) -> bytes:
    """Encode an A-ASSOCIATE-AC PDU (PS3.8 9.3.3) with (context id, result, transfer syntax) of contexts."""
    contexts = b"".join(
        item(0x21, struct.pack(">BxBx", context_id, result) + item(0x40, syntax.encode()))
        for context_id, result, syntax in results
    )
    about = item(0x52, b"1.2.3.4")
    if maximum_length is not None:
        about = item(0x51, struct.pack(">I", maximum_length)) + about
    body = (
        struct.pack(">Hxx16s16s32x", 1, b"PACS".ljust(16), b"DICOM_NODE".ljust(16))
        + item(0x10, b"1.2.840.10008.3.1.1.1")
        + contexts
        + item(0x50, about)
    )
    return struct.pack(">BxI", 0x02, len(body)) + body


def text(value: bytes) -> str:
    """Read a UID without its padding."""
    return value.rstrip(b"\0 ").decode("ascii")


def elements(encoded: bytes) -> dict[int, bytes]:
    """Read a command set as {element: value} (PS3.7 6.3.1)."""
    found: dict[int, bytes] = {}
    start = 0
    while start < len(encoded):
        _, element, length = struct.unpack_from("<HHI", encoded, start)
        found[element] = encoded[start + 8 : start + 8 + length]
        start += 8 + length
    return found


def response_pdu(
    context_id: int,
    command_field: int,
    message_id: int,
    sop_class_uid: str,
    sop_instance_uid: str,
    status: int | None,
) -> bytes:
    """Encode a whole response as one P-DATA-TF PDU; without a status when it is None."""
    values: dict[int, bytes] = {
        0x0002: _padded(sop_class_uid),
        0x0100: struct.pack("<H", command_field),
        0x0120: struct.pack("<H", message_id & 0xFFFF),
        0x0800: struct.pack("<H", 0x0101),
    }
    if status is not None:
        values[0x0900] = struct.pack("<H", status)
    if sop_instance_uid:
        values[0x1000] = _padded(sop_instance_uid)
    body = b"".join(struct.pack("<HHI", 0, tag, len(value)) + value for tag, value in values.items())
    command = struct.pack("<HHII", 0, 0, 4, len(body)) + body
    return struct.pack(">BxIIBB", 4, len(command) + 6, len(command) + 2, context_id, 3) + command


def _padded(uid: str) -> bytes:
    return uid.encode("ascii") + b"\0" * (len(uid) % 2)
