"""Every object of every outcome in every character set is without fault, whatever set a destination gets."""

from __future__ import annotations

import pytest

from dicom_node.results.builders import OPTION_BUILDERS, RESULT_BUILDERS, build_all
from dicom_node.results.checks.checker import check_objects
from dicom_node.results.profiles import BUILT_IN, Profile
from tests import results_contexts as given
from tests.result_matrix import CHARACTER_SETS, OUTCOMES, PLAIN_OUTCOMES, context_of, objects_of

BELOW_THRESHOLD = {"key_objects", "segmentation", "lesion_segmentation", "fractional_segmentation"}
ALWAYS = {"text_report", "encapsulated_pdf", "secondary_capture"}


@pytest.mark.parametrize("character_set", CHARACTER_SETS)
@pytest.mark.parametrize("outcome", OUTCOMES)
def test_every_object_in_every_character_set_is_without_fault(outcome: str, character_set: str) -> None:
    objects = [given.read(o) for o in objects_of(outcome, character_set)]
    assert check_objects(objects, context_of(outcome, character_set).sources) == []


@pytest.mark.parametrize("outcome", OUTCOMES)
@pytest.mark.parametrize("profile", BUILT_IN.values(), ids=lambda profile: profile.name)
def test_what_a_profile_gets_is_without_fault_by_itself(outcome: str, profile: Profile) -> None:
    kinds = {wanted.kind for wanted in profile.wanted(localises=True)}
    sent = [given.read(o) for o in objects_of(outcome, "German") if o.kind in kinds]
    assert "text_report" in {o.kind for o in objects_of(outcome, "German") if o.kind in kinds}
    assert check_objects(sent) == []


@pytest.mark.parametrize("outcome", PLAIN_OUTCOMES)
def test_a_bundle_that_does_not_localise_gives_every_profile_good_objects(outcome: str) -> None:
    context = context_of(outcome, "German", plain=True)
    for profile in BUILT_IN.values():
        kinds = [wanted.kind for wanted in profile.wanted(localises=False)]
        sent = build_all(context, kinds)
        assert sent, f"{profile.name} gets nothing of a {outcome} study"
        assert not {o.kind for o in sent} & {"mammography_cad", "lesion_segmentation"}


def test_a_positive_study_has_an_object_of_every_kind() -> None:
    kinds = {o.kind for o in objects_of("positive", "German")}
    assert kinds == {*RESULT_BUILDERS, *OPTION_BUILDERS}


def test_a_refused_study_is_never_silent_and_never_says_where() -> None:
    kinds = {o.kind for o in objects_of("refused", "German")}
    assert kinds >= ALWAYS - {"secondary_capture"}
    assert not kinds & (BELOW_THRESHOLD | {"measurement_report", "presentation_state"})


def test_a_negative_study_has_reports_and_no_marks() -> None:
    kinds = {o.kind for o in objects_of("negative", "German")}
    assert kinds >= {"text_report", "measurement_report", "measurement_report_2d", "mammography_cad"}
    assert not kinds & BELOW_THRESHOLD
