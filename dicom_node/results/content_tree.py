"""The parts that every structured report shares: document, observer, image and evidence items.

Content items are highdicom's value types, which refuse what PS3.3 C.17.3 does not allow. The header is
plain pydicom: highdicom's documents raise on character sets, absent type 2 attributes and sexes that real
images have.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from highdicom.sr import (
    CodeContentItem,
    ContainerContentItem,
    ContentItem,
    ContentSequence,
    ImageContentItem,
    RelationshipTypeValues,
    TextContentItem,
    UIDRefContentItem,
)
from pydicom.dataset import Dataset
from pydicom.sr.coding import Code

from dicom_node.results import codes
from dicom_node.results.context import Analysis, BuildOrder
from dicom_node.results.source import procedure_reported, referenced

CONTAINS = RelationshipTypeValues.CONTAINS
HAS_CONCEPT_MOD = RelationshipTypeValues.HAS_CONCEPT_MOD
HAS_OBS_CONTEXT = RelationshipTypeValues.HAS_OBS_CONTEXT
HAS_ACQ_CONTEXT = RelationshipTypeValues.HAS_ACQ_CONTEXT
INFERRED_FROM = RelationshipTypeValues.INFERRED_FROM
SELECTED_FROM = RelationshipTypeValues.SELECTED_FROM
SEGMENTATION_STORAGE = "1.2.840.10008.5.1.4.1.1.66.4"


def with_children(item: ContentItem, children: Iterable[ContentItem]) -> ContentItem:
    """Put children under a content item and give the item back."""
    item.ContentSequence = ContentSequence(list(children))
    return item


def container(name: Code, children: Iterable[ContentItem], template_id: str | None = None) -> ContentItem:
    """Make a container that its parent CONTAINS."""
    item = ContainerContentItem(name, template_id=template_id, relationship_type=CONTAINS)
    return with_children(item, children)


def observation_context(context: Analysis) -> list[ContentItem]:
    """Say in which language, and that a device and no person is the observer (PS3.16 TID 1204, 1001).

    The device is the algorithm (IHE AIR 6.5.3.1); name and serial number are those of this node.
    """
    texts = (
        (codes.DEVICE_OBSERVER_NAME, context.node.ae_title),
        (codes.DEVICE_OBSERVER_MANUFACTURER, context.bundle.manufacturer),
        (codes.DEVICE_OBSERVER_MODEL, context.bundle.name),
        (codes.DEVICE_OBSERVER_SERIAL, context.node.serial_number),
    )
    return [
        CodeContentItem(codes.LANGUAGE, codes.ENGLISH, HAS_CONCEPT_MOD),
        CodeContentItem(codes.OBSERVER_TYPE, codes.DEVICE, HAS_OBS_CONTEXT),
        UIDRefContentItem(codes.DEVICE_OBSERVER_UID, context.device_uid, HAS_OBS_CONTEXT),
        *(TextContentItem(name, value, HAS_OBS_CONTEXT) for name, value in texts),
    ]


def procedure(context: Analysis, unnamed: Code = codes.MAMMOGRAPHY) -> ContentItem:
    """Name the imaging procedure whose images are reported, or `unnamed` where they do not say."""
    code = procedure_reported(context.sources[0], unnamed)
    return CodeContentItem(codes.PROCEDURE_REPORTED, code, HAS_CONCEPT_MOD)


def image(
    name: Code, source: Dataset, relationship: RelationshipTypeValues, frame: int | None = None
) -> ContentItem:
    """Reference one image of the study, or one frame of it."""
    return ImageContentItem(
        name, *referenced(source), referenced_frame_numbers=frame, relationship_type=relationship
    )


def add_document(
    document: Dataset, order: BuildOrder, title: Code, template_id: str, children: Sequence[ContentItem]
) -> None:
    """Make a header an SR document: general module, evidence, predecessors and content tree.

    Parameters
    ----------
    document : pydicom.dataset.Dataset
        Header; gets the attributes of PS3.3 C.17.2 and C.17.3.
    order : BuildOrder
        What is reported, and which objects were made beside it.
    title : pydicom.sr.coding.Code
        Document title.
    template_id : str
        Root template in the DCMR.
    children : sequence of highdicom.sr.ContentItem
        Content below the root.
    """
    add_general_module(document, order.context, _evidence(order))
    add_content(document, title, template_id, children)


def add_content(document: Dataset, title: Code, template_id: str, children: Sequence[ContentItem]) -> None:
    """Add the content tree (PS3.3 C.17.3); the arguments are those of :func:`add_document`."""
    root = ContainerContentItem(title, template_id=template_id)
    for element in with_children(root, children):
        document[element.tag] = element


def add_key_objects(
    document: Dataset, context: Analysis, title: Code, description: str, references: Sequence[ContentItem]
) -> None:
    """Add the content tree of a Key Object Selection (PS3.16 TID 2010).

    Parameters
    ----------
    document : pydicom.dataset.Dataset
        Header; gets the attributes of PS3.3 C.17.3.
    context : Analysis
        Whose device is the observer.
    title : pydicom.sr.coding.Code
        Document title (PS3.16 CID 7010).
    description : str
        Key Object Description, one line.
    references : sequence of highdicom.sr.ContentItem
        The objects selected; they lose their concept names.
    """
    text = TextContentItem(codes.KEY_OBJECT_DESCRIPTION, description, CONTAINS)
    add_content(document, title, "2010", [*observation_context(context), text, *references])
    for reference in references:
        # TID 2010 gives references no concept name, without which highdicom puts them in no sequence.
        del reference.ConceptNameCodeSequence


def add_general_module(document: Dataset, context: Analysis, evidence: list[Dataset]) -> None:
    """Make a header that of an SR document (PS3.3 C.17.2).

    Parameters
    ----------
    document : pydicom.dataset.Dataset
        Header; gets the attributes.
    context : Analysis
        What is reported, and which reports it replaces.
    evidence : list of pydicom.dataset.Dataset
        From :func:`hierarchy`: every instance that the content refers to.
    """
    document.ReferencedPerformedProcedureStepSequence = []
    document.PerformedProcedureCodeSequence = []
    document.CompletionFlag = "COMPLETE" if context.is_complete else "PARTIAL"
    if document.CompletionFlag == "PARTIAL":
        document.CompletionFlagDescription = "The analysis does not cover the whole study"
    # An algorithm cannot verify (PS3.3 C.17.2): the radiologist's own report is the final one.
    document.VerificationFlag = "UNVERIFIED"
    document.PreliminaryFlag = "PRELIMINARY"
    document.CurrentRequestedProcedureEvidenceSequence = evidence
    documents = [p for p in context.predecessors if p.is_report]
    if documents:
        document.PredecessorDocumentsSequence = hierarchy(
            (p.study_instance_uid, p.series_instance_uid, p.sop_class_uid, p.sop_instance_uid)
            for p in documents
        )


def _evidence(order: BuildOrder) -> list[Dataset]:
    sources = (
        (str(s.StudyInstanceUID), str(s.SeriesInstanceUID), *referenced(s)) for s in order.context.sources
    )
    siblings = (
        (o.study_instance_uid, o.series_instance_uid, o.sop_class_uid, o.sop_instance_uid)
        for o in order.siblings
        if o.sop_class_uid == SEGMENTATION_STORAGE
    )
    return hierarchy([*sources, *siblings])


def hierarchy(references: Iterable[tuple[str, str, str, str]]) -> list[Dataset]:
    """Nest (study, series, class, instance) as PS3.3 table C.17-3 wants it, each instance once."""
    studies: dict[str, dict[str, dict[str, str]]] = {}
    for study_uid, series_uid, sop_class_uid, sop_instance_uid in references:
        studies.setdefault(study_uid, {}).setdefault(series_uid, {})[sop_instance_uid] = sop_class_uid
    return [_study_item(study_uid, series) for study_uid, series in studies.items()]


def _study_item(study_uid: str, series: dict[str, dict[str, str]]) -> Dataset:
    item = Dataset()
    item.StudyInstanceUID = study_uid
    item.ReferencedSeriesSequence = []
    for series_uid, instances in series.items():
        series_item = Dataset()
        series_item.SeriesInstanceUID = series_uid
        series_item.ReferencedSOPSequence = [sop_reference(c, i) for i, c in instances.items()]
        item.ReferencedSeriesSequence.append(series_item)
    return item


def sop_reference(sop_class_uid: str, sop_instance_uid: str) -> Dataset:
    """Make an item of a SOP instance reference (PS3.3 table 10-11)."""
    item = Dataset()
    item.ReferencedSOPClassUID = sop_class_uid
    item.ReferencedSOPInstanceUID = sop_instance_uid
    return item
