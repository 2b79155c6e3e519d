"""Whole-slide images to build results from: a header as a scanner writes it, and patch probabilities."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset
from pydicom.dataset import FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, VLWholeSlideMicroscopyImageStorage

from dicom_node.results.slide import SlideContext, SlideStudyContext
from models.contract import Outcome, Refusal, RefusalCode, SlidePrediction, SlideStudyPrediction
from tests import results_contexts as given

SLIDE_UID = "2.25.8101"
OTHER_UID = "2.25.8111"
PATCH = 50
ROWS, COLUMNS = 24, 32


def coded(value: str, scheme: str, meaning: str) -> Dataset:
    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = value, scheme, meaning
    return item


def slide(**overrides: Any) -> Dataset:
    """Give the header of a slide scanned at 0.5 micrometres per pixel, read back from a file."""
    image = Dataset()
    image.file_meta = FileMetaDataset()
    image.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    origin, measures, groups, specimen = Dataset(), Dataset(), Dataset(), Dataset()
    origin.XOffsetInSlideCoordinateSystem, origin.YOffsetInSlideCoordinateSystem = "20", "40"
    measures.PixelSpacing, measures.SliceThickness = ["0.0005", "0.0005"], "0.004"
    groups.PixelMeasuresSequence = [measures]
    specimen.SpecimenIdentifier, specimen.SpecimenUID = "S26-1 A1", "2.25.8104"
    specimen.IssuerOfTheSpecimenIdentifierSequence = []
    specimen.SpecimenPreparationSequence = []
    elements: dict[str, Any] = {
        "SOPClassUID": VLWholeSlideMicroscopyImageStorage,
        "SOPInstanceUID": SLIDE_UID,
        "StudyInstanceUID": "2.25.8102",
        "SeriesInstanceUID": "2.25.8103",
        "FrameOfReferenceUID": "2.25.8105",
        "PositionReferenceIndicator": "SLIDE_CORNER",
        "PatientName": "Phantom^Demo",
        "PatientID": "PHANTOM-0001",
        "PatientBirthDate": "19600101",
        "PatientSex": "F",
        "StudyDate": "20260105",
        "StudyTime": "090000",
        "StudyID": "1",
        "AccessionNumber": "S26-1",
        "ReferringPhysicianName": "",
        "Modality": "SM",
        "Manufacturer": "dicom-node phantoms",
        "NumberOfFrames": 12,
        "Rows": 400,
        "Columns": 400,
        "TotalPixelMatrixRows": ROWS * PATCH - 20,
        "TotalPixelMatrixColumns": COLUMNS * PATCH,
        "TotalPixelMatrixOriginSequence": [origin],
        "ImageOrientationSlide": ["0", "-1", "0", "-1", "0", "0"],
        "ContainerIdentifier": "S26-1",
        "IssuerOfTheContainerIdentifierSequence": [],
        "ContainerTypeCodeSequence": [coded("433466003", "SCT", "Microscope slide")],
        "SpecimenDescriptionSequence": [specimen],
        "SharedFunctionalGroupsSequence": [groups],
        "LossyImageCompression": "01",
        "LossyImageCompressionRatio": "12",
        "LossyImageCompressionMethod": "ISO_10918_1",
        "PixelData": b"\0\0",
    }
    for keyword, value in elements.items():
        setattr(image, keyword, value)
    image["PixelData"].VR = "OB"
    return given.header(image, overrides=overrides)


def patches() -> NDArray[np.float32]:
    """Give 24 x 32 patches with one bright one, its neighbours fainter, and bare glass along two sides."""
    values = np.full((ROWS, COLUMNS), 0.05, np.float32)
    values[9, 20], values[9, 21], values[10, 20] = 0.96, 0.7, 0.6
    values[:3], values[:, -4:] = np.nan, np.nan
    return values


def said(probability: float = 0.96, **more: Any) -> SlidePrediction:
    return SlidePrediction(
        **{
            "task": "idc",
            "threshold": 0.5,
            "probability": probability,
            "patches": patches(),
            "patch_pixels": PATCH,
            "sop_instance_uid": SLIDE_UID,
            **more,
        }
    )


def context(
    prediction: SlidePrediction | None = None, source: Dataset | None = None, **more: Any
) -> SlideContext:
    return SlideContext(
        source=source or slide(),
        prediction=prediction or said(),
        bundle=given.BUNDLE,
        node=given.NODE,
        analysed_at=given.ANALYSED_AT,
        **more,
    )


def study(
    prediction: SlideStudyPrediction | None = None, sources: tuple[Dataset, ...] | None = None, **more: Any
) -> SlideStudyContext:
    """Give a study of one slide, or of what is said."""
    return SlideStudyContext(
        sources=sources or (slide(),),
        prediction=prediction or SlideStudyPrediction("idc", Outcome.SCORED, 0.5, slides=(said(),)),
        bundle=given.BUNDLE,
        node=given.NODE,
        analysed_at=given.ANALYSED_AT,
        **more,
    )


def partly(probability: float = 0.96) -> SlideStudyPrediction:
    """Say something of one of two slides; of the other that no tissue was found."""
    return SlideStudyPrediction(
        "idc",
        Outcome.PARTIAL,
        0.5,
        slides=(said(probability),),
        refusals=(Refusal(RefusalCode.NO_TISSUE, OTHER_UID),),
    )


def refused() -> SlideStudyPrediction:
    """Say that nothing was scored."""
    return SlideStudyPrediction(
        "idc",
        Outcome.REFUSED,
        0.5,
        refusals=(
            Refusal(RefusalCode.NO_SCORABLE_IMAGE),
            Refusal(RefusalCode.SLIDE_RESOLUTION, SLIDE_UID),
        ),
    )
