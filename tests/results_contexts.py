"""Studies and predictions to build results from: phantoms written to a file and read back, as in the node."""

from __future__ import annotations

from collections.abc import Iterable
from copy import deepcopy
from dataclasses import replace
from datetime import UTC, datetime
from functools import cache
from io import BytesIO
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset, dcmread, dcmwrite
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian

from dicom_node.results.context import BuiltObject, NodeIdentity, PredecessorDocument, ResultContext
from models.contract import (
    BreastScore,
    BundleIdentity,
    ImageScore,
    Laterality,
    Outcome,
    Refusal,
    RefusalCode,
    Region,
    StudyPrediction,
)
from training.datasets import phantom_objects

ROWS, COLUMNS = 320, 208
BUNDLE = BundleIdentity(
    name="phantom-mammography",
    version="1.2.0",
    digest="ab12" * 16,
    task="mammography_malignancy",
    manufacturer="dicom-node project",
    demonstration=True,
    configuration_digest="cd34" * 16,
)
NODE = NodeIdentity(
    ae_title="AI_NODE",
    serial_number="SN-0001",
    manufacturer="dicom-node project",
    software_version="dicom-node 0.1.0",
)
ANALYSED_AT = datetime(2026, 1, 5, 23, 30, 15, tzinfo=UTC)
VIEWS = (("R", "CC"), ("R", "MLO"), ("L", "CC"), ("L", "MLO"))


def header(image: Dataset, *, implicit: bool = False, overrides: dict[str, Any] | None = None) -> Dataset:
    """Give an image's header as the node has it: written, sent, stored, read back, nothing decoded.

    An override of None removes the element.
    """
    changed = deepcopy(image)
    del changed.PixelData
    for keyword, value in (overrides or {}).items():
        if value is not None:
            setattr(changed, keyword, value)
        elif keyword in changed:
            delattr(changed, keyword)
    changed.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian if implicit else ExplicitVRLittleEndian
    buffer = BytesIO()
    dcmwrite(buffer, changed, enforce_file_format=True)
    buffer.seek(0)
    return dcmread(buffer)


@cache
def images() -> tuple[Dataset, ...]:
    """Draw a four-view study, in the order of :data:`VIEWS`, with pixels."""
    drawn = {
        (i.ImageLaterality, i.ViewPosition): i
        for i in phantom_objects.study(rows=ROWS, columns=COLUMNS, seed=7)
    }
    return tuple(drawn[view] for view in VIEWS)


def sources(*, implicit: bool = False, **overrides: Any) -> tuple[Dataset, ...]:
    """Give the four headers, with elements replaced or removed."""
    return tuple(header(image, implicit=implicit, overrides=overrides) for image in images())


def view_codes(value: str, *modifiers: str) -> list[Dataset]:
    """Give a View Code Sequence of a SNOMED CT code and its modifiers."""
    items = []
    for code in (value, *modifiers):
        item = Dataset()
        item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = code, "SCT", "as its code"
        items.append(item)
    items[0].ViewModifierCodeSequence = items[1:]
    return items[:1]


@cache
def renderings() -> dict[str, NDArray[np.uint16]]:
    """Show the four images as a display does: one linear window over all their values, 0..65535."""
    shown = {}
    for image in images():
        low = float(image.WindowCenter) - float(image.WindowWidth) / 2
        grey = np.clip((image.pixel_array - low) / float(image.WindowWidth), 0, 1)
        shown[str(image.SOPInstanceUID)] = np.rint(grey * 65535).astype(np.uint16)
    return shown


def attention(column: float, row: float) -> NDArray[np.uint8]:
    """Draw an evidence map that fades from one point, (rows, columns) uint8, 0..3."""
    rows, columns = np.mgrid[:ROWS, :COLUMNS]
    fading = np.exp(-((columns - column) ** 2 + (rows - row) ** 2) / 30**2)
    return np.digitize(fading, [0.30, 0.60, 0.85]).astype(np.uint8)


def image_scores(probabilities: Iterable[float]) -> tuple[ImageScore, ...]:
    """Score the four images; those at or above one half come with evidence."""
    scores = []
    for number, (image, (side, view), probability) in enumerate(
        zip(images(), VIEWS, probabilities, strict=True)
    ):
        left = 60.5 if side == "R" else 0.0
        scores.append(
            ImageScore(
                sop_instance_uid=str(image.SOPInstanceUID),
                laterality=Laterality(side),
                view=view,
                logit=1.0,
                probability=probability,
                region=Region(left, 10.0, left + 140.0, 300.0),
                evidence=attention(100 + 10 * number, 150) if probability >= 0.5 else None,
            )
        )
    return tuple(scores)


def prediction(
    probabilities: tuple[float, float, float, float], refusals: tuple[Refusal, ...] = ()
) -> StudyPrediction:
    """Combine image scores as the node does; refused images have no score."""
    refused = {refusal.sop_instance_uid for refusal in refusals}
    scored = tuple(s for s in image_scores(probabilities) if s.sop_instance_uid not in refused)
    breasts = []
    for side in Laterality:
        views = [s for s in scored if s.laterality is side]
        if views:
            mean = sum(s.probability for s in views) / len(views)
            breasts.append(BreastScore(side, mean, tuple(s.sop_instance_uid for s in views)))
    return StudyPrediction(
        task=BUNDLE.task,
        outcome=Outcome.PARTIAL if refusals else Outcome.SCORED,
        threshold=0.5,
        images=scored,
        breasts=tuple(breasts),
        study_probability=max(b.probability for b in breasts),
        refusals=refusals,
    )


POSITIVE = (0.91, 0.83, 0.12, 0.08)
NEGATIVE = (0.11, 0.09, 0.12, 0.08)


def context(said: StudyPrediction, headers: tuple[Dataset, ...] | None = None, **more: Any) -> ResultContext:
    """Put a prediction together with its images, model and node."""
    return ResultContext(
        **{
            "sources": headers or sources(),
            "prediction": said,
            "bundle": BUNDLE,
            "node": NODE,
            "analysed_at": ANALYSED_AT,
            "renderings": renderings(),
            **more,
        }
    )


def implant_refusal() -> Refusal:
    """Refuse the R MLO image for an implant."""
    return Refusal(RefusalCode.IMPLANT, str(images()[1].SOPInstanceUID), Laterality.RIGHT, "MLO")


def positive(headers: tuple[Dataset, ...] | None = None, **more: Any) -> ResultContext:
    """A cancer on the right."""
    return context(prediction(POSITIVE), headers, **more)


def negative(headers: tuple[Dataset, ...] | None = None, **more: Any) -> ResultContext:
    """Nothing above the threshold."""
    return context(prediction(NEGATIVE), headers, **more)


def partial(headers: tuple[Dataset, ...] | None = None, **more: Any) -> ResultContext:
    """One of four images refused, nothing above the threshold in the others."""
    return context(prediction(NEGATIVE, (implant_refusal(),)), headers, **more)


def refused(headers: tuple[Dataset, ...] | None = None, **more: Any) -> ResultContext:
    """A study that the task's gate refused."""
    reasons = (Refusal(RefusalCode.VIEWS_MISSING, detail="L MLO"), implant_refusal())
    said = StudyPrediction(BUNDLE.task, Outcome.REFUSED, threshold=0.5, refusals=reasons)
    return context(said, headers, **more)


def superseding(headers: tuple[Dataset, ...] | None = None, **more: Any) -> ResultContext:
    """The second revision of a study whose first report was made from two images."""
    earlier = PredecessorDocument(
        "1.2.840.10008.5.1.4.1.1.88.22", "2.25.11", "2.25.12", str(images()[0].StudyInstanceUID)
    )
    return replace(positive(headers, **more), revision=2, predecessors=(earlier,))


def read(built: BuiltObject) -> Dataset:
    """Read an object as its receiver does."""
    return dcmread(BytesIO(built.content))


def only(objects: Iterable[BuiltObject], kind: str) -> Dataset:
    """Read the one object of a kind."""
    (found,) = (o for o in objects if o.kind == kind)
    return read(found)


def content_items(item: Dataset) -> Iterable[Dataset]:
    """Walk a content tree, root first."""
    yield item
    for child in item.get("ContentSequence", ()):
        yield from content_items(child)


def named(item: Dataset, code_value: str) -> list[Dataset]:
    """Find the content items with a concept name."""
    return [
        i
        for i in content_items(item)
        if "ConceptNameCodeSequence" in i and i.ConceptNameCodeSequence[0].CodeValue == code_value
    ]


def texts(report: Dataset) -> list[str]:
    """Give every sentence of a report that is text."""
    return [str(i.TextValue) for i in content_items(report) if "TextValue" in i]
