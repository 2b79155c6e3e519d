"""The device behind a study: who made the images, what their pixels look like in numbers, is it trusted.

Read from headers and pixels of a score job; holds nothing of the patient.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

import numpy as np
from pydicom import Dataset

from db.observations import Observation
from dicom_node.header_values import text, texts
from models.contract import ImageView

UNKNOWN_MODEL = "UNKNOWN"
_MODEL_MAX_LENGTH = 64  # DICOM LO, PS3.5 6.2
_VERSIONS_MAX_LENGTH = 256
_STEP = 16  # pixels between samples: a few ten thousand of an image tell as much as all
_DARK = 3277  # P-values, 5 % of the scale
_CATEGORIES = {
    "photometric_interpretation": "PhotometricInterpretation",
    "presentation_lut_shape": "PresentationLUTShape",
    "voi_lut_function": "VOILUTFunction",
    "bits_stored": "BitsStored",
    "lossy_image_compression": "LossyImageCompression",
}


def scanner_model(header: Dataset) -> str:
    """Return Manufacturer's Model Name (0008,1090) in upper case, ``"UNKNOWN"`` where it is not stated."""
    return _plain(text(header, "ManufacturerModelName"))[:_MODEL_MAX_LENGTH] or UNKNOWN_MODEL


def software_versions(header: Dataset) -> str:
    """Return Software Versions (0018,1020), several joined by a backslash; may be empty."""
    return _plain("\\".join(texts(header, "SoftwareVersions")))[:_VERSIONS_MAX_LENGTH]


def is_validated(header: Dataset, scanner_models: Collection[str]) -> bool:
    """Whether a bundle that was validated for these models, or for all where there are none, may score."""
    return not scanner_models or scanner_model(header) in {model.upper() for model in scanner_models}


def is_shadowed(headers: Sequence[Dataset], shadowed: Collection[str]) -> bool:
    """Whether any image was made by a device in shadow: ``MODEL``, or ``MODEL/SOFTWARE`` for one version."""
    names = {entry.upper() for entry in shadowed}
    found = {scanner_model(header) for header in headers}
    found |= {f"{scanner_model(header)}/{software_versions(header)}" for header in headers}
    return bool(names & found)


def observation_of(headers: Sequence[Dataset], views: Sequence[ImageView]) -> Observation:
    """Say who made a study's images and what they look like; the first scored image speaks for the device."""
    scored = {view.sop_instance_uid for view in views}
    makers = [header for header in headers if text(header, "SOPInstanceUID") in scored] or list(headers)
    if not makers:
        return Observation(UNKNOWN_MODEL, "")
    return Observation(
        scanner_model(makers[0]),
        software_versions(makers[0]),
        numbers=_numbers(views),
        categories={
            name: "|".join(sorted({_plain(text(header, keyword)) for header in makers}))
            for name, keyword in _CATEGORIES.items()
        },
    )


def _numbers(views: Sequence[ImageView]) -> dict[str, float]:
    if not views:
        return {}
    each = [_numbers_of(view) for view in views]
    return {name: float(np.mean([numbers[name] for numbers in each])) for name in each[0]}


def _numbers_of(view: ImageView) -> dict[str, float]:
    samples = view.pixels[::_STEP, ::_STEP].astype(np.float64) / np.iinfo(np.uint16).max
    tissue: Any = samples[samples > _DARK / np.iinfo(np.uint16).max]
    inside = tissue if tissue.size else samples.ravel()
    return {
        "mean": float(inside.mean()),
        "deviation": float(inside.std()),
        "dark_share": float(1.0 - tissue.size / samples.size),
    }


def _plain(value: str) -> str:
    return "".join(character for character in value if character.isprintable()).strip()
