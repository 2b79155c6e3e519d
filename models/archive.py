"""A bundle in one file: unpacked into a folder without trusting anything that the archive claims.

Only plain files and folders below the target are written, under names that lead nowhere else. Sizes are
counted as bytes arrive; what an archive says about them is not believed.
"""

from __future__ import annotations

import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from lzma import LZMAError
from pathlib import Path, PurePosixPath
from typing import IO

from models.bundle import MANIFEST
from models.errors import BundleFormatError, BundleIncompleteError, UnsafeBundleError

SUFFIXES = (".tar", ".tar.gz", ".tgz", ".zip")
"""How the names of archives end."""

MAX_ENTRIES = 64
MAX_BYTES = 4 << 30
_CHUNK = 1 << 20
_DAMAGED = (
    tarfile.TarError,
    zipfile.BadZipFile,
    zlib.error,
    EOFError,
    LZMAError,
    NotImplementedError,
    RuntimeError,
)

_Entry = tuple[str, IO[bytes]]


def is_archive(path: Path) -> bool:
    """Whether a file's name is that of an archive."""
    return path.name.lower().endswith(SUFFIXES)


def unpack(path: Path, target: Path, *, max_bytes: int = MAX_BYTES) -> Path:
    """Unpack an archive and return the folder of the bundle in it.

    Parameters
    ----------
    path : Path
        A ``.tar``, ``.tar.gz``, ``.tgz`` or ``.zip``.
    target : Path
        An empty folder.
    max_bytes : int
        Largest sum of all files.

    Returns
    -------
    Path
        `target`, or the one folder in it that holds the manifest.

    Raises
    ------
    UnsafeBundleError
        If an entry is no plain file or folder, or its name leads outside, or there are too many or too large.
    BundleFormatError
        If the archive is damaged, or is none.
    BundleIncompleteError
        If it holds no manifest.
    """
    entries = _zip_entries if path.name.lower().endswith(".zip") else _tar_entries
    left = max_bytes
    try:
        for name, content in entries(path):
            left -= _write(content, target / _checked(name), left)
    except _DAMAGED as error:
        raise BundleFormatError(f"{path.name} is no sound archive: copy it again.") from error
    except FileExistsError as error:
        raise UnsafeBundleError(f"{path.name} holds a name twice: ask who packed it.") from error
    found = [target, *(folder for folder in sorted(target.iterdir()) if folder.is_dir())]
    folders = [folder for folder in found if (folder / MANIFEST).is_file()]
    if len(folders) != 1:
        raise BundleIncompleteError(f"{path.name} holds {len(folders)} bundles: pack the folder of one.")
    return folders[0]


def _tar_entries(path: Path) -> Iterator[_Entry]:
    with tarfile.open(path, mode="r:*") as archive:
        for number, entry in enumerate(archive):
            _require_few(number, path)
            _checked(entry.name)
            if entry.isdir():
                continue
            if not entry.isreg() or entry.issparse():
                raise UnsafeBundleError(f"{path.name} holds a link or a special file; pack plain files.")
            content = archive.extractfile(entry)
            if content is not None:
                yield entry.name, content


def _zip_entries(path: Path) -> Iterator[_Entry]:
    with zipfile.ZipFile(path) as archive:
        listed = archive.infolist()
        _require_few(len(listed) - 1, path)
        for entry in listed:
            _checked(entry.filename)
            if entry.is_dir():
                continue
            # The upper half of external_attr is the Unix mode; links and devices are kinds of their own.
            if (entry.external_attr >> 28) not in (0, 8):
                raise UnsafeBundleError(f"{path.name} holds a link or a special file; pack plain files.")
            with archive.open(entry) as content:
                yield entry.filename, content


def _require_few(number: int, path: Path) -> None:
    if number >= MAX_ENTRIES:
        raise UnsafeBundleError(
            f"{path.name} holds more than {MAX_ENTRIES} entries: pack the folder of one bundle alone."
        )


def _checked(name: str) -> PurePosixPath:
    """Return the relative path of an entry, unless it leads elsewhere or cannot be printed."""
    path = PurePosixPath(name)
    parts = [part for part in path.parts if part != "."]
    if path.is_absolute() or ".." in parts or "\\" in name or ":" in name or not name.isprintable():
        raise UnsafeBundleError("The archive holds a name that leads outside its folder: ask who packed it.")
    return PurePosixPath(*parts)


def _write(content: IO[bytes], path: Path, left: int) -> int:
    """Write one file and return its size; stop as soon as it has more than `left` bytes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    written = 0
    with path.open("xb") as file:
        while chunk := content.read(_CHUNK):
            written += len(chunk)
            if written > left:
                raise UnsafeBundleError("The archive's files are larger than any bundle: ask who packed it.")
            file.write(chunk)
    return written
