"""What a Mammography CAD report says was looked for, in which images, and where that failed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pydicom.dataset import Dataset
from pydicom.sr.coding import Code

from dicom_node.results import cad_codes, codes, plain_items
from dicom_node.results.cad_findings import algorithm, detections, impressions
from dicom_node.results.context import ResultContext
from dicom_node.results.plain_items import CONTAINS, HAS_PROPERTIES, INFERRED_FROM, Position
from models.contract import Outcome

_LIBRARY = (1, 2)  # second child of the root, after the language

_Work = list[tuple[Code, Sequence[Dataset]]]
"""What was performed, and pointers at the images that it was performed on."""


@dataclass(frozen=True, slots=True)
class CadLibrary:
    """The images that a report speaks of, in the order of its Image Library.

    Attributes
    ----------
    sources : tuple of pydicom.dataset.Dataset
        Their headers.
    scored : frozenset of str
        SOP Instance UIDs of those that were scored.
    """

    sources: tuple[Dataset, ...]
    scored: frozenset[str]

    @property
    def positions(self) -> dict[str, Position]:
        """By SOP Instance UID, where each image is in the report's tree."""
        return {str(s.SOPInstanceUID): (*_LIBRARY, n) for n, s in enumerate(self.sources, start=1)}

    def pointers(self, *, scored: bool) -> list[Dataset]:
        """Point at the images that were scored, or at those that were not."""
        return [
            plain_items.by_reference(HAS_PROPERTIES, position)
            for uid, position in self.positions.items()
            if (uid in self.scored) is scored
        ]


def detections_item(context: ResultContext, library: CadLibrary) -> Dataset:
    """Say what was looked for in which images (PS3.16 TID 4015)."""
    kinds = detections(context.prediction.images)
    done, failed = (_each(kinds, library.pointers(scored=flag)) for flag in (True, False))
    name = cad_codes.DETECTION_PERFORMED
    return _summary(
        cad_codes.DETECTIONS,
        _container(context, cad_codes.SUCCESSFUL_DETECTIONS, name, done),
        _container(context, cad_codes.FAILED_DETECTIONS, name, failed),
    )


def analyses_item(context: ResultContext, library: CadLibrary) -> Dataset:
    """Say how findings and study were judged (PS3.16 TID 4016)."""
    scored, missed = (library.pointers(scored=flag) for flag in (True, False))
    features = [mark.feature for mark in impressions(context) if mark.feature]
    together = []
    if cad_codes.MASS in features:
        together.append(cad_codes.COLLOCATION_ANALYSIS)
    if cad_codes.ASYMMETRY in features or cad_codes.FOCAL_ASYMMETRY in features:
        together.append(cad_codes.ASYMMETRY_ANALYSIS)
    overall = [cad_codes.OVERALL_ANALYSIS]
    done, failed = _each(overall + together, scored), _each(overall, missed)
    if context.prediction.outcome is Outcome.PARTIAL and not missed:
        # A view is missing altogether: each image was searched, but the study as a whole was not judged.
        done, failed = _each(together, scored), _each(overall, scored)
    name = cad_codes.ANALYSIS_PERFORMED
    return _summary(
        cad_codes.ANALYSES,
        _container(context, cad_codes.SUCCESSFUL_ANALYSES, name, done),
        _container(context, cad_codes.FAILED_ANALYSES, name, failed),
    )


def succeeded_wholly(summary: Dataset) -> bool:
    """Tell whether one of the two summaries names no failure."""
    return str(summary.ConceptCodeSequence[0].CodeValue) == codes.SUCCEEDED.value


def _each(kinds: Sequence[Code], pointers: Sequence[Dataset]) -> _Work:
    return [(kind, pointers) for kind in kinds] if pointers else []


def _container(context: ResultContext, name: Code, performed: Code, work: _Work) -> Dataset | None:
    if not work:
        return None
    items = [
        plain_items.coded(CONTAINS, performed, kind, [*algorithm(context), *pointers])
        for kind, pointers in work
    ]
    return plain_items.container(INFERRED_FROM, name, items)


def _summary(name: Code, done: Dataset | None, failed: Dataset | None) -> Dataset:
    status = codes.SUCCEEDED
    if failed is not None:
        status = codes.PARTIALLY_SUCCEEDED if done is not None else cad_codes.FAILED
    return plain_items.coded(CONTAINS, name, status, [item for item in (done, failed) if item is not None])
