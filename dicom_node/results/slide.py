"""Results of a whole-slide image: a map of patch probabilities, and a report of the slide's score.

The map is a FRACTIONAL segmentation with one pixel for each patch, tiled like the slide; the report is a TID
1500 SR whose region is a polygon in the slide's own millimetres.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, tzinfo

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from dicom_node.errors import ResultError
from dicom_node.results import identity, slide_report, slide_segmentation
from dicom_node.results.builders import finished
from dicom_node.results.context import BuiltObject, NodeIdentity, PredecessorDocument
from models.contract import BundleIdentity, SlidePrediction


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
        return identity.device_uid(self.bundle.digest, self.bundle.configuration_digest)

    @property
    def is_complete(self) -> bool:
        """Bare glass is nothing that a slide's analysis leaves out."""
        return True

    def uid(self, kind: str, ordinal: int = 0) -> str:
        """Give the UID of a thing made from the slide; later revisions make other objects."""
        kind = kind if self.revision == 1 else f"{kind}.revision-{self.revision}"
        uids = [self.prediction.sop_instance_uid]
        return identity.uid_for(kind, self.bundle.digest, self.bundle.configuration_digest, uids, ordinal)

    def tracking_uid(self) -> str:
        """Give the tracking UID of the slide's score; it stays through revisions."""
        bundle = self.bundle
        uids = [self.prediction.sop_instance_uid]
        return identity.uid_for("tracking.slide", bundle.digest, bundle.configuration_digest, uids)


def build_slide(context: SlideContext) -> tuple[BuiltObject, ...]:
    """Build the results of one slide.

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
    tracking_uid = context.tracking_uid()
    prediction = context.prediction
    patches = slide_segmentation.build(context, prediction, context.placement, tracking_uid)
    overlay = finished("slide_segmentation", patches, context)
    corners = context.placement.outline(context.analysed)
    report = slide_report.build(context, prediction, corners, tracking_uid, overlay)
    return (overlay, finished("slide_report", report, context))
