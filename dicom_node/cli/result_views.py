"""What ``result show`` shows of an object: its words, and its picture as a file."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from pydicom.dataset import Dataset

from dicom_node.cli.pictures import draw_overlay
from dicom_node.results.reading import evidence_bands, report_text


def words_of(instance: Dataset) -> str:
    """Give what a result object says in words, for a reader; lines without patient data.

    Parameters
    ----------
    instance : pydicom.dataset.Dataset
        Any result object of this project.
    """
    if "ContentSequence" in instance:
        return report_text(instance)
    if "SegmentSequence" in instance:
        return "\n".join(f"Segment {s.SegmentNumber}: {s.SegmentLabel}" for s in instance.SegmentSequence)
    texts = [
        str(text.UnformattedTextValue).replace("\r\n", "\n")
        for annotation in instance.get("GraphicAnnotationSequence") or ()
        for text in annotation.get("TextObjectSequence") or ()
    ]
    return "\n".join(texts) or str(instance.get("DerivationDescription") or instance.get("DocumentTitle", ""))


def write_view(instance: Dataset, images: Mapping[str, NDArray[np.uint16]], out: Path) -> Path | None:
    """Write what eyes can look at: an overlay or capture as PNG, the pages as PDF, a report as text.

    Parameters
    ----------
    instance : pydicom.dataset.Dataset
        Any result object of this project.
    images : mapping of str to numpy.ndarray
        P-values of the images by SOP Instance UID; an overlay of another image is drawn on black.
    out : pathlib.Path
        An existing folder.

    Returns
    -------
    pathlib.Path or None
        What was written; None for an object that is for programs alone.
    """
    name = f"{instance.Modality.lower()}-{instance.SOPInstanceUID}"
    if "EncapsulatedDocument" in instance:
        path = out / f"{name}.pdf"
        path.write_bytes(instance.EncapsulatedDocument[: instance.EncapsulatedDocumentLength])
    elif "SegmentSequence" in instance:
        path = out / f"{name}.png"
        _draw_segmentation(instance, images, path)
    elif "PixelData" in instance:
        path = out / f"{name}.png"
        Image.fromarray(instance.pixel_array).save(path)
    elif words := words_of(instance):
        path = out / f"{name}.txt"
        path.write_text(words + "\n", encoding="utf-8")
    else:
        return None
    return path


def _draw_segmentation(instance: Dataset, images: Mapping[str, NDArray[np.uint16]], path: Path) -> None:
    series = instance.ReferencedSeriesSequence[0]
    image = images.get(str(series.ReferencedInstanceSequence[0].ReferencedSOPInstanceUID))
    black = np.zeros((instance.Rows, instance.Columns), np.uint8)
    grey = black if image is None or image.shape != black.shape else (image >> 8).astype(np.uint8)
    draw_overlay(grey, evidence_bands(instance), str(instance.SeriesDescription), path)
