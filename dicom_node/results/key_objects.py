"""The key object selection: one line and the positive images, which a PACS flags in its list of studies.

Only a study at or above the threshold gets one. Of any other the reports speak: a flag on a normal study, or
on one that was not analysed, would teach readers to overlook it.
"""

from __future__ import annotations

from pydicom.dataset import Dataset

from dicom_node.results import codes, wording
from dicom_node.results.content_tree import CONTAINS, add_key_objects, hierarchy, image
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
    references = [image(codes.SOURCE, source, CONTAINS) for source in images]
    add_key_objects(document, context, codes.OF_INTEREST, wording.headline(context), references)
    return [document]


def _positive_images(context: ResultContext) -> list[Dataset]:
    """Give the images at or above the threshold: the mean of a breast's views does not exceed them all."""
    prediction = context.prediction
    highest = max(score.probability for score in prediction.images)
    limit = min(prediction.threshold, highest)
    return [context.source(s.sop_instance_uid) for s in prediction.images if s.probability >= limit]
