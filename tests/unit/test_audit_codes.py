"""The coded values of audit messages."""

from __future__ import annotations

from pydicom.sr.codedict import codes as standard
from pydicom.sr.coding import Code as StandardCode

from dicom_node.audit_messages import codes
from dicom_node.audit_messages.message import Code


def test_codes_are_those_of_the_standard() -> None:
    found = (getattr(standard.DCM, name) for name in dir(standard.DCM))
    known = {code.value: code.meaning for code in found if isinstance(code, StandardCode)}
    ours = [code for code in vars(codes).values() if isinstance(code, Code) and code.scheme == "DCM"]

    assert len(ours) > 20
    assert {code.value: known.get(code.value) for code in ours} == {c.value: c.meaning for c in ours}
