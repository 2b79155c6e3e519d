"""The decoder process: one stored object in, presentation values out, nothing shared but two descriptors.

Decoders are large C libraries that read untrusted bytes. They run in a child with limited memory and
processor time that dies with its parent (:class:`dicom_node.images.reader.ImageReader`). A request carries
the object's open file, the answer carries sealed anonymous memory with the pixels. Headers are checked
against limits, against the pixel data's length and against the codestream before anything is allocated for
them.
"""

from __future__ import annotations

import ctypes
import json
import math
import mmap
import os
import resource
import signal
import socket
import time
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.encaps import generate_frames
from pydicom.pixels.decoders.base import Decoder, get_decoder
from pydicom.uid import UID, ExplicitVRBigEndian, JPEGExtended12Bit, RLELossless

from dicom_node.errors import ImageError
from dicom_node.header_values import MALFORMED, integer, text
from dicom_node.images.codestreams import codestream_size
from dicom_node.images.jpeg_extended import decode_extended
from dicom_node.images.presentation_values import StoredLayout, ValueTables, value_tables
from dicom_node.images.sealed_memory import new_memory, seal
from dicom_node.images.tile_decoding import tile_pixels

MESSAGE_BYTES = 4096
_PR_SET_PDEATHSIG = 1
# Fastest first; the next is asked when one cannot read a codestream.
_PLUGINS = ("pylibjpeg", "pyjpegls", "gdcm")
_GRAYSCALE = ("MONOCHROME1", "MONOCHROME2")
_FLOAT_PIXELS = ("FloatPixelData", "DoubleFloatPixelData")
# The decoders that a node has to have; imported while the process waits for its first image.
_COMMON_SYNTAXES = ("1.2.840.10008.1.2.4.70", "1.2.840.10008.1.2.4.80", "1.2.840.10008.1.2.4.90", RLELossless)


def serve(channel: socket.socket, *, memory_bytes: int, cpu_s: int, max_pixels: int, parent: int) -> None:
    """Answer requests until the other end closes.

    Parameters
    ----------
    channel : socket.socket
        Unix sequenced-packet socket. A request is one JSON packet with one file descriptor, ``{}`` for a
        whole image and ``{"frames": [...]}`` for tiles of a slide; the answer is one JSON packet, with a
        descriptor of the pixels' memory when they were read.
    memory_bytes : int
        Address space of this process.
    cpu_s : int
        Processor seconds for one image.
    max_pixels : int
        Rows x Columns that are decoded at most.
    parent : int
        Process id of the process that this one must not outlive.
    """
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    most = _permitted(resource.RLIMIT_AS, memory_bytes)
    resource.setrlimit(resource.RLIMIT_AS, (most, most))
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        return
    for syntax in _COMMON_SYNTAXES:
        _ = get_decoder(UID(syntax)).is_available
    while True:
        request, descriptors, _, _ = socket.recv_fds(channel, MESSAGE_BYTES, 1)
        if not request:
            return
        # The limit counts the whole life of the process; each image gets its own share.
        _, most = resource.getrlimit(resource.RLIMIT_CPU)
        until_s = _permitted(resource.RLIMIT_CPU, math.ceil(time.process_time()) + cpu_s)
        resource.setrlimit(resource.RLIMIT_CPU, (until_s, most))
        try:
            # Opened anew, for an offset of its own and a name that is text, which pydicom expects.
            with Path(f"/proc/self/fd/{descriptors[0]}").open("rb") as stored:
                _answer(channel, stored, json.loads(request).get("frames"), max_pixels)
        finally:
            os.close(descriptors[0])


def _permitted(limit: int, wanted: int) -> int:
    """Return as much of a limit as whoever started the node left: only root may have more."""
    _, most = resource.getrlimit(limit)
    return wanted if most == resource.RLIM_INFINITY else min(wanted, most)


def _answer(channel: socket.socket, stored: BinaryIO, frames: list[int] | None, max_pixels: int) -> None:
    try:
        if frames is None:
            memory, answer = presentation_pixels(stored, max_pixels)
        else:
            memory, answer = tile_pixels(stored, frames, max_pixels)
    except ImageError as error:
        _refuse(channel, error.code, str(error))
    except MemoryError:
        _refuse(channel, "PIXEL_DATA", "decoding needs more memory than it may have")
    except OSError as error:
        # With a number it is the machine's fault; pydicom also raises it for sequences that end too early.
        if error.errno is None:
            _refuse(channel, "UNREADABLE", "the object is damaged")
        else:
            channel.send(json.dumps({"errno": error.errno}).encode())
    except Exception as error:  # noqa: BLE001 - boundary of the process: anything else is the object's fault
        # Only the kind of error: its text may quote the object.
        _refuse(channel, "UNREADABLE", f"reading failed with {type(error).__name__}")
    else:
        with os.fdopen(memory, "rb"):
            socket.send_fds(channel, [json.dumps(answer).encode()], [memory])


def _refuse(channel: socket.socket, code: str, message: str) -> None:
    channel.send(json.dumps({"code": code, "message": message}).encode())


def presentation_pixels(stored: BinaryIO, max_pixels: int) -> tuple[int, dict[str, int]]:
    """Decode one single-frame monochrome object.

    Parameters
    ----------
    stored : file
        A Part 10 file, at its start.
    max_pixels : int
        Rows x Columns that are decoded at most.

    Returns
    -------
    tuple
        Descriptor of sealed memory, which holds ``rows x columns`` uint16 P-values followed, where
        ``padding`` is 1, by as many bytes of the padding mask; and ``{"rows", "columns", "padding"}``.

    Raises
    ------
    ImageError
        With the refusal's code.
    """
    image = dcmread(stored)
    syntax = UID(str(image.file_meta.get("TransferSyntaxUID", "")))
    decoder = _decoder(syntax)
    rows, columns, layout = _checked_header(image, syntax, max_pixels)
    pixel_data = _pixel_data(image)
    tables = value_tables(image, layout)
    if syntax.is_encapsulated:
        frame = _first_frame(pixel_data)
        precision = _checked_precision(frame, syntax, rows, columns, layout, max_pixels)
        if syntax == JPEGExtended12Bit and precision == 12:
            decoded: NDArray[Any] = decode_extended(frame, rows, columns)
        else:
            decoded = _decoded(image, decoder)
        cells = _cells(decoded, rows, columns, layout)
        _check_decoded(cells, syntax, layout)
    else:
        _check_native_length(pixel_data, rows, columns, layout)
        cells = _cells(_decoded(image, decoder), rows, columns, layout)
    memory = _written(cells, tables)
    return memory, {"rows": rows, "columns": columns, "padding": int(tables.is_padding is not None)}


def _decoder(syntax: UID) -> Decoder:
    try:
        decoder = get_decoder(syntax)
    except NotImplementedError as error:
        raise ImageError("TRANSFER_SYNTAX", "the node has no decoder for the transfer syntax") from error
    if not decoder.is_available:
        raise ImageError("TRANSFER_SYNTAX", f"no installed decoder reads {syntax.name}")
    return decoder


def _checked_header(image: Dataset, syntax: UID, max_pixels: int) -> tuple[int, int, StoredLayout]:
    if "PixelData" not in image:
        if any(keyword in image for keyword in _FLOAT_PIXELS):
            raise ImageError("UNSUPPORTED_SOP_CLASS", "images of real numbers are not read")
        raise ImageError("PIXEL_DATA", "the object has no pixel data")
    photometric = text(image, "PhotometricInterpretation")
    if not photometric:
        raise ImageError("UNREADABLE", "PhotometricInterpretation is missing")
    if integer(image, "SamplesPerPixel", default=1) != 1 or photometric not in _GRAYSCALE:
        raise ImageError("UNSUPPORTED_SOP_CLASS", "colour images are not read")
    if integer(image, "NumberOfFrames", default=1) > 1:
        raise ImageError("TOMOSYNTHESIS", "the object has several frames")
    rows, columns = integer(image, "Rows"), integer(image, "Columns")
    if rows < 1 or columns < 1:
        raise ImageError("PIXEL_DATA", "Rows or Columns is not positive")
    if rows * columns > max_pixels:
        raise ImageError("IMAGE_TOO_LARGE", f"Rows x Columns is more than {max_pixels}")
    return rows, columns, _layout(image, syntax)


def _layout(image: Dataset, syntax: UID) -> StoredLayout:
    allocated, bits = integer(image, "BitsAllocated"), integer(image, "BitsStored")
    high_bit = integer(image, "HighBit", default=bits - 1)
    if allocated not in (8, 16):
        raise ImageError("PIXEL_DATA", "Bits Allocated is neither 8 nor 16")
    if not 1 <= bits <= high_bit + 1 <= allocated:
        raise ImageError("PIXEL_DATA", "Bits Stored and High Bit do not fit Bits Allocated")
    if syntax.is_encapsulated and syntax != RLELossless:
        high_bit = bits - 1  # a codec returns values, not cells
    return StoredLayout(
        bits_allocated=allocated,
        bits_stored=bits,
        high_bit=high_bit,
        is_signed=integer(image, "PixelRepresentation", default=0) == 1,
        is_big_endian=syntax == ExplicitVRBigEndian,
    )


def _pixel_data(image: Dataset) -> bytes:
    value = image.PixelData
    if not isinstance(value, (bytes, bytearray)) or not value:
        raise ImageError("PIXEL_DATA", "the pixel data is empty")
    return bytes(value)


def _check_native_length(pixel_data: bytes, rows: int, columns: int, layout: StoredLayout) -> None:
    row_bytes = columns * layout.bits_allocated // 8
    surplus = len(pixel_data) - rows * row_bytes
    if surplus < 0:
        raise ImageError("PIXEL_DATA", "the pixel data is shorter than Rows x Columns")
    # Less than one row more is padding that some devices write; more of it contradicts the header.
    if surplus >= max(2, row_bytes):
        raise ImageError("PIXEL_DATA", "the pixel data is longer than Rows x Columns")


def _first_frame(pixel_data: bytes) -> bytes:
    try:
        frame = next(iter(generate_frames(pixel_data, number_of_frames=1)), b"")
    except MALFORMED as error:
        raise ImageError("PIXEL_DATA", "the fragments of the pixel data are damaged") from error
    if not frame:
        raise ImageError("PIXEL_DATA", "the pixel data has no fragments")
    return frame


def _checked_precision(
    frame: bytes, syntax: UID, rows: int, columns: int, layout: StoredLayout, max_pixels: int
) -> int:
    """Bits of a codestream whose size is the header's."""
    size = codestream_size(frame, syntax)
    if size is None:
        return layout.bits_allocated
    if size.rows * size.columns > max_pixels:
        raise ImageError("IMAGE_TOO_LARGE", f"the codestream claims more than {max_pixels} pixels")
    if (size.rows, size.columns, size.components) != (rows, columns, 1):
        raise ImageError("PIXEL_DATA", "the codestream's size is not the header's")
    if size.precision > layout.bits_allocated:
        raise ImageError("PIXEL_DATA", "the codestream has more bits than Bits Allocated")
    return size.precision


def _cells(frame: NDArray[Any], rows: int, columns: int, layout: StoredLayout) -> NDArray[np.unsignedinteger]:
    """Cells of the image, ``(rows, columns)`` uint8 or uint16, as they were before compression."""
    if frame.shape != (rows, columns) or frame.dtype.itemsize * 8 != layout.bits_allocated:
        raise ImageError("PIXEL_DATA", "the decoded image is not what the header says")
    native = frame.astype(frame.dtype.newbyteorder("="), copy=False)
    return native.view(np.uint8 if layout.bits_allocated == 8 else np.uint16)


def _decoded(image: Dataset, decoder: Decoder) -> NDArray[Any]:
    failure: Exception | None = None
    for plugin in [each for each in _PLUGINS if each in decoder.available_plugins] or [""]:
        try:
            # The value tables mask; pydicom masks the wrong bits where High Bit is not Bits Stored - 1.
            return decoder.as_array(
                image,
                index=0,
                raw=True,
                view_only=True,  # type: ignore[arg-type]  # pydicom types each option as all of them
                decoding_plugin=plugin,
                correct_unused_bits=False,  # type: ignore[arg-type]
            )[0]
        except (RuntimeError, IndexError, *MALFORMED) as error:
            failure = error
    raise ImageError("PIXEL_DATA", "the pixel data cannot be decoded") from failure


def _check_decoded(cells: NDArray[np.unsignedinteger], syntax: UID, layout: StoredLayout) -> None:
    highest = int(cells.max())
    if highest == 0:
        # Decoders have been seen to answer a codestream that they cannot read with zeros and no error.
        raise ImageError("PIXEL_DATA", "the decoded image is empty")
    if syntax != RLELossless and not layout.is_signed and highest >> layout.bits_stored:
        raise ImageError("PIXEL_DATA", "the decoded values need more than Bits Stored")


def _written(cells: NDArray[np.unsignedinteger], tables: ValueTables) -> int:
    """Look the cells up into new memory and seal it."""
    size = cells.size * (2 if tables.is_padding is None else 3)
    descriptor = new_memory("presentation-values", size)
    with mmap.mmap(descriptor, size) as memory:
        pixels = np.frombuffer(memory, np.uint16, cells.size)
        # Every uint8 or uint16 is within its table; "wrap" spares numpy a buffered pass.
        np.take(tables.p_values, cells.reshape(-1), out=pixels, mode="wrap")
        del pixels
        if tables.is_padding is not None:
            padding = np.frombuffer(memory, np.bool_, cells.size, offset=2 * cells.size)
            np.take(tables.is_padding, cells.reshape(-1), out=padding, mode="wrap")
            del padding
    seal(descriptor)
    return descriptor
