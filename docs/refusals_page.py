"""The page of refusal codes: what each means stands in the code, what to do about it stands here."""

from __future__ import annotations

from collections.abc import Mapping

from reference_pages import code, table

from models.contract import REFUSAL_MEANINGS, RefusalCode
from models.tasks import all_tasks

WHAT_TO_DO: Mapping[RefusalCode, str] = {
    RefusalCode.FOR_PROCESSING: "let the scanner send For Presentation images, too",
    RefusalCode.UNSUPPORTED_SOP_CLASS: "nothing, unless the scanner can send the view as a mammogram",
    RefusalCode.IMPLANT: "a person reads the image",
    RefusalCode.MAGNIFICATION_VIEW: "a person reads the image; the study is scored by its standard views",
    RefusalCode.SPOT_VIEW: "a person reads the image; the study is scored by its standard views",
    RefusalCode.PARTIAL_VIEW: "a person reads the image",
    RefusalCode.TOMOSYNTHESIS: "send the 2D images as well; they are scored",
    RefusalCode.SYNTHETIC_2D: "send the 2D images of the detector as well; they are scored",
    RefusalCode.SPECIMEN: "nothing: the image shows no breast",
    RefusalCode.BIOPSY: "nothing: the image was made for the biopsy",
    RefusalCode.NON_STANDARD_VIEW: "nothing where it is one; else correct the view at the source, send anew",
    RefusalCode.LATERALITY_MISSING: "correct Image Laterality at the source and send under a new UID",
    RefusalCode.LATERALITY_CONTRADICTS_PIXELS: "look at the image: either the header is wrong, or the pixels",
    RefusalCode.DUPLICATE_VIEW: "nothing: the image with the highest SOP Instance UID was analysed",
    RefusalCode.VIEWS_MISSING: "send the missing views; the study is scored again",
    RefusalCode.BLANK_IMAGE: "look at the image; send it anew where it shows something",
    RefusalCode.NO_BREAST_FOUND: "look at the image: a test exposure, or a breast at no edge",
    RefusalCode.IMAGE_TOO_SMALL: "send the image in its own resolution, not an icon or a screenshot of it",
    RefusalCode.IMAGE_TOO_LARGE: "look whether Rows and Columns are true",
    RefusalCode.PIXEL_DATA: "send the image anew; where it stays so, show it to the vendor",
    RefusalCode.TRANSFER_SYNTAX: "let the scanner send another compression, or none",
    RefusalCode.UNREADABLE: "send the image anew; where it stays so, show it to the vendor",
    RefusalCode.DEVICE_NOT_VALIDATED: "use a bundle for this device; its card names the devices",
    RefusalCode.SEVERAL_PATIENTS: "find out whose images they are; correct them at the source, with new UIDs",
    RefusalCode.NO_SCORABLE_IMAGE: "look at the codes of the images",
    RefusalCode.NOT_SLIDE_TISSUE: "nothing: the study is complete without it",
    RefusalCode.SLIDE_OPTICS: "scan in bright field, in one plane",
    RefusalCode.SLIDE_PLACEMENT: "correct the header at the scanner",
    RefusalCode.SLIDE_RESOLUTION: "send a finer level of the slide",
    RefusalCode.OTHER_SLIDE_LEVEL: "nothing: another level was analysed",
    RefusalCode.NO_TISSUE: "look at the slide: it may be empty, or stained too faintly",
}


def refusal_codes() -> str:
    """Return why images and studies are not scored, and what to do."""
    tasks = [
        f"* `{task.name}`: {task.title}. Standard views: "
        + (", ".join(f"{side} {view}" for side, view in task.standard_views) or "none")
        + "."
        for task in all_tasks().values()
    ]
    rows = [(code(c.value), meaning, WHAT_TO_DO[c]) for c, meaning in REFUSAL_MEANINGS.items()]
    return "\n\n".join(
        [
            "# Refusal codes",
            "Why an image or a study was not scored: in the report, in `dicom-node job show`, in the audit "
            "trail. How to find out: [Why was a study not scored?](../how-to/why-not-scored.md)",
            table(("code", "meaning", "do this"), rows),
            "## Tasks\n" + "\n".join(tasks),
        ]
    )
