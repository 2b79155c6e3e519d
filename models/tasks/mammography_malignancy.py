"""Is there a malignancy in this mammogram? Four standard For Presentation views, scored one by one.

The gate refuses what the network was not made for, each with one coded reason, in the order of the tables
below; it never guesses a missing side or view.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING

from models.contract import CodedConcept, ImageTrait, ImageView, Laterality, Refusal, RefusalCode
from models.errors import NoBreastError
from models.tasks import GateVerdict, Task

if TYPE_CHECKING:
    from models.preprocessing import Breast

_FOR_PRESENTATION = "1.2.840.10008.5.1.4.1.1.1.2"  # Digital Mammography X-Ray Image, For Presentation
_FOR_PROCESSING = "1.2.840.10008.5.1.4.1.1.1.2.1"  # Digital Mammography X-Ray Image, For Processing
_TOMOSYNTHESIS = "1.2.840.10008.5.1.4.1.1.13.1.3"  # Breast Tomosynthesis Image

_Place = tuple[Laterality | None, str | None]  # side and view

_STANDARD_VIEWS = (
    (Laterality.RIGHT, "CC"),
    (Laterality.RIGHT, "MLO"),
    (Laterality.LEFT, "CC"),
    (Laterality.LEFT, "MLO"),
)

_REFUSED_CLASSES = {
    _FOR_PROCESSING: RefusalCode.FOR_PROCESSING,
    _TOMOSYNTHESIS: RefusalCode.TOMOSYNTHESIS,
}

# Kind of object first, then what was imaged, then how much of it.
_REFUSED_TRAITS = (
    (ImageTrait.FOR_PROCESSING, RefusalCode.FOR_PROCESSING),
    (ImageTrait.TOMOSYNTHESIS, RefusalCode.TOMOSYNTHESIS),
    (ImageTrait.SYNTHETIC_2D, RefusalCode.SYNTHETIC_2D),
    (ImageTrait.SPECIMEN, RefusalCode.SPECIMEN),
    (ImageTrait.BIOPSY, RefusalCode.BIOPSY),
    (ImageTrait.IMPLANT, RefusalCode.IMPLANT),
    (ImageTrait.MAGNIFICATION, RefusalCode.MAGNIFICATION_VIEW),
    (ImageTrait.SPOT_COMPRESSION, RefusalCode.SPOT_VIEW),
    (ImageTrait.PARTIAL_VIEW, RefusalCode.PARTIAL_VIEW),
)

# A study that also holds these is complete without them: beside a scored standard view they are extras.
_NEVER_WANTED = frozenset(
    {code for _, code in _REFUSED_TRAITS}
    | set(_REFUSED_CLASSES.values())
    | {RefusalCode.UNSUPPORTED_SOP_CLASS, RefusalCode.NON_STANDARD_VIEW, RefusalCode.DUPLICATE_VIEW}
)

_MINIMUM_SIDE = 256  # pixels; smaller ones are icons and screenshots
_BLANK_RANGE = 655  # P-values, 1 % of the scale; less is no image at all


def gate(views: Sequence[ImageView], unreadable: Sequence[Refusal]) -> GateVerdict:
    """Decide which images of a study are scored.

    Of several acceptable images of one side and view, the one with the highest SOP Instance UID is scored:
    devices count upwards, so that is mostly the repeat taken because the first was poor. A standard view is
    missing when no image of it is accepted and none is refused under its name.

    Parameters
    ----------
    views : sequence of ImageView
        Every image of the study that could be read, in any order.
    unreadable : sequence of Refusal
        One refusal for each image that could not.

    Returns
    -------
    GateVerdict
        Accepted images in the order R CC, R MLO, L CC, L MLO.
    """
    refusals = list(unreadable)
    accepted: dict[_Place, tuple[ImageView, Breast]] = {}
    for view in sorted(views, key=_uid_order, reverse=True):
        place = (view.laterality, view.view)
        found = _breast_or_reason_against(view)
        if not isinstance(found, RefusalCode) and place not in accepted:
            accepted[place] = (view, found)
        else:
            code = found if isinstance(found, RefusalCode) else RefusalCode.DUPLICATE_VIEW
            refusals.append(Refusal(code, view.sop_instance_uid, view.laterality, view.view))
    refusals.sort(key=_refusal_order)
    chosen = [accepted[place] for place in _STANDARD_VIEWS if place in accepted]
    return GateVerdict(
        accepted=tuple(view for view, _ in chosen),
        breasts=tuple(breast for _, breast in chosen),
        refusals=tuple(_about_the_study(accepted, refusals) + refusals),
        is_complete=len(accepted) == len(_STANDARD_VIEWS) and all(r.code in _NEVER_WANTED for r in refusals),
    )


def _breast_or_reason_against(view: ImageView) -> Breast | RefusalCode:
    """Return where the breast is, or the first reason why this image cannot be scored."""
    return _reason_in_header(view) or _breast_or_reason_in_pixels(view)


def _reason_in_header(view: ImageView) -> RefusalCode | None:
    if view.sop_class_uid in _REFUSED_CLASSES:
        return _REFUSED_CLASSES[view.sop_class_uid]
    if view.sop_class_uid != _FOR_PRESENTATION:
        return RefusalCode.UNSUPPORTED_SOP_CLASS
    for trait, code in _REFUSED_TRAITS:
        if trait in view.traits:
            return code
    if view.view not in ("CC", "MLO"):
        return RefusalCode.NON_STANDARD_VIEW
    if view.laterality is None:
        return RefusalCode.LATERALITY_MISSING
    return None


def _breast_or_reason_in_pixels(view: ImageView) -> Breast | RefusalCode:
    if min(view.rows, view.columns) < _MINIMUM_SIDE:
        return RefusalCode.IMAGE_TOO_SMALL
    if _is_blank(view):
        return RefusalCode.BLANK_IMAGE
    # Late: a listener knows the task and needs none of it.
    from models.preprocessing import find_breast

    try:
        breast = find_breast(view.pixels, view.padding)
    except NoBreastError:
        return RefusalCode.NO_BREAST_FOUND
    if breast.chest_wall_side not in (None, view.laterality):
        return RefusalCode.LATERALITY_CONTRADICTS_PIXELS
    return breast


def _is_blank(view: ImageView) -> bool:
    """Whether the image is constant: a decoder may return zeros without an error."""
    values = view.pixels if view.padding is None else view.pixels[~view.padding]
    return values.size == 0 or int(values.max()) - int(values.min()) < _BLANK_RANGE


def _about_the_study(accepted: Collection[_Place], refusals: list[Refusal]) -> list[Refusal]:
    if not accepted:
        return [Refusal(RefusalCode.NO_SCORABLE_IMAGE)]
    named = {(refusal.laterality, refusal.view) for refusal in refusals}
    missing = [place for place in _STANDARD_VIEWS if place not in accepted and place not in named]
    if not missing:
        return []
    return [Refusal(RefusalCode.VIEWS_MISSING, detail=", ".join(f"{side} {view}" for side, view in missing))]


def _uid_order(view: ImageView) -> tuple[tuple[int, int | str], ...]:
    """Order UIDs by their components' numbers, as the devices that count them up do."""
    parts = view.sop_instance_uid.split(".")
    return tuple((0, int(part)) if part.isdecimal() else (1, part) for part in parts)


def _refusal_order(refusal: Refusal) -> tuple[int, str, str, str]:
    place = (refusal.laterality, refusal.view)
    rank = [*_STANDARD_VIEWS, place].index(place)
    return rank, refusal.laterality or "", refusal.view or "", refusal.sop_instance_uid or ""


TASK = Task(
    name="mammography_malignancy",
    title="Mammography: malignancy",
    modality="MG",
    scored_sop_classes=frozenset({_FOR_PRESENTATION}),
    refused_sop_classes=MappingProxyType(_REFUSED_CLASSES),
    standard_views=_STANDARD_VIEWS,
    labels=(CodedConcept("254837009", "SCT", "Malignant neoplasm of breast"),),
    classes=("not_malignant", "malignant"),
    gate=gate,
)
