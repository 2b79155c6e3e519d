"""The presentation states: marks and score as lines and text that a reader can switch on over each image.

One state for each image scored, whatever the score, so that an image without a mark says why it has none.
"""

from __future__ import annotations

from pydicom.dataset import Dataset

from dicom_node.results import colours, wording
from dicom_node.results.content_tree import sop_reference
from dicom_node.results.context import BuildOrder, ResultContext
from dicom_node.results.grayscale_transform import add_grayscale_transform
from dicom_node.results.header import new_instance, series_laterality
from dicom_node.results.measurement_groups import tracking_identifier
from dicom_node.results.outlines import Outline, Points, outlines_of
from dicom_node.results.source import pixel_shape, referenced
from models.contract import ImageScore

GRAYSCALE_SOFTCOPY_PRESENTATION_STATE = "1.2.840.10008.5.1.4.1.1.11.1"

_LAYER = "AI_MARKS"
_WHITE_P_VALUE = 65_535
# Shares of the image's columns and rows at which the score stands in the air beside the breast.
_NEAR_EDGE, _FAR_EDGE, _BELOW_TOP = 0.03, 0.55, 0.04


def build(order: BuildOrder) -> list[Dataset]:
    """Build one presentation state for each image scored, all in one series.

    Parameters
    ----------
    order : BuildOrder
        What to show.

    Returns
    -------
    list of pydicom.dataset.Dataset
        In the order of the scores; empty for a refused study.
    """
    context = order.context
    return [_state(context, score, number) for number, score in enumerate(context.prediction.images, start=1)]


def _state(context: ResultContext, score: ImageScore, number: int) -> Dataset:
    source = context.source(score.sop_instance_uid)
    state = new_instance(
        context,
        sop_class_uid=GRAYSCALE_SOFTCOPY_PRESENTATION_STATE,
        kind="presentation_state",
        modality="PR",
        series_number=9301,
        description="AI marks",
        ordinal=number - 1,
    )
    # Viewers list the states of a series together, beside the images that each belongs to.
    state.SeriesInstanceUID = context.uid("presentation_state.series")
    state.InstanceNumber = number
    state.BodyPartExamined = "BREAST"
    state.Laterality = series_laterality(context)
    state.PresentationCreationDate, state.PresentationCreationTime = state.ContentDate, state.ContentTime
    state.ContentLabel = _LAYER
    state.ContentDescription = f"AI score of {wording.place(score)}; not verified"
    state.ContentCreatorName = "AI^Node"
    series = Dataset()
    series.SeriesInstanceUID = source.SeriesInstanceUID
    series.ReferencedImageSequence = [_reference(source, score)]
    state.ReferencedSeriesSequence = [series]
    state.DisplayedAreaSelectionSequence = [_displayed_area(source, score)]
    state.GraphicLayerSequence = [_layer()]
    state.GraphicAnnotationSequence = [_annotation(context, score, source)]
    add_grayscale_transform(state, source, _reference(source, score))
    return state


def _reference(source: Dataset, score: ImageScore) -> Dataset:
    """Reference the image, and the one frame of it that was scored where there are several."""
    item = sop_reference(*referenced(source))
    if score.frame is not None:
        item.ReferencedFrameNumber = score.frame
    return item


def _displayed_area(source: Dataset, score: ImageScore) -> Dataset:
    """Show the whole image (PS3.3 C.10.4)."""
    area = Dataset()
    area.ReferencedImageSequence = [_reference(source, score)]
    area.DisplayedAreaTopLeftHandCorner = [1, 1]
    area.DisplayedAreaBottomRightHandCorner = [source.Columns, source.Rows]
    area.PresentationSizeMode = "SCALE TO FIT"
    area.PresentationPixelAspectRatio = list(pixel_shape(source))
    return area


def _layer() -> Dataset:
    layer = Dataset()
    layer.GraphicLayer = _LAYER
    layer.GraphicLayerOrder = 1
    layer.GraphicLayerDescription = "AI marks and score, not verified"
    layer.GraphicLayerRecommendedDisplayGrayscaleValue = _WHITE_P_VALUE
    layer.GraphicLayerRecommendedDisplayCIELabValue = list(colours.YELLOW.value)
    return layer


def _annotation(context: ResultContext, score: ImageScore, source: Dataset) -> Dataset:
    outlines = outlines_of(context, score)
    annotation = Dataset()
    annotation.ReferencedImageSequence = [_reference(source, score)]
    annotation.GraphicLayer = _LAYER
    is_attention = any(outline.lesion is None for outline in outlines)
    score_text = _text(_score_text(context, score, is_attention), *_beside_breast(score, source))
    annotation.TextObjectSequence = [_tracked(context, score, score_text)]
    for outline in outlines:
        if (lesion := outline.lesion) is not None:
            label = wording.mark(lesion.number, lesion.mark, context.prediction.threshold)
            annotation.TextObjectSequence.append(_text(label, *_right_of(outline.points, source)))
    if outlines:
        annotation.GraphicObjectSequence = [_line(context, score, outline) for outline in outlines]
    return annotation


def _score_text(context: ResultContext, score: ImageScore, is_attention: bool) -> str:
    lines = wording.beside_image(context, score)
    return "\r\n".join([*lines, "Line: AI attention, not an outline"] if is_attention else lines)


def _beside_breast(score: ImageScore, source: Dataset) -> tuple[float, float]:
    """Give the column and row at which text covers air: on the side where the analysed area ends sooner."""
    air_is_left = score.region.left > source.Columns - score.region.right
    return source.Columns * (_NEAR_EDGE if air_is_left else _FAR_EDGE), source.Rows * _BELOW_TOP


def _right_of(points: Points, source: Dataset) -> tuple[float, float]:
    column, row = points[int(points[:, 0].argmax())]
    return min(column + source.Columns * _NEAR_EDGE / 2, float(source.Columns)), row


def _text(text: str, column: float, row: float) -> Dataset:
    item = Dataset()
    item.UnformattedTextValue = text
    item.AnchorPointAnnotationUnits = "PIXEL"
    item.AnchorPoint = [column, row]
    item.AnchorPointVisibility = "N"
    return item


def _line(context: ResultContext, score: ImageScore, outline: Outline) -> Dataset:
    item = Dataset()
    item.GraphicAnnotationUnits = "PIXEL"
    item.GraphicDimensions = 2
    item.NumberOfGraphicPoints = len(outline.points)
    item.GraphicData = outline.points.reshape(-1).tolist()
    item.GraphicType = "POLYLINE"
    item.GraphicFilled = "N"
    if outline.lesion is None:
        return _tracked(context, score, item)
    item.TrackingID, item.TrackingUID = outline.lesion.name, outline.lesion.tracking_uid
    return item


def _tracked(context: ResultContext, score: ImageScore, item: Dataset) -> Dataset:
    """Tie an item to the measurement group and the segment that speak of the same (PS3.3 C.10.5)."""
    item.TrackingID = tracking_identifier(score)
    item.TrackingUID = context.tracking_uid(score.sop_instance_uid)
    return item
