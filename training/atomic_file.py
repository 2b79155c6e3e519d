"""A file that is either whole or not there, even where the power fails while it is written."""

from __future__ import annotations

import errno
import json
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from training.errors import ResourcesError

_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})


def write_atomically(path: Path, content: bytes) -> None:
    """Write `content` beside `path`, sync it, then give it its name; missing folders are made."""
    with written_beside(path) as beside, beside.open("xb") as file:
        file.write(content)


def write_json(path: Path, value: Any) -> None:
    """Write a JSON document that people can read, too, as :func:`write_atomically` does."""
    text = json.dumps(value, indent=1, sort_keys=True, allow_nan=False) + "\n"
    write_atomically(path, text.encode("ascii"))


@contextmanager
def written_beside(path: Path) -> Iterator[Path]:
    """Give a name beside `path` to write a file under, then sync that file and call it `path`.

    For what is better written piece by piece than held in memory as a whole. Missing folders are made; where
    writing fails, `path` stays as it was and nothing else is left.

    Raises
    ------
    ResourcesError
        If the disk is full.
    """
    beside = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    with full_disk_told(path.parent):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            yield beside
            with beside.open("rb") as file:
                os.fsync(file.fileno())
            beside.replace(path)
        finally:
            beside.unlink(missing_ok=True)


@contextmanager
def full_disk_told(folder: Path) -> Iterator[None]:
    """Say of a disk, a quota or a limit that is full what to do; other errors pass.

    Raises
    ------
    ResourcesError
        If there was no room in `folder`.
    """
    try:
        yield
    except OSError as error:
        if error.errno not in _FULL:
            raise
        raise ResourcesError(
            f"There is no room left in {folder} ({os.strerror(error.errno)}): free some and give the command "
            "again, a training run with --resume."
        ) from error
