"""The words that scoring and its neighbours share: images in, refusals and predictions out.

This module is all that the DICOM edges may import of :mod:`models`, but for the plain geometry of
:mod:`models.outlines`. It holds values, no behaviour beyond their own consistency, and imports neither torch
nor DICOM libraries.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    # Named here, never called: a listener knows these words and has no arrays.
    import numpy as np
    from numpy.typing import NDArray


class Laterality(StrEnum):
    """The side of the body, in the spelling of Image Laterality (0020,0062)."""

    RIGHT = "R"
    LEFT = "L"


class ImageTrait(StrEnum):
    """What an image's header says that a task's gate may have to refuse."""

    FOR_PROCESSING = "for_processing"  # Presentation Intent Type (0008,0068) is FOR PROCESSING
    IMPLANT = "implant"  # Breast Implant Present (0028,1300) is YES and the implant is not displaced
    MAGNIFICATION = "magnification"  # view modifier (399163009, SCT) or magnification factor > 1.4
    SPOT_COMPRESSION = "spot_compression"  # view modifier (399055006, SCT) or PartialView
    PARTIAL_VIEW = "partial_view"  # Partial View (0028,1350) is YES
    TOMOSYNTHESIS = "tomosynthesis"  # a Breast Tomosynthesis object or a multi-frame image
    SYNTHETIC_2D = "synthetic_2d"  # Image Type value 4 or so names GENERATED_2D
    SPECIMEN = "specimen"  # a specimen radiograph: Image Type or view modifier says so
    BIOPSY = "biopsy"  # Image Type or Acquisition Device says stereotactic / biopsy


class RefusalCode(StrEnum):
    """Why an image or a study was not scored. The value is stable: it is stored, reported and queried."""

    FOR_PROCESSING = "FOR_PROCESSING"
    UNSUPPORTED_SOP_CLASS = "UNSUPPORTED_SOP_CLASS"
    IMPLANT = "IMPLANT"
    MAGNIFICATION_VIEW = "MAGNIFICATION_VIEW"
    SPOT_VIEW = "SPOT_VIEW"
    PARTIAL_VIEW = "PARTIAL_VIEW"
    TOMOSYNTHESIS = "TOMOSYNTHESIS"
    SYNTHETIC_2D = "SYNTHETIC_2D"
    SPECIMEN = "SPECIMEN"
    BIOPSY = "BIOPSY"
    NON_STANDARD_VIEW = "NON_STANDARD_VIEW"
    LATERALITY_MISSING = "LATERALITY_MISSING"
    LATERALITY_CONTRADICTS_PIXELS = "LATERALITY_CONTRADICTS_PIXELS"
    DUPLICATE_VIEW = "DUPLICATE_VIEW"
    VIEWS_MISSING = "VIEWS_MISSING"
    BLANK_IMAGE = "BLANK_IMAGE"
    NO_BREAST_FOUND = "NO_BREAST_FOUND"
    IMAGE_TOO_SMALL = "IMAGE_TOO_SMALL"
    IMAGE_TOO_LARGE = "IMAGE_TOO_LARGE"
    PIXEL_DATA = "PIXEL_DATA"
    TRANSFER_SYNTAX = "TRANSFER_SYNTAX"
    UNREADABLE = "UNREADABLE"
    DEVICE_NOT_VALIDATED = "DEVICE_NOT_VALIDATED"
    SEVERAL_PATIENTS = "SEVERAL_PATIENTS"
    NO_SCORABLE_IMAGE = "NO_SCORABLE_IMAGE"
    NOT_SLIDE_TISSUE = "NOT_SLIDE_TISSUE"
    SLIDE_OPTICS = "SLIDE_OPTICS"
    SLIDE_PLACEMENT = "SLIDE_PLACEMENT"
    SLIDE_RESOLUTION = "SLIDE_RESOLUTION"
    OTHER_SLIDE_LEVEL = "OTHER_SLIDE_LEVEL"
    NO_TISSUE = "NO_TISSUE"


REFUSAL_MEANINGS: dict[RefusalCode, str] = {
    RefusalCode.FOR_PROCESSING: "raw image (For Processing); only For Presentation images are analysed",
    RefusalCode.UNSUPPORTED_SOP_CLASS: "kind of object that this model does not read",
    RefusalCode.IMPLANT: "breast implant present",
    RefusalCode.MAGNIFICATION_VIEW: "magnification view",
    RefusalCode.SPOT_VIEW: "spot compression view",
    RefusalCode.PARTIAL_VIEW: "partial view of the breast",
    RefusalCode.TOMOSYNTHESIS: "tomosynthesis or multi-frame image without a released model",
    RefusalCode.SYNTHETIC_2D: "synthetic 2D image without a released model",
    RefusalCode.SPECIMEN: "specimen radiograph",
    RefusalCode.BIOPSY: "biopsy guidance image",
    RefusalCode.NON_STANDARD_VIEW: "view is neither CC nor MLO",
    RefusalCode.LATERALITY_MISSING: "side of the breast is not stated",
    RefusalCode.LATERALITY_CONTRADICTS_PIXELS: "stated side contradicts the image",
    RefusalCode.DUPLICATE_VIEW: "another image of the same side and view was analysed",
    RefusalCode.VIEWS_MISSING: "standard views are missing",
    RefusalCode.BLANK_IMAGE: "image is blank",
    RefusalCode.NO_BREAST_FOUND: "no breast was found in the image",
    RefusalCode.IMAGE_TOO_SMALL: "image has too few pixels",
    RefusalCode.IMAGE_TOO_LARGE: "image has more pixels than the node decodes",
    RefusalCode.PIXEL_DATA: "pixel data is missing, damaged or contradicts its header",
    RefusalCode.TRANSFER_SYNTAX: "compression that the node cannot decode",
    RefusalCode.UNREADABLE: "image cannot be read",
    RefusalCode.DEVICE_NOT_VALIDATED: "made by a device that this model was not validated for",
    RefusalCode.SEVERAL_PATIENTS: "images of the study bear different Patient IDs",
    RefusalCode.NO_SCORABLE_IMAGE: "no image of the study could be analysed",
    RefusalCode.NOT_SLIDE_TISSUE: "label, overview or thumbnail of a slide",
    RefusalCode.SLIDE_OPTICS: "slide with several focal planes or optical paths, or not in colour",
    RefusalCode.SLIDE_PLACEMENT: "header does not say where the pixels lie on the slide",
    RefusalCode.SLIDE_RESOLUTION: "resolution of the slide is too low for the model",
    RefusalCode.OTHER_SLIDE_LEVEL: "another resolution of the same slide was analysed",
    RefusalCode.NO_TISSUE: "no tissue was found on the slide",
}
"""Each refusal in words for the report: ASCII, short, no patient data."""


@dataclass(frozen=True, slots=True)
class Refusal:
    """One coded reason why something was not scored.

    Attributes
    ----------
    code : RefusalCode
        The reason.
    sop_instance_uid : str or None
        The image concerned; None when it concerns the study.
    laterality : Laterality or None
        Side of the image concerned, where its header tells.
    view : str or None
        ``"CC"``, ``"MLO"`` or None.
    detail : str
        Optional addition, such as which views are missing. No patient data.
    """

    code: RefusalCode
    sop_instance_uid: str | None = None
    laterality: Laterality | None = None
    view: str | None = None
    detail: str = ""

    @property
    def sentence(self) -> str:
        """The refusal in words, such as ``"R MLO not analysed: breast implant present"``."""
        if self.sop_instance_uid is None:
            incomplete = self.code is RefusalCode.VIEWS_MISSING
            return f"{'Study incomplete' if incomplete else 'Study not scored'}: {self.reason}"
        return f"{self._image} not analysed: {self.reason}"

    @property
    def _image(self) -> str:
        if self.laterality and self.view:
            return f"{self.laterality} {self.view}"
        if self.laterality:
            # A side alone would read as if nothing of the breast had been analysed.
            return f"An image of the {'right' if self.laterality is Laterality.RIGHT else 'left'} breast"
        return f"An image ({self.view})" if self.view else "An image"

    @property
    def reason(self) -> str:
        """Why alone, such as ``"breast implant present"``."""
        meaning = REFUSAL_MEANINGS[self.code]
        return f"{meaning} ({self.detail})" if self.detail else meaning


@dataclass(frozen=True, slots=True)
class ImageView:
    """One image as a reader would see it on a display, and what its header says about it.

    Attributes
    ----------
    sop_instance_uid, sop_class_uid : str
        The image's identity.
    pixels : numpy.ndarray
        ``(rows, columns)`` uint16 P-values, 0 is black and 65535 white, after modality LUT, VOI,
        presentation LUT and MONOCHROME1 inversion (PS3.3 C.11, PS3.14).
    padding : numpy.ndarray or None
        ``(rows, columns)`` bool, True where Pixel Padding Value (0028,0120) says that there is no image.
    laterality : Laterality or None
        Image Laterality, None where absent or ``B``/``U``.
    view : str or None
        ``"CC"`` or ``"MLO"``; None for every other view.
    spacing_mm : tuple of float or None
        Row spacing and column spacing in the detector plane, millimetres.
    traits : frozenset of ImageTrait
        What the header says that a gate may refuse.
    """

    sop_instance_uid: str
    sop_class_uid: str
    pixels: NDArray[np.uint16]
    padding: NDArray[np.bool_] | None = None
    laterality: Laterality | None = None
    view: str | None = None
    spacing_mm: tuple[float, float] | None = None
    traits: frozenset[ImageTrait] = frozenset()

    @property
    def rows(self) -> int:
        """Number of rows of the source image."""
        return int(self.pixels.shape[0])

    @property
    def columns(self) -> int:
        """Number of columns of the source image."""
        return int(self.pixels.shape[1])


@dataclass(frozen=True, slots=True)
class Region:
    """An axis-aligned rectangle in a source image, in DICOM pixel coordinates.

    ``0\\0`` is the outer corner of the first pixel (PS3.3 C.10.5), so a region that covers the whole image
    is ``(0, 0, columns, rows)``.
    """

    left: float
    top: float
    right: float
    bottom: float


EVIDENCE_BANDS: tuple[tuple[float, float], ...] = ((0.30, 0.60), (0.60, 0.85), (0.85, 1.00))
"""Bounds of the evidence bands 1, 2, 3 as fractions of the map's own maximum."""


@dataclass(frozen=True, slots=True)
class CodedConcept:
    """A concept of a coding scheme, as in PS3.3 table 8.8-1: code value, scheme designator, meaning."""

    value: str
    scheme: str
    meaning: str


@dataclass(frozen=True, slots=True)
class ClassScore:
    """The calibrated probability (0..1) of one class of a task with several.

    Attributes
    ----------
    name : str
        The class's short name in the bundle, such as ``"SPIC"``.
    finding : CodedConcept
        What it is.
    margins : CodedConcept or None
        For masses: their margins (PS3.16 CID 6006).
    probability : float
        0..1; the classes of one image add up to 1.
    """

    name: str
    finding: CodedConcept
    margins: CodedConcept | None
    probability: float


@dataclass(frozen=True, slots=True)
class LesionMark:
    """One place that a bundle whose localisation was validated points at.

    Attributes
    ----------
    centre : tuple of float
        Column and row in DICOM pixel coordinates (``0\\0`` is the outer corner of the first pixel).
    outline : tuple of (float, float)
        Closed polygon in the same coordinates, first point not repeated, at least three points.
    probability : float
        Calibrated probability of what the task looks for, 0..1.
    finding : CodedConcept or None
        What it is taken for; None for a bundle that only tells malignant from not.
    """

    centre: tuple[float, float]
    outline: tuple[tuple[float, float], ...]
    probability: float
    finding: CodedConcept | None = None


@dataclass(frozen=True, slots=True)
class ImageScore:
    """What the network said about one image.

    Attributes
    ----------
    sop_instance_uid : str
        The image scored.
    laterality : Laterality
        Its side.
    view : str
        ``"CC"`` or ``"MLO"``.
    logit : float
        The network's raw output.
    probability : float
        Calibrated probability of what the task looks for, 0..1.
    region : Region
        The area of the source image that was fed to the network.
    evidence : numpy.ndarray or None
        ``(rows, columns)`` uint8 of the source image: 0 outside, 1..3 the band of
        :data:`EVIDENCE_BANDS`. None where the bundle's map is switched off or the score is below threshold.
    classes : tuple of ClassScore
        For tasks with several classes, most probable first; empty for a binary task.
    marks : tuple of LesionMark
        Only from bundles whose localisation was validated, and at or above the threshold.
    attention : numpy.ndarray or None
        ``(rows, columns)`` uint8 of the source image: the map as a share of its own maximum, 255 for the
        maximum. Only where somebody asked for it.
    frame : int or None
        For an image of several frames, the 1-based number of the one that was scored.
    """

    sop_instance_uid: str
    laterality: Laterality
    view: str
    logit: float
    probability: float
    region: Region
    evidence: NDArray[np.uint8] | None = None
    classes: tuple[ClassScore, ...] = ()
    marks: tuple[LesionMark, ...] = ()
    attention: NDArray[np.uint8] | None = None
    frame: int | None = None


@dataclass(frozen=True, slots=True)
class BreastScore:
    """Mean of the calibrated probabilities of one breast's views (0..1)."""

    laterality: Laterality
    probability: float
    sop_instance_uids: tuple[str, ...]


class Outcome(StrEnum):
    """How far the analysis of a study went."""

    SCORED = "scored"  # every image that the task wants was scored
    PARTIAL = "partial"  # some images were scored, others refused with a reason
    REFUSED = "refused"  # nothing was scored; the refusals say why


CANCER = "cancer"
"""The target whose probability reports may code as that of cancer."""


@dataclass(frozen=True, slots=True)
class StudyPrediction:
    """Everything one bundle said about one study revision.

    Attributes
    ----------
    task : str
        The task's name, such as ``"mammography_malignancy"``.
    outcome : Outcome
        How far the analysis went.
    threshold : float
        The bundle's operating point on the calibrated probability, 0..1.
    images : tuple of ImageScore
        In the order R CC, R MLO, L CC, L MLO.
    breasts : tuple of BreastScore
        Right first.
    study_probability : float or None
        Maximum over the breasts; None when refused.
    refusals : tuple of Refusal
        Every coded reason, study-wide ones first.
    target : str
        What the probabilities are probabilities of, as reports say it: :data:`CANCER`, ``"an abnormality"``.
    """

    task: str
    outcome: Outcome
    threshold: float
    images: tuple[ImageScore, ...] = ()
    breasts: tuple[BreastScore, ...] = ()
    study_probability: float | None = None
    refusals: tuple[Refusal, ...] = ()
    target: str = CANCER

    @property
    def is_positive(self) -> bool:
        """Whether the study's probability reaches the operating point."""
        return self.study_probability is not None and self.study_probability >= self.threshold


@dataclass(frozen=True, slots=True)
class SlideView:
    """One level of a whole-slide image, read band by band: a slide is larger than memory.

    Attributes
    ----------
    sop_instance_uid : str
        The image's identity.
    slide_uid : str
        What the levels of one slide share: their Frame of Reference UID (0020,0052).
    rows, columns : int
        Size of the total pixel matrix.
    spacing_mm : float
        Side of a pixel on the slide, millimetres; pixels are square.
    read : callable
        ``read(top, bottom)`` gives the rows `top` to `bottom` of the total pixel matrix, ``(bottom - top,
        columns, 3)`` uint8 RGB; white where the scanner left tiles out. Asked from top to bottom it decodes
        each tile once.
    """

    sop_instance_uid: str
    slide_uid: str
    rows: int
    columns: int
    spacing_mm: float
    read: Callable[[int, int], NDArray[np.uint8]]


@dataclass(frozen=True, slots=True)
class SlidePrediction:
    """Everything one bundle said about one whole-slide image.

    Attributes
    ----------
    task : str
        The task's name.
    threshold : float
        The bundle's operating point on the slide's calibrated probability, 0..1.
    probability : float
        Calibrated probability of the slide, 0..1.
    patches : numpy.ndarray
        ``(rows, columns)`` float32: the probability of each patch, 0..1, NaN where it was not analysed, such
        as on bare glass. The first patch starts at the first pixel of the total pixel matrix.
    patch_pixels : int
        Side of a patch in pixels of the image that was read.
    sop_instance_uid : str
        The image that was read, one level of the slide.
    """

    task: str
    threshold: float
    probability: float
    patches: NDArray[np.float32]
    patch_pixels: int
    sop_instance_uid: str


@dataclass(frozen=True, slots=True)
class SlideStudyPrediction:
    """Everything one bundle said about the slides of one study revision.

    Attributes
    ----------
    task : str
        The task's name.
    outcome : Outcome
        How far the analysis went.
    threshold : float
        The bundle's operating point on the calibrated probability, 0..1.
    slides : tuple of SlidePrediction
        One for each slide analysed, in the order of their SOP Instance UIDs.
    refusals : tuple of Refusal
        Every coded reason, study-wide ones first.
    """

    task: str
    outcome: Outcome
    threshold: float
    slides: tuple[SlidePrediction, ...] = ()
    refusals: tuple[Refusal, ...] = ()

    @property
    def study_probability(self) -> float | None:
        """Maximum over the slides; None when refused."""
        return max((slide.probability for slide in self.slides), default=None)

    @property
    def is_positive(self) -> bool:
        """Whether the study's probability reaches the operating point."""
        return self.study_probability is not None and self.study_probability >= self.threshold


@dataclass(frozen=True, slots=True)
class BundleIdentity:
    """Who answered: the identity of a released model, as every report names it.

    Attributes
    ----------
    name, version : str
        Name and version from the bundle's ``metadata.json``; ASCII, at most 64 characters.
    digest : str
        ``sha256`` hex digest of the bundle's content (its manifest).
    task : str
        The task it answers.
    manufacturer : str
        Who released it.
    demonstration : bool
        True for a bundle trained on phantoms: every report says that it is not for clinical use.
    localises : bool
        Whether its localisation was validated, so that it may point at places (marks, CAD findings).
    configuration_digest : str
        Digest of preprocessing parameters, temperature and operating points.
    """

    name: str
    version: str
    digest: str
    task: str
    manufacturer: str
    demonstration: bool
    configuration_digest: str = field(default="")
    localises: bool = False
