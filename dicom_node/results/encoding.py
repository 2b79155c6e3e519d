"""Data set to bytes: a Part 10 file, explicit VRs in little endian; the same bytes for the same data set."""

from __future__ import annotations

from io import BytesIO

from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.filewriter import dcmwrite
from pydicom.uid import UID, ExplicitVRLittleEndian

from dicom_node.errors import ResultError
from dicom_node.implementation import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME
from dicom_node.results.source import keep_undecoded

TRANSFER_SYNTAX_UID = str(ExplicitVRLittleEndian)


def transfer_syntax_of(instance: Dataset) -> str:
    """Give the UID of the syntax that a result is written in: that of its compressed pixels, or the usual."""
    meta = getattr(instance, "file_meta", None) or FileMetaDataset()
    return str(meta.get("TransferSyntaxUID") or TRANSFER_SYNTAX_UID)


def encode(instance: Dataset) -> bytes:
    """Write a result object as a whole file.

    Parameters
    ----------
    instance : pydicom.dataset.Dataset
        The object, complete; its file meta information names the syntax where the pixels are compressed.

    Returns
    -------
    bytes
        Preamble, file meta information and data set (PS3.10 section 7).

    Raises
    ------
    ResultError
        When the data set cannot be written.
    """
    syntax = transfer_syntax_of(instance)
    instance.file_meta = FileMetaDataset()
    instance.file_meta.TransferSyntaxUID = UID(syntax)
    instance.file_meta.ImplementationClassUID = UID(IMPLEMENTATION_CLASS_UID)
    instance.file_meta.ImplementationVersionName = IMPLEMENTATION_VERSION_NAME
    keep_undecoded(instance)
    buffer = BytesIO()
    try:
        dcmwrite(buffer, instance, enforce_file_format=True)
    except (ValueError, TypeError, AttributeError, NotImplementedError) as exc:
        # The cause may quote patient data, so it is not kept.
        raise ResultError(
            f"an object of SOP class {instance.SOPClassUID} cannot be written ({type(exc).__name__})"
        ) from None
    return buffer.getvalue()
