"""What the listener accepts: SOP classes and transfer syntaxes as data.

The presentation contexts and the conformance statement are both made from these tables. Deflated syntaxes are
absent on purpose: reading even one identifier would mean to inflate what a stranger sent.
"""

from __future__ import annotations

from dataclasses import dataclass

from pynetdicom.presentation import PresentationContext, build_context

VERIFICATION = "1.2.840.10008.1.1"
NOTHING_ACCEPTED = "none of the proposed presentation contexts is for this caller"
"""Why an association ended of which no context was accepted."""


@dataclass(frozen=True, slots=True)
class StorageClass:
    """A storage SOP class that the node takes (PS3.4 B.5)."""

    uid: str
    name: str


@dataclass(frozen=True, slots=True)
class TransferSyntax:
    """An encoding that the node stores as received (PS3.5 section 10 and annex A).

    Attributes
    ----------
    uid, name : str
        As in PS3.6 annex A.
    is_implicit : bool
        Whether the data set has implicit value representations.
    is_little_endian : bool
        Its byte order.
    is_encapsulated : bool
        Whether Pixel Data is a sequence of fragments.
    """

    uid: str
    name: str
    is_implicit: bool = False
    is_little_endian: bool = True
    is_encapsulated: bool = True


STORAGE_CLASSES: tuple[StorageClass, ...] = (
    StorageClass("1.2.840.10008.5.1.4.1.1.1.2", "Digital Mammography X-Ray Image Storage - For Presentation"),
    StorageClass("1.2.840.10008.5.1.4.1.1.1.2.1", "Digital Mammography X-Ray Image Storage - For Processing"),
    StorageClass("1.2.840.10008.5.1.4.1.1.13.1.3", "Breast Tomosynthesis Image Storage"),
    StorageClass("1.2.840.10008.5.1.4.1.1.1.1", "Digital X-Ray Image Storage - For Presentation"),
    StorageClass("1.2.840.10008.5.1.4.1.1.1.1.1", "Digital X-Ray Image Storage - For Processing"),
    StorageClass("1.2.840.10008.5.1.4.1.1.1", "Computed Radiography Image Storage"),
    StorageClass("1.2.840.10008.5.1.4.1.1.6.1", "Ultrasound Image Storage"),
    StorageClass("1.2.840.10008.5.1.4.1.1.3.1", "Ultrasound Multi-frame Image Storage"),
    StorageClass("1.2.840.10008.5.1.4.1.1.7", "Secondary Capture Image Storage"),
    StorageClass("1.2.840.10008.5.1.4.1.1.7.1", "Multi-frame Single Bit Secondary Capture Image Storage"),
    StorageClass("1.2.840.10008.5.1.4.1.1.7.2", "Multi-frame Grayscale Byte Secondary Capture Image Storage"),
    StorageClass("1.2.840.10008.5.1.4.1.1.7.3", "Multi-frame Grayscale Word Secondary Capture Image Storage"),
    StorageClass("1.2.840.10008.5.1.4.1.1.7.4", "Multi-frame True Color Secondary Capture Image Storage"),
    StorageClass("1.2.840.10008.5.1.4.1.1.2", "CT Image Storage"),
    StorageClass("1.2.840.10008.5.1.4.1.1.2.1", "Enhanced CT Image Storage"),
    StorageClass("1.2.840.10008.5.1.4.1.1.4", "MR Image Storage"),
    StorageClass("1.2.840.10008.5.1.4.1.1.4.1", "Enhanced MR Image Storage"),
    StorageClass("1.2.840.10008.5.1.4.1.1.77.1.6", "VL Whole Slide Microscopy Image Storage"),
    StorageClass("1.2.840.10008.5.1.4.1.1.77.1.4", "VL Photographic Image Storage"),
)
"""Every storage SOP class that is accepted."""

TRANSFER_SYNTAXES: tuple[TransferSyntax, ...] = (
    TransferSyntax("1.2.840.10008.1.2.1", "Explicit VR Little Endian", is_encapsulated=False),
    TransferSyntax("1.2.840.10008.1.2", "Implicit VR Little Endian", is_implicit=True, is_encapsulated=False),
    TransferSyntax(
        "1.2.840.10008.1.2.2",
        "Explicit VR Big Endian (Retired)",
        is_little_endian=False,
        is_encapsulated=False,
    ),
    TransferSyntax("1.2.840.10008.1.2.4.50", "JPEG Baseline (Process 1)"),
    TransferSyntax("1.2.840.10008.1.2.4.51", "JPEG Extended (Process 2 and 4)"),
    TransferSyntax("1.2.840.10008.1.2.4.57", "JPEG Lossless, Non-Hierarchical (Process 14)"),
    TransferSyntax(
        "1.2.840.10008.1.2.4.70", "JPEG Lossless, Non-Hierarchical, First-Order Prediction (Process 14)"
    ),
    TransferSyntax("1.2.840.10008.1.2.4.80", "JPEG-LS Lossless Image Compression"),
    TransferSyntax("1.2.840.10008.1.2.4.81", "JPEG-LS Lossy (Near-Lossless) Image Compression"),
    TransferSyntax("1.2.840.10008.1.2.4.90", "JPEG 2000 Image Compression (Lossless Only)"),
    TransferSyntax("1.2.840.10008.1.2.4.91", "JPEG 2000 Image Compression"),
    TransferSyntax("1.2.840.10008.1.2.4.201", "High-Throughput JPEG 2000 Image Compression (Lossless Only)"),
    TransferSyntax(
        "1.2.840.10008.1.2.4.202",
        "High-Throughput JPEG 2000 with RPCL Options Image Compression (Lossless Only)",
    ),
    TransferSyntax("1.2.840.10008.1.2.4.203", "High-Throughput JPEG 2000 Image Compression"),
    TransferSyntax("1.2.840.10008.1.2.5", "RLE Lossless"),
    TransferSyntax("1.2.840.10008.1.2.4.110", "JPEG XL Lossless"),
    TransferSyntax("1.2.840.10008.1.2.4.111", "JPEG XL JPEG Recompression"),
    TransferSyntax("1.2.840.10008.1.2.4.112", "JPEG XL"),
)
"""Every transfer syntax that is accepted, the preferred one first."""

STORAGE_CLASS_UIDS = frozenset(storage_class.uid for storage_class in STORAGE_CLASSES)
TRANSFER_SYNTAX_BY_UID = {syntax.uid: syntax for syntax in TRANSFER_SYNTAXES}

_UNCOMPRESSED = [syntax.uid for syntax in TRANSFER_SYNTAXES if not syntax.is_encapsulated]


def supported_contexts() -> list[PresentationContext]:
    """The presentation contexts of an accepting association: storage as an SCP, and verification.

    Returns
    -------
    list of pynetdicom.presentation.PresentationContext
        One per SOP class; new objects at each call.
    """
    syntaxes = [syntax.uid for syntax in TRANSFER_SYNTAXES]
    storage = [build_context(storage_class.uid, syntaxes) for storage_class in STORAGE_CLASSES]
    return [build_context(VERIFICATION, _UNCOMPRESSED), *storage]
