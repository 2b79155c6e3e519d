"""Reading result objects back: a report as text, an overlay as marked pixels."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from models.contract import EVIDENCE_BANDS

_INDENT = "  "


def report_text(report: Dataset) -> str:
    """Return a structured report's content tree as indented lines (PS3.3 C.17.3).

    Parameters
    ----------
    report : pydicom.dataset.Dataset
        Any SR object.
    """
    return "\n".join(_lines(report, 0))


def _lines(item: Dataset, depth: int) -> list[str]:
    name = _meaning(item, "ConceptNameCodeSequence")
    value = _value(item)
    own = ": ".join(part for part in (name, value) if part)
    lines = [_INDENT * depth + own] if own else []
    for child in item.get("ContentSequence", []):
        lines += _lines(child, depth + (1 if own else 0))
    return lines


def _value(item: Dataset) -> str:
    kind = item.get("ValueType", "")
    if kind == "NUM":
        measured = item.MeasuredValueSequence[0]
        unit = measured.MeasurementUnitsCodeSequence[0]
        return f"{measured.NumericValue} {unit.CodeValue}"
    if kind == "CODE":
        return _meaning(item, "ConceptCodeSequence")
    if kind == "SCOORD":
        return f"{item.GraphicType} of {len(item.GraphicData) // 2} points"
    if kind in ("IMAGE", "COMPOSITE"):
        return str(item.ReferencedSOPSequence[0].ReferencedSOPInstanceUID)
    keyword = {"TEXT": "TextValue", "UIDREF": "UID", "PNAME": "PersonName", "DATE": "Date", "TIME": "Time"}
    return str(item.get(keyword[kind], "")) if kind in keyword else ""


def _meaning(item: Dataset, sequence: str) -> str:
    codes = item.get(sequence)
    return str(codes[0].CodeMeaning) if codes else ""


def evidence_bands(segmentation: Dataset) -> NDArray[np.uint8]:
    """Return a three-band segmentation as one label image.

    Parameters
    ----------
    segmentation : pydicom.dataset.Dataset
        A Segmentation of this project of one image (PS3.3 C.8.20): a BINARY segment per band, or the
        FRACTIONAL map that the bands are of.

    Returns
    -------
    numpy.ndarray
        ``(rows, columns)`` uint8: 0 unmarked, 1..3 the band of :data:`models.contract.EVIDENCE_BANDS`.
    """
    frames = segmentation.pixel_array.reshape(-1, segmentation.Rows, segmentation.Columns)
    if segmentation.SegmentationType == "FRACTIONAL":
        shares = frames.max(axis=0) / float(segmentation.MaximumFractionalValue)
        return np.asarray(np.digitize(shares, [low for low, _ in EVIDENCE_BANDS]), np.uint8)
    bands = np.zeros((segmentation.Rows, segmentation.Columns), np.uint8)
    for frame, groups in zip(frames, segmentation.PerFrameFunctionalGroupsSequence, strict=True):
        number = int(groups.SegmentIdentificationSequence[0].ReferencedSegmentNumber)
        bands[frame.astype(bool)] = min(number, len(EVIDENCE_BANDS))
    return bands
