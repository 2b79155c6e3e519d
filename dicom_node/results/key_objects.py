"""The key object selection: one line and the positive images, which a PACS flags in its list of studies.

Only a study at or above the threshold gets one. Of any other the reports speak: a flag on a normal study, or
on one that was not analysed, would teach readers to overlook it.
"""

from __future__ import annotations

from highdicom.sr import ContainerContentItem, TextContentItem
from pydicom.dataset import Dataset

from dicom_node.results import codes, wording
from dicom_node.results.content_tree import (
    CONTAINS,
    hierarchy,
    image,
    observation_context,
    with_children,
)
from dicom_node.results.context import BuildOrder, ResultContext
from dicom_node.results.header import new_instance
from dicom_node.results.rejection_note import KEY_OBJECT_SELECTION
from dicom_node.results.source import referenced


def build(order: BuildOrder) -> list[Dataset]:
    """Build the key object selection of a study whose score is at or above the threshold.

    Parameters
    ----------
    order : BuildOrder
        What to select.

    Returns
    -------
    list of pydicom.dataset.Dataset
        One document (PS3.3 A.35.4, PS3.16 TID 2010), or none below the threshold or without a score.
    """
    context = order.context
    if not context.prediction.is_positive:
        return []
    document = new_instance(
        context,
        sop_class_uid=KEY_OBJECT_SELECTION,
        kind="key_objects",
        modality="KO",
        series_number=9501,
        description="AI key images",
    )
    images = _positive_images(context)
    document.ReferencedPerformedProcedureStepSequence = []
    document.CurrentRequestedProcedureEvidenceSequence = hierarchy(
        (str(source.StudyInstanceUID), str(source.SeriesInstanceUID), *referenced(source))
        for source in images
    )
    children = [
        *observation_context(context),
        TextContentItem(codes.KEY_OBJECT_DESCRIPTION, wording.headline(context), CONTAINS),
        *(image(codes.SOURCE, source, CONTAINS) for source in images),
    ]
    root = with_children(ContainerContentItem(codes.OF_INTEREST, template_id="2010"), children)
    for item in root.ContentSequence[-len(images) :]:
        # TID 2010 row 8 has no concept name, which highdicom insists on.
        del item.ConceptNameCodeSequence
    for element in root:
        document[element.tag] = element
    return [document]


def _positive_images(context: ResultContext) -> list[Dataset]:
    """Give the images at or above the threshold: the mean of a breast's views does not exceed them all."""
    prediction = context.prediction
    highest = max(score.probability for score in prediction.images)
    limit = min(prediction.threshold, highest)
    return [context.source(s.sop_instance_uid) for s in prediction.images if s.probability >= limit]
