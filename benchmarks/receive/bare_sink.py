"""The least that a receiver in Python can do: read, write, answer. Run by the benchmark.

python -m benchmarks.receive.bare_sink PORT FOLDER [sync]

It accepts every association of the sender as it is, looks at no length but those of PDUs and keeps what comes
in one file for each object. What the node loses against it is the price of everything else.
"""

from __future__ import annotations

import itertools
import os
import socket
import struct
import sys
import threading
from pathlib import Path

_PDU = struct.Struct(">BxL")
_PDV = struct.Struct(">LBB")
_ASSOCIATE, _ACCEPT, _P_DATA, _RELEASE, _RELEASED = 1, 2, 4, 5, 6
_COMMAND, _LAST = 1, 2
_LONGEST_PDU = 128 * 1024
_IMPLICIT_LITTLE, _EXPLICIT_LITTLE = b"1.2.840.10008.1.2", b"1.2.840.10008.1.2.1"

_numbers = itertools.count()


def main(port: int, folder: Path, *, is_synced: bool) -> None:
    """Receive until the process is ended."""
    with socket.create_server(("127.0.0.1", port), backlog=64) as server:
        while True:
            connection, _ = server.accept()
            threading.Thread(target=_serve, args=(connection, folder, is_synced), daemon=True).start()


def _serve(connection: socket.socket, folder: Path, is_synced: bool) -> None:
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    view = memoryview(bytearray(_LONGEST_PDU + 64))
    command, file = b"", -1
    with connection:
        while _read(connection, view[: _PDU.size]):
            kind, length = _PDU.unpack_from(view)
            body = view[:length]
            if not _read(connection, body):
                return
            if kind == _ASSOCIATE:
                connection.sendall(_accepting(bytes(body)))
            elif kind == _RELEASE:
                connection.sendall(struct.pack(">BxLxxxx", _RELEASED, 4))
            elif kind != _P_DATA:
                return
            else:
                # The sender puts one item into each PDU.
                _, context, control = _PDV.unpack_from(body)
                if control & _COMMAND:
                    command = bytes(body[_PDV.size :])
                    if not _has_data_set(command):
                        connection.sendall(_success(command, context))
                        continue
                    path = folder / str(next(_numbers))
                    file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
                    continue
                os.write(file, body[_PDV.size :])
                if control & _LAST:
                    if is_synced:
                        os.fsync(file)
                    os.close(file)
                    connection.sendall(_success(command, context))


def _read(connection: socket.socket, target: memoryview) -> bool:
    return connection.recv_into(target, 0, socket.MSG_WAITALL) == len(target)


def _accepting(request: bytes) -> bytes:
    contexts = b"".join(
        _item(0x21, struct.pack(">Bxxx", number) + _item(0x40, syntax))
        for number, syntax in ((1, _EXPLICIT_LITTLE), (3, _IMPLICIT_LITTLE))
    )
    user = _item(0x50, _item(0x51, struct.pack(">L", _LONGEST_PDU)) + _item(0x52, b"2.25.2"))
    # Protocol version and AE titles go back as they came (PS3.8 9.3.3).
    body = request[:68] + _item(0x10, b"1.2.840.10008.3.1.1.1") + contexts + user
    return _PDU.pack(_ACCEPT, len(body)) + body


def _item(kind: int, value: bytes) -> bytes:
    return struct.pack(">BxH", kind, len(value)) + value


def _has_data_set(command: bytes) -> bool:
    return struct.pack("<HHLH", 0, 0x0800, 2, 0x0101) not in command


def _success(command: bytes, context: int) -> bytes:
    """Turn a request's command set into its answer."""
    field = command.index(struct.pack("<HHL", 0, 0x0100, 2)) + 8
    answer = command[12:field] + bytes((command[field], 0x80)) + command[field + 2 :]
    answer += struct.pack("<HHLH", 0, 0x0900, 2, 0)
    head = struct.pack("<HHLL", 0, 0, 4, len(answer))
    size = len(head) + len(answer)
    return _PDU.pack(_P_DATA, size + 6) + _PDV.pack(size + 2, context, _COMMAND | _LAST) + head + answer


if __name__ == "__main__":
    main(int(sys.argv[1]), Path(sys.argv[2]), is_synced=sys.argv[3:] == ["sync"])
