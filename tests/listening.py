"""A real listener on a free port, what it wrote, and data sets to send to it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import Any

from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_dataset
from pydicom.uid import UID

from db.handoff import ReceivedInstance, Registration
from dicom_node.listener.admission import Admission
from dicom_node.listener.contexts import TRANSFER_SYNTAX_BY_UID
from dicom_node.listener.limits import ListenerLimits
from dicom_node.listener.quarantine import Quarantine, Quarantining
from dicom_node.listener.server import Listener, Storing
from dicom_node.listener.services import Service
from dicom_node.listener.transport import Port
from dicom_node.spool import Spool
from dicom_node.tls import ServerTls
from tests.simulators.raw_scu import Proposal, RawScu

MG_FOR_PRESENTATION = "1.2.840.10008.5.1.4.1.1.1.2"
CT_IMAGE = "1.2.840.10008.5.1.4.1.1.2"
EXPLICIT_LITTLE = "1.2.840.10008.1.2.1"
PATIENT_NAME = "ZZCANARY^NAME"
PATIENT_ID = "ZZCANARYID"


class Rows:
    """Registers in memory by the rules of :func:`db.handoff.register_instance`."""

    def __init__(self) -> None:
        self.all: list[ReceivedInstance] = []
        self.before: Callable[[], None] = lambda: None
        self._lock = threading.Lock()

    def register(self, received: ReceivedInstance) -> Registration:
        """Add a row, or say what it is instead."""
        self.before()
        with self._lock:
            same = [row for row in self.all if row.sop_instance_uid == received.sop_instance_uid]
            if same and same[0].sha256 == received.sha256:
                return Registration.DUPLICATE
            self.all.append(received)
            return Registration.CONFLICT if same else Registration.NEW


class Node:
    """A listener under test and everything it did.

    No data class: hypothesis spells those out when a test fails, and this one's events would hide why.
    """

    def __init__(
        self,
        listener: Listener,
        spool: Spool,
        rows: Rows,
        events: list[tuple[str, dict[str, Any]]],
        event_happened: threading.Event,
        quarantine: Quarantine,
    ) -> None:
        self.listener = listener
        self.spool = spool
        self.rows = rows
        self.events = events
        self.event_happened = event_happened
        self.quarantine = quarantine

    @property
    def port(self) -> int:
        """Where it listens."""
        return self.listener.port

    def files(self) -> list[Path]:
        """Every file of its spool, half-written ones included."""
        return sorted(path for path in self.spool.root.rglob("*") if path.is_file())

    def content(self, row: int = 0) -> bytes:
        """The file of a row."""
        return self.spool.path_of(self.rows.all[row].spool_name).read_bytes()

    def stored_nothing(self) -> bool:
        """Whether there is neither a file nor a row."""
        return not self.files() and not self.rows.all

    def scu(
        self, sop_class: str = MG_FOR_PRESENTATION, syntax: str = EXPLICIT_LITTLE, **kwargs: Any
    ) -> RawScu:
        """Open an association with one presentation context."""
        return RawScu(self.port, Proposal(sop_class, syntax), **kwargs)


@contextmanager
def listening(
    tmp_path: Path,
    *,
    admission: Admission | None = None,
    tls: ServerTls | None = None,
    services: Sequence[Service] = (),
    is_congested: Callable[[], bool] = lambda: False,
    quarantine_bytes: int = 0,
    **overrides: Any,
) -> Iterator[Node]:
    """Run a listener.

    Parameters
    ----------
    tmp_path : Path
        Its spool is a folder in it.
    admission : Admission, optional
        Who may come in; by default everybody.
    tls : ServerTls, optional
        The certificates of a secure port.
    services : sequence of Service
        What it offers besides storage and verification.
    is_congested : callable
        Whether too much work waits.
    quarantine_bytes : int
        How much it keeps of faulty objects, in a folder beside its spool.
    **overrides
        Fields of :class:`ListenerLimits`.
    """
    spool, rows = Spool(tmp_path / "spool"), Rows()
    events: list[tuple[str, dict[str, Any]]] = []
    happened = threading.Event()
    quarantine = Quarantine(tmp_path / "quarantine")
    quarantining = Quarantining(quarantine, quarantine_bytes) if quarantine_bytes else None

    def note(action: str, detail: dict[str, Any]) -> None:
        events.append((action, detail))
        happened.set()

    listener = Listener(
        "NODE",
        Port("127.0.0.1", 0, tls),
        Storing(spool, rows.register, quarantining=quarantining),
        limits=ListenerLimits(**{"min_free_bytes": 0, **overrides}),
        on_event=note,
        admission=admission,
        services=services,
        is_congested=is_congested,
    )
    listener.start()
    try:
        yield Node(listener, spool, rows, events, happened, quarantine)
    finally:
        listener.stop(deadline_s=5)


def mammogram(ordinal: int = 1, **elements: Any) -> Dataset:
    """A small R MLO mammogram; elements given as None are left out."""
    dataset = Dataset()
    dataset.SOPClassUID = MG_FOR_PRESENTATION
    dataset.SOPInstanceUID = f"2.25.{10**20 + ordinal}"
    dataset.StudyInstanceUID = "2.25.100"
    dataset.SeriesInstanceUID = "2.25.101"
    dataset.PatientName = PATIENT_NAME
    dataset.PatientID = PATIENT_ID
    dataset.AccessionNumber = "A1"
    dataset.Modality = "MG"
    dataset.PresentationIntentType = "FOR PRESENTATION"
    dataset.ImageLaterality = "R"
    dataset.ViewPosition = "MLO"
    dataset.SamplesPerPixel = 1
    dataset.PhotometricInterpretation = "MONOCHROME2"
    dataset.Rows, dataset.Columns = 64, 48
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 16, 12, 11
    dataset.PixelRepresentation = 0
    dataset.PixelData = bytes(range(256)) * 24
    for keyword, value in elements.items():
        if value is None:
            delattr(dataset, keyword)
        else:
            setattr(dataset, keyword, value)
    return dataset


def encoded(dataset: Dataset, syntax: str = EXPLICIT_LITTLE) -> bytes:
    """A data set's bytes; with made-up fragments where the syntax is a compressed one."""
    described = TRANSFER_SYNTAX_BY_UID[syntax]
    if described.is_encapsulated:
        dataset.PixelData = encapsulate([b"not really a codestream"] * int(dataset.get("NumberOfFrames", 1)))
        dataset["PixelData"].VR = "OB"
        dataset["PixelData"].is_undefined_length = True
    else:
        dataset["PixelData"].VR = "OW"
    target = DicomBytesIO()
    target.is_implicit_VR = described.is_implicit
    target.is_little_endian = described.is_little_endian
    write_dataset(target, dataset)
    return target.getvalue()


def stored_dataset(content: bytes) -> Dataset:
    """Read a stored file without its pixels."""
    return dcmread(BytesIO(content), stop_before_pixels=True)


def uid_of(dataset: Dataset) -> UID:
    """Its SOP Instance UID."""
    return dataset.SOPInstanceUID
