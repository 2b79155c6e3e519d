"""Made-up monochrome objects for the tests of image reading, written as real Part 10 files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import (
    DigitalMammographyXRayImageStorageForPresentation,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
)

SOP_INSTANCE_UID = "1.2.826.0.1.3680043.10.999.1"
PATIENT = "ZZCANARY^NAME"


def image(
    pixels: NDArray[Any],
    *,
    bits_stored: int = 12,
    high_bit: int | None = None,
    transfer_syntax_uid: str = ExplicitVRLittleEndian,
    **elements: Any,
) -> Dataset:
    """A mammogram of the given cells; elements by keyword replace its own, None removes one."""
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = DigitalMammographyXRayImageStorageForPresentation
    meta.MediaStorageSOPInstanceUID = SOP_INSTANCE_UID
    meta.TransferSyntaxUID = transfer_syntax_uid
    order = ">" if transfer_syntax_uid == ExplicitVRBigEndian else "<"
    rows, columns = pixels.shape
    data_set = Dataset()
    data_set.file_meta = meta
    own: dict[str, Any] = {
        "SOPClassUID": DigitalMammographyXRayImageStorageForPresentation,
        "SOPInstanceUID": SOP_INSTANCE_UID,
        "PatientName": PATIENT,
        "Modality": "MG",
        "PresentationIntentType": "FOR PRESENTATION",
        "ImageLaterality": "R",
        "ViewPosition": "MLO",
        "ImagerPixelSpacing": ["0.1", "0.1"],
        "SamplesPerPixel": 1,
        "PhotometricInterpretation": "MONOCHROME2",
        "Rows": rows,
        "Columns": columns,
        "BitsAllocated": pixels.dtype.itemsize * 8,
        "BitsStored": bits_stored,
        "HighBit": bits_stored - 1 if high_bit is None else high_bit,
        "PixelRepresentation": int(pixels.dtype.kind == "i"),
        "PixelData": pixels.astype(pixels.dtype.newbyteorder(order)).tobytes(),
        **elements,
    }
    for keyword, value in own.items():
        if value is not None:
            setattr(data_set, keyword, value)
    if "PixelData" in data_set:
        data_set["PixelData"].VR = "OW" if pixels.dtype.itemsize == 2 else "OB"
    return data_set


def written(path: Path, data_set: Dataset) -> Path:
    """Write it as it is, also where it breaks the standard."""
    syntax = data_set.file_meta.TransferSyntaxUID
    data_set.preamble = bytes(128)
    data_set.save_as(
        path,
        implicit_vr=syntax == ImplicitVRLittleEndian,
        little_endian=syntax != ExplicitVRBigEndian,
        enforce_file_format=False,
    )
    return path


def breast(rows: int = 96, columns: int = 80, bits: int = 12) -> NDArray[np.uint16]:
    """Something smooth with some noise, which every codec takes."""
    y, x = np.mgrid[:rows, :columns]
    noise = np.random.default_rng(1).integers(0, 9, (rows, columns))
    wave = (np.sin(y / 17) + np.cos(x / 11) + 2) / 4 * ((1 << bits) - 20)
    return (wave + noise).astype(np.uint16)
