"""The same object in a lossless transfer syntax: another encoding of its pixels, and an identity of its own.

An archive may get both, the compressed one where it accepts its syntax and the native one where not; two
files under one UID would be taken for a conflict.
"""

from __future__ import annotations

from collections.abc import Callable

from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import UID, ExplicitVRLittleEndian, JPEG2000Lossless, RLELossless

from dicom_node.errors import ResultError
from dicom_node.results.context import BuildOrder

RLE, JPEG_2000 = "rle", "jpeg2000"
_SYNTAXES: dict[str, UID] = {RLE: RLELossless, JPEG_2000: JPEG2000Lossless}
_PLUGIN = "pylibjpeg"

Build = Callable[[BuildOrder], list[Dataset]]


def compressed(build: Build, name: str) -> Build:
    """Make a builder whose objects are those of another one, compressed.

    Parameters
    ----------
    build : callable
        Builds images or segmentations of 8 bits with native pixels.
    name : str
        :data:`RLE` or :data:`JPEG_2000`, both lossless.

    Returns
    -------
    callable
        A builder; it raises ResultError where the pixels cannot be compressed.
    """

    def build_compressed(order: BuildOrder) -> list[Dataset]:
        instances = build(order)
        for instance in instances:
            _compress(instance, _SYNTAXES[name])
            # UIDs of the native object are deterministic, and so are those made from them.
            for keyword in ("SOPInstanceUID", "SeriesInstanceUID"):
                native = str(instance[keyword].value)
                setattr(instance, keyword, order.context.uid(f"{native} in {name}"))
        return instances

    return build_compressed


def _compress(instance: Dataset, syntax: UID) -> None:
    instance.file_meta = FileMetaDataset()
    instance.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    if syntax == JPEG2000Lossless and instance.SamplesPerPixel == 3:
        # PS3.5 8.2.4: the reversible colour transform, without which colours compress badly.
        instance.PhotometricInterpretation = "YBR_RCT"
    try:
        instance.compress(syntax, encoding_plugin=_PLUGIN, generate_instance_uid=False)
    except (RuntimeError, ValueError, AttributeError, NotImplementedError) as exc:
        raise ResultError(f"pixels cannot be compressed with {syntax.name} ({type(exc).__name__})") from None
