"""Which result objects there are, and the one way to build them.

A new kind of object is one more file with a ``build(order)`` and one more line in :data:`RESULT_BUILDERS`.
"""

from __future__ import annotations

from collections.abc import Callable, Collection

from pydicom.dataset import Dataset

from dicom_node.errors import ResultError
from dicom_node.results import (
    encapsulated_pdf,
    encoding,
    fractional_segmentation,
    key_objects,
    lesion_segmentation,
    mammography_cad,
    measurement_report,
    presentation_state,
    secondary_capture,
    segmentation,
    text_report,
)
from dicom_node.results.checks.checker import refuse_faulty
from dicom_node.results.compression import JPEG_2000, RLE, compressed
from dicom_node.results.context import Analysis, BuildOrder, BuiltObject, ResultContext
from dicom_node.results.source import referenced_instances

RESULT_BUILDERS: dict[str, Callable[[BuildOrder], list[Dataset]]] = {
    # The reports come after what they list as evidence.
    "segmentation": segmentation.build,
    "lesion_segmentation": lesion_segmentation.build,
    "fractional_segmentation": fractional_segmentation.build,
    "presentation_state": presentation_state.build,
    "key_objects": key_objects.build,
    "secondary_capture": secondary_capture.build,
    "encapsulated_pdf": encapsulated_pdf.build,
    "text_report": text_report.build,
    "measurement_report": measurement_report.build,
    "measurement_report_2d": measurement_report.build_2d,
    "measurement_report_all_classes": measurement_report.build_all_classes,
    "mammography_cad": mammography_cad.build,
    "mammography_cad_srt": mammography_cad.build_srt,
}
"""Kind of object -> what builds it, in the order of building; each gives as many as there is to say."""

OPTION_BUILDERS: dict[str, Callable[[BuildOrder], list[Dataset]]] = {
    "fractional_segmentation_rle": compressed(fractional_segmentation.build, RLE),
    "secondary_capture_rle": compressed(secondary_capture.build, RLE),
    "secondary_capture_jpeg2000": compressed(secondary_capture.build, JPEG_2000),
    "measurement_report_segments": measurement_report.build_segments,
    "measurement_report_2d_segments": measurement_report.build_segments_2d,
}
"""The same for what only an option of a profile asks for: another form of one of the kinds above."""

DEFAULT_KINDS = ("segmentation", "text_report", "measurement_report")
"""What is built where nobody asks for other kinds."""

_SEGMENTATIONS_FIRST = ("segmentation", "lesion_segmentation", "fractional_segmentation")
_IN_ORDER = {
    kind: build
    for segmentations in (True, False)
    for kind, build in {**RESULT_BUILDERS, **OPTION_BUILDERS}.items()
    if kind.startswith(_SEGMENTATIONS_FIRST) is segmentations
}


def build_all(context: ResultContext, kinds: Collection[str] = DEFAULT_KINDS) -> tuple[BuiltObject, ...]:
    """Build the result objects of a study revision.

    The bytes are a pure function of the arguments: built again they are the same.

    Parameters
    ----------
    context : ResultContext
        What to speak about.
    kinds : collection of str, optional
        Keys of :data:`RESULT_BUILDERS` and :data:`OPTION_BUILDERS`; their order does not matter.

    Returns
    -------
    tuple of BuiltObject
        In the order of the table. A kind that has nothing to say of the study is missing.

    Raises
    ------
    ResultError
        When a kind is unknown, or an object cannot be built or fails its own check; nothing may be sent then.
    """
    if unknown := set(kinds) - set(_IN_ORDER):
        raise ResultError(f"no result of kind {sorted(unknown)}; there are {', '.join(_IN_ORDER)}")
    built: tuple[BuiltObject, ...] = ()
    for kind, build in _IN_ORDER.items():
        if kind in kinds:
            instances = build(BuildOrder(context, built))
            built += tuple(_written(kind, instance, context) for instance in instances)
    refuse_faulty((item.content for item in built), context.sources)
    return built


def finished(kind: str, instance: Dataset, context: Analysis) -> BuiltObject:
    """Write one data set that a builder made, and look at it for the last time.

    Parameters
    ----------
    kind : str
        Its kind.
    instance : pydicom.dataset.Dataset
        What the builder made.
    context : Analysis
        What it was made from.

    Raises
    ------
    ResultError
        When it may not be sent.
    """
    built = _written(kind, instance, context)
    refuse_faulty([built.content], context.sources)
    return built


def _written(kind: str, instance: Dataset, context: Analysis) -> BuiltObject:
    if instance.SOPInstanceUID in {p.sop_instance_uid for p in context.predecessors}:
        raise ResultError(
            "a report would replace itself: the same model has reported on the same images before"
        )
    content = encoding.encode(instance)
    named = referenced_instances(instance)
    return BuiltObject(
        kind=kind,
        sop_class_uid=str(instance.SOPClassUID),
        sop_instance_uid=str(instance.SOPInstanceUID),
        series_instance_uid=str(instance.SeriesInstanceUID),
        study_instance_uid=str(instance.StudyInstanceUID),
        transfer_syntax_uid=encoding.transfer_syntax_of(instance),
        content=content,
        referenced_sop_instance_uids=tuple(
            uid for source in context.sources if (uid := str(source.SOPInstanceUID)) in named
        ),
    )
