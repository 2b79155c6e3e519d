"""The validators of others, and the node's own, have nothing to say against a rejection note."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import pytest

from dicom_node.results.builders import DEFAULT_KINDS, build_all, finished
from dicom_node.results.context import BuiltObject
from dicom_node.results.rejection_note import KIND, Rejected, RejectionReason, build
from tests import results_contexts as given
from tests.programs import needs
from tests.validators import dciodvfy, errors_of, pixelmed, stored

HEADERS: dict[str, dict[str, Any]] = {
    "ASCII": {},
    "Japanese": {"SpecificCharacterSet": ["", "ISO 2022 IR 87"], "PatientName": "Yamada^Tarou=山田^太郎"},
    "Korean": {"SpecificCharacterSet": ["", "ISO 2022 IR 149"], "PatientName": "Hong^Gildong=洪^吉洞"},
    "Greek": {"SpecificCharacterSet": "ISO_IR 126", "PatientName": "Διονυσιος^Α"},
    "German": {"SpecificCharacterSet": "ISO_IR 100", "PatientName": "Äneas^Rüdiger"},
}


def note(reason: RejectionReason, **overrides: Any) -> BuiltObject:
    """Withdraw every kind of object that revision 1 made."""
    headers = given.sources(**overrides)
    earlier = build_all(given.positive(headers), [*DEFAULT_KINDS, "key_objects", "presentation_state"])
    rejected = [Rejected(o.sop_class_uid, o.sop_instance_uid, o.series_instance_uid) for o in earlier]
    context = given.superseding(headers)
    return finished(KIND, build(context, reason, rejected), context)


@pytest.mark.parametrize("reason", list(RejectionReason))
@pytest.mark.parametrize("overrides", HEADERS.values(), ids=HEADERS)
def test_dciodvfy_and_dsrdump_find_no_fault(
    reason: RejectionReason, overrides: dict[str, Any], tmp_path: Path
) -> None:
    needs("dsrdump", "dcmtk")
    (path,) = stored([note(reason, **overrides)], tmp_path)
    said = dciodvfy(path)
    assert any("KeyObjectSelection" in line for line in said), said
    assert errors_of(said) == []
    done = subprocess.run(["dsrdump", str(path)], capture_output=True, timeout=60, check=False)
    assert done.returncode == 0
    assert not [s for s in done.stderr.decode(errors="replace").splitlines() if s.startswith(("E:", "F:"))]


@pytest.mark.slow
def test_pixelmed_finds_that_it_follows_its_template(tmp_path: Path) -> None:
    assert pixelmed("DicomSRValidator", stored(map(note, RejectionReason), tmp_path)) == {}
