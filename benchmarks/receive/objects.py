"""What is sent: made-up objects of real sizes, each with a UID of its own."""

from __future__ import annotations

import os
import struct
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

MAMMOGRAM = "1.2.840.10008.5.1.4.1.1.1.2"
CT = "1.2.840.10008.5.1.4.1.1.2"
EXPLICIT_LITTLE = "1.2.840.10008.1.2.1"
_PREAMBLE = bytes(128) + b"DICM"
_NOISE_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class Case:
    """A kind of object and how many of them one run sends.

    Attributes
    ----------
    name : str
        As in the table.
    sop_class_uid, modality : str
        What the objects are.
    shapes : tuple of (int, int)
        Rows and columns, 16 bits each; taken in turn.
    count : int
        Objects in one run, over all associations.
    """

    name: str
    sop_class_uid: str
    modality: str
    shapes: tuple[tuple[int, int], ...]
    count: int


CASES = {
    case.name: case
    for case in (
        # 17 to 27 MB, as detectors of mammography make them
        Case("mg", MAMMOGRAM, "MG", ((3328, 2560), (4096, 3328), (3518, 2800), (4096, 2560)), 8),
        Case("ct", CT, "CT", ((512, 512),), 160),
        Case("small", CT, "CT", ((100, 100),), 800),
    )
}


@dataclass(frozen=True, slots=True)
class SentObject:
    """One object.

    Attributes
    ----------
    sop_class_uid, sop_instance_uid : str
        Its identity.
    head : bytes
        The data set up to and with the header of Pixel Data.
    pixels : memoryview
        The value of Pixel Data; the same noise in all objects of a shape.
    """

    sop_class_uid: str
    sop_instance_uid: str
    head: bytes
    pixels: memoryview


def objects_of(case: Case, count: int) -> Iterator[SentObject]:
    """Make objects, in one study."""
    study = f"2.25.{uuid.uuid4().int}"
    noise = os.urandom(_NOISE_BYTES)
    pixels: dict[tuple[int, int], memoryview] = {}
    for number in range(count):
        shape = case.shapes[number % len(case.shapes)]
        if shape not in pixels:
            size = shape[0] * shape[1] * 2
            pixels[shape] = memoryview((noise * (size // len(noise) + 1))[:size])
        uid = f"2.25.{uuid.uuid4().int}"
        yield SentObject(case.sop_class_uid, uid, _head(case, study, uid, shape, number), pixels[shape])


def write_files(case: Case, count: int, folder: Path) -> None:
    """Write Part 10 files for senders that read them."""
    folder.mkdir(parents=True)
    for number, each in enumerate(objects_of(case, count)):
        meta = b"".join(
            (
                struct.pack("<HH2sHL2s", 2, 1, b"OB", 0, 2, b"\0\1"),
                _element(2, 2, b"UI", each.sop_class_uid),
                _element(2, 3, b"UI", each.sop_instance_uid),
                _element(2, 0x10, b"UI", EXPLICIT_LITTLE),
                _element(2, 0x12, b"UI", "2.25.1"),
            )
        )
        with (folder / f"{number:04d}.dcm").open("wb") as file:
            file.write(_PREAMBLE + struct.pack("<HH2sHL", 2, 0, b"UL", 4, len(meta)) + meta + each.head)
            file.write(each.pixels)


def _head(case: Case, study: str, uid: str, shape: tuple[int, int], number: int) -> bytes:
    rows, columns = shape
    return b"".join(
        (
            _element(0x0008, 0x0008, b"CS", "ORIGINAL\\PRIMARY"),
            _element(0x0008, 0x0016, b"UI", case.sop_class_uid),
            _element(0x0008, 0x0018, b"UI", uid),
            _element(0x0008, 0x0020, b"DA", "20260102"),
            _element(0x0008, 0x0050, b"SH", "BENCHMARK"),
            _element(0x0008, 0x0060, b"CS", case.modality),
            _element(0x0008, 0x0070, b"LO", "dicom-node benchmark"),
            _element(0x0010, 0x0010, b"PN", "BENCHMARK^RECEIVE"),
            _element(0x0010, 0x0020, b"LO", "BENCHMARK"),
            _element(0x0020, 0x000D, b"UI", study),
            _element(0x0020, 0x000E, b"UI", f"{study}.1"),
            _element(0x0020, 0x0013, b"IS", str(number + 1)),
            struct.pack("<HH2sHH", 0x0028, 0x0002, b"US", 2, 1),
            _element(0x0028, 0x0004, b"CS", "MONOCHROME2"),
            struct.pack("<HH2sHH", 0x0028, 0x0010, b"US", 2, rows),
            struct.pack("<HH2sHH", 0x0028, 0x0011, b"US", 2, columns),
            struct.pack("<HH2sHH", 0x0028, 0x0100, b"US", 2, 16),
            struct.pack("<HH2sHH", 0x0028, 0x0101, b"US", 2, 16),
            struct.pack("<HH2sHH", 0x0028, 0x0102, b"US", 2, 15),
            struct.pack("<HH2sHH", 0x0028, 0x0103, b"US", 2, 0),
            struct.pack("<HH2sHL", 0x7FE0, 0x0010, b"OW", 0, rows * columns * 2),
        )
    )


def _element(group: int, number: int, vr: bytes, text: str) -> bytes:
    value = text.encode("ascii")
    value += (b"\0" if vr == b"UI" else b" ") * (len(value) % 2)
    return struct.pack("<HH2sH", group, number, vr, len(value)) + value
