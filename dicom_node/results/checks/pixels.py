"""What compressed pixels of a result must be; native ones are told by their length."""

from __future__ import annotations

from collections.abc import Iterator

from pydicom.dataset import Dataset
from pydicom.encaps import generate_frames
from pydicom.uid import JPEG2000Lossless, RLELossless

from dicom_node.results.checks.rules import unless

_COLOURS = {RLELossless: "RGB", JPEG2000Lossless: "YBR_RCT"}


def is_compressed(instance: Dataset) -> bool:
    """Whether the pixels of a stored object are encapsulated."""
    meta = getattr(instance, "file_meta", None)
    return meta is not None and bool(meta.TransferSyntaxUID.is_encapsulated)


def faults_of_compressed(instance: Dataset) -> Iterator[str]:
    """Give what is wrong with encapsulated pixels: their syntax, their colours, or the number of frames."""
    syntax = instance.file_meta.TransferSyntaxUID
    colours = _COLOURS.get(syntax)
    yield from unless(colours is not None, "transfer syntax")
    if instance.get("SamplesPerPixel") == 3:
        yield from unless(instance.get("PhotometricInterpretation") == colours, "PhotometricInterpretation")
    wanted = int(instance.get("NumberOfFrames") or 1)
    try:
        found = sum(bool(frame) for frame in generate_frames(instance.PixelData, number_of_frames=wanted))
    except (ValueError, EOFError):
        found = 0
    yield from unless(found == wanted, "frames")
