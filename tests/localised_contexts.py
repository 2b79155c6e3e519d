"""Studies scored by bundles that localise, and by bundles that tell several classes apart."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from pydicom import Dataset

from dicom_node.results.context import ResultContext
from models.contract import ClassScore, CodedConcept, LesionMark, Outcome, Refusal, RefusalCode
from tests import results_contexts as given

MASS = CodedConcept("129788004", "SCT", "Mammographic breast mass")
CALCIFICATION = CodedConcept("129748009", "SCT", "Radiographic calcification finding")
DISTORTION = CodedConcept("129792006", "SCT", "Architectural distortion of breast")
ASYMMETRY = CodedConcept("129790003", "SCT", "Asymmetric breast tissue")
NORMAL = CodedConcept("111287", "DCM", "Normal breast tissue")
CIRCUMSCRIBED = CodedConcept("129738007", "SCT", "Circumscribed lesion")
SPICULATED = CodedConcept("129742005", "SCT", "Spiculated lesion")
INDISTINCT = CodedConcept("129741003", "SCT", "Indistinct lesion")

MIAS: tuple[tuple[str, CodedConcept, CodedConcept | None], ...] = (
    ("CALC", CALCIFICATION, None),
    ("CIRC", MASS, CIRCUMSCRIBED),
    ("SPIC", MASS, SPICULATED),
    ("MISC", MASS, INDISTINCT),
    ("ARCH", DISTORTION, None),
    ("ASYM", ASYMMETRY, None),
    ("NORM", NORMAL, None),
)
"""The classes of the MIAS database: short name, finding and margins."""


def mark(
    column: float,
    row: float,
    radius: float = 12.0,
    *,
    probability: float = 0.9,
    finding: CodedConcept | None = None,
) -> LesionMark:
    """Mark a place with a twelve-sided outline whose width and height differ."""
    angles = np.arange(12) * (np.pi / 6)
    outline = tuple(
        (float(column + radius * np.cos(a)), float(row + 0.6 * radius * np.sin(a))) for a in angles
    )
    return LesionMark((column, row), outline, probability, finding)


def classes(top: str, probability: float = 0.7) -> tuple[ClassScore, ...]:
    """Give the seven classes of MIAS, one of them most probable and the others alike."""
    others = (1.0 - probability) / 6
    scores = [ClassScore(n, f, m, probability if n == top else others) for n, f, m in MIAS]
    return tuple(sorted(scores, key=lambda score: -score.probability))


def marked(
    context: ResultContext,
    marks: dict[int, tuple[LesionMark, ...]],
    tops: dict[int, str] | None = None,
) -> ResultContext:
    """Let a localising bundle say marks of some images, and classes of some."""
    images = tuple(
        replace(score, marks=marks.get(number, ()), classes=classes(tops[number]) if tops else ())
        for number, score in enumerate(context.prediction.images)
    )
    return replace(
        context,
        bundle=replace(context.bundle, localises=True),
        prediction=replace(context.prediction, images=images),
    )


def binary(headers: tuple[Dataset, ...] | None = None, **more: Any) -> ResultContext:
    """One place in R CC and two in R MLO, of which nobody says what they are."""
    places = {0: (mark(110, 150),), 1: (mark(120, 150), mark(90, 220, 8.0))}
    return marked(given.positive(headers, **more), places)


def masses(headers: tuple[Dataset, ...] | None = None, **more: Any) -> ResultContext:
    """One spiculated mass, seen in R CC and R MLO."""
    places = {0: (mark(110, 150, finding=MASS),), 1: (mark(120, 150, finding=MASS),)}
    tops = {0: "SPIC", 1: "SPIC", 2: "NORM", 3: "NORM"}
    return marked(given.positive(headers, **more), places, tops)


def calcifications(headers: tuple[Dataset, ...] | None = None, **more: Any) -> ResultContext:
    """A group of calcifications in R CC, a distortion in R MLO."""
    places = {0: (mark(110, 150, finding=CALCIFICATION),), 1: (mark(120, 150, finding=DISTORTION),)}
    tops = {0: "CALC", 1: "ARCH", 2: "NORM", 3: "NORM"}
    return marked(given.positive(headers, **more), places, tops)


def asymmetry(headers: tuple[Dataset, ...] | None = None, **more: Any) -> ResultContext:
    """Tissue of R CC that differs from that of L CC, and a place in R MLO that has nothing to differ from."""
    said = given.prediction((0.91, 0.83, 0.72, 0.08))
    places = {
        0: (mark(110, 150, finding=ASYMMETRY),),
        1: (mark(120, 150, finding=ASYMMETRY),),
        2: (mark(80, 140, probability=0.72, finding=ASYMMETRY),),
    }
    tops = {0: "ASYM", 1: "ASYM", 2: "ASYM", 3: "NORM"}
    return marked(given.context(said, headers, **more), places, tops)


def nothing_found(headers: tuple[Dataset, ...] | None = None, **more: Any) -> ResultContext:
    """A localising bundle that found nothing."""
    return marked(given.negative(headers, **more), {})


def partial(headers: tuple[Dataset, ...] | None = None, **more: Any) -> ResultContext:
    """One image refused for an implant, nothing found in the others."""
    return marked(given.partial(headers, **more), {})


def partial_positive(headers: tuple[Dataset, ...] | None = None, **more: Any) -> ResultContext:
    """One image refused for an implant, a place marked in another."""
    said = given.prediction(given.POSITIVE, (given.implant_refusal(),))
    return marked(given.context(said, headers, **more), {0: (mark(110, 150),)})


def refused(headers: tuple[Dataset, ...] | None = None, **more: Any) -> ResultContext:
    """Nothing scored."""
    return marked(given.refused(headers, **more), {})


def superseding(headers: tuple[Dataset, ...] | None = None, **more: Any) -> ResultContext:
    """The second revision of a study with a mass."""
    later = given.superseding()
    return replace(masses(headers, **more), revision=2, predecessors=later.predecessors)


def view_missing() -> ResultContext:
    """A study of three images, all scored; L MLO was never made."""
    said = given.positive().prediction
    said = replace(
        said,
        outcome=Outcome.PARTIAL,
        images=said.images[:3],
        refusals=(Refusal(RefusalCode.VIEWS_MISSING, detail="L MLO"),),
    )
    return marked(given.context(said, given.sources()[:3]), {0: (mark(110, 150),)})
