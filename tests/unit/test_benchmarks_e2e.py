"""The benchmark of the whole node: what it takes for a study's report is what the node sends."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from benchmarks.e2e import Arrivals
from dicom_node.demo_pacs import ArchivedObject
from dicom_node.results.builders import build_all
from dicom_node.results.profiles import BUILT_IN, Profile
from tests import results_contexts as given


@pytest.mark.parametrize("profile", BUILT_IN.values(), ids=BUILT_IN)
def test_it_times_the_measurement_report_of_every_profile(tmp_path: Path, profile: Profile) -> None:
    arrivals, noted = Arrivals(), time.monotonic()
    kinds = [wanted.kind for wanted in profile.wanted(localises=False) if wanted.fallback_for is None]
    for number, built in enumerate(build_all(given.negative(), kinds)):
        path = tmp_path / f"{number}.dcm"
        path.write_bytes(built.content)
        arrivals.note(
            ArchivedObject(built.sop_instance_uid, built.sop_class_uid, "1.2.840.10008.1.2.1", path)
        )
    study_instance_uid = str(given.images()[0].StudyInstanceUID)
    assert noted <= arrivals.wait_for(study_instance_uid) <= time.monotonic()
