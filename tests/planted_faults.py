"""Faults to plant into good result objects, each with the rule that must name it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from pydicom import Dataset
from pydicom.sr.coding import Code
from pydicom.uid import JPEGBaseline8Bit

from dicom_node.results.header import code_item
from tests import results_contexts as given

Change = Callable[[Dataset], Any]


@dataclass(frozen=True, slots=True)
class Planted:
    """One fault: what it is, in which kind of object, the rule that sees it, and how to make it."""

    name: str
    kind: str
    rule: str
    plant: Change


SOURCE = Code("260753009", "SCT", "Source")


def without(keyword: str) -> Change:
    return lambda instance: delattr(instance, keyword)


def having(keyword: str, value: Any) -> Change:
    return lambda instance: setattr(instance, keyword, value)


def item(instance: Dataset, name: str, position: int = 0) -> Dataset:
    """Give one content item by its concept name."""
    return given.named(instance, name)[position]


def on(name: str, change: Change, position: int = 0) -> Change:
    """Change a content item."""
    return lambda instance: change(item(instance, name, position))


def dropping(name: str, parent: str = "125007") -> Change:
    """Take children of a name out of the first item of another name."""

    def drop(instance: Dataset) -> None:
        above = item(instance, parent)
        above.ContentSequence = [c for c in above.ContentSequence if c not in given.named(c, name)]

    return drop


def at_root(name: str) -> Change:
    """Take the children of a name out of the root."""

    def drop(instance: Dataset) -> None:
        instance.ContentSequence = [c for c in instance.ContentSequence if c not in given.named(c, name)]

    return drop


def coded(name: str, code: Code, position: int = 0) -> Change:
    """Give a CODE item another value."""
    return on(name, having("ConceptCodeSequence", [code_item(code)]), position)


def processing(change: Change) -> Change:
    """Change the Contributing Equipment item of the algorithm."""
    return lambda instance: change(instance.ContributingEquipmentSequence[-1])


def measured(change: Change) -> Change:
    return on("111047", lambda number: change(number.MeasuredValueSequence[0]))


def repeat_evidence(report: Dataset) -> None:
    series = report.CurrentRequestedProcedureEvidenceSequence[0].ReferencedSeriesSequence[0]
    series.ReferencedSOPSequence = [*series.ReferencedSOPSequence, series.ReferencedSOPSequence[0]]


def lose_an_image(report: Dataset) -> None:
    study = report.CurrentRequestedProcedureEvidenceSequence[0]
    study.ReferencedSeriesSequence = study.ReferencedSeriesSequence[1:]


def lose_a_segmentation(report: Dataset) -> None:
    study = report.CurrentRequestedProcedureEvidenceSequence[0]
    study.ReferencedSeriesSequence = study.ReferencedSeriesSequence[:-1]


def share_a_tracking_uid(report: Dataset) -> None:
    first, second = given.named(report, "112040")[:2]
    second.UID = first.UID


def move_outside(name: str) -> Change:
    def move(report: Dataset) -> None:
        place = item(report, name)
        place.GraphicData = [value + 5000 for value in place.GraphicData]

    return move


def open_the_outline(name: str) -> Change:
    return on(name, lambda place: setattr(place, "GraphicData", place.GraphicData[:-2]))


def rename_title(instance: Dataset) -> None:
    instance.ConceptNameCodeSequence = [code_item(Code("11528-7", "LN", "Radiology Report"))]


def segment(change: Change) -> Change:
    return lambda instance: change(instance.SegmentSequence[0])


def frame(change: Change) -> Change:
    return lambda instance: change(instance.PerFrameFunctionalGroupsSequence[0])


def annotation(change: Change) -> Change:
    return lambda instance: change(instance.GraphicAnnotationSequence[0])


def graphic(change: Change) -> Change:
    return annotation(lambda noted: change(noted.GraphicObjectSequence[0]))


def shifted_graphic(drawn: Dataset) -> None:
    drawn.GraphicData = [value + 5000 for value in drawn.GraphicData]


def name_a_reference(document: Dataset) -> None:
    reference = next(i for i in document.ContentSequence if i.ValueType == "IMAGE")
    reference.ConceptNameCodeSequence = [code_item(SOURCE)]


def forget_an_entry(document: Dataset) -> None:
    document.ContentSequence = document.ContentSequence[:-1]


def say_normal(report: Dataset) -> None:
    for child in given.content_items(report):
        if "TextValue" in child:
            child.TextValue = "AI result: NEGATIVE. Not verified by a radiologist."


ZERO_WIDTH = Code("111047", "DCM", "Probability of\u200bcancer")
SRT_BREAST = Code("T-04000", "SRT", "Breast")
ENHANCED_SR = "1.2.840.10008.5.1.4.1.1.88.22"
OTHER_UID = "2.25.123456789"

EVERY_OBJECT = (
    Planted("random UID root", "text_report", "OBJ-02", having("SOPInstanceUID", "1.2.826.0.1.3680043.8")),
    Planted("UID with a leading zero", "text_report", "OBJ-01", having("InstanceCreatorUID", "2.25.012")),
    Planted("truncated patient name", "text_report", "SRC-01", having("PatientName", "Phantom")),
    Planted("shortened accession number", "segmentation", "SRC-01", having("AccessionNumber", "A")),
    Planted("another character set", "segmentation", "SRC-01", having("SpecificCharacterSet", "ISO_IR 192")),
    Planted("invented issuer", "segmentation", "SRC-01", having("IssuerOfPatientID", "HOSPITAL")),
    Planted("absent type 2 attribute", "text_report", "OBJ-04", without("ReferringPhysicianName")),
    Planted("no serial number", "segmentation", "OBJ-03", having("DeviceSerialNumber", "")),
    Planted("no time zone", "text_report", "OBJ-09", having("TimezoneOffsetFromUTC", "01:00")),
    Planted("times that differ", "text_report", "OBJ-10", having("ContentTime", "000000")),
    Planted("series among the images", "segmentation", "OBJ-14", having("SeriesNumber", 3)),
    Planted("the images' own series", "text_report", "SRC-02", lambda ds: setattr(
        ds, "SeriesInstanceUID", given.images()[0].SeriesInstanceUID)),
    Planted("silent series description", "text_report", "OBJ-05", having("SeriesDescription", "AI report")),
    Planted("wrong Modality", "segmentation", "OBJ-08", having("Modality", "OT")),
    Planted("a person as author", "segmentation", "OBJ-13", having("ContentCreatorName", "Doe^Jane")),
    Planted("no contributing equipment", "segmentation", "OBJ-06", without("ContributingEquipmentSequence")),
    Planted("no Device UID", "measurement_report", "OBJ-06", processing(without("DeviceUID"))),
    Planted("another model in the header", "segmentation", "OBJ-07", having("ManufacturerModelName", "X")),
    Planted("meta information of another", "text_report", "OBJ-12", lambda ds: setattr(
        ds.file_meta, "MediaStorageSOPInstanceUID", OTHER_UID)),
    Planted("another study", "text_report", "SET-03", having("StudyInstanceUID", OTHER_UID)),
    Planted("another algorithm", "text_report", "SET-04", processing(having("DeviceUID", OTHER_UID))),
)  # fmt: skip

REPORTS = (
    Planted("an image of nowhere", "text_report", "SET-07", lambda ds: setattr(
        ds.CurrentRequestedProcedureEvidenceSequence[0].ReferencedSeriesSequence[0].ReferencedSOPSequence[0],
        "ReferencedSOPInstanceUID", OTHER_UID)),
    Planted("a segmentation unlisted", "text_report", "SET-06", lose_a_segmentation),
    Planted("verified", "text_report", "SR-03", having("VerificationFlag", "VERIFIED")),
    Planted("final", "measurement_report", "SR-03", having("PreliminaryFlag", "FINAL")),
    Planted("no completion flag", "measurement_report", "SR-02", without("CompletionFlag")),
    Planted("missing template", "measurement_report", "SR-01", without("ContentTemplateSequence")),
    Planted("wrong title", "measurement_report", "SR-01", rename_title),
    Planted("evidence missing", "measurement_report", "SR-04", lose_an_image),
    Planted("no evidence", "text_report", "SR-04", without("CurrentRequestedProcedureEvidenceSequence")),
    Planted("evidence listed twice", "measurement_report", "SR-05", repeat_evidence),
    Planted("item without value", "text_report", "SR-06", on("121073", having("TextValue", ""))),
    Planted("item without relationship", "text_report", "SR-06", on("121073", without("RelationshipType"))),
    Planted("text beyond ASCII", "text_report", "SR-07", on("121073", having("TextValue", "\u00dcbel"))),
    Planted("zero-width space", "measurement_report", "OBJ-11", on("111047", having(
        "ConceptNameCodeSequence", [code_item(ZERO_WIDTH)]))),
    Planted("region outside the image", "measurement_report", "SR-09", move_outside("111030")),
    Planted("odd number of coordinates", "measurement_report", "SR-08", on("111030", lambda region: setattr(
        region, "GraphicData", region.GraphicData[:-1]))),
    Planted("region from no image", "measurement_report", "SR-08", on("111030", without("ContentSequence"))),
    Planted("unit outside UCUM", "measurement_report", "SR-10", measured(having(
        "MeasurementUnitsCodeSequence", [code_item(Code("pct", "99LOCAL", "per cent"))]))),
    Planted("probability of 187 %", "measurement_report", "SR-11", measured(having("NumericValue", "187"))),
    Planted("probability as a share", "measurement_report", "SR-11", measured(having(
        "MeasurementUnitsCodeSequence", [code_item(Code("1", "UCUM", "no units"))]))),
    Planted("a person observed", "text_report", "SR-12", coded("121005", Code("121006", "DCM", "Person"))),
    Planted("no language", "text_report", "SR-13", at_root("121049")),
    Planted("version mismatch", "measurement_report", "SR-14", on("111003", having("TextValue", "9.9"))),
    Planted("another observer", "text_report", "SR-14", on("121012", having("UID", OTHER_UID))),
    Planted("wrong laterality code", "measurement_report", "SR-15", coded(
        "272741003", Code("73056007", "SCT", "Right breast"))),
    Planted("mixed SNOMED schemes", "measurement_report", "SR-16", coded("363698007", SRT_BREAST)),
    Planted("observer without type", "text_report", "SR-20", at_root("121005")),
    Planted("referenced by another class", "text_report", "SR-18", lambda ds: setattr(
        ds.CurrentRequestedProcedureEvidenceSequence[0].ReferencedSeriesSequence[0].ReferencedSOPSequence[0],
        "ReferencedSOPClassUID", "1.2.840.10008.5.1.4.1.1.7")),
    Planted("no impression", "text_report", "TXT-01", at_root("121072")),
    Planted("empty section", "text_report", "TXT-03", on("121070", having("ContentSequence", []))),
    Planted("unnamed model", "text_report", "TXT-04", say_normal),
)  # fmt: skip

MEASUREMENTS = (
    Planted("Enhanced SR", "measurement_report", "TXT-01", having("SOPClassUID", ENHANCED_SR)),
    Planted("no procedure reported", "measurement_report", "MR-02", at_root("121058")),
    Planted("the algorithm as procedure", "measurement_report", "MR-02", coded(
        "121058", Code("111411", "DCM", "Mammography CAD"))),
    Planted("no image library", "measurement_report", "MR-03", at_root("111028")),
    Planted("group of another template", "measurement_report", "MR-04", on("125007", lambda group: setattr(
        group.ContentTemplateSequence[0], "TemplateIdentifier", "1501"))),
    Planted("no tracking UID", "measurement_report", "MR-05", dropping("112040")),
    Planted("no tracking identifier", "measurement_report", "MR-05", dropping("112039")),
    Planted("a tracking UID twice", "measurement_report", "MR-05", share_a_tracking_uid),
    Planted("no algorithm", "measurement_report", "MR-06", dropping("111001")),
    Planted("no SCOORD in a group", "measurement_report", "MR-07", dropping("111030")),
    Planted("image named Source", "measurement_report", "MR-08", on("111030", lambda region: setattr(
        region.ContentSequence[0], "ConceptNameCodeSequence", [code_item(SOURCE)]))),
    Planted("open outline", "measurement_report", "MR-09", open_the_outline("111030")),
    Planted("no purpose of the region", "measurement_report", "MR-10", dropping("130400")),
    Planted("no finding site", "measurement_report", "MR-11", dropping("363698007")),
    Planted("no side", "measurement_report", "MR-11", on("363698007", without("ContentSequence"))),
    Planted("no result in a group", "measurement_report", "MR-12", lambda ds: [
        dropping(name)(ds) for name in ("111047", "121071")]),
    Planted("no word of caution", "measurement_report", "MR-13", dropping("121106", "C0034375")),
    Planted("no comment", "measurement_report", "MR-13", on("121106", having("TextValue", "Score."))),
)  # fmt: skip

SEGMENTATIONS = (
    Planted("type unlike its bits", "segmentation", "SEG-01", having("SegmentationType", "FRACTIONAL")),
    Planted("short pixel data", "segmentation", "SEG-02", lambda ds: setattr(
        ds, "PixelData", ds.PixelData[:-2])),
    Planted("a frame without groups", "segmentation", "SEG-03", lambda ds: setattr(
        ds, "PerFrameFunctionalGroupsSequence", ds.PerFrameFunctionalGroupsSequence[1:])),
    Planted("segments from 2", "segmentation", "SEG-04", segment(having("SegmentNumber", 9))),
    Planted("no property type", "segmentation", "SEG-04", segment(
        without("SegmentedPropertyTypeCodeSequence"))),
    Planted("manual segment", "segmentation", "SEG-05", segment(having("SegmentAlgorithmType", "MANUAL"))),
    Planted("no algorithm version", "segmentation", "SEG-05", segment(
        without("SegmentationAlgorithmIdentificationSequence"))),
    Planted("missing segment tracking", "segmentation", "SEG-06", segment(without("TrackingUID"))),
    Planted("Laterality in SEG", "segmentation", "SEG-07", having("Laterality", "R")),
    Planted("region without side", "segmentation", "SEG-07", segment(lambda described: delattr(
        described.AnatomicRegionSequence[0], "AnatomicRegionModifierSequence"))),
    Planted("no referenced series", "segmentation", "SEG-08", without("ReferencedSeriesSequence")),
    Planted("frame from nothing", "segmentation", "SEG-09", frame(without("DerivationImageSequence"))),
    Planted("frame of no segment", "segmentation", "SEG-10", frame(without("SegmentIdentificationSequence"))),
    Planted("no orientation of planes", "segmentation", "SEG-11", lambda ds: delattr(
        ds.SharedFunctionalGroupsSequence[0], "PlaneOrientationSequence")),
    Planted("no Patient Orientation", "segmentation", "SEG-12", without("PatientOrientation")),
    Planted("another size", "segmentation", "SEG-13", having("Rows", given.ROWS + 1)),
    Planted("no colour", "segmentation", "SEG-14", segment(without("RecommendedDisplayCIELabValue"))),
    Planted("stray dimension", "segmentation", "SEG-15", lambda ds: setattr(
        ds.DimensionIndexSequence[0], "DimensionOrganizationUID", OTHER_UID)),
    Planted("tracked as nothing in the report", "lesion_segmentation", "SET-05", lambda ds: [
        setattr(one, "TrackingUID", f"{OTHER_UID}.{n}") for n, one in enumerate(ds.SegmentSequence)]),
    Planted("no fractional type", "fractional_segmentation", "SEG-01", without("SegmentationFractionalType")),
)  # fmt: skip

FALLBACKS = (
    Planted("state without label", "presentation_state", "PR-01", without("ContentLabel")),
    Planted("annotation on no layer", "presentation_state", "PR-02", annotation(
        having("GraphicLayer", "OTHER"))),
    Planted("mark outside the image", "presentation_state", "PR-03", graphic(shifted_graphic)),
    Planted("mark in display units", "presentation_state", "PR-03", graphic(
        having("GraphicAnnotationUnits", "DISPLAY"))),
    Planted("empty text", "presentation_state", "PR-04", annotation(lambda noted: setattr(
        noted.TextObjectSequence[0], "UnformattedTextValue", " "))),
    Planted("state without Laterality", "presentation_state", "PR-05", without("Laterality")),
    Planted("mark tracked as nothing", "presentation_state", "SET-05", graphic(
        having("TrackingUID", OTHER_UID))),
    Planted("burnt-in text denied", "secondary_capture", "SC-01", having("BurnedInAnnotation", "NO")),
    Planted("picture of nothing", "secondary_capture", "SC-02", without("SourceImageSequence")),
    Planted("picture without Laterality", "secondary_capture", "SC-03", without("Laterality")),
    Planted("grey picture", "secondary_capture", "SC-04", having("SamplesPerPixel", 1)),
    Planted("no reason for the selection", "key_objects", "KO-01", at_root("113012")),
    Planted("named reference", "key_objects", "KO-02", name_a_reference),
    Planted("evidence that nobody selected", "key_objects", "KO-03", forget_an_entry),
    Planted("no PDF inside", "encapsulated_pdf", "PDF-01", having("EncapsulatedDocument", b"<html>")),
    Planted("PDF with a side", "encapsulated_pdf", "PDF-02", having("Laterality", "R")),
)  # fmt: skip


def dangle(report: Dataset) -> None:
    reference = next(i for i in given.content_items(report) if "ReferencedContentItemIdentifier" in i)
    reference.ReferencedContentItemIdentifier = [1, 2, 99]


def point_at_the_summary(report: Dataset) -> None:
    reference = next(i for i in given.content_items(report) if "ReferencedContentItemIdentifier" in i)
    reference.ReferencedContentItemIdentifier = [1, 3]


def lone_part(report: Dataset) -> None:
    feature = item(report, "111015")
    parts = [c for c in feature.ContentSequence if c.RelationshipType == "INFERRED FROM"]
    feature.ContentSequence = [c for c in feature.ContentSequence if c not in parts[1:]]


CAD = "mammography_cad"
CAD_REPORTS = (
    Planted("sections in another order", CAD, "CAD-01", lambda ds: setattr(
        ds, "ContentSequence", [*ds.ContentSequence[:-2], ds.ContentSequence[-1], ds.ContentSequence[-2]])),
    Planted("dangling reference", CAD, "CAD-02", dangle),
    Planted("reference to no image", CAD, "CAD-02", point_at_the_summary),
    Planted("side as Right", CAD, "CAD-03", coded("111027", Code("24028007", "SCT", "Right"))),
    Planted("evidence beyond the library", CAD, "CAD-04", lambda ds: setattr(
        item(ds, "111028"), "ContentSequence", item(ds, "111028").ContentSequence[:-1])),
    Planted("summary without its findings", CAD, "CAD-05", coded("111017", Code(
        "111241", "DCM", "All algorithms succeeded; without findings"))),
    Planted("status without its container", CAD, "CAD-06", coded("111064", Code("111224", "DCM", "Failed"))),
    Planted("performed by nobody", CAD, "CAD-07", dropping("111001", "111022")),
    Planted("no rendering intent", CAD, "CAD-08", dropping("111056", "111034")),
    Planted("impression of nothing", CAD, "CAD-09", lambda ds: [dropping(n, "111034")(ds) for n in (
        "111059", "111015")]),
    Planted("untracked finding", CAD, "CAD-10", dropping("112040", "111059")),
    Planted("mass as a single image finding", CAD, "CAD-11", coded("111059", Code(
        "129788004", "SCT", "Mammographic breast mass"))),
    Planted("centre outside the image", CAD, "SR-09", move_outside("111010")),
    Planted("finding without centre", CAD, "CAD-12", dropping("111010", "111059")),
    Planted("open outline of a finding", CAD, "CAD-12", open_the_outline("111041")),
    Planted("one-part composite", CAD, "CAD-13", lone_part),
    Planted("found where nobody looked", CAD, "CAD-14", coded("111022", Code(
        "129792006", "SCT", "Architectural distortion of breast"))),
    Planted("certainty of 187 %", CAD, "SR-11", on("111047", lambda number: setattr(
        number.MeasuredValueSequence[0], "NumericValue", "187"))),
)  # fmt: skip


def one_frame_short(instance: Dataset) -> None:
    instance.PixelData = b"\xfe\xff\x00\xe0\x00\x00\x00\x00"  # an empty offset table, and no frame


def in_jpeg(instance: Dataset) -> None:
    instance.file_meta.TransferSyntaxUID = JPEGBaseline8Bit


SEGMENTS = "measurement_report_segments"
COMPRESSED = ("secondary_capture_rle", "secondary_capture_jpeg2000", "fractional_segmentation_rle")
OPTIONS = (
    *(
        planted
        for kind in COMPRESSED
        for rule in ["SEG-02" if kind.startswith("fractional") else "SC-04"]
        for planted in (
            Planted("compressed pixels without a frame", kind, rule, one_frame_short),
            Planted("lossy compression", kind, rule, in_jpeg),
        )
    ),
    Planted("colours of JPEG 2000", COMPRESSED[0], "SC-04", having("PhotometricInterpretation", "YBR_RCT")),
    Planted("colours of RLE", COMPRESSED[1], "SC-04", having("PhotometricInterpretation", "RGB")),
    Planted("segment without its source", SEGMENTS, "MR-15", lambda ds: drop_from_segment(ds, "121233")),
    Planted("segment without a frame", SEGMENTS, "MR-15", on("121214", lambda i: delattr(
        i.ReferencedSOPSequence[0], "ReferencedFrameNumber"))),
    Planted("frame and segment number", SEGMENTS, "MR-14", on("121214", lambda i: setattr(
        i.ReferencedSOPSequence[0], "ReferencedSegmentNumber", 1))),
    Planted("place with neither region nor segment", SEGMENTS, "MR-07", lambda ds: drop_from_segment(
        ds, "121214")),
    Planted("segment that is no evidence", SEGMENTS, "SR-04", on("121214", lambda i: setattr(
        i.ReferencedSOPSequence[0], "ReferencedSOPInstanceUID", "2.25.1"))),
)  # fmt: skip


def drop_from_segment(report: Dataset, name: str) -> None:
    """Take items of a name out of the first measurement group that has a segment."""
    groups = given.named(report, "125007")
    group = next(g for g in groups if given.named(g, "121214"))
    group.ContentSequence = [c for c in group.ContentSequence if c not in given.named(group, name)]


def described(words: str) -> Change:
    return having("SeriesDescription", words)


def reworded(before: str, after: str) -> Change:
    """Replace words in every text of a report."""

    def reword(report: Dataset) -> None:
        for child in given.content_items(report):
            if "TextValue" in child:
                child.TextValue = str(child.TextValue).replace(before, after)

    return reword


def doubled(name: str, parent: str = "125007") -> Change:
    """Repeat the first child of a name below the first item of another name."""

    def double(report: Dataset) -> None:
        above = item(report, parent)
        above.ContentSequence = [*above.ContentSequence, given.named(above, name)[0]]

    return double


def moved(name: str, columns: float, rows: float) -> Change:
    def move(report: Dataset) -> None:
        place = item(report, name)
        data = list(place.GraphicData)
        place.GraphicData = [value + (rows if index % 2 else columns) for index, value in enumerate(data)]

    return move


def incomplete(report: Dataset) -> None:
    report.CompletionFlag = "PARTIAL"
    report.CompletionFlagDescription = "not everything"


def replacing(uid: str | None, sop_class_uid: str = ENHANCED_SR) -> Change:
    """Let a report name a predecessor; itself without a UID."""

    def replace(report: Dataset) -> None:
        reference = Dataset()
        reference.ReferencedSOPInstanceUID = report.SOPInstanceUID if uid is None else uid
        reference.ReferencedSOPClassUID = sop_class_uid
        series = Dataset()
        series.ReferencedSOPSequence = [reference]
        study = Dataset()
        study.ReferencedSeriesSequence = [series]
        report.PredecessorDocumentsSequence = [study]

    return replace


def lose_the_entry_of_a_region(report: Dataset) -> None:
    """Take the image of the first region out of the image library."""
    image = item(report, "111030").ContentSequence[0].ReferencedSOPSequence[0].ReferencedSOPInstanceUID
    for group in given.named(report, "126200"):
        group.ContentSequence = [
            entry
            for entry in group.ContentSequence
            if "ReferencedSOPSequence" not in entry
            or entry.ReferencedSOPSequence[0].ReferencedSOPInstanceUID != image
        ]


def closed_line(report: Dataset) -> None:
    """Make of a region a line that goes forth and back."""
    region = item(report, "111030")
    data = list(region.GraphicData)
    region.GraphicData = [*data[:4], *data[:2]]


def region_beside_a_segment(report: Dataset) -> None:
    group = next(g for g in given.named(report, "125007") if given.named(g, "121214"))
    region = Dataset()
    region.RelationshipType, region.ValueType, region.GraphicType = "CONTAINS", "SCOORD", "POINT"
    region.ConceptNameCodeSequence = [code_item(Code("111030", "DCM", "Image Region"))]
    region.GraphicData = [1.0, 1.0]
    group.ContentSequence = [*group.ContentSequence, region]


def text_object(change: Change) -> Change:
    return annotation(lambda noted: change(noted.TextObjectSequence[0]))


def no_words(state: Dataset) -> None:
    for noted in state.GraphicAnnotationSequence:
        if "TextObjectSequence" in noted:
            del noted.TextObjectSequence


LONG = "x" * 65
REPORT, STATE, PICTURE, PDF = (
    "measurement_report",
    "presentation_state",
    "secondary_capture",
    "encapsulated_pdf",
)
TITLE_OF_A_PERSON = code_item(Code("121008", "DCM", "Person Observer Name"))
FRACTIONAL = "fractional_segmentation"
# A rule with several conditions sees each of them broken alone.
CONDITIONS = (
    Planted("UID of 65 characters", "text_report", "OBJ-01", having(
        "InstanceCreatorUID", "2.25." + "1" * 60)),
    Planted("inner UID with a leading zero", "text_report", "OBJ-01", processing(
        having("DeviceUID", "1.02"))),
    Planted("series of another root", "text_report", "OBJ-02", having("SeriesInstanceUID", "1.2.826.1")),
    Planted("series description beyond ASCII", "text_report", "OBJ-05", described(
        "AI \u00fc (not verified)")),
    Planted("long series description", "text_report", "OBJ-05", described(f"{'x' * 50} (not verified)")),
    Planted("no contributing equipment", "segmentation", "OBJ-06", without("ContributingEquipmentSequence")),
    Planted("algorithm without Device UID", "segmentation", "OBJ-06", processing(without("DeviceUID"))),
    Planted("another version in the header", "segmentation", "OBJ-07", having("SoftwareVersions", "9.9")),
    Planted("a class that the node makes not", "segmentation", "OBJ-08", having("SOPClassUID", "1.2.3")),
    Planted("content of another day", "text_report", "OBJ-10", having("ContentDate", "19990101")),
    Planted("made at another time", "segmentation", "OBJ-10", having("InstanceCreationTime", "000000")),
    Planted("state of another time", STATE, "OBJ-10", having("PresentationCreationTime", "000000")),
    Planted("code without meaning", REPORT, "OBJ-11", on("111047", lambda number: setattr(
        number.ConceptNameCodeSequence[0], "CodeMeaning", ""))),
    Planted("code meaning of 65 characters", REPORT, "OBJ-11", on("111047", lambda number: setattr(
        number.ConceptNameCodeSequence[0], "CodeMeaning", LONG))),
    Planted("meta information of another class", "text_report", "OBJ-12", lambda ds: setattr(
        ds.file_meta, "MediaStorageSOPClassUID", OTHER_UID)),
    Planted("meta information without a syntax", "text_report", "OBJ-12", lambda ds: delattr(
        ds.file_meta, "TransferSyntaxUID")),
    Planted("an operator", "segmentation", "OBJ-13", having("OperatorsName", "Doe^Jane")),
    Planted("the last series of images", "segmentation", "OBJ-14", having("SeriesNumber", 9000)),
    Planted("invented other IDs", "segmentation", "SRC-01", having("OtherPatientIDsSequence", [Dataset()])),
    Planted("a root that is no container", "text_report", "SR-01", having("ValueType", "TEXT")),
    Planted("a template of another's", "text_report", "SR-01", lambda ds: setattr(
        ds.ContentTemplateSequence[0], "MappingResource", "99LOCAL")),
    Planted("incomplete without words", "text_report", "SR-02", lambda ds: [
        incomplete(ds), delattr(ds, "CompletionFlagDescription")]),
    Planted("no content date", "text_report", "SR-02", without("ContentDate")),
    Planted("no content time", "text_report", "SR-02", without("ContentTime")),
    Planted("a verifying observer", "text_report", "SR-03", having("VerifyingObserverSequence", [Dataset()])),
    Planted("item without type", "text_report", "SR-06", on("121073", without("ValueType"))),
    Planted("code without value", REPORT, "SR-06", on("121058", without("ConceptCodeSequence"))),
    Planted("number without value", REPORT, "SR-06", on("111047", without("MeasuredValueSequence"))),
    Planted("UID without value", REPORT, "SR-06", on("112040", having("UID", ""))),
    Planted("shape of another kind", REPORT, "SR-08", on("111030", having("GraphicType", "MULTIPOINT"))),
    Planted("two points as one", REPORT, "SR-08", on("111030", lambda region: [
        setattr(region, "GraphicType", "POINT"), setattr(region, "GraphicData", [1.0, 1.0, 2.0, 2.0])])),
    Planted("line of one point", REPORT, "SR-08", on("111030", having("GraphicData", [1.0, 1.0]))),
    Planted("region right of the image", REPORT, "SR-09", moved("111030", 5000, 0)),
    Planted("region below the image", REPORT, "SR-09", moved("111030", 0, 5000)),
    Planted("region left of the image", REPORT, "SR-09", moved("111030", -5000, 0)),
    Planted("region above the image", REPORT, "SR-09", moved("111030", 0, -5000)),
    Planted("probability below nothing", REPORT, "SR-11", measured(having("NumericValue", "-1"))),
    Planted("a person's name", "text_report", "SR-12", on("121073", having("ValueType", "PNAME"))),
    Planted("an item that names a person", "text_report", "SR-12", on("121073", having(
        "ConceptNameCodeSequence", [TITLE_OF_A_PERSON]))),
    Planted("language of a part alone", "text_report", "SR-13", on("121049", having(
        "RelationshipType", "CONTAINS"))),
    Planted("another algorithm's name", REPORT, "SR-14", on("111001", having("TextValue", "Other"))),
    Planted("another model observed", "text_report", "SR-14", on("121015", having("TextValue", "Other"))),
    Planted("side of another scheme", REPORT, "SR-15", coded(
        "272741003", Code("24028007", "99LOCAL", "Right"))),
    Planted("a report that replaces itself", "text_report", "SR-17", replacing(None)),
    Planted("a predecessor without class", "text_report", "SR-17", replacing(OTHER_UID, "")),
    Planted("observer without UID", "text_report", "SR-20", at_root("121012")),
    Planted("observer as content", "text_report", "SR-20", on("121005", having(
        "RelationshipType", "CONTAINS"))),
    Planted("nothing said to be of AI", "text_report", "TXT-01", reworded("AI result", "Result")),
    Planted("nothing said of verification", "text_report", "TXT-01", reworded("Not verified", "Read")),
    Planted("gaps that are not named", "text_report", "TXT-02", incomplete),
    Planted("no section", "text_report", "TXT-03", lambda ds: [at_root(n)(ds) for n in ("121070", "121072")]),
    Planted("image library without images", REPORT, "MR-03", lambda ds: setattr(
        item(ds, "126200"), "ContentSequence", [])),
    Planted("region in an image beyond the library", REPORT, "MR-03", lose_the_entry_of_a_region),
    Planted("empty group", REPORT, "MR-04", on("125007", having("ContentSequence", []))),
    Planted("no group", REPORT, "MR-04", on("126010", having("ContentSequence", []))),
    Planted("two tracking identifiers", REPORT, "MR-05", doubled("112039")),
    Planted("no algorithm version", REPORT, "MR-06", dropping("111003")),
    Planted("two regions in a group", REPORT, "MR-07", doubled("111030")),
    Planted("line forth and back", REPORT, "MR-09", closed_line),
    Planted("region as a circle", REPORT, "MR-09", on("111030", having("GraphicType", "CIRCLE"))),
    Planted("region for another purpose", REPORT, "MR-10", coded("130400", SOURCE)),
    Planted("two finding sites", REPORT, "MR-11", doubled("363698007")),
    Planted("two probabilities", REPORT, "MR-12", doubled("111047")),
    Planted("gaps that no comment names", REPORT, "MR-13", incomplete),
    Planted("region beside a segment", SEGMENTS, "MR-07", region_beside_a_segment),
    Planted("frame of another class", SEGMENTS, "MR-15", on("121214", lambda i: setattr(
        i.ReferencedSOPSequence[0], "ReferencedSOPClassUID", ENHANCED_SR))),
    Planted("no maximum of fractions", FRACTIONAL, "SEG-01", without("MaximumFractionalValue")),
    Planted("fractions of something", FRACTIONAL, "SEG-01", having("SegmentationFractionalType", "OTHER")),
    Planted("no segment label", "segmentation", "SEG-04", segment(without("SegmentLabel"))),
    Planted("no property category", "segmentation", "SEG-04", segment(
        without("SegmentedPropertyCategoryCodeSequence"))),
    Planted("no algorithm name", "segmentation", "SEG-05", segment(without("SegmentAlgorithmName"))),
    *(
        Planted(f"algorithm without {keyword}", "segmentation", "SEG-05", segment(
            lambda one, keyword=keyword: delattr(
                one.SegmentationAlgorithmIdentificationSequence[0], keyword)))
        for keyword in ("AlgorithmFamilyCodeSequence", "AlgorithmName", "AlgorithmVersion")
    ),
    Planted("no tracking identifier of a segment", "segmentation", "SEG-06", segment(without("TrackingID"))),
    Planted("frame from another image", "segmentation", "SEG-09", frame(lambda one: setattr(
        one.DerivationImageSequence[0].SourceImageSequence[0], "ReferencedSOPInstanceUID", OTHER_UID))),
    Planted("frame of another segment", "segmentation", "SEG-10", frame(lambda one: setattr(
        one.SegmentIdentificationSequence[0], "ReferencedSegmentNumber", 99))),
    Planted("another width", "segmentation", "SEG-13", having("Columns", given.COLUMNS + 1)),
    Planted("more indices than dimensions", "segmentation", "SEG-15", frame(lambda one: setattr(
        one.FrameContentSequence[0], "DimensionIndexValues", [1] * 9))),
    *(
        Planted(f"state without {keyword}", STATE, "PR-01", without(keyword))
        for keyword in (
            "PresentationCreationDate",
            "PresentationCreationTime",
            "ReferencedSeriesSequence",
            "DisplayedAreaSelectionSequence",
        )
    ),
    Planted("annotation of another image", STATE, "PR-02", annotation(lambda noted: setattr(
        noted.ReferencedImageSequence[0], "ReferencedSOPInstanceUID", OTHER_UID))),
    Planted("mark of more points", STATE, "PR-03", graphic(having("NumberOfGraphicPoints", 99))),
    Planted("mark left of the image", STATE, "PR-03", graphic(lambda drawn: setattr(
        drawn, "GraphicData", [value - 5000 for value in drawn.GraphicData]))),
    Planted("state without words", STATE, "PR-04", no_words),
    Planted("words beyond ASCII", STATE, "PR-04", text_object(having("UnformattedTextValue", "\u00dcbel"))),
    Planted("words outside the image", STATE, "PR-04", text_object(lambda words: [
        setattr(words, "AnchorPointAnnotationUnits", "PIXEL"),
        setattr(words, "AnchorPoint", [0.0, 5000.0])])),
    Planted("state of a third side", STATE, "PR-05", having("Laterality", "B")),
    Planted("picture from elsewhere", PICTURE, "SC-01", having("ConversionType", "DI")),
    Planted("picture of unknown making", PICTURE, "SC-01", without("DerivationDescription")),
    Planted("picture as an original", PICTURE, "SC-01", having("ImageType", ["ORIGINAL", "SECONDARY"])),
    Planted("deeper pixels", PICTURE, "SC-04", having("BitsAllocated", 16)),
    Planted("short picture", PICTURE, "SC-04", lambda ds: setattr(ds, "PixelData", ds.PixelData[:-2])),
    Planted("reason of two lines", "key_objects", "KO-01", on("113012", having("TextValue", "a\nb"))),
    Planted("blank reason", "key_objects", "KO-01", on("113012", having("TextValue", "  "))),
    Planted("document of another type", PDF, "PDF-01", having("MIMETypeOfEncapsulatedDocument", "text/xml")),
    Planted("PDF without its end", PDF, "PDF-01", lambda ds: setattr(
        ds, "EncapsulatedDocument", ds.EncapsulatedDocument[:-40])),
    Planted("PDF of another length", PDF, "PDF-01", lambda ds: setattr(
        ds, "EncapsulatedDocumentLength", ds.EncapsulatedDocumentLength - 2)),
    Planted("pages said to name nobody", PDF, "PDF-02", having("BurnedInAnnotation", "NO")),
    Planted("pages without a title", PDF, "PDF-02", without("DocumentTitle")),
)  # fmt: skip

ALL = (
    *EVERY_OBJECT,
    *REPORTS,
    *MEASUREMENTS,
    *SEGMENTATIONS,
    *FALLBACKS,
    *CAD_REPORTS,
    *OPTIONS,
    *CONDITIONS,
)
