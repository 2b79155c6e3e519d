"""12-bit JPEG (Extended, Process 2 and 4), which pydicom's own use of GDCM leaves out.

GDCM reads it when it is told the codestream's precision instead of Bits Stored; the result equals DCMTK's bit
for bit. Known only to the decoder process.
"""

from __future__ import annotations

import gdcm
import numpy as np
from numpy.typing import NDArray
from pydicom.uid import JPEGExtended12Bit

from dicom_node.errors import ImageError


def decode_extended(frame: bytes, rows: int, columns: int) -> NDArray[np.uint16]:
    """Decode one monochrome frame of 12 bits.

    Parameters
    ----------
    frame : bytes
        The codestream.
    rows, columns : int
        Size, checked against the codestream before.

    Returns
    -------
    numpy.ndarray
        ``(rows, columns)`` uint16.

    Raises
    ------
    ImageError
        ``PIXEL_DATA`` when GDCM cannot decode it.
    """
    fragment = gdcm.Fragment()
    fragment.SetByteStringValue(frame)
    fragments = gdcm.SequenceOfFragments.New()
    fragments.AddFragment(fragment)
    element = gdcm.DataElement(gdcm.Tag(0x7FE0, 0x0010))
    element.SetValue(fragments.__ref__())
    image = gdcm.Image()
    image.SetNumberOfDimensions(2)
    image.SetDimensions((columns, rows, 1))
    image.SetDataElement(element)
    image.SetPhotometricInterpretation(
        gdcm.PhotometricInterpretation(gdcm.PhotometricInterpretation.MONOCHROME2)
    )
    image.SetTransferSyntax(gdcm.TransferSyntax(gdcm.TransferSyntax.GetTSType(JPEGExtended12Bit)))
    image.SetPixelFormat(gdcm.PixelFormat(1, 16, 12, 11, 0))
    # GDCM hands bytes over as text.
    decoded = image.GetBuffer().encode("utf-8", "surrogateescape")
    if len(decoded) != 2 * rows * columns:
        raise ImageError("PIXEL_DATA", "the pixel data cannot be decoded")
    return np.frombuffer(decoded, "<u2").reshape(rows, columns)
