"""A sender that is never the bottleneck: PDUs cut beforehand, one thread for each association.

    python -m benchmarks.receive.blaster PORT CASE OBJECTS ASSOCIATIONS [--nagle] [--latency]

Prints one line of JSON: seconds from the first connection to the last release; with ``--latency`` the median
milliseconds of one C-ECHO and of one C-STORE on an open association, and of connecting, one C-ECHO and the
release. Written against the standard (PS3.8 9.3), without the node's code.
"""

from __future__ import annotations

import argparse
import json
import socket
import struct
import threading
import time
from statistics import median

from benchmarks.receive.objects import CASES, EXPLICIT_LITTLE, SentObject, objects_of

_VERIFICATION = "1.2.840.10008.1.1"
_IMPLICIT_LITTLE = "1.2.840.10008.1.2"
_LONGEST_PDU = 128 * 1024
_MOST_VIEWS = 1000  # of one sendmsg; the kernel takes 1024
_LATENCIES = 300


class Association:
    """An open association with contexts 1 (storage) and 3 (verification)."""

    def __init__(self, port: int, sop_class_uid: str, *, nagle: bool) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port), timeout=120)
        self._socket.settimeout(None)  # or MSG_WAITALL would not wait
        self._nagle = nagle
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 0 if nagle else 1)
        self._socket.sendall(_request(sop_class_uid))
        kind, body = self._pdu()
        if kind != 2:
            raise RuntimeError("the receiver did not accept the association")
        self._longest_pdu = min(_LONGEST_PDU, _maximum_length(body) or _LONGEST_PDU)
        self._message_id = 0

    def store(self, each: SentObject) -> None:
        """Send one object and wait for Success."""
        self._message_id = self._message_id % 65535 + 1
        command = _command(each.sop_class_uid, each.sop_instance_uid, self._message_id)
        self._send([_p_data_head(len(command), 1, 3) + command])
        self._send(self._data(each))
        self._expect_success()

    def echo(self) -> None:
        """Send a C-ECHO and wait for Success."""
        self._message_id = self._message_id % 65535 + 1
        command = _command(_VERIFICATION, None, self._message_id)
        self._send([_p_data_head(len(command), 3, 3) + command])
        self._expect_success()

    def release(self) -> None:
        """Release and close."""
        self._socket.sendall(struct.pack(">BxLxxxx", 5, 4))
        kind, _ = self._pdu()
        if kind != 6:
            raise RuntimeError("the receiver did not release the association")
        self._socket.close()

    def _data(self, each: SentObject) -> list[bytes | memoryview]:
        size = self._longest_pdu - 6
        first = each.pixels[: size - len(each.head)]
        rest = each.pixels[len(first) :]
        pieces: list[bytes | memoryview] = [
            _p_data_head(len(each.head) + len(first), 1, 0 if rest else 2),
            each.head,
            first,
        ]
        while rest:
            part, rest = rest[:size], rest[size:]
            pieces += [_p_data_head(len(part), 1, 0 if rest else 2), part]
        return pieces

    def _send(self, pieces: list[bytes | memoryview]) -> None:
        if self._nagle:
            # As simple stacks do: each header by itself, and the kernel waits with what is small.
            for piece in pieces:
                self._socket.sendall(piece)
            return
        while pieces:
            sent = self._socket.sendmsg(pieces[:_MOST_VIEWS])
            while pieces and sent >= len(pieces[0]):
                sent -= len(pieces.pop(0))
            if sent:
                pieces[0] = memoryview(pieces[0])[sent:]

    def _expect_success(self) -> None:
        kind, body = self._pdu()
        status = body.rfind(struct.pack("<HHL", 0, 0x0900, 2))
        if kind != 4 or body[status + 8 : status + 10] != b"\0\0":
            answer = body[status + 8 : status + 10][::-1].hex()
            raise RuntimeError(f"the receiver answered with a PDU of type {kind}, status {answer}")

    def _pdu(self) -> tuple[int, bytes]:
        kind, length = struct.unpack(">BxL", self._read(6))
        return kind, self._read(length)

    def _read(self, size: int) -> bytes:
        # A receiver that answers in two pieces waits for the acknowledgement of the first.
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)
        received = self._socket.recv(size, socket.MSG_WAITALL)
        if len(received) < size:
            raise RuntimeError("the receiver closed the connection")
        return received


def blast(port: int, case: str, count: int, associations: int, *, nagle: bool) -> float:
    """Send objects over several associations at once; return the seconds that it took."""
    shares = [list(objects_of(CASES[case], count // associations)) for _ in range(associations)]
    start = threading.Barrier(associations + 1)
    failures: list[BaseException] = []

    def send(share: list[SentObject]) -> None:
        start.wait()
        try:
            association = Association(port, CASES[case].sop_class_uid, nagle=nagle)
            for each in share:
                association.store(each)
            association.release()
        except BaseException as error:
            failures.append(error)
            raise

    threads = [threading.Thread(target=send, args=(share,)) for share in shares]
    for thread in threads:
        thread.start()
    start.wait()
    began = time.perf_counter()
    for thread in threads:
        thread.join()
    seconds = time.perf_counter() - began
    if failures:
        raise SystemExit(1)
    return seconds


def latencies(port: int) -> dict[str, float]:
    """Return medians in milliseconds."""
    case = CASES["small"]
    association = Association(port, case.sop_class_uid, nagle=False)
    objects = list(objects_of(case, _LATENCIES))
    echo = [_timed(association.echo) for _ in range(_LATENCIES)]
    store = [_timed(lambda each=each: association.store(each)) for each in objects]
    association.release()

    def whole() -> None:
        each = Association(port, case.sop_class_uid, nagle=False)
        each.echo()
        each.release()

    return {
        "echo_ms": median(echo),
        "store_ms": median(store),
        "association_ms": median(_timed(whole) for _ in range(_LATENCIES // 3)),
    }


def _timed(call: object) -> float:
    assert callable(call)
    began = time.perf_counter()
    call()
    return (time.perf_counter() - began) * 1000


def _request(sop_class_uid: str) -> bytes:
    contexts = b"".join(
        _item(
            0x20, struct.pack(">Bxxx", number) + _item(0x30, abstract.encode()) + _item(0x40, syntax.encode())
        )
        for number, abstract, syntax in (
            (1, sop_class_uid, EXPLICIT_LITTLE),
            (3, _VERIFICATION, _IMPLICIT_LITTLE),
        )
    )
    user = _item(0x50, _item(0x51, struct.pack(">L", _LONGEST_PDU)) + _item(0x52, b"2.25.1"))
    body = (
        struct.pack(">Hxx16s16s32x", 1, b"NODE".ljust(16), b"BLASTER".ljust(16))
        + _item(0x10, b"1.2.840.10008.3.1.1.1")
        + contexts
        + user
    )
    return struct.pack(">BxL", 1, len(body)) + body


def _item(kind: int, value: bytes) -> bytes:
    return struct.pack(">BxH", kind, len(value)) + value


def _maximum_length(accept: bytes) -> int:
    """Return what the receiver says of the PDUs that it takes (PS3.8 D.1); 0 for no limit."""
    start = accept.find(struct.pack(">BxH", 0x51, 4))
    return int(struct.unpack_from(">L", accept, start + 4)[0])


def _p_data_head(size: int, context_id: int, control: int) -> bytes:
    return struct.pack(">BxLLBB", 4, size + 6, size + 2, context_id, control)


def _command(sop_class_uid: str, sop_instance_uid: str | None, message_id: int) -> bytes:
    is_store = sop_instance_uid is not None
    values = [
        (0x0002, _padded(sop_class_uid)),
        (0x0100, struct.pack("<H", 0x0001 if is_store else 0x0030)),
        (0x0110, struct.pack("<H", message_id)),
        *([(0x0700, b"\0\0")] if is_store else []),
        (0x0800, struct.pack("<H", 0x0001 if is_store else 0x0101)),
        *([(0x1000, _padded(sop_instance_uid))] if sop_instance_uid is not None else []),
    ]
    body = b"".join(struct.pack("<HHL", 0, number, len(value)) + value for number, value in values)
    return struct.pack("<HHLL", 0, 0, 4, len(body)) + body


def _padded(uid: str) -> bytes:
    value = uid.encode("ascii")
    return value + b"\0" * (len(value) % 2)


def main() -> None:
    """Send as the command line asks."""
    parser = argparse.ArgumentParser(prog="benchmarks.receive.blaster")
    parser.add_argument("port", type=int)
    parser.add_argument("case", choices=tuple(CASES))
    parser.add_argument("objects", type=int)
    parser.add_argument("associations", type=int)
    parser.add_argument("--nagle", action="store_true")
    parser.add_argument("--latency", action="store_true")
    options = parser.parse_args()
    if options.latency:
        print(json.dumps(latencies(options.port)))
    else:
        seconds = blast(
            options.port, options.case, options.objects, options.associations, nagle=options.nagle
        )
        print(json.dumps({"seconds": seconds}))


if __name__ == "__main__":
    main()
