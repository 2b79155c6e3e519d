"""Results of a whole-slide image: a map of patch probabilities, and a report of the slide's score.

The map is a FRACTIONAL segmentation with one pixel for each patch, tiled like the slide; the report is a TID
1500 SR whose region is a polygon in the slide's own millimetres.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from datetime import UTC, datetime, tzinfo

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from dicom_node.errors import ResultError
from dicom_node.results import identity, slide_report, slide_segmentation, slide_text_report
from dicom_node.results.builders import finished
from dicom_node.results.checks.checker import refuse_faulty
from dicom_node.results.context import BuiltObject, NodeIdentity, PredecessorDocument
from dicom_node.results.source import bear_several_patient_ids
from models.contract import BundleIdentity, Outcome, SlidePrediction, SlideStudyPrediction

SLIDE_KINDS = ("slide_segmentation", "slide_report", "text_report")
"""Every kind of result of a study of slides, in the order of building."""


@dataclass(frozen=True, slots=True)
class SlideContext:
    """Everything that the results of one slide are made from.

    Attributes
    ----------
    source : pydicom.dataset.Dataset
        Header, without pixel data, of the VL Whole Slide Microscopy image that was read.
    prediction : models.contract.SlidePrediction
        What the model said of it.
    bundle, node, analysed_at, revision, predecessors, default_zone
        As for :class:`dicom_node.results.context.ResultContext`.
    number : int
        Its place among the slides of its study, from 1, by which all results of the study name it.

    Raises
    ------
    ResultError
        When the values contradict one another, or the header does not place the image on its slide.
    """

    source: Dataset
    prediction: SlidePrediction
    bundle: BundleIdentity
    node: NodeIdentity
    analysed_at: datetime
    revision: int = 1
    predecessors: tuple[PredecessorDocument, ...] = ()
    default_zone: tzinfo = UTC
    number: int = 1

    def __post_init__(self) -> None:
        if self.analysed_at.tzinfo is None:
            raise ResultError("analysed_at has no time zone; pass the persisted UTC start of the analysis")
        if str(self.source.get("SOPInstanceUID")) != self.prediction.sop_instance_uid:
            raise ResultError("the prediction speaks of another image than the header")
        known = self.prediction.patches[~np.isnan(self.prediction.patches)]
        values = np.append(known, self.prediction.probability)
        if not known.size or values.min() < 0 or values.max() > 1:
            raise ResultError("a slide needs at least one analysed patch and probabilities of 0..1")
        self.placement.require_inside(self.prediction.patches.shape, self.source)

    @property
    def placement(self) -> slide_segmentation.Placement:
        """Where the patches lie on the slide."""
        return slide_segmentation.Placement.of(self.source, self.prediction.patch_pixels)

    @property
    def analysed(self) -> NDArray[np.bool_]:
        """Which patches were analysed, ``(rows, columns)``."""
        return ~np.isnan(self.prediction.patches)

    @property
    def sources(self) -> tuple[Dataset, ...]:
        """The header as the one source of the results."""
        return (self.source,)

    @property
    def device_uid(self) -> str:
        """Device UID of the algorithm."""
        return identity.device_uid(self.bundle)

    @property
    def is_complete(self) -> bool:
        """Bare glass is nothing that a slide's analysis leaves out."""
        return True

    def uid(self, kind: str, ordinal: int = 0) -> str:
        """Give the UID of a thing made from the slide."""
        uids = [self.prediction.sop_instance_uid]
        return identity.uid_for(kind, self.bundle, uids, ordinal, revision=self.revision)

    def tracking_uid(self) -> str:
        """Give the tracking UID of the slide's score; it stays through revisions."""
        return identity.uid_for("tracking.slide", self.bundle, [self.prediction.sop_instance_uid])


@dataclass(frozen=True, slots=True)
class SlideStudyContext:
    """Everything that the results of a study of slides are made from.

    Attributes
    ----------
    sources : tuple of pydicom.dataset.Dataset
        Headers, without pixel data, of all the revision's images, in order.
    prediction : models.contract.SlideStudyPrediction
        What the model said.
    bundle, node, analysed_at, revision, predecessors, default_zone, input_uids
        As for :class:`dicom_node.results.context.ResultContext`.

    Raises
    ------
    ResultError
        When the values contradict one another.
    """

    sources: tuple[Dataset, ...]
    prediction: SlideStudyPrediction
    bundle: BundleIdentity
    node: NodeIdentity
    analysed_at: datetime
    revision: int = 1
    predecessors: tuple[PredecessorDocument, ...] = ()
    default_zone: tzinfo = UTC
    input_uids: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not self.sources:
            raise ResultError("no source images were given; pass the headers of the revision's images")
        if self.analysed_at.tzinfo is None:
            raise ResultError("analysed_at has no time zone; pass the persisted UTC start of the analysis")
        prediction = self.prediction
        if (prediction.outcome is Outcome.REFUSED) == bool(prediction.slides):
            raise ResultError(
                "the outcome contradicts the slides: a refused study has none, others have some"
            )
        if prediction.outcome is not Outcome.SCORED and not prediction.refusals:
            raise ResultError("no refusal says why slides were not scored")
        if prediction.slides and bear_several_patient_ids(self.sources):
            raise ResultError("the source images bear different Patient IDs; refuse them all")
        known = {str(source.SOPInstanceUID) for source in self.sources}
        if {slide.sop_instance_uid for slide in prediction.slides} - known:
            raise ResultError("a slide of the prediction is not among the sources")

    @property
    def device_uid(self) -> str:
        """Device UID of the algorithm."""
        return identity.device_uid(self.bundle)

    @property
    def is_complete(self) -> bool:
        """Whether every slide was scored."""
        return self.prediction.outcome is Outcome.SCORED

    def uid(self, kind: str, ordinal: int = 0) -> str:
        """Give the UID of a thing made from the whole revision."""
        uids = self.input_uids or tuple(str(source.SOPInstanceUID) for source in self.sources)
        return identity.uid_for(kind, self.bundle, uids, ordinal, revision=self.revision)

    def of_slide(self, slide: SlidePrediction, number: int) -> SlideContext:
        """Give what the results of one of its slides are made from, the `number`-th."""
        source = next(s for s in self.sources if str(s.SOPInstanceUID) == slide.sop_instance_uid)
        return SlideContext(
            source=source,
            prediction=slide,
            bundle=self.bundle,
            node=self.node,
            analysed_at=self.analysed_at,
            revision=self.revision,
            predecessors=self.predecessors,
            default_zone=self.default_zone,
            number=number,
        )


def build_slide_study(
    context: SlideStudyContext, kinds: Collection[str] = SLIDE_KINDS
) -> tuple[BuiltObject, ...]:
    """Build the results of a study of slides.

    Parameters
    ----------
    context : SlideStudyContext
        What to speak about.
    kinds : collection of str, optional
        Members of :data:`SLIDE_KINDS`.

    Returns
    -------
    tuple of BuiltObject
        Of each slide its map and its report, then the text report, which a refused study has, too.

    Raises
    ------
    ResultError
        When a kind is unknown, or an object cannot be built or fails its own check.
    """
    if unknown := set(kinds) - set(SLIDE_KINDS):
        raise ResultError(
            f"no result of slides of kind {sorted(unknown)}; there are {', '.join(SLIDE_KINDS)}"
        )
    slides = [context.of_slide(slide, n) for n, slide in enumerate(context.prediction.slides, start=1)]
    built: tuple[BuiltObject, ...] = ()
    # The reports come after the maps, which all of them list as evidence.
    if "slide_segmentation" in kinds:
        built += tuple(_map(slide) for slide in slides)
    maps = built
    if "slide_report" in kinds:
        built += tuple(_report(slide, maps) for slide in slides)
    if "text_report" in kinds:
        document = slide_text_report.build(context, context.prediction, maps)
        built += (finished("text_report", document, context),)
    refuse_faulty((item.content for item in built), context.sources)
    return built


def build_slide(context: SlideContext) -> tuple[BuiltObject, ...]:
    """Build the results of one slide by itself.

    The bytes are a pure function of the context: built again they are the same.

    Parameters
    ----------
    context : SlideContext
        What to speak about.

    Returns
    -------
    tuple of BuiltObject
        The map of patches and the report, which lists the map as evidence.

    Raises
    ------
    ResultError
        When an object cannot be built or fails its own check; nothing may be sent then.
    """
    overlay = _map(context)
    return (overlay, _report(context, (overlay,)))


def _map(context: SlideContext) -> BuiltObject:
    document = slide_segmentation.build(
        context, context.prediction, context.placement, context.tracking_uid(), context.number
    )
    return finished("slide_segmentation", document, context)


def _report(context: SlideContext, maps: tuple[BuiltObject, ...]) -> BuiltObject:
    corners = context.placement.outline(context.analysed)
    document = slide_report.build(
        context, context.prediction, corners, context.tracking_uid(), maps, number=context.number
    )
    return finished("slide_report", document, context)
