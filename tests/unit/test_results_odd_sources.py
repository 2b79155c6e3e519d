"""Images with odd headers get their results all the same: the checker asks for what a builder can know."""

from __future__ import annotations

from typing import Any

import pytest
from pydicom import Dataset

from dicom_node.results.builders import RESULT_BUILDERS, build_all
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
