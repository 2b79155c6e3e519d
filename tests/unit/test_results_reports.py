"""What the two reports say: measurement report (TID 1500) and text report, for every outcome."""

from __future__ import annotations

from dataclasses import replace
from io import BytesIO

import highdicom as hd
import numpy as np
import pytest
from pydicom import Dataset

from dicom_node.results import wording
from dicom_node.results.builders import build_all
from dicom_node.results.context import ResultContext
from models.contract import Laterality, Outcome, Refusal, RefusalCode, StudyPrediction
from tests import results_contexts as given

SCORED = [given.positive, given.negative, given.partial, given.superseding]
ALL = [*SCORED, given.refused]


def measurement_report(context: ResultContext) -> Dataset:
    return given.only(build_all(context), "measurement_report")


def text_report(context: ResultContext) -> Dataset:
    return given.only(build_all(context), "text_report")


def reports(context: ResultContext) -> list[Dataset]:
    return [given.read(built) for built in build_all(context) if "report" in built.kind]


def flags(report: Dataset) -> tuple[str, str, str]:
    return report.CompletionFlag, report.VerificationFlag, report.PreliminaryFlag


def implant(number: int) -> Refusal:
    side, view = given.VIEWS[number]
    uid = str(given.images()[number].SOPInstanceUID)
    return Refusal(RefusalCode.IMPLANT, uid, Laterality(side), view)


@pytest.mark.parametrize("outcome", SCORED)
def test_every_measurement_group_has_an_image_region_on_its_own_image(outcome: type) -> None:
    context = outcome()
    groups = given.named(measurement_report(context), "125007")
    assert len(groups) == len(context.prediction.images)
    for group, score in zip(groups, context.prediction.images, strict=True):
        assert group.ContentTemplateSequence[0].TemplateIdentifier == "1410"
        (region,) = given.named(group, "111030")
        corners = np.array(region.GraphicData).reshape(-1, 2)
        left, top, right, bottom = (
            getattr(score.region, edge) for edge in ("left", "top", "right", "bottom")
        )
        assert region.GraphicType == "POLYLINE"
        assert corners.tolist() == [
            [left, top],
            [right, top],
            [right, bottom],
            [left, bottom],
            [left, top],
        ]
        (selected,) = region.ContentSequence
        assert selected.RelationshipType == "SELECTED FROM"
        assert selected.ReferencedSOPSequence[0].ReferencedSOPInstanceUID == score.sop_instance_uid


def test_highdicom_reads_score_side_and_tracking_of_each_image() -> None:
    context = given.positive()
    built = next(o for o in build_all(context) if o.kind == "measurement_report")
    document = hd.sr.srread(BytesIO(built.content))
    groups = document.content.get_planar_roi_measurement_groups()
    assert [g.tracking_identifier for g in groups] == [
        "AI image score R CC",
        "AI image score R MLO",
        "AI image score L CC",
        "AI image score L MLO",
    ]
    assert [g.finding_sites[0].laterality.meaning for g in groups] == ["Right", "Right", "Left", "Left"]
    for group, probability in zip(groups, given.POSITIVE, strict=True):
        (score,) = group.get_measurements()
        assert (score.name.value, score.unit.value) == ("111047", "%")
        assert score.value == pytest.approx(probability * 100)


def test_a_coded_probability_is_a_percentage_to_four_decimals() -> None:
    context = given.context(given.prediction((0.123456, 0.49994, 0.0000004, 1.0)))
    values = [
        given.named(group, "111047")[0].MeasuredValueSequence[0]
        for group in given.named(measurement_report(context), "125007")
    ]
    assert [float(value.NumericValue) for value in values] == [12.3456, 49.994, 0.0, 100.0]
    assert {value.MeasurementUnitsCodeSequence[0].CodeValue for value in values} == {"%"}


def test_the_library_describes_every_image_as_its_header_does() -> None:
    (library,) = given.named(measurement_report(given.partial()), "126200")
    entries = library.ContentSequence
    assert [e.ReferencedSOPSequence[0].ReferencedSOPInstanceUID for e in entries] == [
        image.SOPInstanceUID for image in given.images()
    ]
    views = [
        (given.named(e, "111027")[0].ConceptCodeSequence[0].CodeMeaning, given.named(e, "111031")[0])
        for e in entries
    ]
    assert [(side, view.ConceptCodeSequence[0].CodeMeaning) for side, view in views] == [
        ("Right", "cranio-caudal"),
        ("Right", "medio-lateral oblique"),
        ("Left", "cranio-caudal"),
        ("Left", "medio-lateral oblique"),
    ]
    assert given.named(entries[0], "110910")[0].MeasuredValueSequence[0].NumericValue == given.ROWS
    assert given.named(entries[0], "110911")[0].MeasuredValueSequence[0].NumericValue == given.COLUMNS
    assert given.named(entries[0], "111044")[0].TextValue == given.images()[0].PatientOrientation[0]


def test_the_library_tells_the_spacing_of_columns_from_that_of_rows() -> None:
    headers = given.sources(ImagerPixelSpacing=[0.3, 0.2])  # between rows first (PS3.3 10.7.1.3)
    (library,) = given.named(measurement_report(given.positive(headers)), "126200")
    for entry in library.ContentSequence:
        values = [given.named(entry, code)[0].MeasuredValueSequence[0] for code in ("111026", "111066")]
        assert [float(value.NumericValue) for value in values] == [0.2, 0.3]
        assert {value.MeasurementUnitsCodeSequence[0].CodeValue for value in values} == {"mm"}


def test_an_image_without_orientation_spacing_or_view_is_in_the_library_all_the_same() -> None:
    missing = given.sources(PatientOrientation=None, ImagerPixelSpacing="0.1", ViewPosition=None)
    (library,) = given.named(measurement_report(given.positive(missing)), "126200")
    assert len(library.ContentSequence) == 4
    for absent in ("111044", "111043", "111026", "111066"):
        assert not given.named(library, absent)
    assert len(given.named(library, "111031")) == 4  # the prediction knows the views


@pytest.mark.parametrize(
    ("codes", "view", "modifiers"),
    [
        (("399192008",), ["cranio-caudal exaggerated laterally"], []),
        (("399260004",), ["medio-lateral"], []),
        (("399162004", "399163009"), ["cranio-caudal"], ["Magnification"]),
        (("399162004", "399055006", "399163009"), ["cranio-caudal"], ["Spot Compression", "Magnification"]),
        (("399162004", "399161006"), [], []),  # cleavage: no cranio-caudal view of one breast
    ],
)
def test_an_image_beside_the_standard_views_is_not_listed_as_one_of_them(
    codes: tuple[str, ...], view: list[str], modifiers: list[str]
) -> None:
    odd = {"SOPInstanceUID": "2.25.99", "ViewPosition": "CC", "ViewCodeSequence": given.view_codes(*codes)}
    headers = (*given.sources(), given.header(given.images()[0], overrides=odd))
    (library,) = given.named(measurement_report(given.negative(headers)), "126200")
    *_, entry = library.ContentSequence
    assert meanings_of(entry, "111027") == ["Right"]
    assert meanings_of(entry, "111031") == view
    assert meanings_of(entry, "111032") == modifiers


def meanings_of(entry: Dataset, name: str) -> list[str]:
    return [str(item.ConceptCodeSequence[0].CodeMeaning) for item in given.named(entry, name)]


@pytest.mark.parametrize("outcome", ALL)
def test_evidence_lists_every_image_and_segmentation_once(outcome: type) -> None:
    context = outcome()
    objects = build_all(context)
    expected = {str(source.SOPInstanceUID) for source in context.sources}
    expected |= {o.sop_instance_uid for o in objects if o.kind == "segmentation"}
    for report in reports(context):
        (study,) = report.CurrentRequestedProcedureEvidenceSequence
        assert study.StudyInstanceUID == context.sources[0].StudyInstanceUID
        listed = [
            str(instance.ReferencedSOPInstanceUID)
            for series in study.ReferencedSeriesSequence
            for instance in series.ReferencedSOPSequence
        ]
        assert set(listed) == expected
        assert len(listed) == len(expected)


@pytest.mark.parametrize("outcome", ALL)
def test_no_report_is_verified_or_final_or_observed_by_a_person(outcome: type) -> None:
    for report in reports(outcome()):
        assert (report.VerificationFlag, report.PreliminaryFlag) == ("UNVERIFIED", "PRELIMINARY")
        assert "VerifyingObserverSequence" not in report
        (observer,) = given.named(report, "121005")
        assert observer.ConceptCodeSequence[0].CodeMeaning == "Device"
        assert not given.named(report, "121008")
        assert "Not verified by a radiologist." in " ".join(given.texts(report))
        assert report.SeriesDescription.endswith("(not verified)")


@pytest.mark.parametrize("outcome", ALL)
def test_every_report_names_the_model_and_that_it_is_a_demonstration(outcome: type) -> None:
    for report in reports(outcome()):
        words = " ".join(given.texts(report))
        assert "AI model phantom-mammography, version 1.2.0 (ab12ab12ab12)." in words
        assert "Demonstration model, not for clinical use." in words
        assert words.isascii()


def test_a_clinical_model_is_not_called_a_demonstration() -> None:
    released = given.positive(bundle=replace(given.BUNDLE, demonstration=False))
    assert "Demonstration" not in " ".join(t for r in reports(released) for t in given.texts(r))


@pytest.mark.parametrize("outcome", ALL)
def test_the_algorithm_is_described_with_its_device_uid_and_named_alike_everywhere(outcome: type) -> None:
    for report in reports(outcome()):
        acquisition, processing = report.ContributingEquipmentSequence
        assert acquisition.PurposeOfReferenceCodeSequence[0].CodeValue == "109101"
        assert acquisition.InstitutionName == given.images()[0].InstitutionName
        assert processing.PurposeOfReferenceCodeSequence[0].CodeValue == "109102"
        assert processing.DeviceUID == given.named(report, "121012")[0].UID
        assert processing.Manufacturer == given.named(report, "121014")[0].TextValue
        assert processing.ManufacturerModelName == given.named(report, "121015")[0].TextValue
        for name in given.named(report, "111001"):
            assert name.TextValue == processing.ManufacturerModelName
        for version in given.named(report, "111003"):
            assert version.TextValue == processing.SoftwareVersions


def test_a_report_names_the_installation_and_the_versions_of_model_and_node() -> None:
    placed = replace(given.NODE, station_name="AI_ROOM_2", institution_name="General")
    for node, station in ((given.NODE, given.NODE.ae_title), (placed, "AI_ROOM_2")):
        for report in reports(given.positive(node=node)):
            *_, processing = report.ContributingEquipmentSequence
            assert report.StationName == processing.StationName == station
            assert report.get("InstitutionName", "") == node.institution_name
            assert report.DeviceSerialNumber == node.serial_number
            assert list(report.SoftwareVersions) == [given.BUNDLE.version, node.software_version]


def test_a_positive_study_says_so_first_with_each_breast_and_view() -> None:
    impression, *_ = given.texts(text_report(given.positive()))[4:]
    assert impression == (
        "AI result: POSITIVE. Probability of cancer 87.0 %, at or above the threshold of 50.0 %."
    )
    for report in reports(given.positive()):
        words = " ".join(given.texts(report))
        assert impression in words
        assert "Right breast: probability of cancer 87.0 % (CC 91.0 %, MLO 83.0 %)." in words
        assert "Left breast: probability of cancer 10.0 % (CC 12.0 %, MLO 8.0 %)." in words
        assert flags(report)[0] == "COMPLETE"


def test_what_lies_exactly_at_the_threshold_is_positive_in_words_and_malignant_in_codes() -> None:
    context = given.context(given.prediction((0.5, 0.5, 0.4999, 0.08)))
    for report in reports(context):
        said = "AI result: POSITIVE. Probability of cancer 50.0 %, at or above the threshold of 50.0 %."
        assert said in " ".join(given.texts(report))
    groups = given.named(measurement_report(context), "125007")
    assert [meanings_of(group, "278201002") for group in groups] == [
        ["Malignant"],
        ["Malignant"],
        ["Benign"],
        ["Benign"],
    ]


def test_a_negative_study_says_below_the_threshold() -> None:
    for report in reports(given.negative()):
        words = " ".join(given.texts(report))
        assert "AI result: NEGATIVE. Probability of cancer 10.0 %, below the threshold of 50.0 %." in words
        assert "POSITIVE" not in words


def test_a_partial_study_is_never_called_negative_and_names_what_was_refused() -> None:
    for report in reports(given.partial()):
        words = " ".join(given.texts(report))
        assert flags(report)[0] == "PARTIAL"
        assert report.CompletionFlagDescription == "The analysis does not cover the whole study"
        assert "AI result: INCOMPLETE. Probability of cancer in what was analysed 11.0 %, below" in words
        assert "Not analysed: R MLO. What was not analysed may contain disease." in words
        assert "Right breast: probability of cancer 11.0 % (CC 11.0 %, MLO not analysed)." in words
        assert "R MLO not analysed: breast implant present." in words
        assert "NEGATIVE" not in words
    (named,) = (i for i in given.content_items(text_report(given.partial())) if i.get("ValueType") == "IMAGE")
    assert named.RelationshipType == "INFERRED FROM"
    assert named.ReferencedSOPSequence[0].ReferencedSOPInstanceUID == given.images()[1].SOPInstanceUID


def test_a_partial_study_over_the_threshold_is_called_positive_and_incomplete() -> None:
    for report in reports(given.context(given.prediction(given.POSITIVE, (implant(2),)))):
        words = " ".join(given.texts(report))
        assert flags(report)[0] == "PARTIAL"
        assert (
            "AI result: POSITIVE, but INCOMPLETE. Probability of cancer in what was analysed 87.0 %, "
            "at or above the threshold of 50.0 %. Not analysed: L CC. What was not analysed may contain "
            "disease."
        ) in words
        assert "Left breast: probability of cancer 8.0 % (CC not analysed, MLO 8.0 %)." in words


def test_a_breast_of_which_nothing_was_analysed_is_named_all_the_same() -> None:
    said = given.prediction(given.NEGATIVE, (implant(0), implant(1)))
    for report in reports(given.context(said)):
        words = " ".join(given.texts(report))
        assert "Not analysed: R CC, R MLO." in words
        assert "Right breast: not analysed. Left breast: probability of cancer 10.0 %" in words


def test_the_views_of_a_breast_stand_in_the_usual_order_whether_scored_or_not() -> None:
    for report in reports(given.context(given.prediction(given.NEGATIVE, (implant(0),)))):
        assert "(CC not analysed, MLO 9.0 %)." in " ".join(given.texts(report))


def test_a_view_that_was_never_sent_is_not_called_an_image() -> None:
    said = given.prediction(given.NEGATIVE, (implant(3),))
    missing = replace(said, refusals=(Refusal(RefusalCode.VIEWS_MISSING, detail="L MLO"),))
    for report in reports(given.context(missing)):
        words = " ".join(given.texts(report))
        assert "Not analysed: L MLO. What was not analysed may contain disease." in words
        assert "Left breast: probability of cancer 12.0 % (CC 12.0 %, MLO not analysed)." in words
        assert "Study incomplete: standard views are missing (L MLO)." in words


@pytest.mark.parametrize("outcome", [Outcome.SCORED, Outcome.PARTIAL])
def test_a_refused_image_beside_a_scored_one_of_its_view_does_not_read_as_if_the_view_had_no_score(
    outcome: Outcome,
) -> None:
    spot = Refusal(RefusalCode.SPOT_VIEW, "2.25.99", Laterality.RIGHT, "CC")
    headers = (*given.sources(), given.header(given.images()[0], overrides={"SOPInstanceUID": "2.25.99"}))
    said = replace(given.prediction(given.NEGATIVE), outcome=outcome, refusals=(spot,))
    for report in reports(given.context(said, headers)):
        words = " ".join(given.texts(report))
        assert "R CC not analysed" not in words
        further = "Not analysed: further images of the study, named below." in words
        assert further is (outcome is Outcome.PARTIAL)
        assert "A further R CC image not analysed: spot compression view." in words


@pytest.mark.parametrize(
    ("side", "view", "subject"),
    [
        (Laterality.LEFT, None, "An image of the left breast"),
        (Laterality.RIGHT, None, "An image of the right breast"),
        (None, "MLO", "An image (MLO)"),
        (None, None, "An image"),
    ],
)
def test_a_refused_image_of_half_a_name_does_not_read_as_if_a_breast_had_no_score(
    side: Laterality | None, view: str | None, subject: str
) -> None:
    odd = Refusal(RefusalCode.NON_STANDARD_VIEW, str(given.images()[0].SOPInstanceUID), side, view)
    said = replace(given.prediction(given.NEGATIVE), refusals=(odd,))
    for report in reports(given.context(said)):
        assert f"{subject} not analysed: view is neither CC nor MLO." in " ".join(given.texts(report))


def test_a_refused_study_gets_a_text_report_alone_that_says_why_in_words_and_codes() -> None:
    (built,) = build_all(given.refused())
    report = given.read(built)
    words = " ".join(given.texts(report))
    assert built.kind == "text_report"
    assert flags(report)[0] == "PARTIAL"
    assert "AI result: NONE. The study was not scored; this does not mean that it is normal." in words
    assert f"{given.refused().prediction.refusals[0].sentence}." in words
    assert "R MLO not analysed: breast implant present." in words
    assert "Probability" not in words
    coded = [i.ConceptCodeSequence[0] for i in given.named(report, "121065") if i.ValueType == "CODE"]
    assert [(c.CodeValue, c.CodeMeaning) for c in coded] == [
        ("111225", "Not Attempted"),
        ("110523", "Object Set incomplete"),
        ("110522", "Object Types not supported"),
    ]


def test_a_whole_study_whose_images_are_all_refused_is_not_coded_as_an_incomplete_set() -> None:
    reasons = (Refusal(RefusalCode.NO_SCORABLE_IMAGE), *map(implant, range(4)))
    (report,) = reports(given.context(replace(given.refused().prediction, refusals=reasons)))
    coded = [
        i.ConceptCodeSequence[0].CodeMeaning for i in given.named(report, "121065") if "TextValue" not in i
    ]
    assert coded == ["Not Attempted", "Object Types not supported"]


@pytest.mark.parametrize("code", list(RefusalCode))
def test_every_refusal_code_can_be_reported(code: RefusalCode) -> None:
    said = StudyPrediction("task", Outcome.REFUSED, threshold=0.5, refusals=(Refusal(code),))
    (built,) = build_all(given.context(said))
    report = given.read(built)
    assert f"{Refusal(code).sentence}." in given.texts(report)
    status, reason = (i for i in given.named(report, "121065") if i.ValueType == "CODE")
    assert status.ConceptCodeSequence[0].CodeValue == "111225"
    assert reason.ConceptCodeSequence[0].CodingSchemeDesignator == "DCM"


def test_a_later_revision_names_the_report_it_replaces() -> None:
    context = given.superseding()
    (earlier,) = context.predecessors
    for report in reports(context):
        (study,) = report.PredecessorDocumentsSequence
        (series,) = study.ReferencedSeriesSequence
        (instance,) = series.ReferencedSOPSequence
        assert (instance.ReferencedSOPClassUID, instance.ReferencedSOPInstanceUID) == (
            earlier.sop_class_uid,
            earlier.sop_instance_uid,
        )
        assert series.SeriesInstanceUID == earlier.series_instance_uid
        assert "Revision 2 of this AI report; it replaces the earlier" in " ".join(given.texts(report))
        assert "revision 2" in report.SeriesDescription
        assert len(report.SeriesDescription) <= 64
    for report in reports(given.positive()):
        assert "PredecessorDocumentsSequence" not in report


@pytest.mark.parametrize("sop_class_uid", ["1.2.840.10008.5.1.4.1.1.66.4", "1.2.840.10008.5.1.4.1.1.88.59"])
def test_a_report_names_no_overlay_and_no_key_objects_as_its_predecessor(sop_class_uid: str) -> None:
    context = given.superseding()
    (earlier,) = context.predecessors
    other = replace(earlier, sop_class_uid=sop_class_uid, sop_instance_uid="2.25.13")
    for report in reports(replace(context, predecessors=(earlier, other))):
        (study,) = report.PredecessorDocumentsSequence
        (series,) = study.ReferencedSeriesSequence
        assert [i.ReferencedSOPInstanceUID for i in series.ReferencedSOPSequence] == ["2.25.11"]


def test_the_procedure_is_the_coded_one_of_the_images_or_mammography() -> None:
    procedure = Dataset()
    procedure.CodeValue, procedure.CodingSchemeDesignator = "24623002", "SCT"
    procedure.CodeMeaning = "Screening mammography"
    coded = measurement_report(given.positive(given.sources(ProcedureCodeSequence=[procedure])))
    assert given.named(coded, "121058")[0].ConceptCodeSequence[0].CodeValue == "24623002"
    plain = measurement_report(given.positive())
    assert given.named(plain, "121058")[0].ConceptCodeSequence[0].CodeValue == "71651007"


@pytest.mark.parametrize(
    ("probability", "threshold", "words"),
    [
        (0.87, 0.5, "87.0 %"),
        (0.0, 0.5, "0.0 %"),
        (1.0, 0.5, "100.0 %"),
        (0.49999, 0.5, "49.999 %"),
        (0.4567, 0.4567, "45.7 %"),
        (0.45669, 0.4567, "45.669 %"),
    ],
)
def test_rounding_never_moves_a_probability_over_the_threshold(
    probability: float, threshold: float, words: str
) -> None:
    assert wording.percent(probability, threshold) == words
