"""Images with odd headers get their results all the same: the checker asks for what a builder can know."""

from __future__ import annotations

from typing import Any

import pytest
from pydicom import Dataset

from dicom_node.results import codes
from dicom_node.results.builders import RESULT_BUILDERS, build_all
from dicom_node.results.source import pixel_shape, procedure_reported
from tests import localised_contexts as localised
from tests import results_contexts as given


def procedure(meaning: str) -> list[Dataset]:
    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = "MG4", "99SITE", meaning
    return [item]


@pytest.mark.parametrize(
    "odd",
    [
        {"TimezoneOffsetFromUTC": "-0000"},
        {"TimezoneOffsetFromUTC": "+1545"},
        {"TimezoneOffsetFromUTC": "somewhere"},
        {"PatientOrientation": "AF"},
        {"PatientOrientation": ["", ""]},
        {"ImagerPixelSpacing": "0.1"},
        {"ProcedureCodeSequence": "M" * 65},
        {"SpecificCharacterSet": None, "PatientName": "Doe^Jane"},
    ],
    ids=lambda odd: next(iter(odd)),
)
@pytest.mark.filterwarnings("ignore:The value length")
def test_results_of_images_with_odd_headers_are_built(odd: dict[str, Any]) -> None:
    if "ProcedureCodeSequence" in odd:
        odd = {"ProcedureCodeSequence": procedure(odd["ProcedureCodeSequence"])}
    context = localised.masses(given.sources(**odd))
    kinds = {built.kind for built in build_all(context, RESULT_BUILDERS)}
    assert kinds >= {"text_report", "measurement_report", "segmentation", "presentation_state"}


@pytest.mark.parametrize(
    ("spacings", "shape"),
    [
        ({}, (1, 1)),
        ({"PixelSpacing": [0.2, 0.1]}, (2000, 1000)),
        ({"PixelSpacing": [0.07, 0.07]}, (1, 1)),
        ({"PixelSpacing": [0.2, 0.1], "ImagerPixelSpacing": [0.1, 0.2]}, (2000, 1000)),
        ({"PixelSpacing": [0.2, 0.0], "ImagerPixelSpacing": [0.1, 0.3]}, (1000, 3000)),
        ({"PixelSpacing": [-0.2, 0.1], "PixelAspectRatio": [4, 3]}, (4, 3)),
        ({"PixelSpacing": [0.00001, 0.1]}, (1, 1)),
    ],
    ids=["none", "upright", "square", "calibrated first", "zero", "negative", "nothing of it"],
)
def test_a_pixel_has_the_shape_that_the_first_whole_spacing_of_its_image_tells(
    spacings: dict[str, Any], shape: tuple[int, int]
) -> None:
    source = Dataset()
    for keyword, value in spacings.items():
        setattr(source, keyword, value)
    assert pixel_shape(source) == shape


@pytest.mark.parametrize(
    ("value", "scheme", "meaning"),
    [
        (None, "99SITE", "Screening"),
        ("MG4", "", "Screening"),
        ("MG4", "99SITE", None),
        ("MG4", "99SITE", "Mammographie bilatérale"),
        ("MG4", "99SITE", "M" * 65),
    ],
    ids=["no value", "no scheme", "no meaning", "accent", "too long"],
)
@pytest.mark.filterwarnings("ignore:The value length")
def test_a_procedure_whose_code_is_not_whole_or_does_not_fit_is_not_taken_over(
    value: str | None, scheme: str | None, meaning: str | None
) -> None:
    odd, whole, source = Dataset(), Dataset(), Dataset()
    odd.CodeValue, odd.CodingSchemeDesignator, odd.CodeMeaning = value, scheme, meaning
    source.ProcedureCodeSequence = [odd]
    assert procedure_reported(source) == codes.MAMMOGRAPHY
    assert procedure_reported(source, codes.PATHOLOGY) == codes.PATHOLOGY
    whole.CodeValue, whole.CodingSchemeDesignator, whole.CodeMeaning = "2", "99SITE", "M" * 64
    source.ProcedureCodeSequence = [odd, whole]
    found = procedure_reported(source)
    assert (found.value, found.scheme_designator, found.meaning) == ("2", "99SITE", "M" * 64)
