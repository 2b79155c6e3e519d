"""The segmentation: where the model looked in one image, as three bands that viewers colour.

Bands are BINARY segments, because viewers show no FRACTIONAL one. They are of model attention (class
activation), which is no lesion's outline; category, type, label and description say so. Pixels are packed
here: highdicom's writer takes seconds for four mammograms and leaves out what images without a Frame of
Reference need.
"""

from __future__ import annotations

import numpy as np
from highdicom import AlgorithmIdentificationSequence
from highdicom.color import CIELabColor
from highdicom.seg import SegmentAlgorithmTypeValues, SegmentDescription
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.tag import Tag

from dicom_node.errors import ResultError
from dicom_node.results import codes, wording
from dicom_node.results.content_tree import sop_reference
from dicom_node.results.context import BuildOrder, ResultContext
from dicom_node.results.header import code_item, new_instance
from dicom_node.results.measurement_report import tracking_identifier
from dicom_node.results.source import copy_element, is_filled, referenced
from models.contract import EVIDENCE_BANDS, ImageScore

SEGMENTATION_STORAGE = "1.2.840.10008.5.1.4.1.1.66.4"

_COLOURS = (CIELabColor(90.0, -8.0, 75.0), CIELabColor(70.0, 35.0, 75.0), CIELabColor(53.2, 80.1, 67.2))
_NOMINAL_THICKNESS_MM = 1
_BANDS = tuple(range(1, len(EVIDENCE_BANDS) + 1))


def build(order: BuildOrder) -> list[Dataset]:
    """Build one segmentation for each image whose score comes with evidence.

    Parameters
    ----------
    order : BuildOrder
        What to show.

    Returns
    -------
    list of pydicom.dataset.Dataset
        In the order of the scores; empty where the model gave no evidence.
    """
    context = order.context
    return [
        _segmentation(context, score, score.evidence, ordinal)
        for ordinal, score in enumerate(context.prediction.images)
        if score.evidence is not None and score.evidence.any()
    ]


def _segmentation(
    context: ResultContext, score: ImageScore, evidence: NDArray[np.uint8], ordinal: int
) -> Dataset:
    source = context.source(score.sop_instance_uid)
    if evidence.shape != (source.get("Rows"), source.get("Columns")) or int(evidence.max()) > _BANDS[-1]:
        raise ResultError("an evidence map does not fit its image; look at the bundle's version")
    place = wording.place(score)
    instance = new_instance(
        context,
        sop_class_uid=SEGMENTATION_STORAGE,
        kind="segmentation",
        modality="SEG",
        series_number=9201 + ordinal,
        description=f"AI attention {place}",
        ordinal=ordinal,
    )
    instance.ContentLabel = "AI_ATTENTION"
    instance.ContentDescription = f"Where the AI model looked in {place}; not the outline of a lesion"
    instance.ContentCreatorName = "AI^Node"
    instance.SegmentSequence = [_segment(context, score, band) for band in _BANDS]
    _add_references(instance, source)
    _add_frames(instance, source, context.uid("segmentation.dimension", ordinal))
    _add_pixels(instance, source, evidence)
    return instance


def _segment(context: ResultContext, score: ImageScore, band: int) -> Dataset:
    """Describe one band. The strongest carries the tracking identity of the image's measurement group."""
    low, high = EVIDENCE_BANDS[band - 1]
    extent = f"{low:.0%}-{high:.0%}".replace("%", "", 1).replace("%", " %")
    strongest = band == _BANDS[-1]
    name = tracking_identifier(score)
    algorithm = AlgorithmIdentificationSequence(
        context.bundle.name,
        codes.ARTIFICIAL_INTELLIGENCE,
        context.bundle.version,
        source=context.bundle.manufacturer,
    )
    segment: Dataset = SegmentDescription(
        band,
        f"AI model attention {extent} of map maximum",
        codes.SPATIAL_CONCEPT,
        codes.CLASS_ACTIVATION,
        SegmentAlgorithmTypeValues.AUTOMATIC,
        algorithm_identification=algorithm,
        tracking_uid=context.tracking_uid(score.sop_instance_uid, 0 if strongest else band),
        tracking_id=name if strongest else f"{name}, attention {extent}",
        display_color=_COLOURS[band - 1],
    )
    segment.SegmentDescription = "Where the AI model looked; not the outline of a lesion"
    region = code_item(codes.BREAST)
    region.AnatomicRegionModifierSequence = [code_item(codes.SIDES[score.laterality])]
    segment.AnatomicRegionSequence = [region]
    return segment


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


def _add_frames(instance: Dataset, source: Dataset, dimension_uid: str) -> None:
    """Add the functional groups and dimensions of one frame for each segment (PS3.3 C.7.6.16, C.7.6.17)."""
    organisation = Dataset()
    organisation.DimensionOrganizationUID = dimension_uid
    index = Dataset()
    index.DimensionOrganizationUID = dimension_uid
    index.DimensionIndexPointer = Tag("ReferencedSegmentNumber")
    index.FunctionalGroupPointer = Tag("SegmentIdentificationSequence")
    index.DimensionDescriptionLabel = "Segment Number"
    instance.DimensionOrganizationSequence = [organisation]
    instance.DimensionIndexSequence = [index]
    # OHIF waits for ever for an orientation, although the image has no Frame of Reference to give it sense.
    orientation = Dataset()
    orientation.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
    shared = Dataset()
    shared.PlaneOrientationSequence = [orientation]
    shared.PixelMeasuresSequence = [_pixel_measures(source)]
    instance.SharedFunctionalGroupsSequence = [shared]
    instance.PerFrameFunctionalGroupsSequence = [_frame(source, band) for band in _BANDS]
    instance.NumberOfFrames = len(_BANDS)


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


def _frame(source: Dataset, band: int) -> Dataset:
    origin = sop_reference(*referenced(source))
    origin.PurposeOfReferenceCodeSequence = [code_item(codes.SOURCE_FOR_PROCESSING)]
    origin.SpatialLocationsPreserved = "YES"
    derivation = Dataset()
    derivation.DerivationCodeSequence = [code_item(codes.SEGMENTATION)]
    derivation.SourceImageSequence = [origin]
    content = Dataset()
    content.DimensionIndexValues = [band]
    segment = Dataset()
    segment.ReferencedSegmentNumber = band
    frame = Dataset()
    frame.FrameContentSequence = [content]
    frame.DerivationImageSequence = [derivation]
    # Weasis looks for it in each frame and draws nothing where it is shared.
    frame.SegmentIdentificationSequence = [segment]
    return frame


def _add_pixels(instance: Dataset, source: Dataset, evidence: NDArray[np.uint8]) -> None:
    instance.ImageType = ["DERIVED", "PRIMARY"]
    instance.SamplesPerPixel = 1
    instance.PhotometricInterpretation = "MONOCHROME2"
    instance.Rows, instance.Columns = evidence.shape
    instance.BitsAllocated = instance.BitsStored = 1
    instance.HighBit = instance.PixelRepresentation = 0
    instance.SegmentationType = "BINARY"
    instance.SegmentsOverlap = "NO"
    instance.LossyImageCompression = "00"
    # PS3.3 C.7.6.1.1.5: an image made from a lossy one stays lossy.
    if source.get("LossyImageCompression") == "01":
        for keyword in ("", "Ratio", "Method"):
            copy_element(source, instance, f"LossyImageCompression{keyword}")
    frames = np.stack([evidence == band for band in _BANDS])
    # PS3.5 8.1.1: bits run on through rows and frames, the first pixel in the lowest bit.
    packed = np.packbits(frames.reshape(-1), bitorder="little").tobytes()
    instance.add_new(Tag("PixelData"), "OB", packed + b"\0" * (len(packed) % 2))
