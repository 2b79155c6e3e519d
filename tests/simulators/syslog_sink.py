"""A syslog sink over TLS (RFC 5425) in a process of its own, for tests that kill it.

It shares no code with the node but the certificates' paths. Run as a program it tells when it listens,
appends every message to a file, one JSON text a line, and answers close_notify after the last.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import socket
import ssl
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Self

from dicom_node.tls import TlsFiles
from tests.free_ports import free_port

ROOT = Path(__file__).parents[2]


class SyslogSink:
    """What a test does with a sink.

    Parameters
    ----------
    files : TlsFiles
        Its side of the connection.
    folder : pathlib.Path
        For what it took.
    """

    def __init__(self, files: TlsFiles, folder: Path) -> None:
        self._files = files
        self._taken = folder / "taken.jsonl"
        self._taken.touch()
        self._process: subprocess.Popen[str] | None = None
        # Not one that the kernel may give to an outgoing connection while the sink is down.
        self.port = free_port()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self.kill()

    def start(self, *, freeze_after: int = 0, close_abruptly: bool = False) -> None:
        """Listen, on the same port every time.

        Parameters
        ----------
        freeze_after : int
            Read no further after so many messages of this process; 0: never.
        close_abruptly : bool
            Close the connection after the last message without close_notify.
        """
        files = (self._files.certificate, self._files.private_key, self._files.authority)
        arguments = [*map(str, files), str(self._taken), str(self.port), str(freeze_after)]
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.simulators.syslog_sink", *arguments, str(int(close_abruptly))],
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self.told() == "ready\n", "the sink did not start"

    def told(self) -> str:
        """Wait for the next line that the process prints."""
        assert self._process is not None
        assert self._process.stdout is not None
        return self._process.stdout.readline()

    def kill(self) -> None:
        """End it as a power cut does."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            assert self._process.stdout is not None
            self._process.stdout.close()
            self._process = None

    @property
    def messages(self) -> list[str]:
        """Everything that it ever took."""
        return [json.loads(line) for line in self._taken.read_text().splitlines()]


def _frames(stream: BinaryIO) -> Iterator[bytes]:
    """Yield what RFC 5425 section 4.3 frames: ``LENGTH SP MESSAGE``."""
    while True:
        length = b""
        while (digit := stream.read(1)).isdigit():
            length += digit
        if not digit:
            return
        assert digit == b" "
        yield stream.read(int(length))


def main() -> None:
    """Listen until killed."""
    parser = argparse.ArgumentParser()
    for name in ("certificate", "key", "authority", "taken"):
        parser.add_argument(name)
    for name in ("port", "freeze_after", "close_abruptly"):
        parser.add_argument(name, type=int)
    options = parser.parse_args()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(options.certificate, options.key)
    context.load_verify_locations(options.authority)
    context.verify_mode = ssl.CERT_REQUIRED
    count = 0
    with socket.create_server(("127.0.0.1", options.port)) as server, Path(options.taken).open("a") as taken:
        sys.stdout.write("ready\n")
        sys.stdout.flush()
        while True:
            plain, _ = server.accept()
            try:
                secure = context.wrap_socket(plain, server_side=True)
                for message in _frames(secure.makefile("rb")):
                    taken.write(json.dumps(message.decode()) + "\n")
                    taken.flush()
                    count += 1
                    if count == options.freeze_after:
                        sys.stdout.write("frozen\n")
                        sys.stdout.flush()
                        signal.pause()
                if options.close_abruptly:
                    os.close(secure.detach())
                else:
                    secure.unwrap()
                    secure.close()
            except OSError:
                plain.close()


if __name__ == "__main__":
    main()
