"""The bytes of one connection: read straight to where they stay, within deadlines.

A small control buffer takes what is looked at (PDU and PDV headers, command sets). The payload of data sets
goes from the kernel to its final place; where more must follow, the next header comes with the same system
call. The thread sleeps in the kernel; a receive time-out of at most a second lets it look at its deadlines.
"""

from __future__ import annotations

import contextlib
import math
import select
import socket
import ssl
import struct
import time

from dicom_node.listener.limits import ListenerLimits

PDU_HEADER = struct.Struct(">BxL")
PDV_HEADER = struct.Struct(">LBB")
_CONTROL_BYTES = 64 * 1024
_LONGEST_TICK_S = 1.0
_LINGER_S = 1.0
_CUT_OFF = "the node ended the connection"
_LINGER_BYTES = 1 << 20


class PeerLeftError(OSError):
    """The connection ended in the middle of something; whatever was half-received is worth nothing."""


class LimitExceededError(OSError):
    """The peer exceeded a limit or a deadline; the connection is of no more use."""


class ProtocolError(OSError):
    """The peer sent what has no place here; the association is aborted."""


def words_of(error: OSError) -> str:
    """Say why a connection ended; of the system's own errors no more than that it was lost."""
    is_ours = isinstance(error, ProtocolError | LimitExceededError | PeerLeftError)
    return str(error) if is_ours else "the connection was lost"


class Wire:
    """Reads from one connection, plain or secure, and sends to it.

    Parameters
    ----------
    connection : socket.socket
        An accepted connection; an :class:`ssl.SSLSocket` after its handshake.
    limits : ListenerLimits
        The deadlines.
    """

    def __init__(self, connection: socket.socket, limits: ListenerLimits) -> None:
        self.connection = connection
        self._limits = limits
        self._buffer = memoryview(bytearray(_CONTROL_BYTES))
        self._start = self._end = 0
        self._is_secure = isinstance(connection, ssl.SSLSocket)
        # Until when something is waited for; None where the clock starts with the first wait.
        self._deadline: float | None = None
        self._message_deadline: float | None = math.inf
        self._acknowledges = False
        self._is_cut_off = False
        self._prepare()

    def _prepare(self) -> None:
        limits, connection = self._limits, self.connection
        tick_s = min(
            _LONGEST_TICK_S,
            limits.acse_timeout_s,
            limits.pdu_timeout_s,
            limits.message_timeout_s,
            limits.network_timeout_s,
        )
        with contextlib.suppress(OSError):  # no TCP: nothing to set
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._tick_s = tick_s
        if self._is_secure:
            connection.settimeout(tick_s)
            return
        connection.settimeout(None)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, _timeval(tick_s))
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, _timeval(limits.network_timeout_s))

    @property
    def has_bytes(self) -> bool:
        """Whether something that was read waits to be looked at."""
        return self._start < self._end

    def begin_request(self) -> None:
        """Start the clock of an association request, for the whole of it (ARTIM timer, PS3.8 9.1.5).

        A peer that says its request byte by byte keeps a place no longer than one that says nothing.
        """
        self._message_deadline = time.monotonic() + self._limits.acse_timeout_s

    def begin_message(self) -> None:
        """Start the clock of a DIMSE message."""
        self._message_deadline = None

    def end_message(self) -> None:
        """Stop the clock: the time until the answer is not the peer's."""
        self._message_deadline = math.inf

    def next_pdu(self, silence_s: float) -> tuple[int, int]:
        """Wait for a PDU.

        Parameters
        ----------
        silence_s : float
            How long the peer may say nothing, in seconds.

        Returns
        -------
        tuple of (int, int)
            Its type and the length of what follows the header (PS3.8 9.3.1).

        Raises
        ------
        PeerLeftError
            If the peer closes.
        LimitExceededError
            If a deadline passes.
        """
        if self._is_cut_off:
            raise PeerLeftError(_CUT_OFF)
        if self._start == self._end:
            self._start = self._end = 0
            self._deadline = None
            if self._message_deadline != math.inf:
                self._acknowledge_at_once()
            self._start_clocks(silence_s)
            self._read_some()
        self._deadline = None
        kind, length = self.unpacked(PDU_HEADER)
        return kind, length

    def is_silent_for(self, seconds: float) -> bool:
        """Wait for the peer to say or end something; return whether it did neither for so long."""
        if self.has_bytes or (isinstance(self.connection, ssl.SSLSocket) and self.connection.pending()):
            return False
        waiting = select.poll()
        waiting.register(self.connection, select.POLLIN)
        return not waiting.poll(seconds * 1000)

    def unpacked(self, head: struct.Struct) -> tuple[int, ...]:
        """The numbers of a head, which is next."""
        start = self._start
        if self._end - start < head.size:
            self._pull(head.size)
            start = self._start
        self._start = start + head.size
        return head.unpack_from(self._buffer, start)

    def take(self, size: int) -> memoryview:
        """The next bytes, as many as there are asked for; valid until the next call of any method."""
        if size > _CONTROL_BYTES:
            return memoryview(self.read(size))
        if self._end - self._start < size:
            self._pull(size)
        start = self._start
        self._start = start + size
        return self._buffer[start : self._start]

    def read(self, size: int) -> bytes:
        """The next bytes, as many as there are asked for."""
        received = bytearray(size)
        self.fill(memoryview(received), ahead=0)
        return bytes(received)

    def fill(self, target: memoryview, *, ahead: int) -> None:
        """Receive into a place until it is full.

        Parameters
        ----------
        target : memoryview
            Where the next bytes of the connection belong.
        ahead : int
            How many bytes are sure to follow, such as the next header: they are read along.
        """
        ready = min(self._end - self._start, len(target))
        if ready:
            target[:ready] = self._buffer[self._start : self._start + ready]
            self._start += ready
            target = target[ready:]
        if not target:
            return
        self._acknowledge_at_once()
        self._start_clocks(self._limits.pdu_timeout_s)
        while True:
            size = len(target)
            count = self._receive(target, ahead)
            if count >= size:
                self._start, self._end = 0, count - size
                return
            target = target[count:]
            self._check_deadline()

    def send(self, data: bytes) -> None:
        """Send a whole PDU.

        Raises
        ------
        OSError
            If the peer left, or does not read for as long as an association may be silent.
        """
        self._acknowledges = False
        if not self._is_secure:
            self.connection.sendall(data)
            return
        self.connection.settimeout(self._limits.network_timeout_s)
        self.connection.sendall(data)
        self.connection.settimeout(self._tick_s)

    def wake(self, how: int) -> None:
        """Shut the connection down from another thread, so that a blocked read returns.

        Parameters
        ----------
        how : int
            ``socket.SHUT_RD`` lets an answer still go out, ``socket.SHUT_RDWR`` does not.
        """
        with contextlib.suppress(OSError):
            # Not SSLSocket's own, which would take the secure layer away under the reader's feet.
            socket.socket.shutdown(self.connection, how)

    def cut_off(self) -> None:
        """Let every read fail from now on; for another thread, which wants the connection ended."""
        self._is_cut_off = True
        self.wake(socket.SHUT_RD)

    def close(self) -> None:
        """End the connection so that what was sent last still arrives."""
        connection = self.connection
        with contextlib.suppress(OSError):
            # A close with unread bytes resets the connection and takes the last answer with it.
            connection.shutdown(socket.SHUT_WR)
            if not self._is_secure:
                deadline, left = time.monotonic() + _LINGER_S, _LINGER_BYTES
                while left > 0 and time.monotonic() < deadline:
                    count = connection.recv_into(self._buffer)
                    if count == 0:
                        break
                    left -= count
        connection.close()

    def _pull(self, size: int) -> None:
        """Read until the control buffer, which gets room for them, holds so many bytes."""
        if self._start == self._end:
            self._start = self._end = 0
        elif self._start + size > _CONTROL_BYTES:
            waiting = bytes(self._buffer[self._start : self._end])
            self._buffer[: len(waiting)] = waiting
            self._start, self._end = 0, len(waiting)
        self._acknowledge_at_once()
        self._start_clocks(self._limits.pdu_timeout_s)
        while self._end - self._start < size:
            self._read_some()

    def _read_some(self) -> None:
        """Read whatever there is into the control buffer."""
        room = self._buffer[self._end :] if self._end else self._buffer
        while True:
            try:
                count = self.connection.recv_into(room)
            except (BlockingIOError, TimeoutError):
                self._check_deadline()
                continue
            if count == 0:
                raise PeerLeftError("the peer closed the connection")
            self._end += count
            self._check_deadline()
            return

    def _receive(self, target: memoryview, ahead: int) -> int:
        while True:
            try:
                if self._is_secure:
                    count = self.connection.recv_into(target)
                elif ahead:
                    places = [target, self._buffer[:ahead]]
                    count = self.connection.recvmsg_into(places, 0, socket.MSG_WAITALL)[0]
                else:
                    count = self.connection.recv_into(target, 0, socket.MSG_WAITALL)
            except (BlockingIOError, TimeoutError):
                self._check_deadline()
                continue
            if count == 0:
                raise PeerLeftError("the peer closed the connection")
            return count

    def _acknowledge_at_once(self) -> None:
        # A sender with Nagle's algorithm holds back each small tail until all before it is acknowledged,
        # which the kernel puts off by 40 ms, in the hope of an answer that takes the acknowledgement along.
        # So for what has an answer once it came in whole; each thing that is sent takes the option back.
        if self._acknowledges:
            return
        # A secure layer may send of itself.
        self._acknowledges = not self._is_secure
        with contextlib.suppress(OSError):
            self.connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)

    def _start_clocks(self, seconds: float) -> None:
        """Before a wait: allow it so many seconds, unless what is read has its clock already."""
        if self._deadline is not None:
            return
        now = time.monotonic()
        if self._message_deadline is None:
            self._message_deadline = now + self._limits.message_timeout_s
        self._deadline = min(now + seconds, self._message_deadline)

    def _check_deadline(self) -> None:
        if self._is_cut_off:
            raise PeerLeftError(_CUT_OFF)
        if self._deadline is not None and time.monotonic() > self._deadline:
            raise LimitExceededError("the peer took longer than the node waits")


def _timeval(seconds: float) -> bytes:
    whole = int(seconds)
    return struct.pack("@ll", whole, int((seconds - whole) * 1_000_000))
