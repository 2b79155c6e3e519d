"""Which result objects there are, and the one way to build them all.

A new kind of object is one more file with a ``build(order)`` and one more line in :data:`RESULT_BUILDERS`.
"""

from __future__ import annotations

from collections.abc import Callable

from pydicom.dataset import Dataset

from dicom_node.errors import ResultError
from dicom_node.results import conformance, encoding, measurement_report, segmentation, text_report
from dicom_node.results.context import BuildOrder, BuiltObject, ResultContext
from dicom_node.results.measurement_report import COMPREHENSIVE_3D_SR, COMPREHENSIVE_SR

RESULT_BUILDERS: dict[str, Callable[[BuildOrder], list[Dataset]]] = {
    # The reports come after what they list as evidence.
    "segmentation": segmentation.build,
    "text_report": text_report.build,
    "measurement_report": measurement_report.build,
}
"""Kind of object -> what builds it, in the order of building."""


def build_all(context: ResultContext, *, sr_class: str = COMPREHENSIVE_3D_SR) -> tuple[BuiltObject, ...]:
    """Build every result object of a study revision.

    The bytes are a pure function of the arguments: built again they are the same.

    Parameters
    ----------
    context : ResultContext
        What to speak about.
    sr_class : str, optional
        SOP Class UID of the measurement report: :data:`COMPREHENSIVE_3D_SR`, which IHE AI Results names, or
        :data:`COMPREHENSIVE_SR`, the only one whose regions Orthanc's Stone viewer draws.

    Returns
    -------
    tuple of BuiltObject
        At least the text report.

    Raises
    ------
    ResultError
        When an object cannot be built or fails its own check; nothing may be sent then.
    """
    if sr_class not in (COMPREHENSIVE_3D_SR, COMPREHENSIVE_SR):
        raise ResultError(f"sr_class must be {COMPREHENSIVE_3D_SR} or {COMPREHENSIVE_SR}")
    built: tuple[BuiltObject, ...] = ()
    for kind, build in RESULT_BUILDERS.items():
        instances = build(BuildOrder(context, sr_class, built))
        built += tuple(_finished(kind, instance, context) for instance in instances)
    return built


def _finished(kind: str, instance: Dataset, context: ResultContext) -> BuiltObject:
    if instance.SOPInstanceUID in {p.sop_instance_uid for p in context.predecessors}:
        raise ResultError(
            "a report would replace itself: the same model has reported on the same images before"
        )
    content = encoding.encode(instance)
    conformance.check(content)
    return BuiltObject(
        kind=kind,
        sop_class_uid=str(instance.SOPClassUID),
        sop_instance_uid=str(instance.SOPInstanceUID),
        series_instance_uid=str(instance.SeriesInstanceUID),
        study_instance_uid=str(instance.StudyInstanceUID),
        transfer_syntax_uid=encoding.TRANSFER_SYNTAX_UID,
        content=content,
        referenced_sop_instance_uids=_referenced(kind, instance, context),
    )


def _referenced(kind: str, instance: Dataset, context: ResultContext) -> tuple[str, ...]:
    if kind == "segmentation":
        series = instance.ReferencedSeriesSequence[0]
        return (str(series.ReferencedInstanceSequence[0].ReferencedSOPInstanceUID),)
    return tuple(str(source.SOPInstanceUID) for source in context.sources)
