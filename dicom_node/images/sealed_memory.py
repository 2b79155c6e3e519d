"""Memory in which the decoder process hands pixels over: sealed, it can neither shrink nor change."""

from __future__ import annotations

import fcntl
import os

SEALS = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE | fcntl.F_SEAL_SEAL


def new_memory(name: str, size: int) -> int:
    """Make memory of so many bytes and give its descriptor."""
    descriptor = os.memfd_create(name, os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    os.ftruncate(descriptor, size)
    return descriptor


def seal(descriptor: int) -> None:
    """Seal memory for good; no writable mapping may be left."""
    fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, SEALS)


def is_sealed(descriptor: int, size: int) -> bool:
    """Whether a descriptor is sealed memory of just this size."""
    sealed = fcntl.fcntl(descriptor, fcntl.F_GET_SEALS) == SEALS
    return sealed and os.fstat(descriptor).st_size == size
