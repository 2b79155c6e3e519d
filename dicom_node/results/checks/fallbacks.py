"""Rules for what nearly every archive shows: presentation states, secondary captures, key objects, PDF."""

from __future__ import annotations

from collections.abc import Iterator

from pydicom.dataset import Dataset

from dicom_node.results.checks.pixels import faults_of_compressed, is_compressed
from dicom_node.results.checks.rules import Level, RuleBook, Subject, unless
from dicom_node.results.checks.tree import children, evidence_uids, points, referenced_uid

PRESENTATION_STATE_RULES = RuleBook()
SECONDARY_CAPTURE_RULES = RuleBook()
KEY_OBJECT_RULES = RuleBook()
PDF_RULES = RuleBook()

_POINTS = {"POINT": 1, "CIRCLE": 2, "ELLIPSE": 4}


@PRESENTATION_STATE_RULES.rule("PR-01", Level.STANDARD, "it is labelled, dated and bound to an image")
def _labelled(subject: Subject) -> Iterator[str]:
    state = subject.instance
    keywords = ("ContentLabel", "PresentationCreationDate", "PresentationCreationTime")
    yield from (keyword for keyword in keywords if not state.get(keyword))
    yield from unless(_state_images(state), "ReferencedSeriesSequence")
    yield from unless(state.get("DisplayedAreaSelectionSequence"), "DisplayedAreaSelectionSequence")


@PRESENTATION_STATE_RULES.rule("PR-02", Level.STANDARD, "annotations are on a layer and an image that it has")
def _layers(subject: Subject) -> Iterator[str]:
    state = subject.instance
    layers = {layer.GraphicLayer for layer in state.get("GraphicLayerSequence") or ()}
    for position, annotation in enumerate(_annotations(state), start=1):
        images = {str(i.ReferencedSOPInstanceUID) for i in annotation.get("ReferencedImageSequence") or ()}
        known = annotation.GraphicLayer in layers and images <= _state_images(state)
        yield from unless(known, f"annotation {position}")


@PRESENTATION_STATE_RULES.rule("PR-03", Level.PROJECT, "marks are in pixel coordinates inside the image")
def _marks(subject: Subject) -> Iterator[str]:
    columns, rows = _state_size(subject)
    for annotation in _annotations(subject.instance):
        for graphic in annotation.get("GraphicObjectSequence") or ():
            data = points(graphic)
            inside = all(0 <= x <= columns and 0 <= y <= rows for x, y in data)
            expected = _POINTS.get(graphic.GraphicType, len(data))
            counted = len(data) == graphic.NumberOfGraphicPoints == expected
            yield from unless(inside and counted and graphic.GraphicAnnotationUnits == "PIXEL", "graphic")


@PRESENTATION_STATE_RULES.rule("PR-04", Level.PROJECT, "texts are there, in ASCII, placed inside the image")
def _words(subject: Subject) -> Iterator[str]:
    columns, rows = _state_size(subject)
    texts = [t for a in _annotations(subject.instance) for t in a.get("TextObjectSequence") or ()]
    yield from unless(texts, "no text")
    for text in texts:
        words = str(text.UnformattedTextValue)
        yield from unless(words.strip() and words.isascii(), "text")
        if text.get("AnchorPointAnnotationUnits", "PIXEL") == "PIXEL" and "AnchorPoint" in text:
            x, y = text.AnchorPoint
            yield from unless(0 <= x <= columns and 0 <= y <= rows, "anchor")


@PRESENTATION_STATE_RULES.rule("PR-05", Level.STANDARD, "Laterality is in the series, empty for both sides")
def _state_side(subject: Subject) -> Iterator[str]:
    yield from unless(_has_side(subject.instance))


@SECONDARY_CAPTURE_RULES.rule("SC-01", Level.PROJECT, "it says that text is burnt in, and how it came about")
def _burnt(subject: Subject) -> Iterator[str]:
    picture = subject.instance
    yield from unless(picture.get("BurnedInAnnotation") == "YES", "BurnedInAnnotation")
    yield from unless(picture.get("ConversionType") == "WSD", "ConversionType")
    yield from unless(picture.get("DerivationDescription"), "DerivationDescription")
    yield from unless("DERIVED" in (picture.get("ImageType") or ()), "ImageType")


@SECONDARY_CAPTURE_RULES.rule("SC-02", Level.PROJECT, "it names the image that it was made from")
def _origin(subject: Subject) -> Iterator[str]:
    yield from unless(any(referenced_of(i) for i in subject.instance.get("SourceImageSequence") or ()))


@SECONDARY_CAPTURE_RULES.rule("SC-03", Level.STANDARD, "Laterality is in the series, empty for both sides")
def _picture_side(subject: Subject) -> Iterator[str]:
    yield from unless(_has_side(subject.instance))


@SECONDARY_CAPTURE_RULES.rule("SC-04", Level.STANDARD, "it has the colour pixels that it announces")
def _picture(subject: Subject) -> Iterator[str]:
    picture = subject.instance
    yield from unless(picture.SamplesPerPixel == 3 and picture.BitsAllocated == 8, "SamplesPerPixel")
    if is_compressed(picture):
        yield from faults_of_compressed(picture)
        return
    length = picture.Rows * picture.Columns * 3
    yield from unless(len(picture.PixelData) == length + length % 2, "PixelData")


@KEY_OBJECT_RULES.rule("KO-01", Level.PROJECT, "one line says why the objects are listed")
def _described(subject: Subject) -> Iterator[str]:
    lines = [str(item.TextValue) for item in children(subject.instance, "113012", "TEXT")]
    yield from unless(len(lines) == 1 and lines[0].strip() and "\n" not in lines[0])


@KEY_OBJECT_RULES.rule("KO-02", Level.STANDARD, "references have no concept name (TID 2010)")
def _unnamed(subject: Subject) -> Iterator[str]:
    for node in subject.nodes:
        if node.item.get("ValueType") in ("IMAGE", "COMPOSITE"):
            yield from unless("ConceptNameCodeSequence" not in node.item, node.place)


@KEY_OBJECT_RULES.rule("KO-03", Level.STANDARD, "what is listed is exactly the evidence")
def _listed(subject: Subject) -> Iterator[str]:
    listed = {referenced_uid(node.item) for node in subject.nodes} - {""}
    yield from unless(listed and listed == set(evidence_uids(subject.instance)))


@PDF_RULES.rule("PDF-01", Level.STANDARD, "it holds one whole PDF document and says so")
def _document(subject: Subject) -> Iterator[str]:
    document = subject.instance
    content = bytes(document.get("EncapsulatedDocument") or b"")
    length = int(document.get("EncapsulatedDocumentLength") or len(content))
    yield from unless(document.get("MIMETypeOfEncapsulatedDocument") == "application/pdf", "MIME type")
    yield from unless(content.startswith(b"%PDF-") and b"%%EOF" in content[-32:], "content")
    yield from unless(0 <= len(content) - length <= 1, "length")


@PDF_RULES.rule("PDF-02", Level.PROJECT, "it says that patient data is in the pages, and has no side")
def _pages(subject: Subject) -> Iterator[str]:
    document = subject.instance
    yield from unless(document.get("BurnedInAnnotation") == "YES", "BurnedInAnnotation")
    yield from unless("Laterality" not in document, "Laterality")
    yield from (k for k in ("DocumentTitle", "ConceptNameCodeSequence") if k not in document)


def referenced_of(item: Dataset) -> str:
    """Give the SOP Instance UID of one item of an image reference."""
    return str(item.get("ReferencedSOPInstanceUID", ""))


def _has_side(instance: Dataset) -> bool:
    return "Laterality" in instance and str(instance.Laterality or "") in ("R", "L", "")


def _annotations(state: Dataset) -> list[Dataset]:
    return list(state.get("GraphicAnnotationSequence") or ())


def _state_images(state: Dataset) -> set[str]:
    return {
        referenced_of(image)
        for series in state.get("ReferencedSeriesSequence") or ()
        for image in series.get("ReferencedImageSequence") or ()
    }


def _state_size(subject: Subject) -> tuple[float, float]:
    """Columns and rows of the state's image; without bounds where its header is not at hand."""
    for uid in _state_images(subject.instance):
        if (source := subject.sources.get(uid)) is not None:
            return float(source.Columns), float(source.Rows)
    return float("inf"), float("inf")
