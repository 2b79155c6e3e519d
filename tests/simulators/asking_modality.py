"""A scanner that asks for storage commitment; it shares no code with the node."""

from __future__ import annotations

import threading
from types import TracebackType
from typing import Any, Self

from pydicom.dataset import Dataset
from pydicom.uid import ImplicitVRLittleEndian
from pynetdicom import AE, evt
from pynetdicom.pdu import P_DATA_TF
from pynetdicom.sop_class import StorageCommitmentPushModel

INSTANCE = "1.2.840.10008.1.20.1.1"


class Modality:
    """A scanner: asks for commitment, and takes the answer on the same or on a new association."""

    def __init__(self) -> None:
        self.reports: list[tuple[int, Dataset]] = []
        self._told = threading.Condition()
        self._unanswered: set[Any] = set()
        self._entity = AE("MAMMO1")
        self._entity.add_supported_context(
            StorageCommitmentPushModel, ImplicitVRLittleEndian, scu_role=False, scp_role=True
        )
        self._handlers = [(evt.EVT_N_EVENT_REPORT, self._note), (evt.EVT_PDU_SENT, self._sent)]
        self.port = 0

    def __enter__(self) -> Self:
        server = self._entity.start_server(("127.0.0.1", 0), block=False, evt_handlers=self._handlers)
        self.port = server.server_address[1]
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._entity.shutdown()

    @property
    def address(self) -> str:
        """Where it takes answers."""
        return f"MAMMO1@127.0.0.1:{self.port}"

    def ask(
        self,
        port: int,
        objects: list[tuple[str, str]],
        *,
        transaction_uid: str = "2.25.7",
        stays: bool = True,
        action: int = 1,
        instance: str = INSTANCE,
        information: Dataset | None = None,
        calling: str = "MAMMO1",
    ) -> int | None:
        """Ask; stay for the answer, or release at once. Return the status of the request."""
        told_before = len(self.reports)
        entity = AE(calling)
        entity.add_requested_context(StorageCommitmentPushModel, ImplicitVRLittleEndian)
        association = entity.associate("127.0.0.1", port, evt_handlers=self._handlers)
        assert association.is_established
        asked = request_for(transaction_uid, objects) if information is None else information
        status, _ = association.send_n_action(asked, action, StorageCommitmentPushModel, instance)
        if stays and status.get("Status") == 0x0000:
            self.wait_for(told_before + 1)
            # Else pynetdicom may send the release first, and ends at the answer that comes after it.
            with self._told:
                self._told.wait_for(lambda: association not in self._unanswered, 60)
        association.release()
        association.join(60)
        answer = status.get("Status")
        return None if answer is None else int(answer)

    def wait_for(self, count: int) -> None:
        """Wait until it was told so often."""
        with self._told:
            assert self._told.wait_for(lambda: len(self.reports) >= count, 60), "no report came"

    def _note(self, event: Any) -> tuple[int, None]:
        with self._told:
            self.reports.append((event.event_type, event.event_information))
            self._unanswered.add(event.assoc)
            self._told.notify_all()
        return 0x0000, None

    def _sent(self, event: Any) -> None:
        with self._told:
            if isinstance(event.pdu, P_DATA_TF):
                self._unanswered.discard(event.assoc)
                self._told.notify_all()


def request_for(transaction_uid: str, objects: list[tuple[str, str]]) -> Dataset:
    request = Dataset()
    request.TransactionUID = transaction_uid
    request.ReferencedSOPSequence = []
    for sop_class_uid, sop_instance_uid in objects:
        item = Dataset()
        item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = sop_class_uid, sop_instance_uid
        request.ReferencedSOPSequence.append(item)
    return request
