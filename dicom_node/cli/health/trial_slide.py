"""A made-up slide, of which ``doctor --pacs`` sends the map of patches and the report."""

from __future__ import annotations

from datetime import datetime

import numpy as np
from pydicom import Dataset
from pydicom.uid import VLWholeSlideMicroscopyImageStorage

from dicom_node.results.context import BuiltObject, NodeIdentity
from dicom_node.results.identity import uid_for
from dicom_node.results.slide import SlideContext, build_slide
from models.contract import BundleIdentity, SlidePrediction

_PATCHES, _PATCH_PIXELS, _PIXEL_MM = 16, 50, 0.0005


def slide_objects(
    of_study: Dataset, bundle: BundleIdentity, node: NodeIdentity, made_at: datetime
) -> tuple[BuiltObject, ...]:
    """Build the results of a slide that does not exist.

    Parameters
    ----------
    of_study : pydicom.dataset.Dataset
        Header of an image of the study that the slide is said to be of.
    bundle, node, made_at
        Who made the results, and when.

    Returns
    -------
    tuple of BuiltObject
        A map with one bright patch, and the report.
    """
    study = str(of_study.StudyInstanceUID)
    uids = [uid_for("trial.slide", bundle, [study], n) for n in range(4)]
    patches = np.full((_PATCHES, _PATCHES), 0.05, np.float32)
    patches[_PATCHES // 2, _PATCHES // 2] = 0.9
    prediction = SlidePrediction(
        task=bundle.task,
        threshold=0.5,
        probability=0.9,
        patches=patches,
        patch_pixels=_PATCH_PIXELS,
        sop_instance_uid=uids[0],
    )
    return build_slide(SlideContext(_header(of_study, uids), prediction, bundle, node, made_at))


def _header(of_study: Dataset, uids: list[str]) -> Dataset:
    origin, measures, groups, specimen, container = (Dataset() for _ in range(5))
    origin.XOffsetInSlideCoordinateSystem = origin.YOffsetInSlideCoordinateSystem = 20
    measures.PixelSpacing, measures.SliceThickness = [_PIXEL_MM, _PIXEL_MM], 0.004
    groups.PixelMeasuresSequence = [measures]
    specimen.SpecimenIdentifier, specimen.SpecimenUID = "TEST", uids[1]
    specimen.IssuerOfTheSpecimenIdentifierSequence = []
    specimen.SpecimenPreparationSequence = []
    container.CodeValue, container.CodingSchemeDesignator = "433466003", "SCT"
    container.CodeMeaning = "Microscope slide"
    header = Dataset()
    # Patient and study, as the mammograms have them.
    for group in (0x0008, 0x0010, 0x0020):
        header.update(of_study.group_dataset(group))
    for keyword in ("PatientOrientation", "Laterality", "ImageLaterality"):
        if keyword in header:
            delattr(header, keyword)
    header.SOPClassUID, header.SOPInstanceUID = VLWholeSlideMicroscopyImageStorage, uids[0]
    header.SeriesInstanceUID, header.FrameOfReferenceUID = uids[2], uids[3]
    header.PositionReferenceIndicator = "SLIDE_CORNER"
    header.Modality = "SM"
    header.TotalPixelMatrixRows = header.TotalPixelMatrixColumns = _PATCHES * _PATCH_PIXELS
    header.TotalPixelMatrixOriginSequence = [origin]
    header.ImageOrientationSlide = [0, -1, 0, -1, 0, 0]
    header.ContainerIdentifier = "TEST"
    header.IssuerOfTheContainerIdentifierSequence = []
    header.ContainerTypeCodeSequence = [container]
    header.SpecimenDescriptionSequence = [specimen]
    header.SharedFunctionalGroupsSequence = [groups]
    header.NumberOfFrames = 1
    header.Rows = header.Columns = _PATCHES * _PATCH_PIXELS
    header.LossyImageCompression = "00"
    return header
