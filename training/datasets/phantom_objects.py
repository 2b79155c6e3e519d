"""The DICOM objects around phantoms: one image, or the four views of a screening study."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from typing import Any

from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import UID, DigitalMammographyXRayImageStorageForPresentation, ExplicitVRLittleEndian

from training.datasets.phantoms import LesionKind, Phantom, draw

_NAMESPACE = uuid.UUID("0f7e8c3a-6f0b-5a52-9d0c-3b0f6f7d2c11")
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
