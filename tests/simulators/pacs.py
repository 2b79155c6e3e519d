"""A PACS that misbehaves on demand: a storage SCP on loopback, written against the standard's bytes.

It shares no code with the node, so that both cannot be wrong in the same way; only the association request
is decoded by pynetdicom. One :class:`Behaviour` holds at a time and may change while the simulator runs. What
it truly stored is kept apart from what it answered, so that tests can ask for exactly-once.
"""

from __future__ import annotations

import contextlib
import hashlib
import socket
import struct
import threading
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from enum import Enum, auto
from types import TracebackType
from typing import Self

from pynetdicom.pdu import A_ASSOCIATE_RQ

from dicom_node.delivery.destination import Destination
from tests.free_ports import free_port
from tests.simulators.pdu_bytes import elements, item, response_pdu, text

VERIFICATION = "1.2.840.10008.1.1"


class Behaviour(Enum):
    """What the PACS does; the comments say what it has when the line falls silent."""

    ACCEPT = auto()  # stores and answers `status`
    REFUSE_CONNECTION = auto()  # nothing listens on its port
    IGNORE_ASSOCIATION = auto()  # takes the connection and keeps silent
    CLOSE_AT_ASSOCIATION = auto()
    ABORT_AT_ASSOCIATION = auto()
    HALF_ASSOCIATE_AC = auto()
    GARBAGE_AT_ASSOCIATION = auto()
    DAMAGED_ASSOCIATE_AC = auto()
    REJECT_TRANSIENT = auto()  # local limit exceeded
    REJECT_PERMANENT = auto()  # called AE title not recognised
    STOP_READING = auto()  # after the association; nothing
    DROP_BEFORE_DATA_SET = auto()  # nothing
    ABORT_BEFORE_DATA_SET = auto()  # nothing
    DROP_DURING_DATA_SET = auto()  # nothing
    ABORT_DURING_DATA_SET = auto()  # nothing
    DROP_AFTER_DATA_SET = auto()  # received all of it, lost it before storing
    DROP_AFTER_STORING = auto()  # the object
    ABORT_AFTER_STORING = auto()  # the object
    NEVER_ANSWER = auto()  # the object
    ANSWER_LATE = auto()  # the object; answers after `delay_s`, or never when it closes before
    HALF_RESPONSE = auto()  # the object
    HALF_HEADER = auto()  # the object
    DRIBBLE_RESPONSE = auto()  # the object; a byte every `delay_s`
    WRONG_MESSAGE_ID = auto()  # the object
    OTHER_COMMAND = auto()  # the object; answers as to a C-ECHO
    OTHER_CONTEXT = auto()  # the object; answers on a context that was not asked on
    NO_STATUS = auto()  # the object
    GARBAGE_RESPONSE = auto()  # the object; bytes that are no PDU
    GIANT_RESPONSE = auto()  # the object; claims 4 GiB
    DAMAGED_COMMAND_SET = auto()  # the object
    RELEASE_INSTEAD_OF_RESPONSE = auto()  # the object
    IGNORE_RELEASE = auto()  # the object; answers `status`, then keeps silent at the end


_AT_ASSOCIATION = {
    Behaviour.IGNORE_ASSOCIATION,
    Behaviour.CLOSE_AT_ASSOCIATION,
    Behaviour.ABORT_AT_ASSOCIATION,
    Behaviour.HALF_ASSOCIATE_AC,
    Behaviour.GARBAGE_AT_ASSOCIATION,
    Behaviour.DAMAGED_ASSOCIATE_AC,
    Behaviour.REJECT_TRANSIENT,
    Behaviour.REJECT_PERMANENT,
}
_INSIDE_MESSAGE = {
    Behaviour.DROP_BEFORE_DATA_SET,
    Behaviour.ABORT_BEFORE_DATA_SET,
    Behaviour.DROP_DURING_DATA_SET,
    Behaviour.ABORT_DURING_DATA_SET,
}
_AFTER_DATA_SET = set(Behaviour) - _AT_ASSOCIATION - _INSIDE_MESSAGE - {Behaviour.STOP_READING}
_HANGS_UP = {
    Behaviour.DROP_BEFORE_DATA_SET,
    Behaviour.DROP_DURING_DATA_SET,
    Behaviour.DROP_AFTER_DATA_SET,
    Behaviour.DROP_AFTER_STORING,
}
_ABORTS = {
    Behaviour.ABORT_BEFORE_DATA_SET,
    Behaviour.ABORT_DURING_DATA_SET,
    Behaviour.ABORT_AFTER_STORING,
}


@dataclass(frozen=True)
class StoredObject:
    """One data set that the PACS made its own, as often as it arrived."""

    sop_instance_uid: str
    sop_class_uid: str
    transfer_syntax_uid: str
    sha256: str
    """Of the data set's bytes as received, without file meta information."""


class _HungUpError(Exception):
    """The association ended; the connection is to be closed."""


@dataclass
class _Association:
    line: socket.socket
    contexts: dict[int, tuple[str, str]] = field(default_factory=dict)


class SimulatedPacs:
    """A storage and verification SCP with switchable faults.

    Parameters
    ----------
    ae_title : str
        Its title; it takes any called title.
    sop_class_uids, transfer_syntax_uids : frozenset of str, optional
        The only ones that it accepts; None takes all. May be set while it runs.
    maximum_length : int
        Longest P-DATA that it says it takes, in bytes; 0 is no limit. It checks what it receives.
    """

    def __init__(
        self,
        ae_title: str = "PACS",
        *,
        sop_class_uids: frozenset[str] | None = None,
        transfer_syntax_uids: frozenset[str] | None = None,
        maximum_length: int = 16384,
    ) -> None:
        self.ae_title = ae_title
        self.sop_class_uids = sop_class_uids
        self.transfer_syntax_uids = transfer_syntax_uids
        self.maximum_length = maximum_length
        self.status = 0x0000
        self.statuses: dict[str, int] = {}
        """Per SOP Instance UID the status that it is answered with, whatever the others are."""
        self.keeps_what_it_fails = False
        """Whether an object that was answered with a failure status is stored all the same."""
        self.delay_s = 0.2
        self.proposed: list[list[tuple[str, list[str]]]] = []
        """Per association the presentation contexts: (SOP class UID, transfer syntax UIDs)."""
        self.calling_ae_titles: list[str] = []
        self.violations: list[str] = []
        """What peers did against the standard."""
        self.message_ids: list[int] = []
        self.endings: list[str] = []
        """Per association that was asked or told to end: ``released`` or ``aborted``."""
        self._stored: list[StoredObject] = []
        self._faults_left: int | None = None
        self._behaviour = Behaviour.ACCEPT
        self._changed = threading.Condition()
        self._closing = threading.Event()
        self._listener: socket.socket | None = None
        self._lines: set[socket.socket] = set()
        self._threads: list[threading.Thread] = []
        self._open_associations = 0
        # Not one that the kernel may give to an outgoing connection while this PACS does not listen.
        self.port = free_port()

    def __enter__(self) -> Self:
        self._listen()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._closing.set()
        self._stop_listening()
        self.hang_up()
        for thread in self._threads:
            thread.join(timeout=10)

    @property
    def destination(self) -> Destination:
        """Where the node has to send to."""
        return Destination(self.ae_title, "127.0.0.1", self.port)

    @property
    def stored(self) -> tuple[StoredObject, ...]:
        """Everything that was stored, in order, resends included."""
        with self._changed:
            return tuple(self._stored)

    @property
    def hashes(self) -> dict[str, set[str]]:
        """Per SOP Instance UID the different data sets (SHA-256) stored under it."""
        found: dict[str, set[str]] = defaultdict(set)
        for stored in self.stored:
            found[stored.sop_instance_uid].add(stored.sha256)
        return dict(found)

    @property
    def behaviour(self) -> Behaviour:
        """What it does now."""
        with self._changed:
            return self._behaviour

    def behave(self, behaviour: Behaviour, *, status: int | None = None, times: int | None = None) -> None:
        """Change what it does from now on.

        Parameters
        ----------
        behaviour : Behaviour
            The new behaviour.
        status : int, optional
            Status that every C-STORE is answered with; 0x0000 when not given.
        times : int, optional
            Return to :attr:`Behaviour.ACCEPT` and 0x0000 after showing this so often.
        """
        with self._changed:
            self._behaviour = behaviour
            self._faults_left = times
            self.status = 0x0000 if status is None else status
        if behaviour is Behaviour.REFUSE_CONNECTION:
            self._stop_listening()
        elif self._listener is None:
            self._listen()

    def wait_for(self, count: int, timeout_s: float) -> bool:
        """Wait until this many objects were stored, resends included."""
        with self._changed:
            return self._changed.wait_for(lambda: len(self._stored) >= count, timeout_s)

    def wait_until_idle(self, timeout_s: float) -> bool:
        """Wait until no association is open."""
        with self._changed:
            return self._changed.wait_for(lambda: self._open_associations == 0, timeout_s)

    def hang_up(self) -> None:
        """Drop every open connection."""
        with self._changed:
            lines = list(self._lines)
        for line in lines:
            with contextlib.suppress(OSError):
                line.shutdown(socket.SHUT_RDWR)

    def _listen(self) -> None:
        listener = socket.socket()
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(("127.0.0.1", self.port))
        listener.listen()
        self._listener = listener
        self._start(self._accept, listener)

    def _stop_listening(self) -> None:
        if self._listener is not None:
            # Shutting down wakes the thread that waits in accept; closing alone would not.
            self._listener.shutdown(socket.SHUT_RDWR)
            self._listener.close()
            self._listener = None

    def _start(self, target: Callable[[socket.socket], None], line: socket.socket) -> None:
        thread = threading.Thread(target=target, args=(line,), name="simulated-pacs", daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                line, _ = listener.accept()
            except OSError:
                return
            with self._changed:
                self._lines.add(line)
                self._open_associations += 1
            self._start(self._serve, line)
            if self._closing.is_set():
                self.hang_up()  # it came after all others were hung up on

    def _serve(self, line: socket.socket) -> None:
        try:
            association = _Association(line)
            self._negotiate(association)
            while True:
                self._answer_message(association)
        except (_HungUpError, OSError):
            pass
        finally:
            line.close()
            with self._changed:
                self._lines.discard(line)
                self._open_associations -= 1
                self._changed.notify_all()

    def _misbehaves(self, *behaviours: Behaviour) -> Behaviour | None:
        """Return the behaviour if it is one of these, counting it as shown."""
        with self._changed:
            if self._behaviour not in behaviours:
                return None
            shown = self._behaviour
            if self._faults_left is not None:
                self._faults_left -= 1
                if self._faults_left == 0:
                    self._behaviour, self._faults_left, self.status = Behaviour.ACCEPT, None, 0x0000
            return shown

    def _negotiate(self, association: _Association) -> None:
        line = association.line
        request = _receive_pdu(line)
        shown = self._misbehaves(*_AT_ASSOCIATION)
        if shown is Behaviour.IGNORE_ASSOCIATION:
            self._keep_silent(line)
        if shown is Behaviour.CLOSE_AT_ASSOCIATION:
            raise _HungUpError
        if shown is Behaviour.ABORT_AT_ASSOCIATION:
            self._abort(line)
        if shown is Behaviour.GARBAGE_AT_ASSOCIATION:
            line.sendall(b"HTTP/1.0 400 Bad Request\r\n\r\n")
            self._keep_silent(line)
        if shown in (Behaviour.REJECT_TRANSIENT, Behaviour.REJECT_PERMANENT):
            # PS3.8 table 9-21: (result, source, reason)
            reason = (2, 3, 2) if shown is Behaviour.REJECT_TRANSIENT else (1, 1, 7)
            line.sendall(struct.pack(">BxIx3B", 3, 4, *reason))
            self._keep_silent(line)
        answer = self._associate_ac(association, request)
        if shown is Behaviour.DAMAGED_ASSOCIATE_AC:
            answer = answer[:74] + b"\xff" * (len(answer) - 74)
        if shown is Behaviour.HALF_ASSOCIATE_AC:
            line.sendall(answer[: len(answer) // 2])
            self._keep_silent(line)
        line.sendall(answer)
        if self._misbehaves(Behaviour.STOP_READING):
            self._closing.wait()
            raise _HungUpError

    def _associate_ac(self, association: _Association, pdu: bytes) -> bytes:
        request = A_ASSOCIATE_RQ()
        request.decode(pdu)
        self.calling_ae_titles.append(request.calling_ae_title.strip())
        proposed = []
        items = item(0x10, b"1.2.840.10008.3.1.1.1")
        for context in request.presentation_context:
            syntaxes = [str(syntax) for syntax in context.transfer_syntax]
            proposed.append((str(context.abstract_syntax), syntaxes))
            result = self._context_result(str(context.abstract_syntax), syntaxes[0])
            if result == 0:
                association.contexts[context.context_id] = (str(context.abstract_syntax), syntaxes[0])
            body = struct.pack(">BxBx", context.context_id, result) + item(0x40, syntaxes[0].encode())
            items += item(0x21, body)
        self.proposed.append(proposed)
        user_information = item(0x51, struct.pack(">I", self.maximum_length)) + item(0x52, b"2.25.1")
        items += item(0x50, user_information)
        body = struct.pack(">Hxx", 1) + pdu[10:42] + bytes(32) + items
        return struct.pack(">BxI", 2, len(body)) + body

    def _context_result(self, sop_class_uid: str, transfer_syntax_uid: str) -> int:
        is_known = self.sop_class_uids is None or sop_class_uid in self.sop_class_uids
        if not is_known and sop_class_uid != VERIFICATION:
            return 3
        return (
            0 if self.transfer_syntax_uids is None or transfer_syntax_uid in self.transfer_syntax_uids else 4
        )

    def _answer_message(self, association: _Association) -> None:
        context_id, command = self._receive_command(association)
        (field,) = struct.unpack("<H", command[0x0100])
        (message_id,) = struct.unpack("<H", command[0x0110])
        self.message_ids.append(message_id)
        if field == 0x0030:
            if association.contexts[context_id][0] != text(command[0x0002]):
                self.violations.append("C-ECHO of another class than its presentation context")
            association.line.sendall(
                response_pdu(context_id, 0x8030, message_id, VERIFICATION, "", self.status)
            )
            return
        sop_class_uid, sop_instance_uid = text(command[0x0002]), text(command[0x1000])
        before = self._misbehaves(Behaviour.DROP_BEFORE_DATA_SET, Behaviour.ABORT_BEFORE_DATA_SET)
        self._end_if(before, association.line)
        data_set = self._receive_data_set(association, context_id)
        status = self.statuses.get(sop_instance_uid, self.status)
        after = self._misbehaves(*_AFTER_DATA_SET)
        if after is Behaviour.DROP_AFTER_DATA_SET:
            raise _HungUpError
        if status < 0xA700 or 0xB000 <= status < 0xC000 or self.keeps_what_it_fails:
            self._store(association, context_id, sop_class_uid, sop_instance_uid, data_set)
        self._end_if(after, association.line)
        response = response_pdu(context_id, 0x8001, message_id, sop_class_uid, sop_instance_uid, status)
        self._send_response(association.line, response, after or Behaviour.ACCEPT, context_id, message_id)

    def _store(
        self,
        association: _Association,
        context_id: int,
        sop_class_uid: str,
        sop_instance_uid: str,
        data_set: bytes,
    ) -> None:
        accepted_class, transfer_syntax_uid = association.contexts[context_id]
        if accepted_class != sop_class_uid:
            self.violations.append("object of another class than its presentation context")
        stored = StoredObject(
            sop_instance_uid, sop_class_uid, transfer_syntax_uid, hashlib.sha256(data_set).hexdigest()
        )
        with self._changed:
            self._stored.append(stored)
            self._changed.notify_all()

    def _send_response(
        self, line: socket.socket, response: bytes, behaviour: Behaviour, context_id: int, message_id: int
    ) -> None:
        match behaviour:
            case Behaviour.NEVER_ANSWER:
                self._keep_silent(line)
            case Behaviour.HALF_RESPONSE:
                line.sendall(response[: len(response) // 2])
                self._keep_silent(line)
            case Behaviour.HALF_HEADER:
                line.sendall(response[:3])
                self._keep_silent(line)
            case Behaviour.ANSWER_LATE:
                if self._closing.wait(self.delay_s):
                    raise _HungUpError
            case Behaviour.DRIBBLE_RESPONSE:
                self._dribble(line, response)
                return
            case Behaviour.WRONG_MESSAGE_ID:
                response = response_pdu(context_id, 0x8001, message_id + 7, "1.2", "1.2", 0)
            case Behaviour.OTHER_COMMAND:
                response = response_pdu(context_id, 0x8030, message_id, "1.2", "1.2", 0)
            case Behaviour.OTHER_CONTEXT:
                response = response_pdu(context_id + 2, 0x8001, message_id, "1.2", "1.2", 0)
            case Behaviour.NO_STATUS:
                response = response_pdu(context_id, 0x8001, message_id, "1.2", "1.2", None)
            case Behaviour.GARBAGE_RESPONSE:
                response = b"\xff\xfe\xfd" * 100
            case Behaviour.GIANT_RESPONSE:
                response = struct.pack(">BxI", 4, 0xFFFFFFFF) + bytes(1000)
            case Behaviour.DAMAGED_COMMAND_SET:
                response = response[:12] + b"\xff" * (len(response) - 12)
            case Behaviour.RELEASE_INSTEAD_OF_RESPONSE:
                response = struct.pack(">BxI4x", 5, 4)
        line.sendall(response)
        if behaviour is Behaviour.IGNORE_RELEASE:
            self._keep_silent(line)

    def _dribble(self, line: socket.socket, response: bytes) -> None:
        for value in response:
            line.sendall(bytes([value]))
            if self._closing.wait(self.delay_s):
                raise _HungUpError

    def _receive_command(self, association: _Association) -> tuple[int, dict[int, bytes]]:
        encoded = b""
        for context_id, flags, fragment in self._fragments(association):
            if not flags & 1:
                self.violations.append("data set fragment where a command was due")
            encoded += fragment
            if flags & 2:
                return context_id, elements(encoded)
        raise _HungUpError

    def _receive_data_set(self, association: _Association, context_id: int) -> bytes:
        encoded = bytearray()
        for fragment_context_id, flags, fragment in self._fragments(association):
            if flags & 1 or fragment_context_id != context_id:
                self.violations.append("another message inside a message")
            encoded += fragment
            during = self._misbehaves(Behaviour.DROP_DURING_DATA_SET, Behaviour.ABORT_DURING_DATA_SET)
            self._end_if(during, association.line)
            if flags & 2:
                return bytes(encoded)
        raise _HungUpError

    def _fragments(self, association: _Association) -> Iterator[tuple[int, int, bytes]]:
        while True:
            pdu = _receive_pdu(association.line)
            if pdu[0] == 5:
                self.endings.append("released")
                association.line.sendall(struct.pack(">BxI4x", 6, 4))
                raise _HungUpError
            if pdu[0] != 4:
                self.endings.append("aborted")
                raise _HungUpError
            if self.maximum_length and len(pdu) - 6 > self.maximum_length:
                self.violations.append("P-DATA longer than the maximum length")
            start = 6
            while start < len(pdu):
                length, context_id, flags = struct.unpack_from(">IBB", pdu, start)
                if context_id not in association.contexts:
                    self.violations.append("message on a presentation context that was not accepted")
                yield context_id, flags, pdu[start + 6 : start + 4 + length]
                start += 4 + length

    def _end_if(self, behaviour: Behaviour | None, line: socket.socket) -> None:
        if behaviour in _ABORTS:
            self._abort(line)
        if behaviour in _HANGS_UP:
            raise _HungUpError

    def _abort(self, line: socket.socket) -> None:
        line.sendall(struct.pack(">BxIxxBB", 7, 4, 0, 0))
        raise _HungUpError

    def _keep_silent(self, line: socket.socket) -> None:
        """Read and ignore until the peer goes."""
        while line.recv(65536):
            pass
        raise _HungUpError


def _receive_pdu(line: socket.socket) -> bytes:
    header = _receive(line, 6)
    return header + _receive(line, struct.unpack(">BxI", header)[1])


def _receive(line: socket.socket, count: int) -> bytes:
    received = bytearray()
    while len(received) < count:
        chunk = line.recv(min(count - len(received), 1 << 20))
        if not chunk:
            raise _HungUpError
        received += chunk
    return bytes(received)
