"""What every segmentation shares: the description of a segment, its frames and its packed pixels.

Pixels are packed here: highdicom's writer takes seconds for four mammograms and leaves out what images
without a Frame of Reference need.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from highdicom import AlgorithmIdentificationSequence
from highdicom.color import CIELabColor
from highdicom.seg import SegmentAlgorithmTypeValues, SegmentDescription
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.sr.coding import Code
from pydicom.tag import Tag

from dicom_node.errors import ResultError
from dicom_node.results import codes, wording
from dicom_node.results.content_tree import SEGMENTATION_STORAGE, sop_reference
from dicom_node.results.context import ResultContext
from dicom_node.results.header import code_item, new_instance
from dicom_node.results.source import copy_element, is_filled, referenced
from models.contract import BundleIdentity, ImageScore

_NOMINAL_THICKNESS_MM = 1
_CREATOR = "AI^Node"  # type 2, and never a person


def new_segmentation(
    context: ResultContext,
    score: ImageScore,
    *,
    kind: str,
    first_series_number: int,
    ordinal: int,
    description: str,
    content: tuple[str, str],
    segments: Iterable[Dataset],
) -> Dataset:
    """Make a segmentation of one image, complete but for its pixels.

    Parameters
    ----------
    context : ResultContext
        What the result speaks about.
    score : models.contract.ImageScore
        The image; of one of several frames where the score names it.
    kind : str
        The kind in its UIDs.
    first_series_number : int
        Series Number of the first of its kind.
    ordinal : int
        Place of the image among the scores, from 0.
    description : str
        What the series shows.
    content : tuple of str
        Content Label (CS) and Content Description (LO, at most 64 characters).
    segments : iterable of pydicom.dataset.Dataset
        From :func:`segment`, numbered from 1.

    Returns
    -------
    pydicom.dataset.Dataset
        With one frame for each segment (PS3.3 C.7.6.16, C.7.6.17).
    """
    source = context.source(score.sop_instance_uid)
    instance = new_instance(
        context,
        sop_class_uid=SEGMENTATION_STORAGE,
        kind=kind,
        modality="SEG",
        series_number=first_series_number + ordinal,
        description=description,
        ordinal=ordinal,
    )
    instance.ContentLabel, instance.ContentDescription = content
    instance.ContentCreatorName = _CREATOR
    instance.SegmentSequence = list(segments)
    _add_references(instance, source)
    _add_frames(instance, source, score.frame, context.uid(f"{kind}.dimension", ordinal))
    return instance


def algorithm_of(bundle: BundleIdentity, threshold: float) -> AlgorithmIdentificationSequence:
    """Name the bundle that a segment comes from (PS3.3 table 10-19).

    Parameters
    ----------
    bundle : models.contract.BundleIdentity
        Who answered.
    threshold : float
        Its operating point, 0..1.
    """
    algorithm = AlgorithmIdentificationSequence(
        bundle.name, codes.ARTIFICIAL_INTELLIGENCE, bundle.version, source=bundle.manufacturer
    )
    algorithm[0].AlgorithmParameters = wording.parameters(threshold)
    return algorithm


def segment(
    context: ResultContext,
    score: ImageScore,
    *,
    number: int,
    label: str,
    description: str,
    category: Code,
    property_type: Code,
    tracking: tuple[str, str],
    colour: CIELabColor,
) -> Dataset:
    """Describe one segment (PS3.3 C.8.20.4).

    Parameters
    ----------
    context : ResultContext
        Which model speaks.
    score : models.contract.ImageScore
        Of which image.
    number : int
        Segment Number, from 1.
    label, description : str
        What a viewer lists, at most 64 characters each.
    category, property_type : pydicom.sr.coding.Code
        What it is (PS3.16 CID 7150, 7151).
    tracking : tuple of str
        Tracking UID and Tracking ID, those of its measurement group in the report.
    colour : highdicom.color.CIELabColor
        Recommended colour.
    """
    algorithm = algorithm_of(context.bundle, context.prediction.threshold)
    item: Dataset = SegmentDescription(
        number,
        label,
        category,
        property_type,
        SegmentAlgorithmTypeValues.AUTOMATIC,
        algorithm_identification=algorithm,
        tracking_uid=tracking[0],
        tracking_id=tracking[1],
        display_color=colour,
    )
    item.SegmentDescription = description
    region = code_item(codes.BREAST)
    # PS3.3 A.51 has no Laterality in the series: the side of a segmentation stands here.
    region.AnatomicRegionModifierSequence = [code_item(codes.SIDES[score.laterality])]
    item.AnatomicRegionSequence = [region]
    return item


def require_same_size(pixels: NDArray[np.uint8] | NDArray[np.bool_], source: Dataset, what: str) -> None:
    """Refuse pixels that are not one for each pixel of their image.

    Raises
    ------
    ResultError
        Naming `what` does not fit.
    """
    if pixels.shape != (source.get("Rows"), source.get("Columns")):
        raise ResultError(f"{what} does not fit its image; look at the bundle's version")


def add_binary_pixels(
    instance: Dataset, source: Dataset, frames: NDArray[np.bool_], *, overlap: bool = False
) -> None:
    """Add the pixels of BINARY segments (PS3.3 C.8.20.2).

    Parameters
    ----------
    instance : pydicom.dataset.Dataset
        The segmentation.
    source : pydicom.dataset.Dataset
        Header of its image.
    frames : numpy.ndarray
        ``(segments, rows, columns)`` bool.
    overlap : bool
        Whether two segments share a pixel.
    """
    # PS3.5 8.1.1: bits run on through rows and frames, the first pixel in the lowest bit.
    packed = np.packbits(frames.reshape(-1), bitorder="little").tobytes()
    _add_pixels(instance, source, frames.shape[1:], bits=1, packed=packed)
    instance.SegmentationType = "BINARY"
    instance.SegmentsOverlap = "YES" if overlap else "NO"


def add_fractional_pixels(instance: Dataset, source: Dataset, values: NDArray[np.uint8]) -> None:
    """Add the pixels of one FRACTIONAL segment (PS3.3 C.8.20.2).

    Parameters
    ----------
    instance : pydicom.dataset.Dataset
        The segmentation.
    source : pydicom.dataset.Dataset
        Header of its image.
    values : numpy.ndarray
        ``(rows, columns)`` uint8, 255 stands for 1.
    """
    _add_pixels(instance, source, values.shape, bits=8, packed=values.tobytes())
    instance.SegmentationType = "FRACTIONAL"
    instance.SegmentationFractionalType = "PROBABILITY"
    instance.MaximumFractionalValue = 255


def _add_pixels(
    instance: Dataset, source: Dataset, shape: tuple[int, ...], *, bits: int, packed: bytes
) -> None:
    instance.ImageType = ["DERIVED", "PRIMARY"]
    instance.SamplesPerPixel = 1
    instance.PhotometricInterpretation = "MONOCHROME2"
    instance.Rows, instance.Columns = shape
    instance.BitsAllocated = instance.BitsStored = bits
    instance.HighBit = bits - 1
    instance.PixelRepresentation = 0
    instance.LossyImageCompression = "00"
    # PS3.3 C.7.6.1.1.5: an image made from a lossy one stays lossy.
    if source.get("LossyImageCompression") == "01":
        for keyword in ("", "Ratio", "Method"):
            copy_element(source, instance, f"LossyImageCompression{keyword}")
    instance.add_new(Tag("PixelData"), "OB", packed + b"\0" * (len(packed) % 2))


def _add_references(instance: Dataset, source: Dataset) -> None:
    # PS3.3 C.12.2: OHIF shows no segmentation without it.
    series = Dataset()
    series.SeriesInstanceUID = source.SeriesInstanceUID
    series.ReferencedInstanceSequence = [sop_reference(*referenced(source))]
    instance.ReferencedSeriesSequence = [series]
    if copy_element(source, instance, "FrameOfReferenceUID"):
        instance.PositionReferenceIndicator = None
        copy_element(source, instance, "PositionReferenceIndicator")
    if not copy_element(source, instance, "PatientOrientation"):
        instance.PatientOrientation = None


def _add_frames(instance: Dataset, source: Dataset, frame: int | None, dimension_uid: str) -> None:
    """Add the functional groups and dimensions of one frame for each segment."""
    numbers = [int(item.SegmentNumber) for item in instance.SegmentSequence]
    organisation = Dataset()
    organisation.DimensionOrganizationUID = dimension_uid
    index = Dataset()
    index.DimensionOrganizationUID = dimension_uid
    index.DimensionIndexPointer = Tag("ReferencedSegmentNumber")
    index.FunctionalGroupPointer = Tag("SegmentIdentificationSequence")
    index.DimensionDescriptionLabel = "Segment Number"
    instance.DimensionOrganizationSequence = [organisation]
    instance.DimensionIndexSequence = [index]
    instance.SharedFunctionalGroupsSequence = [_shared_groups(source, frame)]
    instance.PerFrameFunctionalGroupsSequence = [_frame_groups(source, frame, n) for n in numbers]
    instance.NumberOfFrames = len(numbers)


def _shared_groups(source: Dataset, frame: int | None) -> Dataset:
    shared = Dataset()
    groups = _groups_of_frame(source, frame)
    for keyword in ("PlanePositionSequence", "PlaneOrientationSequence", "PixelMeasuresSequence"):
        for group in groups:
            copy_element(group, shared, keyword)
    if "PlaneOrientationSequence" not in shared:
        # OHIF waits for ever for an orientation, although the image has no Frame of Reference to give it
        # sense.
        orientation = Dataset()
        orientation.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
        shared.PlaneOrientationSequence = [orientation]
    if "PixelMeasuresSequence" not in shared:
        shared.PixelMeasuresSequence = [_pixel_measures(source)]
    return shared


def _groups_of_frame(source: Dataset, frame: int | None) -> list[Dataset]:
    """Give the functional groups of one frame of the source, the shared ones first."""
    if frame is None:
        return []
    return [
        *source.get("SharedFunctionalGroupsSequence", ()),
        *source.get("PerFrameFunctionalGroupsSequence", ())[frame - 1 : frame],
    ]


def _pixel_measures(source: Dataset) -> Dataset:
    """Give the spacing in the detector's plane, as far as the image tells.

    OHIF fails on a segmentation without the item, and other readers on one with a spacing and no thickness.
    """
    measures = Dataset()
    keyword = "PixelSpacing" if is_filled(source, "PixelSpacing") else "ImagerPixelSpacing"
    if is_filled(source, keyword):
        measures.PixelSpacing = source[keyword].value
        # A projection is as thick as what it was projected through: the compressed breast.
        measures.SliceThickness = source.get("BodyPartThickness") or _NOMINAL_THICKNESS_MM
    return measures


def _frame_groups(source: Dataset, frame: int | None, number: int) -> Dataset:
    origin = sop_reference(*referenced(source))
    if frame is not None:
        origin.ReferencedFrameNumber = frame
    origin.PurposeOfReferenceCodeSequence = [code_item(codes.SOURCE_FOR_PROCESSING)]
    origin.SpatialLocationsPreserved = "YES"
    derivation = Dataset()
    derivation.DerivationCodeSequence = [code_item(codes.SEGMENTATION)]
    derivation.SourceImageSequence = [origin]
    content = Dataset()
    content.DimensionIndexValues = [number]
    identification = Dataset()
    identification.ReferencedSegmentNumber = number
    groups = Dataset()
    groups.FrameContentSequence = [content]
    groups.DerivationImageSequence = [derivation]
    # Weasis looks for it in each frame and draws nothing where it is shared.
    groups.SegmentIdentificationSequence = [identification]
    return groups
