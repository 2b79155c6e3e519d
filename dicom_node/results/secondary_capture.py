"""The secondary captures: pictures with the result burnt in, for systems that show nothing else of ours.

A picture cannot be switched off, measured or compared. It is made of each image on which the model shows
something; of any other study one card says in words what came of it, so that a site which looks at nothing
else never takes silence for a normal study.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from pydicom.dataset import Dataset
from pydicom.tag import Tag

from dicom_node.results import codes, wording
from dicom_node.results.content_tree import sop_reference
from dicom_node.results.context import BuildOrder, ResultContext
from dicom_node.results.header import code_item, new_instance, series_laterality
from dicom_node.results.overlay_picture import Picture, captioned, has_overlay, overlay_picture
from dicom_node.results.source import copy_element, pixel_shape, referenced
from models.contract import ImageScore

SECONDARY_CAPTURE_IMAGE_STORAGE = "1.2.840.10008.5.1.4.1.1.7"

_WARNING = "AI - not verified - not for diagnosis"
_HALVED_FROM_COLUMNS = 1024
_CARD_ROWS, _CARD_COLUMNS = 64, 1024


def build(order: BuildOrder) -> list[Dataset]:
    """Build the pictures of a study, all in one series.

    Parameters
    ----------
    order : BuildOrder
        What to show; the context needs renderings of the images with attention or marks.

    Returns
    -------
    list of pydicom.dataset.Dataset
        One for each image with attention or marks, in the order of the scores; where there is none, one card.
    """
    context = order.context
    shown = [score for score in context.prediction.images if has_overlay(context, score)]
    if not shown:
        return [_card(context)]
    return [_overlay(context, score, number) for number, score in enumerate(shown, start=1)]


def _overlay(context: ResultContext, score: ImageScore, number: int) -> Dataset:
    source = context.source(score.sop_instance_uid)
    # Half the resolution tells where to look in the image itself, at a quarter of the bytes.
    reduction = 2 if source.Columns >= _HALVED_FROM_COLUMNS else 1
    picture = overlay_picture(context, score, reduction)
    capture = _capture(context, [source], captioned(picture, _WARNING, _sentences(context, score)), number)
    if not copy_element(source, capture, "PatientOrientation"):
        capture.PatientOrientation = None
    capture.DerivationDescription = f"AI result drawn on a copy of the image, reduced by {reduction}"
    if (shape := pixel_shape(source)) != (1, 1):
        # PS3.3 C.7.6.3.1.7: a picture without spacing has to say that its pixels are not square.
        capture.PixelAspectRatio = list(shape)
    if score.frame is not None:
        capture.SourceImageSequence[0].ReferencedFrameNumber = score.frame
    capture.ImageComments = f"AI result for {wording.place(score)}; not verified"
    return capture


def _sentences(context: ResultContext, score: ImageScore) -> Iterator[str]:
    yield wording.image(context, score)
    if score.evidence is not None and score.evidence.any():
        yield "Colours: where the AI model looked, most in red; not the outline of a lesion."
    yield from _of_study(context)


def _of_study(context: ResultContext) -> Iterator[str]:
    yield from wording.impression(context)
    yield from wording.breasts(context)
    yield from wording.refusals(context)
    yield wording.model(context)


def _card(context: ResultContext) -> Dataset:
    paper = np.zeros((_CARD_ROWS, _CARD_COLUMNS, 3), np.uint8)
    capture = _capture(context, context.sources, captioned(paper, _WARNING, _of_study(context)), 1)
    capture.PatientOrientation = None
    capture.DerivationDescription = "AI result written on a card"
    capture.ImageComments = "AI result in words; not verified"
    return capture


def _capture(context: ResultContext, sources: Sequence[Dataset], picture: Picture, number: int) -> Dataset:
    capture = new_instance(
        context,
        sop_class_uid=SECONDARY_CAPTURE_IMAGE_STORAGE,
        kind="secondary_capture",
        modality="OT",
        series_number=9401,
        description="AI result pictures",
        ordinal=number - 1,
    )
    # Viewers page through the pictures of a study as one series.
    capture.SeriesInstanceUID = context.uid("secondary_capture.series")
    capture.InstanceNumber = number
    capture.BodyPartExamined = "BREAST"
    capture.Laterality = series_laterality(context)
    capture.ConversionType = "WSD"
    capture.BurnedInAnnotation = "YES"
    capture.SourceImageSequence = [_source_item(source) for source in sources]
    _add_pixels(capture, picture)
    if any(source.get("LossyImageCompression") == "01" for source in sources):
        # PS3.3 C.7.6.1.1.5: an image made from a lossy one stays lossy.
        for keyword in ("", "Ratio", "Method"):
            copy_element(sources[0], capture, f"LossyImageCompression{keyword}")
    return capture


def _source_item(source: Dataset) -> Dataset:
    item = sop_reference(*referenced(source))
    item.PurposeOfReferenceCodeSequence = [code_item(codes.SOURCE_FOR_PROCESSING)]
    return item


def _add_pixels(capture: Dataset, picture: Picture) -> None:
    capture.ImageType = ["DERIVED", "SECONDARY"]
    capture.SamplesPerPixel = 3
    capture.PhotometricInterpretation = "RGB"
    capture.PlanarConfiguration = 0
    capture.Rows, capture.Columns = picture.shape[:2]
    capture.BitsAllocated = capture.BitsStored = 8
    capture.HighBit, capture.PixelRepresentation = 7, 0
    data = picture.tobytes()
    # PS3.5 8.1.1: bytes of 8 bit samples, of even length.
    capture.add_new(Tag("PixelData"), "OB", data + b"\0" * (len(data) % 2))
