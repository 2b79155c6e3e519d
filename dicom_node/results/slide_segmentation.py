"""The map of patch probabilities of a slide: a FRACTIONAL segmentation with one pixel for each patch."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from highdicom.seg import SegmentAlgorithmTypeValues, SegmentDescription
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.tag import Tag

from dicom_node.errors import ResultError
from dicom_node.results import codes, colours
from dicom_node.results.content_tree import SEGMENTATION_STORAGE, sop_reference
from dicom_node.results.context import Analysis
from dicom_node.results.header import code_item, new_instance
from dicom_node.results.segment_frames import add_fractional_pixels, algorithm_of
from dicom_node.results.source import copy_element, referenced
from models.contract import SlidePrediction

TRACKING_IDENTIFIER = "AI slide score"

_FULL = 255
_FROM_THE_SLIDE = (
    "FrameOfReferenceUID",
    "PositionReferenceIndicator",
    "ImageOrientationSlide",
    "ContainerIdentifier",
    "IssuerOfTheContainerIdentifierSequence",
    "ContainerTypeCodeSequence",
    "SpecimenDescriptionSequence",
)
_DIMENSIONS = (
    ("ReferencedSegmentNumber", "SegmentIdentificationSequence"),
    ("RowPositionInTotalImagePixelMatrix", "PlanePositionSlideSequence"),
    ("ColumnPositionInTotalImagePixelMatrix", "PlanePositionSlideSequence"),
)
_NEEDED = (
    "FrameOfReferenceUID",
    "ImageOrientationSlide",
    "TotalPixelMatrixOriginSequence",
    "TotalPixelMatrixRows",
    "TotalPixelMatrixColumns",
    "SharedFunctionalGroupsSequence",
)


@dataclass(frozen=True, slots=True)
class Placement:
    """Where the patches of a grid lie on their slide (PS3.3 C.8.12.4.1.1, C.7.6.16.2.1).

    Attributes
    ----------
    corner : numpy.ndarray
        Slide coordinates, millimetres, of the outer corner of the first patch.
    along_row, along_column : numpy.ndarray
        Steps, millimetres, to the next column and to the next row of patches.
    spacing_mm : tuple of float
        Row and column spacing of patches.
    thickness_mm : float
        Slice Thickness (0018,0050).
    patch_pixels : int
        Side of a patch in pixels of the source.
    """

    corner: NDArray[np.float64]
    along_row: NDArray[np.float64]
    along_column: NDArray[np.float64]
    spacing_mm: tuple[float, float]
    thickness_mm: float
    patch_pixels: int

    @classmethod
    def of(cls, source: Dataset, patch_pixels: int) -> Placement:
        """Read the placement from the header of a slide.

        Raises
        ------
        ResultError
            When the header does not have one, or the patch has no size.
        """
        if patch_pixels < 1 or any(source.get(keyword) in (None, "") for keyword in _NEEDED):
            raise ResultError("the slide's header does not say where its pixels are; ask the sender's vendor")
        measures = source.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0]
        down, across = (float(value) for value in measures.PixelSpacing)
        directions = np.array(source.ImageOrientationSlide, np.float64).reshape(2, 3)
        origin = source.TotalPixelMatrixOriginSequence[0]
        first = [float(origin.get(f"{axis}OffsetInSlideCoordinateSystem", 0)) for axis in "XYZ"]
        # The origin is the centre of the first pixel, and patches start at its outer corner.
        corner = np.array(first) - (directions[0] * across + directions[1] * down) / 2
        return cls(
            corner=corner,
            along_row=directions[0] * across * patch_pixels,
            along_column=directions[1] * down * patch_pixels,
            spacing_mm=(down * patch_pixels, across * patch_pixels),
            thickness_mm=float(measures.get("SliceThickness") or 1),
            patch_pixels=patch_pixels,
        )

    def require_inside(self, grid: tuple[int, ...], source: Dataset) -> None:
        """Refuse a grid with patches beside the slide.

        Raises
        ------
        ResultError
            When a whole row or column of patches is outside.
        """
        sides = (int(source.TotalPixelMatrixRows), int(source.TotalPixelMatrixColumns))
        if len(grid) != 2 or any(
            (n - 1) * self.patch_pixels >= side for n, side in zip(grid, sides, strict=True)
        ):
            raise ResultError("the grid of patches is larger than its slide; look at the size of a patch")

    def at(self, column: float, row: float) -> NDArray[np.float64]:
        """Give the slide coordinates, millimetres, of a point of the grid; ``0, 0`` is its outer corner."""
        return self.corner + column * self.along_row + row * self.along_column

    def outline(self, analysed: NDArray[np.bool_]) -> NDArray[np.float64]:
        """Walk round the analysed patches, back to the start: ``(5, 3)`` slide coordinates of a rectangle."""
        rows, columns = (np.flatnonzero(analysed.any(axis=axis)) for axis in (1, 0))
        top, bottom, left, right = rows[0], rows[-1] + 1, columns[0], columns[-1] + 1
        corners = ((left, top), (right, top), (right, bottom), (left, bottom), (left, top))
        return np.array([self.at(float(column), float(row)) for column, row in corners])


def build(
    context: Analysis, prediction: SlidePrediction, placement: Placement, tracking_uid: str, number: int
) -> Dataset:
    """Build the map; patches that were not analysed are 0.

    Parameters
    ----------
    context : Analysis
        The slide's analysis.
    prediction : models.contract.SlidePrediction
        The values.
    placement : Placement
        Where they lie.
    tracking_uid : str
        That of the slide's score in the report.
    number : int
        Which of the study's slides it is, from 1.
    """
    (source,) = context.sources
    instance = new_instance(
        context,
        sop_class_uid=SEGMENTATION_STORAGE,
        kind="slide_segmentation",
        modality="SEG",
        series_number=9261,
        description=f"AI probability of each patch, slide {number}",
    )
    instance.ContentLabel = "AI_PATCHES"
    instance.ContentDescription = "Probability of cancer, one pixel for each patch"
    instance.ContentCreatorName = "AI^Node"
    for keyword in _FROM_THE_SLIDE:
        copy_element(source, instance, keyword)
    series = Dataset()
    series.SeriesInstanceUID = source.SeriesInstanceUID
    series.ReferencedInstanceSequence = [sop_reference(*referenced(source))]
    instance.ReferencedSeriesSequence = [series]
    instance.SegmentSequence = [_segment(context, prediction, tracking_uid)]
    probabilities = np.nan_to_num(prediction.patches, nan=0.0)
    add_fractional_pixels(instance, source, np.rint(probabilities * _FULL).astype(np.uint8))
    _add_tiling(instance, placement, context.uid("slide_segmentation.dimension"))
    instance.SharedFunctionalGroupsSequence = [_shared_groups(placement)]
    instance.PerFrameFunctionalGroupsSequence = [_frame_groups(source, placement)]
    return instance


def _segment(context: Analysis, prediction: SlidePrediction, tracking_uid: str) -> Dataset:
    algorithm = algorithm_of(context.bundle, prediction.threshold)
    item: Dataset = SegmentDescription(
        1,
        "AI probability of cancer",
        codes.ABNORMAL_STRUCTURE,
        codes.NEOPLASM,
        SegmentAlgorithmTypeValues.AUTOMATIC,
        algorithm_identification=algorithm,
        tracking_uid=tracking_uid,
        tracking_id=TRACKING_IDENTIFIER,
        display_color=colours.RED,
    )
    item.SegmentDescription = "Each pixel is the probability of cancer of one patch"
    item.AnatomicRegionSequence = [code_item(codes.BREAST)]
    return item


def _add_tiling(instance: Dataset, placement: Placement, dimension_uid: str) -> None:
    """Make the map one tile of a total pixel matrix (PS3.3 C.7.6.17.3)."""
    first = placement.at(0.5, 0.5)
    origin = Dataset()
    for axis, value in zip("XYZ", first, strict=True):
        setattr(origin, f"{axis}OffsetInSlideCoordinateSystem", f"{value:.10g}")
    instance.TotalPixelMatrixOriginSequence = [origin]
    instance.TotalPixelMatrixRows, instance.TotalPixelMatrixColumns = instance.Rows, instance.Columns
    instance.TotalPixelMatrixFocalPlanes = 1
    instance.NumberOfFrames = 1
    organisation = Dataset()
    organisation.DimensionOrganizationUID = dimension_uid
    instance.DimensionOrganizationSequence = [organisation]
    instance.DimensionIndexSequence = [_dimension(dimension_uid, *pointers) for pointers in _DIMENSIONS]
    instance.DimensionOrganizationType = "TILED_FULL"


def _dimension(dimension_uid: str, pointer: str, group: str) -> Dataset:
    index = Dataset()
    index.DimensionOrganizationUID = dimension_uid
    index.DimensionIndexPointer = Tag(pointer)
    index.FunctionalGroupPointer = Tag(group)
    return index


def _shared_groups(placement: Placement) -> Dataset:
    measures = Dataset()
    measures.PixelSpacing = [f"{value:.10g}" for value in placement.spacing_mm]
    measures.SliceThickness = f"{placement.thickness_mm:.10g}"
    shared = Dataset()
    shared.PixelMeasuresSequence = [measures]
    return shared


def _frame_groups(source: Dataset, placement: Placement) -> Dataset:
    """Describe the only frame; a full tiling implies its place, but not every reader works that out."""
    content, identification, position, groups = Dataset(), Dataset(), Dataset(), Dataset()
    content.DimensionIndexValues = [1] * len(_DIMENSIONS)
    identification.ReferencedSegmentNumber = 1
    for axis, value in zip("XYZ", placement.at(0.5, 0.5), strict=True):
        setattr(position, f"{axis}OffsetInSlideCoordinateSystem", f"{value:.10g}")
    position.ColumnPositionInTotalImagePixelMatrix = position.RowPositionInTotalImagePixelMatrix = 1
    origin = sop_reference(*referenced(source))
    origin.PurposeOfReferenceCodeSequence = [code_item(codes.SOURCE_FOR_PROCESSING)]
    origin.SpatialLocationsPreserved = "NO"
    derivation = Dataset()
    derivation.DerivationCodeSequence = [code_item(codes.SEGMENTATION)]
    derivation.SourceImageSequence = [origin]
    groups.FrameContentSequence = [content]
    groups.SegmentIdentificationSequence = [identification]
    groups.PlanePositionSlideSequence = [position]
    groups.DerivationImageSequence = [derivation]
    return groups
