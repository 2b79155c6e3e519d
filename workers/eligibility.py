"""Which objects of a revision a bundle looks at: told from header and row, before a pixel is decoded."""

from __future__ import annotations

from pydicom import Dataset

from db.tables import Instance
from models.classifier import Classifier
from models.contract import RefusalCode
from workers.devices import is_validated


def reason_against(header: Dataset, instance: Instance, classifier: Classifier) -> RefusalCode | None:
    """Return why an object is not looked at; None where it is.

    Parameters
    ----------
    header : pydicom.dataset.Dataset
        Of the stored object, without pixel data.
    instance : Instance
        Its row.
    classifier : Classifier
        Who answers: the bundle knows its devices, the task its SOP classes.
    """
    if not is_validated(header, classifier.bundle.manifest.scanner_models):
        return RefusalCode.DEVICE_NOT_VALIDATED
    if instance.sop_class_uid not in classifier.task.scored_sop_classes:
        return classifier.task.reason_against(instance.sop_class_uid)
    return None
