"""A bundle at work on whole slides: tiles in, a probability for each patch and each slide out.

Decides which level of a slide is read, which patches are scored, and what the slide's score is. A slide is
read in bands of one row of patches, so that memory does not grow with its height.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from models.calibration import probabilities
from models.classifier import Classifier, Stopwatch
from models.contract import (
    Outcome,
    Refusal,
    RefusalCode,
    SlidePrediction,
    SlideStudyPrediction,
    SlideView,
)
from models.errors import UnsupportedBundleError
from models.patches import PatchParameters, prepare_patch
from models.tasks import SlideReading

PATCHES_OF_SCORE = 10
"""The slide's probability is the mean of so many of its highest patches."""

_BATCH = 64
_COARSEST = 1.25  # times the task's pixel; a coarser level lacks detail that the network was trained on
_NO_PART = frozenset({RefusalCode.NOT_SLIDE_TISSUE, RefusalCode.OTHER_SLIDE_LEVEL})


@dataclass(frozen=True, slots=True)
class _Reader:
    """Who answers, and how its task and its bundle want slides read."""

    classifier: Classifier
    rule: SlideReading
    parameters: PatchParameters

    @classmethod
    def of(cls, classifier: Classifier) -> _Reader:
        parameters = classifier.bundle.manifest.preprocessing
        if classifier.task.slides is None or not isinstance(parameters, PatchParameters):
            raise UnsupportedBundleError("Slides need a bundle whose task and preprocessing are of patches.")
        return cls(classifier, classifier.task.slides, parameters)


@dataclass(frozen=True, slots=True)
class _Scale:
    """How patches are cut from a level: their side in its pixels, and how many there are."""

    side: int
    rows: int
    columns: int


def predict_slides(
    classifier: Classifier,
    views: Sequence[SlideView],
    unreadable: Sequence[Refusal],
    *,
    stopwatch: Stopwatch,
    refusal_of: Callable[[SlideView, Exception], Refusal | None] = lambda _view, _error: None,
) -> SlideStudyPrediction:
    """Score every slide of a study.

    Parameters
    ----------
    classifier : Classifier
        Who answers; of a task that reads slides.
    views : sequence of SlideView
        Every readable level of every slide, in any order.
    unreadable : sequence of Refusal
        One refusal for each image that could not be read.
    stopwatch : callable
        As for :func:`models.classifier.predict_study`; its stages are ``"decode"``, ``"preprocess"`` and
        ``"forward"``.
    refusal_of : callable
        Turns what reading a slide's tiles raised into a refusal of that slide; None passes the error on.

    Raises
    ------
    UnsupportedBundleError
        If the task or the bundle's preprocessing is not one of patches.
    """
    reader = _Reader.of(classifier)
    chosen, refusals = _chosen_levels(reader, views)
    refusals = [*unreadable, *refusals]
    slides = []
    for view in chosen:
        try:
            prediction = _slide(reader, view, stopwatch)
        except Exception as error:
            refusal = refusal_of(view, error)
            if refusal is None:
                raise
            refusals.append(refusal)
            continue
        if prediction is None:
            refusals.append(Refusal(RefusalCode.NO_TISSUE, view.sop_instance_uid))
        else:
            slides.append(prediction)
    refusals.sort(key=lambda refusal: refusal.sop_instance_uid or "")
    is_complete = bool(slides) and all(refusal.code in _NO_PART for refusal in refusals)
    if not slides:
        refusals.insert(0, Refusal(RefusalCode.NO_SCORABLE_IMAGE))
    outcome = Outcome.REFUSED if not slides else Outcome.SCORED if is_complete else Outcome.PARTIAL
    return SlideStudyPrediction(
        task=classifier.task.name,
        outcome=outcome,
        threshold=classifier.bundle.threshold,
        slides=tuple(slides),
        refusals=tuple(refusals),
    )


def slide_probability(patches: NDArray[np.float32]) -> float:
    """Return a slide's probability: the mean of its :data:`PATCHES_OF_SCORE` highest patches.

    One bright patch of many thousands is no finding, and the mean of all would drown a small tumour.

    Parameters
    ----------
    patches : numpy.ndarray
        Probabilities, 0..1, NaN where not analysed; at least one is not.
    """
    known = np.sort(patches[~np.isnan(patches)])[-PATCHES_OF_SCORE:]
    return float(known.mean(dtype=np.float64))


def _chosen_levels(reader: _Reader, views: Sequence[SlideView]) -> tuple[list[SlideView], list[Refusal]]:
    """Choose of each slide the coarsest level that is fine enough: the least to read."""
    coarsest = reader.rule.pixel_mm * _COARSEST
    chosen, refusals = [], []
    for slide_uid in sorted({view.slide_uid for view in views}):
        levels = [view for view in views if view.slide_uid == slide_uid]
        fine = [view for view in levels if view.spacing_mm <= coarsest]
        best = max(fine, key=lambda view: (view.spacing_mm, view.sop_instance_uid), default=None)
        code = RefusalCode.SLIDE_RESOLUTION if best is None else RefusalCode.OTHER_SLIDE_LEVEL
        refusals += [Refusal(code, view.sop_instance_uid) for view in levels if view is not best]
        chosen += [best] if best else []
    return sorted(chosen, key=lambda view: view.sop_instance_uid), refusals


def _slide(reader: _Reader, view: SlideView, stopwatch: Stopwatch) -> SlidePrediction | None:
    """Score one slide; None where it holds no tissue."""
    scale = _scale(reader, view)
    if scale is None:
        return None
    patches = np.full((scale.rows, scale.columns), np.nan, np.float32)
    for row in range(scale.rows):
        with stopwatch("decode"):
            band = view.read(row * scale.side, (row + 1) * scale.side)
        patches[row] = _band_probabilities(reader, band, scale, stopwatch)
    if np.isnan(patches).all():
        return None
    return SlidePrediction(
        task=reader.classifier.task.name,
        threshold=reader.classifier.bundle.threshold,
        probability=slide_probability(patches),
        patches=patches,
        patch_pixels=scale.side,
        sop_instance_uid=view.sop_instance_uid,
    )


def _scale(reader: _Reader, view: SlideView) -> _Scale | None:
    """Cut whole patches from the first pixel on; what the last row and column leave is not scored."""
    reduction = reader.rule.pixel_mm / view.spacing_mm
    side = max(1, round(reader.parameters.patch_pixels * reduction))
    rows, columns = view.rows // side, view.columns // side
    return _Scale(side, rows, columns) if rows and columns else None


def _band_probabilities(
    reader: _Reader, band: NDArray[np.uint8], scale: _Scale, stopwatch: Stopwatch
) -> NDArray[np.float32]:
    classifier, parameters = reader.classifier, reader.parameters
    found = np.full(scale.columns, np.nan, np.float32)
    with stopwatch("preprocess"):
        cut = _cut(band, scale, parameters.patch_pixels)
        tissue = np.flatnonzero(reader.rule.tissue(cut))
        tensors = [prepare_patch(cut[column], parameters) for column in tissue]
    with stopwatch("forward"):
        logits = [_logits(classifier, tensors[i : i + _BATCH]) for i in range(0, len(tensors), _BATCH)]
    if logits:
        found[tissue] = probabilities(np.concatenate(logits), classifier.bundle.manifest.temperature)
    return found


def _cut(band: NDArray[np.uint8], scale: _Scale, side: int) -> NDArray[np.uint8]:
    """Cut a band into patches of `side` pixels, ``(columns, side, side, 3)``."""
    band = np.ascontiguousarray(band[:, : scale.columns * scale.side])
    if scale.side != side:
        # The average over each pixel's area, as scanners make their levels.
        size = (scale.columns * side, side)
        band = np.asarray(Image.fromarray(band).resize(size, Image.Resampling.BOX))
    return band.reshape(side, scale.columns, side, 3).swapaxes(0, 1)


def _logits(classifier: Classifier, tensors: Sequence[NDArray[np.float32]]) -> NDArray[np.float32]:
    """Run one batch, always of the same shape: another one may round differently."""
    batch = np.zeros((_BATCH, *tensors[0].shape), np.float32)
    batch[: len(tensors)] = tensors
    logits, _ = classifier.forward(batch)
    return logits[: len(tensors), 0]
