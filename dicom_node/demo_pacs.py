"""A throw-away PACS for the demonstration: a storage SCP that keeps what it gets in a folder, and C-ECHO.

It takes every storage class in every transfer syntax, stores the bytes as received, and never decodes them.
It checks nobody and answers before anything is synced: it is no archive, and no part of a node in service.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from pydicom.uid import UID
from pynetdicom import AE, ALL_TRANSFER_SYNTAXES, AllStoragePresentationContexts, evt
from pynetdicom.events import Event
from pynetdicom.sop_class import Verification

from dicom_node.delivery.destination import Destination

_SUCCESS = 0x0000
_OUT_OF_RESOURCES = 0xA700
_INVALID_SOP_INSTANCE = 0x0117


@dataclass(frozen=True)
class ArchivedObject:
    """One SOP instance that the demonstration PACS keeps.

    Parameters
    ----------
    sop_instance_uid, sop_class_uid, transfer_syntax_uid : str
        As its sender named them.
    path : Path
        The Part 10 file.
    """

    sop_instance_uid: str
    sop_class_uid: str
    transfer_syntax_uid: str
    path: Path


class DemoPacs:
    """A PACS on this machine, running inside its ``with`` block.

    Parameters
    ----------
    folder : Path
        Where Part 10 files go; made if it does not exist. File names are running numbers with the SOP
        class's name, never anything that a sender chose.
    ae_title : str
        Its AE title; it answers to any.
    port : int
        TCP port on the loopback interface; 0 takes a free one.
    on_stored : callable, optional
        Called with each new object, in the association's own thread.
    """

    def __init__(
        self,
        folder: Path,
        *,
        ae_title: str = "DEMOPACS",
        port: int = 0,
        on_stored: Callable[[ArchivedObject], None] | None = None,
    ) -> None:
        self._folder = folder
        self._ae_title = ae_title
        self._port = port
        self._on_stored = on_stored
        self._changed = threading.Condition()
        self._archived: dict[str, ArchivedObject] = {}
        self._digests: dict[str, bytes] = {}
        self._entity = AE(ae_title=ae_title)
        self._entity.add_supported_context(Verification)
        for context in AllStoragePresentationContexts:
            self._entity.add_supported_context(str(context.abstract_syntax), ALL_TRANSFER_SYNTAXES)

    def __enter__(self) -> Self:
        self._folder.mkdir(parents=True, exist_ok=True)
        handlers = [(evt.EVT_C_STORE, self._store), (evt.EVT_C_ECHO, _answer_echo)]
        server = self._entity.start_server(("127.0.0.1", self._port), block=False, evt_handlers=handlers)
        self._port = server.server_address[1]
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._entity.shutdown()

    @property
    def destination(self) -> Destination:
        """Where objects have to be sent to, once it runs."""
        return Destination(self._ae_title, "127.0.0.1", self._port)

    @property
    def archived(self) -> tuple[ArchivedObject, ...]:
        """What it keeps, in the order of arrival, each SOP instance once."""
        with self._changed:
            return tuple(self._archived.values())

    def wait_for(self, count: int, timeout_s: float) -> bool:
        """Wait until it keeps at least this many SOP instances.

        Parameters
        ----------
        count : int
            How many different SOP instances.
        timeout_s : float
            How long to wait, in seconds.

        Returns
        -------
        bool
            Whether they are there.
        """
        with self._changed:
            return self._changed.wait_for(lambda: len(self._archived) >= count, timeout_s)

    def _store(self, event: Event) -> int:
        """Keep one object; the same bytes again change nothing, other bytes under the UID are refused."""
        uid = str(event.request.AffectedSOPInstanceUID)
        digest = hashlib.sha256(event.encoded_dataset(include_meta=False)).digest()
        with self._changed:
            known = self._digests.get(uid)
            if known is not None:
                return _SUCCESS if known == digest else _INVALID_SOP_INSTANCE
            sop_class_uid = UID(event.request.AffectedSOPClassUID)
            path = self._folder / f"{len(self._archived) + 1:04d}-{_class_name(sop_class_uid)}.dcm"
            try:
                path.write_bytes(event.encoded_dataset())
            except OSError:
                path.unlink(missing_ok=True)
                return _OUT_OF_RESOURCES
            archived = ArchivedObject(uid, str(sop_class_uid), str(event.context.transfer_syntax), path)
            self._digests[uid] = digest
            self._archived[uid] = archived
            self._changed.notify_all()
        if self._on_stored is not None:
            self._on_stored(archived)
        return _SUCCESS


def _answer_echo(event: Event) -> int:
    return _SUCCESS


def _class_name(sop_class_uid: UID) -> str:
    """Return a file name's part for a SOP class: its keyword of the standard, or ``Unknown``."""
    return (sop_class_uid.keyword or "Unknown").removesuffix("Storage")
