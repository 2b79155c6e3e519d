"""Hands the audit trail to a syslog sink: in the chain's order, nothing left out, however long it is away.

The trail itself is the buffer. No transaction is open while the network is used.
"""

from __future__ import annotations

import threading
from collections.abc import Callable

import structlog

from db.audit import sink_cursor
from db.audit.reading import AuditRow
from db.errors import DatabaseError
from db.session import Database
from db.transfers import Transfers
from dicom_node.audit_messages.events import message_of
from dicom_node.audit_messages.syslog import Sink, syslog_message
from dicom_node.errors import NodeError

SINK = "syslog"
BATCH_EVENTS = 500
LOOK_EVERY_S = 1.0
LONGEST_PAUSE_S = 60.0
LEASE_S = 120.0  # longer than a sink may take for one batch

log = structlog.get_logger(__name__)


class AuditForwarder:
    """Forwards events; several processes may try, one at a time does it.

    Parameters
    ----------
    database : Database
        Holds the trail and the cursor.
    sink : Sink
        Takes messages.
    name : str
        This process.
    ae_title, site : str
        The node, as the audit source of its messages.
    """

    def __init__(self, database: Database, sink: Sink, *, name: str, ae_title: str, site: str = "") -> None:
        self._database = database
        self._sink = sink
        self._name = name
        self._ae_title = ae_title
        self._site = site
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Forward in a thread of its own, so that a slow sink delays nothing else."""
        self._thread = threading.Thread(target=self._run, name="audit-forwarder", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Hand over what there is, once, and end."""
        self._stopping.set()
        if self._thread is not None:
            self._thread.join()

    def forward(self) -> int:
        """Hand the next batch over; return how many events the cursor moved.

        Raises
        ------
        SinkUnavailableError
            If the sink did not take it.
        DatabaseError
            If the cursor could not be read or moved.
        """
        with self._database.reading() as session:
            if not sink_cursor.has_more(session, SINK):
                return 0
        with self._database.transaction(self._name) as tx:
            since = sink_cursor.take(tx, SINK, lease_s=LEASE_S)
        if since is None:
            return 0
        with self._database.reading() as session:
            events = sink_cursor.events_after(session, since, limit=BATCH_EVENTS)
            transfers = Transfers(session)
            told = (message_of(transfers, event, ae_title=self._ae_title) for event in events)
            messages = [
                syslog_message(message, source=self._ae_title, site=self._site)
                for message in told
                if message is not None
            ]
        if messages:
            # What a repository has been told must not go with the power, and come back as another event.
            self._database.sync_commits()
            self._sink.send(messages)
        return self._advance(since, events[-1]) if events else 0

    def _advance(self, since: int, last: AuditRow) -> int:
        with self._database.transaction(self._name) as tx:
            sink_cursor.advance(tx, SINK, last.seq)
        return last.seq - since

    def _run(self) -> None:
        pause_s = LOOK_EVERY_S
        while not self._stopping.is_set():
            moved = self._try(self.forward)
            if moved is None:
                pause_s = min(pause_s * 2, LONGEST_PAUSE_S)
                self._stopping.wait(pause_s)
                continue
            pause_s = LOOK_EVERY_S
            if not moved:
                self._stopping.wait(pause_s)
        self._try(self.forward)
        self._try(self._release)

    def _release(self) -> int:
        with self._database.transaction(self._name) as tx:
            sink_cursor.release(tx, SINK)
        return 0

    @staticmethod
    def _try(step: Callable[[], int]) -> int | None:
        """Return a step's answer, None where it failed; the log tells why, without a message's content."""
        try:
            return step()
        except (NodeError, DatabaseError) as error:
            log.warning("audit.sink_away", reason=str(error))
        except Exception:
            # Else the thread ended unheard, and the trail was handed over no more.
            log.error("audit.not_forwarded", reason="unexpected", exc_info=True)
        return None
