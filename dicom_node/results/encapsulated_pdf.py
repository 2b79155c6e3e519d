"""The report as an Encapsulated PDF, for systems that show documents and no structured reports."""

from __future__ import annotations

from pydicom.dataset import Dataset
from pydicom.tag import Tag

from dicom_node.results import codes
from dicom_node.results.content_tree import sop_reference
from dicom_node.results.context import BuildOrder
from dicom_node.results.header import code_item, new_instance
from dicom_node.results.report_pages import TITLE, report_pages
from dicom_node.results.source import referenced

ENCAPSULATED_PDF_STORAGE = "1.2.840.10008.5.1.4.1.1.104.1"


def build(order: BuildOrder) -> list[Dataset]:
    """Build the document of a study, whatever came of its analysis.

    Parameters
    ----------
    order : BuildOrder
        What to report; the context needs renderings of the images with attention or marks.

    Returns
    -------
    list of pydicom.dataset.Dataset
        One document (PS3.3 A.45.1).
    """
    context = order.context
    document = new_instance(
        context,
        sop_class_uid=ENCAPSULATED_PDF_STORAGE,
        kind="encapsulated_pdf",
        modality="DOC",
        series_number=9601,
        description="AI mammography report",
    )
    document.ConversionType = "WSD"
    document.AcquisitionDateTime = None
    # The pages name the patient.
    document.BurnedInAnnotation = "YES"
    document.SourceInstanceSequence = [sop_reference(*referenced(source)) for source in context.sources]
    document.VerificationFlag = "UNVERIFIED"
    document.DocumentTitle = f"{TITLE}, not verified"
    document.ConceptNameCodeSequence = [code_item(codes.DIAGNOSTIC_IMAGING_REPORT)]
    document.MIMETypeOfEncapsulatedDocument = "application/pdf"
    pages = report_pages(context)
    document.EncapsulatedDocumentLength = len(pages)
    document.add_new(Tag("EncapsulatedDocument"), "OB", pages + b"\0" * (len(pages) % 2))
    return [document]
