"""Letting the kernel end a child process whose parent dies: nobody else would."""

from __future__ import annotations

import ctypes
import os
import signal
from collections.abc import Callable

_PR_SET_PDEATHSIG = 1
_LIBRARY = ctypes.CDLL(None)  # loaded here: a child between fork and exec must not load anything


def ended_with_parent(number: signal.Signals) -> Callable[[], None]:
    """Return what a child runs before its program, so that it gets a signal when its parent dies.

    Parameters
    ----------
    number : signal.Signals
        The signal; it is sent when the thread that started the child ends, too.
    """
    parent = os.getpid()

    def bind() -> None:
        _LIBRARY.prctl(_PR_SET_PDEATHSIG, number)
        if os.getppid() != parent:  # it died in between
            os.kill(os.getpid(), number)

    return bind
