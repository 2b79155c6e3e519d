"""What routing needs to know of a received data set, and no more: pixels and descriptions are not read.

Identifiers and numbers are decoded here from their bytes, because pydicom accepts what must be refused and
quotes values in its warnings. Only the elements that tell side and view are handed on as a data set.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from io import BytesIO
from typing import NamedTuple

from pydicom.charset import convert_encodings, decode_bytes
from pydicom.datadict import tag_for_keyword
from pydicom.dataset import Dataset
from pydicom.filereader import read_dataset
from pydicom.valuerep import TEXT_VR_DELIMS

from dicom_node.errors import UnfitObjectError
from dicom_node.listener.contexts import STORAGE_CLASS_UIDS, TransferSyntax
from dicom_node.listener.elements import PIXEL_DATA, Element, Walked, walk
from dicom_node.listener.limits import ListenerLimits
from dicom_node.listener.status import MismatchedObjectError, UnsupportedClassError
from dicom_node.mammography_views import ROUTING_KEYWORDS, MammographyFacts, routing_facts

# PS3.5 9.1: components of digits without leading zeros, at most 64 characters.
_UID = re.compile(r"(0|[1-9][0-9]*)(\.(0|[1-9][0-9]*))*")
_INTEGER_STRING = re.compile(rb"[+-]?[0-9]{1,12}")

_SPECIFIC_CHARACTER_SET = 0x00080005
_SOP_CLASS_UID = 0x00080016
_SOP_INSTANCE_UID = 0x00080018
_ACCESSION_NUMBER = 0x00080050
_MODALITY = 0x00080060
_PATIENT_ID = 0x00100020
_STUDY_INSTANCE_UID = 0x0020000D
_SERIES_INSTANCE_UID = 0x0020000E
_SAMPLES_PER_PIXEL = 0x00280002
_PHOTOMETRIC_INTERPRETATION = 0x00280004
_NUMBER_OF_FRAMES = 0x00280008
_ROWS = 0x00280010
_COLUMNS = 0x00280011
_BITS_ALLOCATED = 0x00280100

_ROUTING_TAGS = frozenset(tag_for_keyword(keyword) for keyword in ROUTING_KEYWORDS)
# All that a header is made of, but for what is an object's own.
_SHARED_TAGS = _ROUTING_TAGS | {
    *(_SPECIFIC_CHARACTER_SET, _SOP_CLASS_UID, _ACCESSION_NUMBER, _MODALITY, _PATIENT_ID),
    *(_STUDY_INSTANCE_UID, _SERIES_INSTANCE_UID, _SAMPLES_PER_PIXEL, _PHOTOMETRIC_INTERPRETATION),
    *(_NUMBER_OF_FRAMES, _ROWS, _COLUMNS, _BITS_ALLOCATED),
}
_MAX_IDENTIFIER_BYTES = 64 * 1024
_MAX_ROUTING_BYTES = 512 * 1024
_MAX_REMEMBERED_BYTES = 8 * 1024
_MAX_TEXT_CHARACTERS = 256
_SOP_INSTANCE_NAME = "SOP Instance UID"
# Of data sets that are read again and again: a few megabytes at most.
_MAX_FORMS, _MAX_HEADS, _MAX_HEADERS, _MAX_SHARED_BYTES = 128, 512, 8, 4 * 1024
# PS3.3 C.12.1.1.2: without code extensions, and the same as ASCII where the eighth bit is clear.
_ASCII_COMPATIBLE = frozenset({b"", b"ISO_IR 6", b"ISO_IR 100", b"ISO_IR 101", b"ISO_IR 148", b"ISO_IR 192"})
_READING_ERRORS = (
    ArithmeticError,
    AttributeError,
    LookupError,
    NotImplementedError,
    TypeError,
    ValueError,
    EOFError,
)


class InstanceHeader(NamedTuple):
    """What the listener knows of an instance.

    Attributes
    ----------
    sop_class_uid, sop_instance_uid, study_instance_uid, series_instance_uid : str
        Valid UIDs.
    patient_id, accession_number : str
        Decoded with the data set's own character set; empty where absent.
    modality : str
        Modality (0008,0060); empty where absent.
    facts : MammographyFacts
        Side, view and presentation intent.
    """

    sop_instance_uid: str
    sop_class_uid: str
    study_instance_uid: str
    series_instance_uid: str
    patient_id: str
    accession_number: str
    modality: str
    facts: MammographyFacts


def read_header(data: memoryview, syntax: TransferSyntax, limits: ListenerLimits) -> InstanceHeader:
    """Read the routing elements of a whole data set.

    Parameters
    ----------
    data : memoryview
        The data set's bytes as received.
    syntax : TransferSyntax
        Their encoding.
    limits : ListenerLimits
        Bounds on nesting and on the number of elements.

    Returns
    -------
    InstanceHeader
        The routing elements, valid and bounded.

    Raises
    ------
    UnfitObjectError
        If the data set is truncated or malformed, if an identifying UID is missing or invalid, or if the
        image's description contradicts the length of its native Pixel Data.
    """
    kind = len(data), syntax.uid, limits.max_nesting, limits.max_elements
    form = _forms.get(kind)
    if form is not None and form.fits(data):
        return form.header(data)
    walked = walk(data, syntax, limits)
    header = _header(_Values(data, syntax, walked.elements))
    if not syntax.is_encapsulated:
        _remember(kind, data, syntax, walked)
    return header


def _header(values: _Values) -> InstanceHeader:
    header = InstanceHeader(
        sop_instance_uid=values.uid(_SOP_INSTANCE_UID, _SOP_INSTANCE_NAME),
        sop_class_uid=values.uid(_SOP_CLASS_UID, "SOP Class UID"),
        study_instance_uid=values.uid(_STUDY_INSTANCE_UID, "Study Instance UID"),
        series_instance_uid=values.uid(_SERIES_INSTANCE_UID, "Series Instance UID"),
        patient_id=values.text(_PATIENT_ID),
        accession_number=values.text(_ACCESSION_NUMBER),
        modality=values.text(_MODALITY)[:16],  # longest value of representation CS (PS3.5 6.2)
        facts=_facts(values),
    )
    _check_pixel_length(values)
    return header


def check_against_command(
    header: InstanceHeader,
    *,
    abstract_syntax_uid: str,
    affected_sop_class_uid: str,
    affected_sop_instance_uid: str,
) -> None:
    """Check that the data set is what the C-STORE request said it is (PS3.4 B.2.3).

    Raises
    ------
    UnsupportedClassError
        If the request names a class that the node never takes.
    MismatchedObjectError
        If context, request and data set do not name one SOP class and one SOP instance.
    """
    if affected_sop_class_uid not in STORAGE_CLASS_UIDS:
        raise UnsupportedClassError("the request names a SOP class that this node does not take")
    if not affected_sop_class_uid == abstract_syntax_uid == header.sop_class_uid:
        raise MismatchedObjectError("SOP class of presentation context, request and data set differ")
    if affected_sop_instance_uid != header.sop_instance_uid:
        raise MismatchedObjectError("SOP instance of request and data set differ")


class _Values:
    """Raw access to the top-level elements."""

    def __init__(self, data: memoryview, syntax: TransferSyntax, elements: Mapping[int, Element]) -> None:
        self.data = data
        self.syntax = syntax
        self.elements = elements

    def raw(self, tag: int) -> bytes:
        element = self.elements.get(tag)
        if element is None:
            return b""
        _, start, end, has_undefined_length = element
        if has_undefined_length:
            return b""
        if end - start > _MAX_IDENTIFIER_BYTES:
            raise UnfitObjectError("an identifying element is too long")
        return bytes(self.data[start:end])

    def uid(self, tag: int, name: str) -> str:
        return _uid(self.raw(tag), name)

    def text(self, tag: int) -> str:
        raw = self.raw(tag)
        if raw.isascii() and self.raw(_SPECIFIC_CHARACTER_SET).strip(b"\0 ") in _ASCII_COMPATIBLE:
            return _bounded(raw.decode("ascii"))
        labels = self.raw(_SPECIFIC_CHARACTER_SET).decode("ascii", "replace").strip("\x00 ").split("\\")
        try:
            encodings = convert_encodings([label.strip() for label in labels])
            text = decode_bytes(raw, encodings, TEXT_VR_DELIMS)
        except (*_READING_ERRORS, Warning):
            # An unknown character set is the sender's error; the ASCII part stays searchable.
            text = raw.decode("ascii", "backslashreplace")
        return _bounded(text)

    def number(self, tag: int) -> int | None:
        raw = self.raw(tag)
        if not raw:
            return None
        if len(raw) != 2:
            raise UnfitObjectError("a number that describes the image is no number")
        return int(struct.unpack("<H" if self.syntax.is_little_endian else ">H", raw)[0])

    def frames(self) -> int:
        raw = self.raw(_NUMBER_OF_FRAMES).strip(b"\x00 ")
        if not raw:
            return 1
        if not _INTEGER_STRING.fullmatch(raw) or int(raw) < 1:
            raise UnfitObjectError("Number of Frames is no positive number")
        return int(raw)

    def routing_bytes(self) -> bytes:
        kept, left = [], _MAX_ROUTING_BYTES
        for tag, (start, _, end, _) in self.elements.items():
            if tag in _ROUTING_TAGS and end - start <= left:
                kept.append(self.data[start:end])
                left -= end - start
        return b"".join(kept)


class _Form:
    """Data sets of one length whose elements lie at the same places, such as those of a series.

    All that the header is made of but the SOP Instance UID is the same in most of them: then it is known.
    """

    def __init__(
        self,
        data: memoryview,
        syntax: TransferSyntax,
        elements: Mapping[int, Element],
        heads: Sequence[tuple[int, int]],
    ) -> None:
        self._syntax = syntax
        self._elements = elements
        self._heads = _places(heads)
        self._seen = self._heads.unpack_from(data)
        _, self._uid_start, self._uid_end, _ = elements[_SOP_INSTANCE_UID]
        shared = [(start, end - start) for tag, (_, start, end, _) in elements.items() if tag in _SHARED_TAGS]
        self._shared = _places(shared) if sum(size for _, size in shared) <= _MAX_SHARED_BYTES else None
        self._headers: dict[tuple[bytes, ...], InstanceHeader] = {}

    def fits(self, data: memoryview) -> bool:
        """Whether walking through a data set of this length would find the same."""
        return self._heads.unpack_from(data) == self._seen

    def header(self, data: memoryview) -> InstanceHeader:
        """Read the header of a data set that fits."""
        if self._shared is None:
            return self._read(data)
        shared = self._shared.unpack_from(data)
        known = self._headers.get(shared)
        if known is not None:
            uid = _uid(bytes(data[self._uid_start : self._uid_end]), _SOP_INSTANCE_NAME)
            return InstanceHeader(uid, *known[1:])
        header = self._read(data)
        if len(self._headers) >= _MAX_HEADERS:
            self._headers.clear()
        self._headers[shared] = header
        return header

    def _read(self, data: memoryview) -> InstanceHeader:
        return _header(_Values(data, self._syntax, self._elements))


# By length, encoding and bounds; None where one data set came. Threads that replace each other's cost a walk.
_forms: dict[tuple[int, str, int, int], _Form | None] = {}


def _remember(
    kind: tuple[int, str, int, int], data: memoryview, syntax: TransferSyntax, walked: Walked
) -> None:
    elements, heads = walked
    if not 0 < len(heads) <= _MAX_HEADS:
        return
    if len(_forms) >= _MAX_FORMS:
        _forms.clear()
    # Making a form costs as much as a walk: only where a second data set of the kind came.
    is_second = kind in _forms and _forms[kind] is None
    _forms[kind] = _Form(data, syntax, elements, heads) if is_second else None


def _places(places: Iterable[tuple[int, int]]) -> struct.Struct:
    """What reads all these bytes with one call: their offsets, ascending, and lengths."""
    form, position = ["<"], 0
    for start, length in places:
        form.append(f"{start - position}x{length}s")
        position = start + length
    return struct.Struct("".join(form))


def _uid(raw: bytes, name: str) -> str:
    text = raw.rstrip(b"\x00 ").decode("ascii", "replace")
    if len(text) > 64 or not _UID.fullmatch(text):
        raise UnfitObjectError(f"{name} is {'not valid' if text else 'missing'}")
    return text


def _bounded(text: str) -> str:
    # NUL ends no text in DICOM but cannot be stored by every database.
    return text.replace("\x00", "").strip()[:_MAX_TEXT_CHARACTERS]


def _facts(values: _Values) -> MammographyFacts:
    encoded, syntax = values.routing_bytes(), values.syntax
    read = _read_facts if len(encoded) <= _MAX_REMEMBERED_BYTES else _read_facts.__wrapped__
    return read(encoded, syntax.is_implicit, syntax.is_little_endian)


# The images of a series share these elements, and most images have none of them.
@lru_cache(maxsize=256)
def _read_facts(encoded: bytes, is_implicit: bool, is_little_endian: bool) -> MammographyFacts:
    try:
        return routing_facts(read_dataset(BytesIO(encoded), is_implicit, is_little_endian))
    except (*_READING_ERRORS, Warning):
        # An odd description is no reason to lose an image: the gate looks at it again and says why.
        return routing_facts(Dataset())


def _check_pixel_length(values: _Values) -> None:
    pixels = values.elements.get(PIXEL_DATA)
    if pixels is None:
        return
    rows, columns = values.number(_ROWS), values.number(_COLUMNS)
    frames = values.frames()
    if not rows or not columns:
        raise UnfitObjectError("Rows or Columns is missing or zero beside Pixel Data")
    _, start, end, has_undefined_length = pixels
    if values.syntax.is_encapsulated or has_undefined_length:
        return
    samples = values.number(_SAMPLES_PER_PIXEL) or 1
    photometric = values.raw(_PHOTOMETRIC_INTERPRETATION)
    if b"422" in photometric or b"420" in photometric:
        # PS3.3 C.7.6.3.1.2: chrominance has at most half the samples.
        samples = 1 if b"420" in photometric else 2
    bits = rows * columns * frames * samples * (values.number(_BITS_ALLOCATED) or 1)
    if (end - start) * 8 < bits:
        raise UnfitObjectError("Pixel Data is shorter than Rows x Columns x Number of Frames")
