"""Which of the seven kinds of the MIAS database is in this mammogram?

The same images and the same gate as for malignancy, another question. The classes say what an abnormality
looks like, not whether it is malignant: 63 of the database's abnormal images are benign and 52 malignant. So
an image is positive where any abnormality is likely, and its probability is that of all classes but NORM
together.
"""

from __future__ import annotations

from dataclasses import replace
from types import MappingProxyType

from models.contract import CodedConcept
from models.tasks.mammography_malignancy import TASK as MALIGNANCY

_MASS = CodedConcept("129788004", "SCT", "Mammographic breast mass")

_FINDINGS = {
    "CALC": CodedConcept("129748009", "SCT", "Radiographic calcification finding"),
    "CIRC": _MASS,
    "SPIC": _MASS,
    "MISC": _MASS,
    "ARCH": CodedConcept("129792006", "SCT", "Architectural distortion of breast"),
    "ASYM": CodedConcept("129790003", "SCT", "Asymmetric breast tissue"),
    "NORM": CodedConcept("111287", "DCM", "Normal breast tissue"),
}

_MARGINS = {
    "CIRC": CodedConcept("129738007", "SCT", "Circumscribed lesion"),
    "SPIC": CodedConcept("129742005", "SCT", "Spiculated lesion"),
    "MISC": CodedConcept("129741003", "SCT", "Indistinct lesion"),
}

TASK = replace(
    MALIGNANCY,
    name="mias7",
    title="Mammography: kind of abnormality (MIAS)",
    labels=tuple(_FINDINGS.values()),
    classes=tuple(_FINDINGS),
    negative_class="NORM",
    margins=MappingProxyType(_MARGINS),
    target="an abnormality",
)
