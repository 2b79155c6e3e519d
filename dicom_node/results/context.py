"""The values that go into a result object and come out of building one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from datetime import UTC, datetime, tzinfo
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from dicom_node.errors import ResultError
from dicom_node.mammography_views import named_view, routing_facts
from dicom_node.results import identity
from dicom_node.results.source import bear_several_patient_ids
from models.contract import CANCER, BundleIdentity, ImageScore, Laterality, Outcome, StudyPrediction

_SR_DOCUMENTS = "1.2.840.10008.5.1.4.1.1.88."
_KEY_OBJECT_SELECTION = "1.2.840.10008.5.1.4.1.1.88.59"


@dataclass(frozen=True, slots=True)
class NodeIdentity:
    """Who made the objects: this installation. Every value is ASCII, at most 64 characters.

    Attributes
    ----------
    ae_title : str
        The node's AE title, at most 16 characters.
    serial_number : str
        Device Serial Number (0018,1000): what tells this installation from others.
    manufacturer : str
        Who makes the node's software.
    software_version : str
        The node's own version, such as ``"dicom-node 0.1.0"``.
    institution_name : str
        Institution Name (0008,0080), may be empty.
    station_name : str
        Station Name (0008,1010), at most 16 characters; the AE title where empty.
    """

    ae_title: str
    serial_number: str
    manufacturer: str
    software_version: str
    institution_name: str = ""
    station_name: str = ""


@dataclass(frozen=True, slots=True)
class PredecessorDocument:
    """An object of an earlier revision, which the new ones replace."""

    sop_class_uid: str
    sop_instance_uid: str
    series_instance_uid: str
    study_instance_uid: str

    @property
    def is_report(self) -> bool:
        """Whether a report may name it as predecessor: an SR document (PS3.3 C.17.2, (0040,A360))."""
        return self.sop_class_uid.startswith(_SR_DOCUMENTS) and self.sop_class_uid != _KEY_OBJECT_SELECTION


@dataclass(frozen=True, slots=True)
class BuiltObject:
    """One finished result object.

    Attributes
    ----------
    kind : str
        A key of :data:`dicom_node.results.builders.RESULT_BUILDERS`.
    sop_class_uid, sop_instance_uid, series_instance_uid, study_instance_uid, transfer_syntax_uid : str
        What delivery and the database need without opening the content.
    content : bytes
        The whole Part 10 file; the same bytes whenever it is built again from the same context.
    referenced_sop_instance_uids : tuple of str
        The images it speaks about.
    """

    kind: str
    sop_class_uid: str
    sop_instance_uid: str
    series_instance_uid: str
    study_instance_uid: str
    transfer_syntax_uid: str
    content: bytes
    referenced_sop_instance_uids: tuple[str, ...]


class Analysis(Protocol):
    """What the header and the observer of every result are made from, whatever was analysed."""

    @property
    def sources(self) -> tuple[Dataset, ...]:
        """Headers of what was analysed; the first one's patient and study are those of the results."""

    @property
    def bundle(self) -> BundleIdentity:
        """Which model answered."""

    @property
    def node(self) -> NodeIdentity:
        """Which installation says so."""

    @property
    def analysed_at(self) -> datetime:
        """The persisted start of the first analysis, with a time zone."""

    @property
    def revision(self) -> int:
        """The study revision, 1 at first."""

    @property
    def predecessors(self) -> tuple[PredecessorDocument, ...]:
        """What the results replace."""

    @property
    def default_zone(self) -> tzinfo:
        """Zone of the site, where the images name none."""

    @property
    def device_uid(self) -> str:
        """Device UID of the algorithm."""

    @property
    def is_complete(self) -> bool:
        """Whether everything that was to be analysed was."""

    def uid(self, kind: str, ordinal: int = 0) -> str:
        """Give the UID of a thing made from the analysis."""


@dataclass(frozen=True, slots=True)
class ResultContext:
    """Everything that the results of one study revision are made from.

    Attributes
    ----------
    sources : tuple of pydicom.dataset.Dataset
        Headers, without pixel data, of all the revision's images, in order. Read them and leave them
        alone: elements that nobody has decoded are copied byte for byte.
    prediction : models.contract.StudyPrediction
        What the model said.
    bundle : models.contract.BundleIdentity
        Which model said it.
    node : NodeIdentity
        Which installation says so.
    analysed_at : datetime.datetime
        The persisted start of the first analysis, with a time zone. Every time in the objects is this one.
    revision : int
        The study revision, 1 at first.
    predecessors : tuple of PredecessorDocument
        The reports of the revision that this one replaces.
    default_zone : datetime.tzinfo
        Zone of the site, used where the images name none.
    input_uids : tuple of str
        SOP Instance UIDs of everything that the revision holds, also of what could not be read: results of
        another set of inputs are other objects. Empty for those of the sources.
    renderings : mapping of str to numpy.ndarray
        By SOP Instance UID, each scored image as a display shows it: ``(rows, columns)`` uint16 P-values, 0
        is black. Only the kinds that draw pictures look at them; they refuse an image that is not here.

    Raises
    ------
    ResultError
        When the values contradict one another.
    """

    sources: tuple[Dataset, ...]
    prediction: StudyPrediction
    bundle: BundleIdentity
    node: NodeIdentity
    analysed_at: datetime
    revision: int = 1
    predecessors: tuple[PredecessorDocument, ...] = ()
    default_zone: tzinfo = UTC
    input_uids: tuple[str, ...] = ()
    renderings: Mapping[str, NDArray[np.uint16]] = field(default_factory=dict, repr=False, compare=False)

    def __post_init__(self) -> None:
        if not self.sources:
            raise ResultError("no source images were given; pass the headers of the revision's images")
        if self.analysed_at.tzinfo is None:
            raise ResultError("analysed_at has no time zone; pass the persisted UTC start of the analysis")
        if len({str(source.StudyInstanceUID) for source in self.sources}) != 1:
            raise ResultError("the source images belong to several studies; build one study at a time")
        if self.prediction.images and bear_several_patient_ids(self.sources):
            raise ResultError("the source images bear different Patient IDs; refuse them all")
        if self.input_uids and not {str(s.SOPInstanceUID) for s in self.sources} <= set(self.input_uids):
            raise ResultError("a source image is not among the revision's inputs")
        self._check_names()
        self._check_scores()

    def _check_names(self) -> None:
        texts = {f.name: (getattr(self.node, f.name), 64) for f in fields(self.node)}
        for short in ("ae_title", "station_name"):
            texts[short] = (texts[short][0], 16)
        texts |= {f"bundle {n}": (getattr(self.bundle, n), 64) for n in ("name", "version", "manufacturer")}
        optional = ("institution_name", "station_name")
        for name, (text, limit) in texts.items():
            # PS3.5 6.2: the source's character set is kept, and only ASCII is in every one of them.
            if not text.isascii() or "\\" in text or len(text) > limit or (not text and name not in optional):
                raise ResultError(f"{name} must be ASCII text of 1 to {limit} characters without backslash")

    def _check_scores(self) -> None:
        prediction = self.prediction
        refused = prediction.outcome is Outcome.REFUSED
        scores = (prediction.images, prediction.breasts, prediction.study_probability is not None)
        if any(bool(score) == refused for score in scores):
            raise ResultError("the outcome contradicts the scores: a refused study has none, others have all")
        if prediction.outcome is not Outcome.SCORED and not prediction.refusals:
            raise ResultError("no refusal says why images were not scored")
        known = {str(source.SOPInstanceUID) for source in self.sources}
        named = {score.sop_instance_uid for score in prediction.images}
        named |= {refusal.sop_instance_uid for refusal in prediction.refusals if refusal.sop_instance_uid}
        if named - known:
            raise ResultError(f"{len(named - known)} images of the prediction are not among the sources")
        for score in prediction.images:
            self._check_score(score)

    def _check_score(self, score: ImageScore) -> None:
        source, region = self.source(score.sop_instance_uid), score.region
        across = 0 <= region.left < region.right <= source.get("Columns", 0)
        down = 0 <= region.top < region.bottom <= source.get("Rows", 0)
        if not (across and down and 0 <= score.probability <= 1):
            raise ResultError("a score has a region outside its image or a probability outside 0..1")

    @property
    def is_about_cancer(self) -> bool:
        """Whether the probabilities are those of cancer: only these may be coded as such."""
        return self.prediction.target == CANCER

    @property
    def is_complete(self) -> bool:
        """Whether every image that the task wants was scored."""
        return self.prediction.outcome is Outcome.SCORED

    @property
    def device_uid(self) -> str:
        """Device UID of the algorithm."""
        return identity.device_uid(self.bundle)

    def source(self, sop_instance_uid: str) -> Dataset:
        """Give the header of one image of the revision."""
        return next(s for s in self.sources if s.SOPInstanceUID == sop_instance_uid)

    def side_and_view(self, source: Dataset) -> tuple[Laterality | None, str | None]:
        """Give the side and the view that an image was scored under, else those that its header states.

        Results speak of one image under one name: a header may state its side in more than one place.
        """
        for score in self.prediction.images:
            if score.sop_instance_uid == source.SOPInstanceUID:
                return score.laterality, score.view
        return routing_facts(source).laterality, named_view(source)

    def uid(self, kind: str, ordinal: int = 0) -> str:
        """Give the UID of a thing made from the whole revision."""
        uids = self.input_uids or tuple(str(source.SOPInstanceUID) for source in self.sources)
        return identity.uid_for(kind, self.bundle, uids, ordinal, revision=self.revision)

    def tracking_uid(self, sop_instance_uid: str, band: int = 0) -> str:
        """Give the tracking UID of what the model says of one image; it stays through revisions.

        Parameters
        ----------
        sop_instance_uid : str
            The image.
        band : int, optional
            Evidence band with an identity of its own; 0 for that of the image's measurement group.
        """
        return identity.uid_for("tracking", self.bundle, [sop_instance_uid], band)


@dataclass(frozen=True, slots=True)
class BuildOrder:
    """What one builder gets to work with.

    Attributes
    ----------
    context : ResultContext
        What to speak about.
    siblings : tuple of BuiltObject
        What the builders before it have made of the same context.
    """

    context: ResultContext
    siblings: tuple[BuiltObject, ...] = ()
