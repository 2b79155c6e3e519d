"""What a compressed image says about itself, read from its first bytes before any decoder sees it.

A decoder believes the sizes in a codestream and allocates for them, so they are compared with the header
first. Nothing is decoded here.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

from pydicom.uid import (
    HTJ2K,
    JPEG2000,
    UID,
    HTJ2KLossless,
    HTJ2KLosslessRPCL,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGExtended12Bit,
    JPEGLossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    JPEGLSNearLossless,
    RLELossless,
)

from dicom_node.errors import ImageError

_JPEG = {
    JPEGBaseline8Bit,
    JPEGExtended12Bit,
    JPEGLossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    JPEGLSNearLossless,
}
_JPEG_2000 = {JPEG2000Lossless, JPEG2000, HTJ2KLossless, HTJ2KLosslessRPCL, HTJ2K}

_START_OF_CODESTREAM = b"\xff\x4f\xff\x51"  # SOC and SIZ, always the first two markers (T.800 A.3)
_LONGEST_JP2_PREFIX = 65_536  # some devices wrap the codestream into JP2 boxes; they are short

# Start of frame, T.81 B.2.2 and T.87 C.2.2: every SOFn but DHT (C4), JPG (C8) and DAC (CC); F7 is JPEG-LS.
_START_OF_FRAME = (set(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}) | {0xF7}
_NO_LENGTH = {0x01, *range(0xD0, 0xD9)}  # TEM, RSTm, SOI stand alone


@dataclass(frozen=True, slots=True)
class CodestreamSize:
    """What a codestream claims to hold: rows, columns, components and bits of each component."""

    rows: int
    columns: int
    components: int
    precision: int


def codestream_size(frame: bytes, transfer_syntax_uid: UID) -> CodestreamSize | None:
    """Read the claimed size of one compressed frame.

    Parameters
    ----------
    frame : bytes
        The frame's fragments, joined.
    transfer_syntax_uid : pydicom.uid.UID
        An encapsulated transfer syntax.

    Returns
    -------
    CodestreamSize or None
        None for RLE, which states no size: its decoder is told the size by the header.

    Raises
    ------
    ImageError
        ``PIXEL_DATA`` when the frame is not what the transfer syntax says; ``TRANSFER_SYNTAX`` for a syntax
        whose codestreams are not known here.
    """
    try:
        if transfer_syntax_uid in _JPEG:
            return _jpeg_size(frame)
        if transfer_syntax_uid in _JPEG_2000:
            return _jpeg_2000_size(frame)
        if transfer_syntax_uid == RLELossless:
            _check_rle(frame)
            return None
    except (struct.error, IndexError) as error:
        raise ImageError("PIXEL_DATA", "the codestream ends within its own header") from error
    raise ImageError("TRANSFER_SYNTAX", f"the node has no decoder for {transfer_syntax_uid.name}")


def _jpeg_size(frame: bytes) -> CodestreamSize:
    if frame[:2] != b"\xff\xd8":
        raise ImageError("PIXEL_DATA", "the frame is not a JPEG codestream")
    at = 2
    while True:
        if frame[at] != 0xFF:
            raise ImageError("PIXEL_DATA", "the JPEG codestream has no start of frame")
        marker = frame[at + 1]
        if marker == 0xFF:  # fill byte
            at += 1
        elif marker in _START_OF_FRAME:
            precision, rows, columns, components = struct.unpack_from(">BHHB", frame, at + 4)
            return CodestreamSize(rows, columns, components, precision)
        elif marker in _NO_LENGTH:
            at += 2
        else:
            at += 2 + max(2, struct.unpack_from(">H", frame, at + 2)[0])


def _jpeg_2000_size(frame: bytes) -> CodestreamSize:
    start = frame.find(_START_OF_CODESTREAM, 0, _LONGEST_JP2_PREFIX)
    if start < 0:
        raise ImageError("PIXEL_DATA", "the frame is not a JPEG 2000 codestream")
    right, bottom, left, top = struct.unpack_from(">4I", frame, start + 8)
    components, depth = struct.unpack_from(">HB", frame, start + 40)
    return CodestreamSize(bottom - top, right - left, components, (depth & 0x7F) + 1)


def _check_rle(frame: bytes) -> None:
    segments, first = struct.unpack_from("<II", frame)
    if not 1 <= segments <= 15 or first != 64:  # PS3.5 G.5
        raise ImageError("PIXEL_DATA", "the frame has no valid RLE header")
