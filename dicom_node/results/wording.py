"""What the reports say in words: short sentences that a radiologist reads, in ASCII.

A study that was not analysed, or not wholly, must never read like a normal one.
"""

from __future__ import annotations

from dicom_node.results.context import Analysis, ResultContext
from models.contract import (
    BreastScore,
    BundleIdentity,
    ClassScore,
    ImageScore,
    Laterality,
    LesionMark,
    Outcome,
    Refusal,
    SlideStudyPrediction,
    StudyPrediction,
)

_VIEWS = ("CC", "MLO")
STANDARD_VIEWS = tuple((side, view) for side in Laterality for view in _VIEWS)
"""Side and view of the four images that a mammography task scores, in the order of reports."""

SIDE_NAMES = {Laterality.RIGHT: "Right", Laterality.LEFT: "Left"}
"""How reports name the breasts, in their order."""

_MOST_DECIMALS = 6


def percent(probability: float, threshold: float) -> str:
    """Write a probability so that rounding never moves it to the other side of the threshold.

    Parameters
    ----------
    probability, threshold : float
        0..1.

    Returns
    -------
    str
        Such as ``"87.0 %"``.
    """
    return f"{probability * 100:.{_decimals(probability, threshold)}f} %"


def impression(context: ResultContext) -> list[str]:
    """Give the sentences that a reader must see first: result, what it leaves out, standing, revision."""
    prediction = context.prediction
    sentences = [result(prediction, prediction.target)]
    if prediction.outcome is Outcome.PARTIAL:
        sentences.append(f"Not analysed: {_left_out(context)}.")
    return sentences + standing(context, prediction.outcome, "a radiologist")


def result(prediction: StudyPrediction | SlideStudyPrediction, target: str) -> str:
    """Give the sentence that every report begins with; `target` is what the probability is of."""
    score = prediction.study_probability
    if score is None:
        return "AI result: NONE. The study was not scored; this does not mean that it is normal."
    value = compared(score, prediction.threshold)
    if prediction.outcome is Outcome.PARTIAL:
        word = "POSITIVE, but INCOMPLETE" if prediction.is_positive else "INCOMPLETE"
        return f"AI result: {word}. Probability of {target} in what was analysed {value}."
    word = "POSITIVE" if prediction.is_positive else "NEGATIVE"
    return f"AI result: {word}. Probability of {target} {value}."


def standing(context: Analysis, outcome: Outcome, readers: str) -> list[str]:
    """Say what a report may not be taken for, that none of `readers` verified it, and what it replaces."""
    sentences = [f"Not verified by {readers}."]
    if outcome is not Outcome.SCORED:
        sentences.insert(0, "What was not analysed may contain disease.")
    if context.bundle.demonstration:
        sentences.append("Demonstration model, not for clinical use.")
    if context.predecessors:
        sentences.append(
            f"Revision {context.revision} of this AI report; it replaces the earlier AI report of the study."
        )
    return sentences


def breasts(context: ResultContext) -> list[str]:
    """Give one sentence for each breast of a scored study: its score, and of each view the score or none."""
    prediction = context.prediction
    if prediction.outcome is Outcome.REFUSED:
        return []
    scored = {breast.laterality: breast for breast in prediction.breasts}
    return [_breast(context, side, scored.get(side)) for side in Laterality]


def _breast(context: ResultContext, side: Laterality, breast: BreastScore | None) -> str:
    if breast is None:
        return f"{SIDE_NAMES[side]} breast: not analysed."
    prediction = context.prediction
    said = dict.fromkeys(_VIEWS, "not analysed")
    for score in prediction.images:
        if score.laterality is side:
            said[score.view] = percent(score.probability, prediction.threshold)
    views = ", ".join(f"{view} {words}" for view, words in said.items())
    value = percent(breast.probability, prediction.threshold)
    return f"{SIDE_NAMES[side]} breast: probability of {prediction.target} {value} ({views})."


def refusals(context: ResultContext) -> list[str]:
    """Give one sentence for each refusal, in their order."""
    return [f"{refusal(context.prediction, one)}." for one in context.prediction.refusals]


def refusal(prediction: StudyPrediction, refusal: Refusal) -> str:
    """Say why something was not scored; no full stop at the end.

    A study may hold several images of one side and view. The refusal of one of them must not read as if the
    view had no score.
    """
    for score in prediction.images:
        if (score.laterality, score.view) == (refusal.laterality, refusal.view):
            return f"A further {place(score)} image not analysed: {refusal.reason}"
    return refusal.sentence


def findings(context: ResultContext) -> list[str]:
    """Give one sentence for each image with classes, and for each with marked places."""
    threshold = context.prediction.threshold
    sentences = []
    for score in context.prediction.images:
        if score.classes:
            sentences.append(f"{place(score)}: most probable finding {_class(score.classes[0])}.")
        if score.marks and context.bundle.localises:
            marks = "; ".join(mark(number, m, threshold) for number, m in enumerate(score.marks, start=1))
            sentences.append(f"{place(score)}: places marked: {marks}.")
    return sentences


def image(context: ResultContext, score: ImageScore) -> str:
    """Give one sentence for one image scored, such as ``"R CC: probability of cancer 91.0 %, at or ..."``."""
    value = compared(score.probability, context.prediction.threshold)
    return f"{place(score)}: probability of {context.prediction.target} {value}."


def beside_image(context: ResultContext, score: ImageScore) -> list[str]:
    """Give short lines about one image scored, to stand in the air beside the breast."""
    threshold = context.prediction.threshold
    side = "at or above" if score.probability >= threshold else "below"
    limit = f"{threshold * 100:.{_decimals(score.probability, threshold)}f} %"
    return [
        f"AI: probability of {context.prediction.target} {percent(score.probability, threshold)}",
        f"{side} the threshold of {limit}",
        "Not verified by a radiologist",
        *(["Study not analysed completely"] if context.prediction.outcome is not Outcome.SCORED else []),
        *(["Demonstration, not for clinical use"] if context.bundle.demonstration else []),
    ]


def mark(number: int, mark: LesionMark, threshold: float) -> str:
    """Give the label of one marked place, such as ``"AI 1: 87.0 %"``, with what it is taken for."""
    finding = f", {mark.finding.meaning}" if mark.finding else ""
    return f"AI {number}: {percent(mark.probability, threshold)}{finding}"


def headline(context: ResultContext) -> str:
    """Give the result of a scored study in one short line."""
    prediction = context.prediction
    score = prediction.study_probability or 0.0
    decimals = _decimals(score, prediction.threshold)
    words = [
        f"AI {'POSITIVE' if prediction.is_positive else 'NEGATIVE'}",
        *(["INCOMPLETE"] if prediction.outcome is not Outcome.SCORED else []),
        f"probability of {prediction.target} {score * 100:.{decimals}f} % "
        f"(threshold {prediction.threshold * 100:.{decimals}f} %)",
        "not verified by a radiologist",
        *(["demonstration model"] if context.bundle.demonstration else []),
    ]
    return ", ".join(words)


def model(context: ResultContext) -> str:
    """Name the model that answered."""
    return model_of(context.bundle)


def model_of(bundle: BundleIdentity) -> str:
    """Name a model: name, version, and the first digits of its digest in brackets."""
    return f"AI model {bundle.name}, version {bundle.version} ({bundle.digest[:12]})."


def parameters(threshold: float) -> str:
    """Give Algorithm Parameters, which reports and segmentations state alike."""
    return f"decision threshold {threshold:.4f}"


def place(score: ImageScore) -> str:
    """Name an image as radiologists do, such as ``"R MLO"``."""
    return f"{score.laterality} {score.view}"


def _class(score: ClassScore) -> str:
    meaning = score.finding.meaning
    words = meaning[:1].lower() + meaning[1:]
    if score.margins:
        # PS3.16 CID 6006 calls margins "Spiculated lesion"; here they follow the name of the lesion.
        words += f", {score.margins.meaning.removesuffix(' lesion').lower()}"
    return f"{words} ({score.probability * 100:.1f} %)"


def _decimals(probability: float, threshold: float) -> int:
    # The reader compares the two numbers printed: they must stand to each other as the exact ones do.
    for decimals in range(1, _MOST_DECIMALS):
        shown, limit = (round(value * 100, decimals) for value in (probability, threshold))
        if (shown >= limit) == (probability >= threshold):
            return decimals
    return _MOST_DECIMALS


def compared(probability: float, threshold: float) -> str:
    """Say a probability and on which side of the threshold it lies."""
    limit = f"threshold of {threshold * 100:.{_decimals(probability, threshold)}f} %"
    side = "at or above" if probability >= threshold else "below"
    return f"{percent(probability, threshold)}, {side} the {limit}"


def _left_out(context: ResultContext) -> str:
    """Name the standard views without a score; where all have one, further images are what was left out."""
    scored = {(score.laterality, score.view) for score in context.prediction.images}
    places = [f"{side} {view}" for side, view in STANDARD_VIEWS if (side, view) not in scored]
    return ", ".join(places) or "further images of the study, named below"
