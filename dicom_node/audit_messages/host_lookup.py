"""Addresses of a host, asked for in bounded time: the system's resolver knows no deadline."""

from __future__ import annotations

import socket
import threading
from collections.abc import Sequence
from concurrent.futures import Future
from typing import Any, TypeAlias

Address: TypeAlias = tuple[int, int, int, tuple[Any, ...]]
"""Family, kind and protocol of a socket, and where it sends or connects to."""


class HostLookup:
    """Looks a host up at each use, and remembers its addresses for when nobody answers.

    Parameters
    ----------
    host, port : str, int
        What is looked up.
    kind : socket.SocketKind
        For which kind of socket.
    timeout_s : float
        How long the resolver may take.
    """

    def __init__(self, host: str, port: int, kind: socket.SocketKind, *, timeout_s: float) -> None:
        self._host = host
        self._port = port
        self._kind = kind
        self._timeout_s = timeout_s
        self._question: Future[Sequence[Address]] | None = None
        self._remembered: Sequence[Address] = ()

    def addresses(self) -> Sequence[Address]:
        """Return the host's addresses, best first; those of the last answer where none comes now.

        Raises
        ------
        OSError
            If the host is unknown, or nobody has answered yet; mostly a :class:`socket.gaierror`.
        """
        # One question at a time: behind a resolver that is dead others would only pile up.
        if self._question is None:
            self._question = Future()
            threading.Thread(
                target=self._ask, args=(self._question,), name="host-lookup", daemon=True
            ).start()
        try:
            answer = self._question.result(self._timeout_s)
        except TimeoutError:
            return self._remembered_or(socket.gaierror(socket.EAI_AGAIN, "no name server answers in time"))
        except OSError as error:
            self._question = None
            if error.errno != socket.EAI_AGAIN:
                raise
            return self._remembered_or(error)
        self._question, self._remembered = None, answer
        return answer

    def _ask(self, question: Future[Sequence[Address]]) -> None:
        try:
            found = socket.getaddrinfo(self._host, self._port, type=self._kind)
        except UnicodeError:
            question.set_exception(socket.gaierror(socket.EAI_NONAME, "no host can be called so"))
        except OSError as error:
            question.set_exception(error)
        else:
            question.set_result([(family, kind, protocol, to) for family, kind, protocol, _, to in found])

    def _remembered_or(self, error: OSError) -> Sequence[Address]:
        if not self._remembered:
            raise error
        return self._remembered
