"""Made-up mammograms: anatomy in millimetres, drawn at any resolution, and the DICOM objects around them.

A phantom looks enough like a mammogram to exercise every step of the node and to train a demonstration
network; it says nothing about real breasts. The same seed drawn at another resolution shows the same breast.
This module knows nothing of training or of the node's processes.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import UID, DigitalMammographyXRayImageStorageForPresentation, ExplicitVRLittleEndian

from models.contract import Laterality
from training.datasets import phantom_anatomy
from training.datasets.phantom_anatomy import FIELD_HEIGHT_MM, GRID_MM, Anatomy, upsampled
from training.datasets.phantom_lesions import RADIUS_MM, LesionKind, add_lesion

__all__ = ["Lesion", "LesionKind", "Phantom", "data_set", "draw", "study"]

_VIEWS = {"CC": 0, "MLO": 1}
_NAMESPACE = uuid.UUID("0f7e8c3a-6f0b-5a52-9d0c-3b0f6f7d2c11")


@dataclass(frozen=True)
class Lesion:
    """Where the abnormality was drawn.

    Attributes
    ----------
    kind : LesionKind
        Any kind but NORM.
    malignant : bool
        Whether it was drawn with malignant signs.
    centre : tuple of float
        ``(column, row)`` in DICOM pixel coordinates: ``0\\0`` is the outer corner of the first pixel.
    radius : float
        Radius of the enclosing circle, pixels.
    """

    kind: LesionKind
    malignant: bool
    centre: tuple[float, float]
    radius: float


@dataclass(frozen=True)
class Phantom:
    """A drawn mammogram.

    Attributes
    ----------
    pixels : numpy.ndarray
        ``(rows, columns)`` uint16, 0..4095 (12 bit, MONOCHROME2); 0 is air.
    laterality : Laterality
        Side. A right breast has its chest wall at the right edge of the image, a left one at the left.
    view : str
        ``"CC"`` or ``"MLO"``.
    lesion : Lesion or None
        None for a normal breast.
    spacing_mm : float
        Distance of pixel centres, millimetres, in both directions.
    """

    pixels: NDArray[np.uint16]
    laterality: Laterality
    view: str
    lesion: Lesion | None
    spacing_mm: float


def draw(
    *,
    laterality: Laterality | str,
    view: str,
    kind: LesionKind = LesionKind.NORM,
    malignant: bool = False,
    rows: int = 2048,
    columns: int = 1664,
    seed: int = 0,
) -> Phantom:
    """Draw one view of one breast.

    Both views of a breast (same seed and laterality) share its size, density and the lesion's distance from
    the nipple, as the two views of a woman do.

    Parameters
    ----------
    laterality : Laterality or str
        ``"R"`` or ``"L"``.
    view : str
        ``"CC"`` or ``"MLO"``.
    kind : LesionKind
        What to draw.
    malignant : bool
        Draw it larger, denser and more irregular. A normal breast cannot be malignant.
    rows, columns : int
        Size of the image; the spacing follows from the rows.
    seed : int
        Not negative. The same arguments give the same pixels.

    Returns
    -------
    Phantom
        The image and where its lesion is.

    Raises
    ------
    ValueError
        For another view than CC and MLO, for a malignant NORM, or for an image below 64 x 64.
    """
    if view not in _VIEWS:
        raise ValueError(f"view must be CC or MLO, not {view!r}")
    if kind is LesionKind.NORM and malignant:
        raise ValueError("a NORM phantom has no lesion that could be malignant")
    if min(rows, columns) < 64:
        raise ValueError("a phantom needs at least 64 rows and 64 columns")
    side = Laterality(laterality)
    spacing = FIELD_HEIGHT_MM / rows
    of_breast = [seed, int(side is Laterality.LEFT)]
    breast, texture = np.random.default_rng(of_breast), np.random.default_rng([*of_breast, _VIEWS[view]])
    anatomy = phantom_anatomy.anatomy(breast, view)
    u = ((np.arange(columns, dtype=np.float32) + 0.5) * spacing)[None, :]
    v = ((np.arange(rows, dtype=np.float32) + 0.5) * spacing - FIELD_HEIGHT_MM / 2)[:, None]

    inside = anatomy.inside_mm(u, v)
    tissue = upsampled(phantom_anatomy.soft_tissue(anatomy, texture), rows, columns, spacing)
    tissue += upsampled(
        phantom_anatomy.fine_texture(texture, spacing), rows, columns, spacing, point_mm=GRID_MM / 2
    )
    place = None
    if kind is not LesionKind.NORM:
        place = _lesion_place(kind, malignant, anatomy, breast, texture, columns * spacing)
        add_lesion(tissue, kind, malignant, place, u, v, np.random.default_rng([*of_breast, 2]), spacing)
    pixels = phantom_anatomy.exposed(tissue, inside, spacing)
    lesion = None
    if place is not None:
        column, row = place[0] / spacing, (place[1] + FIELD_HEIGHT_MM / 2) / spacing
        column = column if side is Laterality.LEFT else columns - column
        lesion = Lesion(kind, malignant, (column, row), place[2] / spacing)
    if side is Laterality.RIGHT:
        pixels = np.ascontiguousarray(pixels[:, ::-1])
    return Phantom(pixels, side, view, lesion, spacing)


def _lesion_place(
    kind: LesionKind,
    malignant: bool,
    anatomy: Anatomy,
    breast: np.random.Generator,
    of_view: np.random.Generator,
    width_mm: float,
) -> tuple[float, float, float]:
    """Centre ``u, v`` and radius in millimetres, inside the breast and clear of the muscle."""
    low, high = RADIUS_MM[kind]
    radius = breast.uniform(low, high) * (1.1 if malignant else 0.9)
    distance = breast.uniform(0.28, 0.62) * anatomy.depth  # behind the nipple; both views share it
    u = anatomy.depth - distance
    for _ in range(64):
        v = anatomy.nipple_v + of_view.uniform(-0.55, 0.45) * anatomy.lower
        at = np.full(1, u, np.float32), np.full(1, v, np.float32)
        clear = anatomy.pectoral_mm(*at)[0] < -0.6 * radius
        if clear and anatomy.inside_mm(*at)[0] > radius + 3 and u + radius < width_mm:
            return u, float(v), radius
    # Straight behind the nipple there is always room.
    return min(u, width_mm / 2), anatomy.nipple_v, radius


# Cranio-caudal and medio-lateral oblique of CID 4014, and the directions of rows and columns on a viewer.
_VIEW_CODES = {"CC": ("399162004", "cranio-caudal"), "MLO": ("399368009", "medio-lateral oblique")}
_ORIENTATIONS = {
    ("R", "CC"): ["P", "L"],
    ("L", "CC"): ["A", "R"],
    ("R", "MLO"): ["P", "FL"],
    ("L", "MLO"): ["A", "FR"],
}
_PROTOCOL = (("R", "CC"), ("L", "CC"), ("R", "MLO"), ("L", "MLO"))


def data_set(
    phantom: Phantom,
    *,
    study_instance_uid: str,
    series_instance_uid: str,
    sop_instance_uid: str,
    patient_id: str = "PHANTOM-0001",
    patient_name: str = "Phantom^Demo",
    accession_number: str = "A0001",
    instance_number: int = 1,
    **overrides: Any,
) -> Dataset:
    """Wrap a phantom into a Digital Mammography X-Ray Image - For Presentation (PS3.3 A.26).

    Parameters
    ----------
    phantom : Phantom
        The image.
    study_instance_uid, series_instance_uid, sop_instance_uid : str
        The object's place.
    patient_id, patient_name, accession_number : str
        Whose and for which request.
    instance_number : int
        Number within the series.
    **overrides
        Elements by DICOM keyword that replace the phantom's own; None removes the element.

    Returns
    -------
    pydicom.dataset.Dataset
        With file meta information (Explicit VR Little Endian), ready to write or to send.
    """
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = DigitalMammographyXRayImageStorageForPresentation
    meta.MediaStorageSOPInstanceUID = UID(sop_instance_uid)
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    image = Dataset()
    image.file_meta = meta
    elements: dict[str, Any] = {
        "SOPClassUID": DigitalMammographyXRayImageStorageForPresentation,
        "SOPInstanceUID": sop_instance_uid,
        "StudyInstanceUID": study_instance_uid,
        "SeriesInstanceUID": series_instance_uid,
        "PatientName": patient_name,
        "PatientID": patient_id,
        "AccessionNumber": accession_number,
        "InstanceNumber": instance_number,
        **_WHO_AND_WHEN,
        **_acquisition(phantom),
        **_pixel_module(phantom),
        **overrides,
    }
    for keyword, value in elements.items():
        if value is not None:
            setattr(image, keyword, value)
    return image


_WHO_AND_WHEN: dict[str, Any] = {
    "PatientBirthDate": "19600101",
    "PatientSex": "F",
    "PatientAge": "066Y",
    "StudyDate": "20260105",
    "StudyTime": "090000",
    "SeriesDate": "20260105",
    "SeriesTime": "090100",
    "ContentDate": "20260105",
    "ContentTime": "090200",
    "AcquisitionDate": "20260105",
    "AcquisitionTime": "090200",
    "StudyID": "1",
    "SeriesNumber": 1,
    "StudyDescription": "Screening mammography (phantom)",
    "SeriesDescription": "Phantom",
    "ReferringPhysicianName": "",
    "Manufacturer": "dicom-node phantoms",
    "ManufacturerModelName": "Phantom",
    "DeviceSerialNumber": "0",
    "SoftwareVersions": "1",
    "InstitutionName": "Phantom hospital",
    "Modality": "MG",
    "PresentationIntentType": "FOR PRESENTATION",
}


def _coded(value: str, meaning: str) -> Dataset:
    code = Dataset()
    code.CodeValue = value
    code.CodingSchemeDesignator = "SCT"
    code.CodeMeaning = meaning
    return code


def _acquisition(phantom: Phantom) -> dict[str, Any]:
    view_code = _coded(*_VIEW_CODES[phantom.view])
    view_code.ViewModifierCodeSequence = []
    return {
        "ImageType": ["DERIVED", "PRIMARY"],
        "DerivationDescription": "Computed phantom",
        "ImageLaterality": str(phantom.laterality),
        "ViewPosition": phantom.view,
        "ViewCodeSequence": [view_code],
        "PatientOrientation": _ORIENTATIONS[phantom.laterality, phantom.view],
        "AnatomicRegionSequence": [_coded("76752008", "Breast")],
        "AcquisitionContextSequence": [],
        "BodyPartExamined": "BREAST",
        "OrganExposed": "BREAST",
        "PositionerType": "MAMMOGRAPHIC",
        "PositionerPrimaryAngle": 0 if phantom.view == "CC" else 45,
        "BreastImplantPresent": "NO",
        "PartialView": "NO",
        "DetectorType": "DIRECT",
        "DetectorID": "PHANTOM",
        "DateOfLastDetectorCalibration": "20260105",
        "TimeOfLastDetectorCalibration": "080000",
        "ImagerPixelSpacing": [f"{phantom.spacing_mm:.6g}"] * 2,
        "EstimatedRadiographicMagnificationFactor": "1",
        "KVP": "28",
        "Exposure": 100,
        "CompressionForce": "100",
        "BodyPartThickness": "50",
    }


def _pixel_module(phantom: Phantom) -> dict[str, Any]:
    rows, columns = phantom.pixels.shape
    return {
        "SamplesPerPixel": 1,
        "PhotometricInterpretation": "MONOCHROME2",
        "Rows": rows,
        "Columns": columns,
        "BitsAllocated": 16,
        "BitsStored": 12,
        "HighBit": 11,
        "PixelRepresentation": 0,
        "PixelIntensityRelationship": "LOG",
        "PixelIntensityRelationshipSign": -1,
        "BurnedInAnnotation": "NO",
        "LossyImageCompression": "00",
        "RescaleIntercept": "0",
        "RescaleSlope": "1",
        "RescaleType": "US",
        "PresentationLUTShape": "IDENTITY",
        "WindowCenter": "2048",
        "WindowWidth": "4096",
        "PixelData": phantom.pixels.astype("<u2").tobytes(),
    }


def study(
    *,
    seed: int = 0,
    kinds: Mapping[tuple[str, str], tuple[LesionKind, bool]] | None = None,
    rows: int = 2048,
    columns: int = 1664,
    patient_id: str = "PHANTOM-0001",
    patient_name: str = "Phantom^Demo",
    accession_number: str = "A0001",
) -> list[Dataset]:
    """Draw a four-view screening study: R CC, L CC, R MLO, L MLO.

    Parameters
    ----------
    seed : int
        The woman. Every UID is made from it, so the same call gives the same study.
    kinds : mapping, optional
        ``(laterality, view)`` to ``(kind, malignant)``; views not named are normal. The same kind in both
        views of a breast is the same lesion.
    rows, columns : int
        Size of each image.
    patient_id, patient_name, accession_number : str
        Whose and for which request.

    Returns
    -------
    list of pydicom.dataset.Dataset
        Four objects, each in a series of its own: viewers that place an overlay by its series (OHIF) would
        lay it over another view otherwise.
    """
    wanted = kinds or {}
    study_instance_uid = _uid(seed, "study")
    images = []
    for number, (laterality, view) in enumerate(_PROTOCOL, start=1):
        kind, malignant = wanted.get((laterality, view), (LesionKind.NORM, False))
        phantom = draw(
            laterality=laterality,
            view=view,
            kind=kind,
            malignant=malignant,
            rows=rows,
            columns=columns,
            seed=seed,
        )
        images.append(
            data_set(
                phantom,
                study_instance_uid=study_instance_uid,
                series_instance_uid=_uid(seed, f"series {laterality} {view}"),
                sop_instance_uid=_uid(seed, f"{laterality} {view}"),
                patient_id=patient_id,
                patient_name=patient_name,
                accession_number=accession_number,
                SeriesNumber=number,
            )
        )
    return images


def _uid(seed: int, what: str) -> str:
    # PS3.5 B.2: a UUID as a decimal under 2.25.
    return f"2.25.{uuid.uuid5(_NAMESPACE, f'{seed} {what}').int}"
