"""The Mammography CAD report (PS3.16 TID 4000), which breast workstations take their marks from.

Only for bundles whose localisation was validated: a finding needs a centre, and none is invented. Every image
is in the Image Library once, and everything else points at it there by its position.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from pydicom.dataset import Dataset

from dicom_node.results import cad_codes, codes, plain_items, wording
from dicom_node.results.cad_findings import algorithm, impression_item, impressions
from dicom_node.results.cad_processing import CadLibrary, analyses_item, detections_item, succeeded_wholly
from dicom_node.results.content_tree import add_general_module, hierarchy
from dicom_node.results.context import BuildOrder, ResultContext
from dicom_node.results.header import new_instance
from dicom_node.results.plain_items import CONTAINS, HAS_ACQ_CONTEXT, HAS_CONCEPT_MOD, HAS_PROPERTIES
from dicom_node.results.source import is_filled, pair, referenced, view_modifiers_of
from models.contract import Outcome

MAMMOGRAPHY_CAD_SR = "1.2.840.10008.5.1.4.1.1.88.50"


def build(order: BuildOrder) -> list[Dataset]:
    """Build the Mammography CAD report with SCT codes.

    Parameters
    ----------
    order : BuildOrder
        What to report.

    Returns
    -------
    list of pydicom.dataset.Dataset
        One document; none where the bundle does not localise or an image that was scored does not tell its
        orientation, which TID 4020 demands of every image.
    """
    return _build(order.context, srt=False)


def build_srt(order: BuildOrder) -> list[Dataset]:
    """Build the same report with the former SNOMED codes (SRT), which old workstations know.

    Parameters
    ----------
    order : BuildOrder
        What to report.

    Returns
    -------
    list of pydicom.dataset.Dataset
        As :func:`build`.
    """
    return _build(order.context, srt=True)


def _build(context: ResultContext, *, srt: bool) -> list[Dataset]:
    library = _library(context)
    if not context.bundle.localises or library is None:
        return []
    document = new_instance(
        context,
        sop_class_uid=MAMMOGRAPHY_CAD_SR,
        # The two code schemes are two objects.
        kind="mammography_cad_srt" if srt else "mammography_cad",
        modality="SR",
        series_number=9102,
        description="AI mammography CAD marks",
    )
    evidence = hierarchy(
        (str(s.StudyInstanceUID), str(s.SeriesInstanceUID), *referenced(s)) for s in library.sources
    )
    add_general_module(document, context, evidence)
    root = plain_items.container(CONTAINS, cad_codes.REPORT, _content(context, library))
    if srt:
        plain_items.use_srt(root)
    del root.RelationshipType
    document.update(root)
    template = Dataset()
    template.MappingResource, template.TemplateIdentifier = "DCMR", "4000"
    document.ContentTemplateSequence = [template]
    return [document]


def _content(context: ResultContext, library: CadLibrary) -> list[Dataset]:
    images = [_library_item(context, source) for source in library.sources]
    marks = [impression_item(context, i, library.positions) for i in impressions(context)]
    performed = [detections_item(context, library), analyses_item(context, library)]
    return [
        plain_items.coded(HAS_CONCEPT_MOD, codes.LANGUAGE, codes.ENGLISH),
        plain_items.container(CONTAINS, codes.IMAGE_LIBRARY, images),
        _summary(context, marks, complete=all(map(succeeded_wholly, performed))),
        *performed,
    ]


def _library(context: ResultContext) -> CadLibrary | None:
    """List the images; those that were not scored only where the study misses them."""
    scored = frozenset(score.sop_instance_uid for score in context.prediction.images)
    wanted = [
        source
        for source in context.sources
        if context.prediction.outcome is not Outcome.SCORED or str(source.SOPInstanceUID) in scored
    ]
    listed = tuple(source for source in wanted if _is_described(context, source))
    if not listed or scored - {str(source.SOPInstanceUID) for source in listed}:
        return None
    return CadLibrary(listed, scored)


def _is_described(context: ResultContext, source: Dataset) -> bool:
    side, view = context.side_and_view(source)
    return bool(side and view and pair(source, "PatientOrientation"))


def _library_item(context: ResultContext, source: Dataset) -> Dataset:
    frames = {score.sop_instance_uid: score.frame for score in context.prediction.images}
    frame = frames.get(str(source.SOPInstanceUID))
    return plain_items.image(CONTAINS, source, frame, _descriptors(context, source))


def _descriptors(context: ResultContext, source: Dataset) -> Iterator[Dataset]:
    """Describe an image (PS3.16 TID 4020); the order of the items is the template's."""
    side, view = context.side_and_view(source)
    if side and view:
        yield plain_items.coded(HAS_ACQ_CONTEXT, codes.IMAGE_LATERALITY, cad_codes.BREASTS[side])
        modifiers = [
            plain_items.coded(HAS_CONCEPT_MOD, codes.IMAGE_VIEW_MODIFIER, code)
            for code in view_modifiers_of(source)
        ]
        yield plain_items.coded(HAS_ACQ_CONTEXT, codes.IMAGE_VIEW, codes.VIEWS[view], modifiers)
    directions = (codes.ORIENTATION_ROW, codes.ORIENTATION_COLUMN)
    for name, value in zip(directions, pair(source, "PatientOrientation"), strict=True):
        yield plain_items.text(HAS_ACQ_CONTEXT, name, str(value))
    yield from _times(source)
    # PS3.3 10.7.1.3: the row spacing, which is vertical, comes first.
    spacing = reversed(pair(source, "ImagerPixelSpacing"))
    for name, value in zip((codes.HORIZONTAL_SPACING, codes.VERTICAL_SPACING), spacing, strict=False):
        yield plain_items.number(HAS_ACQ_CONTEXT, name, float(value), codes.MILLIMETRE)
    for name, value in ((codes.ROWS, source.get("Rows")), (codes.COLUMNS, source.get("Columns"))):
        if value:
            yield plain_items.number(HAS_ACQ_CONTEXT, name, int(value), codes.PIXELS)


def _times(source: Dataset) -> Iterator[Dataset]:
    if is_filled(source, "StudyDate"):
        yield plain_items.dated(HAS_ACQ_CONTEXT, cad_codes.STUDY_DATE, str(source.StudyDate))
    if is_filled(source, "StudyTime"):
        yield plain_items.timed(HAS_ACQ_CONTEXT, cad_codes.STUDY_TIME, str(source.StudyTime))
    if is_filled(source, "ContentDate"):
        yield plain_items.dated(HAS_ACQ_CONTEXT, cad_codes.CONTENT_DATE, str(source.ContentDate))
    if is_filled(source, "ContentTime"):
        yield plain_items.timed(HAS_ACQ_CONTEXT, cad_codes.CONTENT_TIME, str(source.ContentTime))


def _summary(context: ResultContext, marks: Sequence[Dataset], *, complete: bool) -> Dataset:
    """Give the overall impression and the marks (PS3.16 TID 4001, 4002)."""
    prediction = context.prediction
    if prediction.outcome is Outcome.REFUSED:
        value = cad_codes.NONE_SUCCEEDED
    elif complete:
        value = cad_codes.ALL_WITH_FINDINGS if marks else cad_codes.ALL_WITHOUT_FINDINGS
    else:
        value = cad_codes.SOME_WITH_FINDINGS if marks else cad_codes.SOME_WITHOUT_FINDINGS
    sentences = wording.impression(context) + wording.refusals(context)
    items = [plain_items.text(HAS_PROPERTIES, cad_codes.IMPRESSION_DESCRIPTION, " ".join(sentences))]
    if prediction.study_probability is not None and prediction.outcome is Outcome.SCORED:
        # Of the impression, which is negative below the threshold: not the probability of cancer.
        p = prediction.study_probability if prediction.is_positive else 1.0 - prediction.study_probability
        name = cad_codes.CERTAINTY_OF_IMPRESSION
        items.append(plain_items.number(HAS_PROPERTIES, name, round(p * 100, 4), codes.PERCENT))
    return plain_items.coded(CONTAINS, cad_codes.SUMMARY, value, [*items, *algorithm(context), *marks])
