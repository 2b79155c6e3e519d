"""What the Mammography CAD report marks, what it says was done, and what it never claims."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from pydicom import Dataset
from pydicom.sr._snomed_dict import mapping
from pydicom.sr.coding import Code

from dicom_node.results import cad_codes, codes, plain_items
from dicom_node.results.builders import build_all
from dicom_node.results.context import ResultContext
from dicom_node.results.lesions import code_of
from models.contract import Refusal, RefusalCode
from tests import localised_contexts as localised
from tests import results_contexts as given

KINDS = ("mammography_cad", "mammography_cad_srt")
OUTCOMES = (
    localised.binary,
    localised.masses,
    localised.calcifications,
    localised.asymmetry,
    localised.nothing_found,
    localised.partial,
    localised.partial_positive,
    localised.view_missing,
    localised.refused,
    localised.superseding,
)


# What a report may say in SNOMED: its own concepts, views and what modifies them, and margins.
SNOMED = {
    code
    for code in (
        *vars(cad_codes).values(),
        *cad_codes.BREASTS.values(),
        *codes.VIEWS.values(),
        *codes.VIEW_MODIFIERS.values(),
        *map(code_of, (localised.CIRCUMSCRIBED, localised.SPICULATED)),
    )
    if isinstance(code, Code) and code.scheme_designator == "SCT"
}


def cad(context: ResultContext, kind: str = "mammography_cad") -> Dataset:
    return given.only(build_all(context, [kind]), kind)


def value(item: Dataset) -> str:
    return str(item.ConceptCodeSequence[0].CodeValue)


def meanings(report: Dataset, code_value: str) -> list[str]:
    return [str(i.ConceptCodeSequence[0].CodeMeaning) for i in given.named(report, code_value)]


def under(item: Dataset, code_value: str) -> list[Dataset]:
    return [
        i
        for i in item.get("ContentSequence", ())
        if "ConceptNameCodeSequence" in i and i.ConceptNameCodeSequence[0].CodeValue == code_value
    ]


def image_at(report: Dataset, reference: Dataset) -> str:
    """Follow a reference to its image, by the numbers of the children from the root."""
    item = report
    root, *path = reference.ReferencedContentItemIdentifier
    assert root == 1
    for number in path:
        item = item.ContentSequence[number - 1]
    return str(item.ReferencedSOPSequence[0].ReferencedSOPInstanceUID)


def pointed_at(report: Dataset, item: Dataset) -> list[str]:
    return [image_at(report, i) for i in item.ContentSequence if "ReferencedContentItemIdentifier" in i]


def test_only_a_bundle_that_localises_gets_one() -> None:
    assert build_all(given.positive(), KINDS) == ()
    assert len(build_all(localised.nothing_found(), KINDS)) == 2


def test_centre_and_outline_lie_on_the_marked_image_where_the_mark_is() -> None:
    context = localised.binary()
    report = cad(context)
    findings = given.named(report, "111059")
    marks = [(score, mark) for score in context.prediction.images for mark in score.marks]
    assert len(findings) == len(marks) == 3
    for finding, (score, mark) in zip(findings, marks, strict=True):
        (centre,), (outline,) = under(finding, "111010"), under(finding, "111041")
        assert (centre.GraphicType, outline.GraphicType) == ("POINT", "POLYLINE")
        assert tuple(centre.GraphicData) == pytest.approx(mark.centre)
        flat = [number for point in (*mark.outline, mark.outline[0]) for number in point]
        assert list(outline.GraphicData) == pytest.approx(flat, abs=1e-4)
        assert pointed_at(report, centre) == pointed_at(report, outline) == [score.sop_instance_uid]


def test_a_place_of_unknown_kind_is_a_density_with_its_probability() -> None:
    report = cad(localised.binary())
    assert meanings(report, "111059") == ["Mammography breast density"] * 3
    (probability,) = under(given.named(report, "111059")[0], "111047")
    assert probability.MeasuredValueSequence[0].NumericValue == 90
    assert probability.MeasuredValueSequence[0].MeasurementUnitsCodeSequence[0].CodeValue == "%"


def test_a_mass_in_both_views_is_one_feature_of_two_densities() -> None:
    context = localised.masses()
    report = cad(context)
    (feature,) = given.named(report, "111015")
    assert meanings(report, "111015") == ["Mammographic breast mass"]
    assert value(under(feature, "111016")[0]) == "111154"
    assert value(under(feature, "111057")[0]) == "111158"
    parts = under(feature, "111059")
    assert [p.RelationshipType for p in parts] == ["INFERRED FROM"] * 2
    assert meanings(report, "111059") == ["Mammography breast density"] * 2
    assert meanings(report, "111037") == ["Spiculated lesion"] * 2
    seen = [pointed_at(report, under(part, "111010")[0])[0] for part in parts]
    assert seen == [score.sop_instance_uid for score in context.prediction.images[:2]]
    assert len(given.named(report, "111034")) == 1
    assert "Spatial collocation analysis" in meanings(report, "111004")


def test_a_feature_is_as_probable_as_the_surer_of_its_two_places() -> None:
    mass = localised.MASS
    places = {
        0: (localised.mark(110, 150, probability=0.2, finding=mass),),
        1: (localised.mark(120, 150, probability=0.9, finding=mass),),
    }
    report = cad(localised.marked(given.positive(), places))
    (feature,) = given.named(report, "111015")
    assert [i.MeasuredValueSequence[0].NumericValue for i in under(feature, "111047")] == [90]
    # Of the mark, of the feature, and of its two places: as the surer one must be shown, the feature must.
    assert [value(i) for i in given.named(report, "111056")] == ["111150", "111150", "111151", "111150"]


def test_another_finding_beside_a_mass_does_not_keep_its_two_views_apart() -> None:
    mass, calcification = localised.MASS, localised.CALCIFICATION
    places = {
        0: (localised.mark(110, 150, finding=mass), localised.mark(90, 220, finding=calcification)),
        1: (localised.mark(120, 150, finding=mass),),
    }
    report = cad(localised.marked(given.positive(), places))
    assert meanings(report, "111015") == ["Mammographic breast mass"]
    assert len(given.named(report, "111034")) == 2


@pytest.mark.parametrize("several", [0, 1])
def test_masses_that_nobody_can_match_stay_apart(several: int) -> None:
    mass = localised.MASS
    places = {
        several: (localised.mark(110, 150, finding=mass), localised.mark(90, 220, finding=mass)),
        1 - several: (localised.mark(120, 150, finding=mass),),
    }
    report = cad(localised.marked(given.positive(), places))
    assert given.named(report, "111015") == []
    assert len(given.named(report, "111034")) == len(given.named(report, "111059")) == 3


def test_masses_in_two_images_of_one_view_are_not_seen_from_two_sides() -> None:
    said = localised.masses().prediction
    first, second, *others = said.images
    twice = replace(said, images=(first, replace(second, view="CC"), *others))
    report = cad(replace(localised.masses(), prediction=twice))
    assert given.named(report, "111015") == []
    assert len(given.named(report, "111034")) == 2


def test_an_asymmetry_is_none_between_different_views_of_the_breasts() -> None:
    places = {number: (localised.mark(110, 150, finding=localised.ASYMMETRY),) for number in (1, 2)}
    report = cad(localised.marked(given.positive(), places))
    assert given.named(report, "111015") == []
    assert len(given.named(report, "111034")) == 2


def test_the_library_tells_the_spacing_of_columns_from_that_of_rows() -> None:
    headers = given.sources(ImagerPixelSpacing=[0.3, 0.2])  # between rows first (PS3.3 10.7.1.3)
    report = cad(localised.masses(headers))
    for code, spacing in (("111026", 0.2), ("111066", 0.3)):
        values = [float(i.MeasuredValueSequence[0].NumericValue) for i in given.named(report, code)]
        assert values == [spacing] * 4


def test_an_asymmetry_has_one_part_in_each_breast_or_is_a_density() -> None:
    context = localised.asymmetry()
    report = cad(context)
    (feature,) = given.named(report, "111015")
    assert meanings(report, "111015") == ["Asymmetric breast tissue"]
    assert value(under(feature, "111016")[0]) == "111155"
    parts = under(feature, "111059")
    seen = [pointed_at(report, under(part, "111010")[0])[0] for part in parts]
    assert seen == [context.prediction.images[n].sop_instance_uid for n in (0, 2)]
    assert len(given.named(report, "111059")) == 3
    assert len(given.named(report, "111034")) == 2


def test_calcifications_are_a_cluster_and_a_distortion_is_itself() -> None:
    report = cad(localised.calcifications())
    assert meanings(report, "111059") == ["Calcification Cluster", "Architectural distortion of breast"]
    assert meanings(report, "111008") == ["Grouped calcification distribution"]
    assert {"Calcification Cluster", "Mammography breast density"} <= set(meanings(report, "111022"))


def test_workstations_must_show_what_reaches_the_threshold_and_may_show_the_rest() -> None:
    places = {0: (localised.mark(110, 150, probability=0.5), localised.mark(90, 220, probability=0.4999))}
    report = cad(localised.marked(given.positive(), places))
    intents = [value(i) for i in given.named(report, "111056")]
    assert intents == ["111150", "111150", "111151", "111151"]


@pytest.mark.parametrize(
    ("outcome", "summary", "detections", "analyses", "completion"),
    [
        (localised.masses, "111242", "111222", "111222", "COMPLETE"),
        (localised.nothing_found, "111241", "111222", "111222", "COMPLETE"),
        (localised.partial, "111243", "111223", "111223", "PARTIAL"),
        (localised.partial_positive, "111244", "111223", "111223", "PARTIAL"),
        (localised.view_missing, "111244", "111222", "111224", "PARTIAL"),
        (localised.refused, "111245", "111224", "111224", "PARTIAL"),
    ],
)
def test_the_summaries_say_how_far_the_analysis_went(
    outcome: Callable[[], ResultContext], summary: str, detections: str, analyses: str, completion: str
) -> None:
    report = cad(outcome())
    codes = [value(given.named(report, name)[0]) for name in ("111017", "111064", "111065")]
    assert codes == [summary, detections, analyses]
    assert report.CompletionFlag == completion
    assert report.VerificationFlag == "UNVERIFIED"


def test_a_refused_image_is_among_the_failures_and_in_no_success() -> None:
    context = localised.partial()
    report = cad(context)
    refused = context.prediction.refusals[0].sop_instance_uid
    for success, failure in (("111063", "111025"), ("111062", "111024")):
        for item in given.named(report, success)[0].ContentSequence:
            assert refused not in pointed_at(report, item)
            assert len(pointed_at(report, item)) == 3
        for item in given.named(report, failure)[0].ContentSequence:
            assert pointed_at(report, item) == [refused]
    (impression,) = given.named(report, "111033")
    assert "R MLO not analysed: breast implant present." in impression.TextValue
    assert "INCOMPLETE" in impression.TextValue


def test_an_extra_image_of_a_complete_study_makes_no_failure() -> None:
    context = localised.masses()
    extra = given.header(
        given.images()[0],
        overrides={"SOPInstanceUID": "2.25.4711", "PresentationIntentType": "FOR PROCESSING"},
    )
    refusal = Refusal(RefusalCode.FOR_PROCESSING, "2.25.4711")
    with_extra = replace(
        context,
        sources=(*context.sources, extra),
        prediction=replace(context.prediction, refusals=(refusal,)),
    )
    report = cad(with_extra)
    assert value(given.named(report, "111017")[0]) == "111242"
    (study,) = report.CurrentRequestedProcedureEvidenceSequence
    listed = {
        r.ReferencedSOPInstanceUID for s in study.ReferencedSeriesSequence for r in s.ReferencedSOPSequence
    }
    assert listed == {s.SOPInstanceUID for s in context.sources}


def test_the_overall_impression_is_as_certain_as_the_score_is_far_from_it() -> None:
    certain = [
        float(given.named(cad(outcome()), "111013")[0].MeasuredValueSequence[0].NumericValue)
        for outcome in (localised.masses, localised.nothing_found)
    ]
    assert certain == pytest.approx([87.0, 90.0])
    assert given.named(cad(localised.partial()), "111013") == []


def test_the_library_describes_each_image_by_breast_view_and_orientation() -> None:
    report = cad(localised.masses())
    library = report.ContentSequence[1]
    assert [value(under(image, "111027")[0]) for image in library.ContentSequence] == [
        "73056007",
        "73056007",
        "80248007",
        "80248007",
    ]
    for image, source in zip(library.ContentSequence, given.images(), strict=True):
        directions = [under(image, code)[0].TextValue for code in ("111044", "111043")]
        assert directions == list(source.PatientOrientation)
        assert "ConceptNameCodeSequence" not in image


def test_an_image_has_the_side_and_view_that_it_was_scored_under_wherever_its_header_states_them() -> None:
    report = cad(localised.masses(given.sources(ViewPosition=None, ImageLaterality=None)))
    library = report.ContentSequence[1]
    places = [(value(under(i, "111027")[0]), value(under(i, "111031")[0])) for i in library.ContentSequence]
    assert places == [
        (side, view) for side in ("73056007", "80248007") for view in ("399162004", "399368009")
    ]


@pytest.mark.parametrize(("kind", "modifier"), [(KINDS[0], "399209000"), (KINDS[1], "R-102D5")])
def test_a_view_with_its_implant_displaced_says_so(kind: str, modifier: str) -> None:
    headers = given.sources(ViewCodeSequence=given.view_codes("399162004", "399209000"))
    library = cad(localised.masses(headers), kind).ContentSequence[1]
    for image in library.ContentSequence:
        (view,) = under(image, "111031")
        assert [value(item) for item in under(view, "111032")] == [modifier]


def test_a_finding_has_the_tracking_uid_of_its_group_in_the_measurement_report() -> None:
    context = localised.masses()
    groups = {str(i.UID) for i in given.named(given.only(build_all(context), "measurement_report"), "112040")}
    findings = [str(under(f, "112040")[0].UID) for f in given.named(cad(context), "111059")]
    assert set(findings) <= groups
    (feature,) = given.named(cad(context), "111015")
    assert str(under(feature, "112040")[0].UID) not in groups


def test_srt_says_the_same_with_former_codes_and_never_mixes() -> None:
    for outcome in OUTCOMES:
        modern, former = (cad(outcome(), kind) for kind in KINDS)
        pairs = list(zip(given.content_items(modern), given.content_items(former), strict=True))
        schemes = {
            code.CodingSchemeDesignator
            for _, item in pairs
            for keyword in ("ConceptNameCodeSequence", "ConceptCodeSequence")
            for code in item.get(keyword, ())
        }
        assert "SRT" in schemes
        assert "SCT" not in schemes
        for one, other in pairs:
            for keyword in ("ConceptNameCodeSequence", "ConceptCodeSequence"):
                assert [c.CodeMeaning for c in one.get(keyword, ())] == [
                    c.CodeMeaning for c in other.get(keyword, ())
                ]
        assert modern.SOPInstanceUID != former.SOPInstanceUID


@pytest.mark.parametrize("code", sorted(SNOMED), ids=lambda code: code.meaning)
def test_a_former_code_is_that_of_the_same_concept(code: Code) -> None:
    """An old workstation reads nothing but the code: the right breast must not become the left one."""
    item = plain_items.coded(plain_items.CONTAINS, codes.FINDING, code)
    plain_items.use_srt(item)
    (former,) = item.ConceptCodeSequence
    assert (former.CodingSchemeDesignator, former.CodeMeaning) == ("SRT", code.meaning)
    assert mapping["SRT"][former.CodeValue] == code.value


@pytest.mark.parametrize("outcome", OUTCOMES)
def test_built_again_it_is_the_same_bytes(outcome: Callable[[], ResultContext]) -> None:
    assert [o.content for o in build_all(outcome(), KINDS)] == [
        o.content for o in build_all(outcome(), KINDS)
    ]


@pytest.mark.parametrize(
    "overrides",
    [
        {"PatientOrientation": None},
        {"PatientOrientation": ""},
    ],
)
def test_images_that_cannot_be_described_give_no_report(overrides: dict[str, Any]) -> None:
    assert build_all(localised.masses(given.sources(**overrides)), KINDS) == ()


def test_a_new_revision_names_the_report_that_it_replaces() -> None:
    (study,) = cad(localised.superseding()).PredecessorDocumentsSequence
    assert study.ReferencedSeriesSequence[0].ReferencedSOPSequence[0].ReferencedSOPInstanceUID == "2.25.11"


def test_study_attributes_are_those_of_the_images_byte_for_byte() -> None:
    headers = given.sources(
        SpecificCharacterSet=["", "ISO 2022 IR 87"],
        PatientName="Yamada^Tarou=山田^太郎",
        AccessionNumber="A234567890123456",
    )
    (built, _) = build_all(localised.masses(headers), KINDS)
    raw = headers[0].get_item("PatientName").value
    assert raw in built.content
    assert given.read(built).PatientName == "Yamada^Tarou=山田^太郎"
    assert given.read(built).SpecificCharacterSet == ["", "ISO 2022 IR 87"]
