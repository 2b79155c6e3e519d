"""Which breast, which view, and what else a mammogram's header says that decides who may read it.

Pure reading of a header: no pixels, no files. The listener uses it for routing, the image reader for the
gate. A header that contradicts the standard gives None or no trait, never an exception: refusing is the
gate's business.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from pydicom.dataset import Dataset
from pydicom.uid import (
    BreastProjectionXRayImageStorageForPresentation,
    BreastProjectionXRayImageStorageForProcessing,
    BreastTomosynthesisImageStorage,
    DigitalMammographyXRayImageStorageForPresentation,
    DigitalMammographyXRayImageStorageForProcessing,
)

from dicom_node.header_values import items, text, texts
from models.contract import ImageTrait, Laterality

ROUTING_KEYWORDS = (
    "SOPClassUID",
    "ImageType",
    "PresentationIntentType",
    "BodyPartExamined",
    "PartialView",
    "EstimatedRadiographicMagnificationFactor",
    "AcquisitionDeviceProcessingDescription",
    "ViewPosition",
    "Laterality",
    "ImageLaterality",
    "NumberOfFrames",
    "BreastImplantPresent",
    "ViewCodeSequence",
    "ViewModifierCodeSequence",
    "SharedFunctionalGroupsSequence",
)
"""Every top-level element that :func:`routing_facts` looks at."""

# CID 4014 View for Mammography: SNOMED CT codes and the SNOMED-RT ones they replaced (PS3.16).
_VIEWS = {
    "399162004": "CC",
    "R-10242": "CC",
    "399368009": "MLO",
    "R-10226": "MLO",
    "399260004": "ML",
    "R-10224": "ML",
    "399352003": "LM",
    "R-10228": "LM",
    "399192008": "XCCL",
    "R-1024A": "XCCL",
}
_STANDARD_VIEWS = {"CC", "MLO"}
_SPECIMEN_VIEWS = {"127457009", "G-8310"}
_SNOMED_SCHEMES = {"SCT", "SRT", "SNM3", "99SDM"}

# CID 4015 View Modifier for Mammography.
_MAGNIFICATION = {"399163009", "R-102D6"}
_SPOT_COMPRESSION = {"399055006", "R-102D7"}
_IMPLANT_DISPLACED = {"399209000", "R-102D5"}
# Modifiers that keep the whole breast in the picture; every other one makes a view of its own.
_NIPPLE_IN_PROFILE = {"442581004"}
_KEEPS_THE_VIEW = _MAGNIFICATION | _SPOT_COMPRESSION | _IMPLANT_DISPLACED | _NIPPLE_IN_PROFILE

# A contact mammogram is magnified up to about 1.1 by the distance of breast and detector.
_MAGNIFIED_FROM = 1.4
_TOMOSYNTHESIS_CLASSES = {
    BreastTomosynthesisImageStorage,
    BreastProjectionXRayImageStorageForPresentation,
    BreastProjectionXRayImageStorageForProcessing,
}


@dataclass(frozen=True, slots=True)
class MammographyFacts:
    """What a header says about its image.

    Attributes
    ----------
    laterality : Laterality or None
        Side; None where it is absent, both or unknown.
    view : str or None
        ``"CC"`` or ``"MLO"``; None for every other view, also for an exaggerated, rolled or tangential one.
    traits : frozenset of ImageTrait
        What a task's gate may have to refuse.
    for_presentation : bool
        Whether the image is meant to be read: Presentation Intent Type (0008,0068), or else the SOP class.
    """

    laterality: Laterality | None
    view: str | None
    traits: frozenset[ImageTrait]
    for_presentation: bool


def routing_facts(header: Dataset) -> MammographyFacts:
    """Read side, view and traits.

    Parameters
    ----------
    header : pydicom.dataset.Dataset
        At least the elements of :data:`ROUTING_KEYWORDS` that the object has.

    Returns
    -------
    MammographyFacts
        For an object of another modality, whatever of it applies.
    """
    modifiers = view_modifiers(header)
    view = named_view(header)
    return MammographyFacts(
        laterality=_laterality(header),
        view=view if view in _STANDARD_VIEWS else None,
        traits=frozenset(_traits(header, modifiers)),
        for_presentation=_is_for_presentation(header),
    )


def named_view(header: Dataset) -> str | None:
    """Give the view by its usual name: ``"CC"``, ``"MLO"``, ``"ML"``, ``"LM"`` or ``"XCCL"``.

    None for any other, also where a modifier makes another view of it (rolled, tangential).
    """
    if view_modifiers(header) - _KEEPS_THE_VIEW:
        return None
    codes = list(_snomed_codes(items(header, "ViewCodeSequence")))
    if codes:
        return _VIEWS.get(codes[0])
    position = text(header, "ViewPosition")
    return position if position in _VIEWS.values() else None


def view_modifiers(header: Dataset) -> frozenset[str]:
    """Give the SNOMED codes, new and former ones, of what modifies the view (PS3.16 CID 4015)."""
    return frozenset(_modifiers(header))


def _number(header: Dataset, keyword: str) -> float:
    try:
        return float(text(header, keyword))
    except ValueError:
        return 0.0


def _laterality(header: Dataset) -> Laterality | None:
    frames = [
        anatomy
        for group in items(header, "SharedFunctionalGroupsSequence")
        for anatomy in items(group, "FrameAnatomySequence")
    ]
    stated = [text(header, "ImageLaterality"), *(text(frame, "FrameLaterality") for frame in frames)]
    # Laterality (0020,0060) speaks of the series' body part and is asked last.
    side = next((each for each in [*stated, text(header, "Laterality")] if each), "")
    return Laterality(side) if side in {"R", "L"} else None


def _snomed_codes(coded: list[Dataset]) -> Iterator[str]:
    for item in coded:
        if text(item, "CodingSchemeDesignator") in _SNOMED_SCHEMES:
            yield text(item, "CodeValue")


def _modifiers(header: Dataset) -> Iterator[str]:
    # PS3.3 C.8.11.7 nests the modifiers in the view's item; some devices leave them beside it.
    yield from _snomed_codes(items(header, "ViewModifierCodeSequence"))
    for view in items(header, "ViewCodeSequence"):
        yield from _snomed_codes(items(view, "ViewModifierCodeSequence"))


def _is_for_presentation(header: Dataset) -> bool:
    intent = text(header, "PresentationIntentType")
    if intent:
        return intent == "FOR PRESENTATION"
    return text(header, "SOPClassUID") == DigitalMammographyXRayImageStorageForPresentation


def _traits(header: Dataset, modifiers: frozenset[str]) -> Iterator[ImageTrait]:
    sop_class = text(header, "SOPClassUID")
    image_type = texts(header, "ImageType")
    views = frozenset(_snomed_codes(items(header, "ViewCodeSequence")))
    device = text(header, "AcquisitionDeviceProcessingDescription")
    magnification = _number(header, "EstimatedRadiographicMagnificationFactor")
    named = "\\".join(image_type)
    said = {
        ImageTrait.FOR_PROCESSING: text(header, "PresentationIntentType") == "FOR PROCESSING"
        or sop_class == DigitalMammographyXRayImageStorageForProcessing,
        ImageTrait.IMPLANT: text(header, "BreastImplantPresent") == "YES"
        and not modifiers & _IMPLANT_DISPLACED,
        ImageTrait.MAGNIFICATION: bool(modifiers & _MAGNIFICATION) or magnification > _MAGNIFIED_FROM,
        ImageTrait.SPOT_COMPRESSION: bool(modifiers & _SPOT_COMPRESSION),
        ImageTrait.PARTIAL_VIEW: text(header, "PartialView") == "YES",
        ImageTrait.TOMOSYNTHESIS: sop_class in _TOMOSYNTHESIS_CLASSES
        or _number(header, "NumberOfFrames") > 1,
        ImageTrait.SYNTHETIC_2D: "GENERATED_2D" in named,
        ImageTrait.SPECIMEN: "SPECIMEN" in named
        or bool(views & _SPECIMEN_VIEWS)
        or text(header, "BodyPartExamined") == "SPECIMEN",
        ImageTrait.BIOPSY: any(word in named for word in ("STEREO", "BIOPSY")) or "BIOPSY" in device,
    }
    return (trait for trait, is_said in said.items() if is_said)
