"""The report as PDF: what stands on its pages, for every outcome, and whose it says that it is."""

from __future__ import annotations

import base64
import re
import warnings
import zlib
from dataclasses import replace
from typing import Any

import pytest
from pydicom import Dataset
from pydicom.tag import Tag

from dicom_node.errors import ResultError
from dicom_node.results.builders import build_all
from dicom_node.results.context import ResultContext
from dicom_node.results.printed_identity import printed_identity
from models.contract import Outcome, Refusal, RefusalCode, StudyPrediction
from tests import results_contexts as given


def document(context: ResultContext) -> Dataset:
    return given.only(build_all(context, ["encapsulated_pdf"]), "encapsulated_pdf")


def pages(document: Dataset) -> bytes:
    content: bytes = document.EncapsulatedDocument[: document.EncapsulatedDocumentLength]
    return content


def drawn(pdf: bytes) -> bytes:
    """Read what a PDF says is to be drawn, page after page."""
    streams = re.findall(rb"/ASCII85Decode /FlateDecode.*?stream\r?\n(.*?)endstream", pdf, re.DOTALL)
    return b"\n".join(zlib.decompress(base64.a85decode(s.strip().removesuffix(b"~>"))) for s in streams)


def words(pdf: bytes) -> str:
    """Read the words of a PDF, in the order of drawing."""
    text = b" ".join(re.findall(rb"\(((?:[^()\\]|\\.)*)\) Tj", drawn(pdf)))
    plain = re.sub(rb"\\(\d{3}|.)", lambda m: bytes([int(m[1], 8)]) if len(m[1]) == 3 else m[1], text)
    return plain.decode("cp1252")


def pictures(pdf: bytes) -> int:
    return len(re.findall(rb"/Subtype /Image", pdf))


def sizes(context: ResultContext) -> list[tuple[float, float]]:
    """Read width and height of the pictures on the pages."""
    matrices = re.findall(rb"([\d.]+) 0 0 ([\d.]+) \S+ \S+ cm\s+/FormXob", drawn(pages(document(context))))
    return [(float(width), float(height)) for width, height in matrices]


def test_a_breast_keeps_its_shape_on_paper_whatever_shape_its_pixels_have() -> None:
    square, oblong = (
        sizes(given.positive()),
        sizes(given.positive(given.sources(ImagerPixelSpacing=[0.1, 0.05]))),
    )
    assert len(square) == 2
    assert oblong == [(width, pytest.approx(2 * height)) for width, height in square]
    tall = sizes(given.positive(given.sources(ImagerPixelSpacing=None, PixelAspectRatio=[40, 1])))
    assert [round(width / height, 2) for width, height in tall] == [0.02, 0.02]


def test_a_positive_study_has_result_every_score_pictures_and_model_on_its_pages() -> None:
    found = document(given.positive())
    text = words(pages(found))
    assert "AI result: POSITIVE. Probability of cancer 87.0 %, at or above the threshold of 50.0 %." in text
    assert "Not verified by a radiologist." in text
    assert "Demonstration model, not for clinical use." in text
    for score in (
        "R CC 91.0 %, at or above the threshold of 50.0 %",
        "L MLO 8.0 %, below the threshold of 50.0 %",
        "Right breast 87.0 %, at or above the threshold of 50.0 %",
        "Left breast 10.0 %, below the threshold of 50.0 %",
        "Study 87.0 %, at or above the threshold of 50.0 %",
    ):
        assert score in text
    assert given.BUNDLE.digest in text
    assert found.ContributingEquipmentSequence[-1].DeviceUID in text
    assert "2026-01-05 23:30:15 +0000, revision 1" in text
    assert pictures(pages(found)) == 2
    assert "Not analysed" not in text


def test_a_negative_study_has_every_score_and_no_picture() -> None:
    text = words(pages(document(given.negative())))
    assert "AI result: NEGATIVE. Probability of cancer 10.0 %, below the threshold of 50.0 %." in text
    assert "R MLO 9.0 %, below the threshold of 50.0 %" in text
    assert pictures(pages(document(given.negative()))) == 0


def test_a_partial_study_names_in_words_and_codes_what_was_not_analysed() -> None:
    text = words(pages(document(given.partial())))
    assert "AI result: INCOMPLETE. Probability of cancer in what was analysed 11.0 %, below" in text
    assert "Not analysed: R MLO. What was not analysed may contain disease." in text
    assert (
        "R MLO not analysed: breast implant present. IMPLANT; DCM 110522 Object Types not supported" in text
    )
    assert "NEGATIVE" not in text
    assert "R CC 11.0 %, below the threshold of 50.0 % R MLO not analysed L CC" in text
    assert "Right breast 11.0 %, below the threshold of 50.0 %" in text
    assert "Study, incomplete 11.0 %" in text


def test_a_refused_study_says_why_and_has_no_score() -> None:
    text = words(pages(document(given.refused())))
    assert "AI result: NONE. The study was not scored; this does not mean that it is normal." in text
    assert "VIEWS_MISSING; DCM 110523 Object Set incomplete" in text
    assert "R MLO not analysed: breast implant present." in text
    assert "Probability of cancer" not in text


@pytest.mark.parametrize("code", list(RefusalCode))
def test_every_reason_fits_on_a_page(code: RefusalCode) -> None:
    said = StudyPrediction(
        "task", Outcome.REFUSED, threshold=0.5, refusals=(Refusal(code, detail="<a> & b"),)
    )
    text = words(pages(document(given.context(said))))
    assert f"{code}; DCM" in text
    assert "(<a>&b)" in text.replace(" ", "")


def test_every_further_page_says_whose_it_is() -> None:
    many = tuple(Refusal(code, detail="<a> & b") for code in RefusalCode)
    headers = given.sources(PatientID="P" * 64, PatientName="N" * 64)
    said = StudyPrediction("task", Outcome.REFUSED, threshold=0.5, refusals=many)
    text = words(pages(document(given.context(said, headers))))
    first_page, second_page = text.split("Page 2")
    assert f"Patient ID {'P' * 64} Name " in first_page
    whose = f"Patient ID {'P' * 64}; Name {'N' * 64}; Date of birth 1960-01-01; Study date 2026-01-05"
    assert second_page.strip().startswith(whose)


def test_a_later_revision_says_what_it_replaces() -> None:
    text = words(pages(document(given.superseding())))
    assert "Revision 2 of this AI report; it replaces the earlier AI report of the study." in text
    assert "revision 2" in document(given.superseding()).SeriesDescription


@pytest.mark.parametrize("outcome", [given.positive, given.refused])
def test_the_header_says_what_the_document_is_and_that_nobody_verified_it(outcome: Any) -> None:
    found = document(outcome())
    assert (found.Modality, found.SeriesNumber, found.InstanceNumber) == ("DOC", 9601, 1)
    assert found.MIMETypeOfEncapsulatedDocument == "application/pdf"
    assert found.VerificationFlag == "UNVERIFIED"
    assert found.BurnedInAnnotation == "YES"
    assert found.ConceptNameCodeSequence[0].CodeValue == "18748-4"
    assert [s.ReferencedSOPInstanceUID for s in found.SourceInstanceSequence] == [
        image.SOPInstanceUID for image in given.images()
    ]
    assert "Laterality" not in found
    assert pages(found).startswith(b"%PDF-")
    assert pages(found).rstrip().endswith(b"%%EOF")
    assert len(found.EncapsulatedDocument) % 2 == 0


def test_the_pages_bear_no_time_of_printing_and_no_patient_in_their_properties() -> None:
    pdf = pages(document(given.positive()))
    assert re.findall(rb"/(?:Creation|Mod)Date \(D:(\d{8})", pdf) == [b"20000101", b"20000101"]
    properties = re.search(rb"/Author.*?>>", pdf, re.DOTALL)
    assert properties is not None
    assert b"Phantom" not in properties[0]


def test_pictures_need_the_images_as_displayed_and_words_do_not() -> None:
    assert document(replace(given.negative(), renderings={}))
    with pytest.raises(ResultError, match="rendering"):
        document(replace(given.positive(), renderings={}))


def test_the_pages_say_whose_they_are() -> None:
    with warnings.catch_warnings():
        # pydicom warns of the 20 characters while the image is written, which is the sender's doing.
        warnings.simplefilter("ignore")
        headers = given.sources(AccessionNumber="ACC-1234567890-ABCDE", PatientName="Muster^Erika^Maria")
    text = words(pages(document(given.positive(headers))))
    assert "Patient ID PHANTOM-0001 Name Muster, Erika Maria Date of birth 1960-01-01" in text
    assert "Study date 2026-01-05 Accession number ACC-1234567890-ABCDE" in text


UNPRINTABLE = "see the archive: its characters cannot be printed here"


@pytest.mark.parametrize("implicit", [False, True], ids=["explicit", "implicit"])
@pytest.mark.parametrize(
    ("character_set", "name", "printed"),
    [
        ("ISO_IR 100", "Äneas^Rüdiger", "Äneas, Rüdiger"),
        ("ISO_IR 192", "Müller^Eva=王^小东", "Müller, Eva"),
        ("ISO_IR 192", "Διονυσιος", UNPRINTABLE),
        ("ISO_IR 126", "Διονυσιος", UNPRINTABLE),
        (["", "ISO 2022 IR 87"], "Yamada^Tarou=山田^太郎=やまだ^たろう", "Yamada, Tarou"),
        (["", "ISO 2022 IR 149"], "Hong^Gildong=洪^吉洞=홍^길동", "Hong, Gildong"),
        (None, "Smith", "Smith"),
    ],
)
def test_a_name_is_printed_whole_or_not_at_all(
    character_set: Any, name: str, printed: str, implicit: bool
) -> None:
    headers = given.sources(implicit=implicit, SpecificCharacterSet=character_set, PatientName=name)
    assert dict(printed_identity(headers[0]))["Name"] == printed
    text = words(pages(document(given.positive(headers))))
    assert f"Name {printed}" in text


@pytest.mark.parametrize("damaged", [b"M\xfcller^Eva", b"Smith\x1b$B;3ED", b"A\nB"])
def test_bytes_that_the_character_set_does_not_explain_are_not_guessed_at(damaged: bytes) -> None:
    (source, *_) = given.sources(SpecificCharacterSet="ISO_IR 192")
    tag = Tag("PatientName")
    source[tag] = source.get_item(tag)._replace(value=damaged, length=len(damaged))
    assert dict(printed_identity(source))["Name"] == UNPRINTABLE


def test_what_the_images_lack_is_not_printed() -> None:
    bare = given.sources(PatientBirthDate=None, AccessionNumber="", PatientName="")
    assert [label for label, _ in printed_identity(bare[0])] == ["Patient ID", "Study date"]


def test_an_odd_date_is_printed_as_it_is() -> None:
    (source, *_) = given.sources()
    tag = Tag("PatientBirthDate")
    source[tag] = source.get_item(tag)._replace(value=b"1960", length=4)
    assert dict(printed_identity(source))["Date of birth"] == "1960"
