"""A real Redis server of a test's own: with a password, on a free port, to be killed, emptied and watched."""

from __future__ import annotations

import secrets
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Self

import pytest
import redis

from dicom_node.tls import TlsFiles
from tests.free_ports import free_port
from tests.programs import needs

START_TIMEOUT_S = 60.0


class RedisServer:
    """One ``redis-server`` without persistence: a restart finds it empty.

    Parameters
    ----------
    binary : str
        Path of ``redis-server``.
    folder : pathlib.Path
        Where it runs.
    tls : TlsFiles, optional
        What it speaks TLS with, on a second port.
    """

    def __init__(self, binary: str, folder: Path, *, tls: TlsFiles | None = None) -> None:
        self._binary = binary
        self._folder = folder
        self.port = free_port()
        self.tls_port = free_port()
        self._tls = tls
        self.password = secrets.token_hex(8)
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()

    @property
    def url(self) -> str:
        """What a node's ``broker_url`` says."""
        return f"redis://:{self.password}@127.0.0.1:{self.port}/0"

    def client(self) -> redis.Redis:
        """Return a connection of the test's own."""
        return redis.Redis(host="127.0.0.1", port=self.port, password=self.password, socket_timeout=30)

    def start(self) -> None:
        """Start it, empty, on the same port as ever, and wait until it answers."""
        tls = self._tls
        secure = (
            ()
            if tls is None
            else (
                *("--tls-port", str(self.tls_port), "--tls-auth-clients", "no"),
                *("--tls-cert-file", str(tls.certificate), "--tls-key-file", str(tls.private_key)),
                *("--tls-ca-cert-file", str(tls.authority)),
            )
        )
        self._process = subprocess.Popen(
            [
                self._binary,
                *("--port", str(self.port), "--bind", "127.0.0.1", "--requirepass", self.password),
                *("--save", "", "--appendonly", "no", "--maxmemory-policy", "noeviction"),
                *secure,
            ],
            cwd=self._folder,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        deadline = time.monotonic() + START_TIMEOUT_S
        while not self._answers():
            assert self._process.poll() is None and time.monotonic() < deadline, "redis-server did not start"
            threading.Event().wait(0.02)

    def kill(self) -> None:
        """End it as a power cut would."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    @contextmanager
    def frozen(self) -> Iterator[None]:
        """Let it take connections and answer nothing: a half-open line."""
        assert self._process is not None, "only a running server can freeze"
        self._process.send_signal(signal.SIGSTOP)
        try:
            yield
        finally:
            self._process.send_signal(signal.SIGCONT)

    def flush(self) -> None:
        """Forget everything."""
        with self.client() as client:
            client.flushall()

    def length(self, key: str) -> int:
        """Return the number of messages in a list, by the key's full name."""
        with self.client() as client:
            return int(client.llen(key))  # type: ignore[arg-type]

    def _answers(self) -> bool:
        try:
            with self.client() as client:
                return bool(client.ping())
        except redis.RedisError:
            return False


class Watcher:
    """Everything that any client says to a server while the block runs (MONITOR)."""

    def __init__(self, server: RedisServer) -> None:
        self._server = server
        self._line = socket.create_connection(("127.0.0.1", server.port))
        self._heard = bytearray()
        self._thread = threading.Thread(target=self._listen, name="redis-watcher", daemon=True)

    def __enter__(self) -> Self:
        self._line.sendall(f"AUTH {self._server.password}\r\nMONITOR\r\n".encode())
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._line.shutdown(socket.SHUT_RDWR)
        self._thread.join(30)
        self._line.close()

    @property
    def traffic(self) -> str:
        """What was heard so far."""
        return bytes(self._heard).decode("utf-8", "backslashreplace")

    def _listen(self) -> None:
        while heard := self._line.recv(65536):
            self._heard += heard


def redis_binary() -> str:
    """Return the path of ``redis-server``; skip aloud where it is missing, fail in CI."""
    return needs("redis-server", "redis-server")


@pytest.fixture(scope="module")
def redis_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    """A running server for one test module."""
    with RedisServer(redis_binary(), tmp_path_factory.mktemp("redis")) as server:
        yield server
