"""Bundles on this machine, each under the digest of its content.

A folder appears under its digest only when it is whole and verified; it is never changed afterwards.
"""

from __future__ import annotations

import os
import re
import shutil
import time
import uuid
from contextlib import suppress
from pathlib import Path

from models import bundle
from models.errors import BundleIncompleteError

ABANDONED_AFTER_S = 3600.0
_INCOMING = ".incoming-"
_DIGEST = re.compile(r"[0-9a-f]{64}")
_RELEASED = "mammography-phantom-demonstration"


def released_bundle() -> Path:
    """Folder of the demonstration bundle that ships with the program."""
    return Path(__file__).parent / "bundles" / _RELEASED


class BundleStore:
    """A folder of bundles by digest.

    Parameters
    ----------
    root : Path
        The folder; made when the first bundle is added.
    abandoned_after_s : float
        Seconds after which an unfinished copy is one whose writer died; the next addition removes it.
    """

    def __init__(self, root: Path, *, abandoned_after_s: float = ABANDONED_AFTER_S) -> None:
        self._root = root
        self._abandoned_after_s = abandoned_after_s

    def add(self, folder: Path) -> str:
        """Verify a bundle, copy it durably and return its digest. Adding it again changes nothing.

        Parameters
        ----------
        folder : Path
            A bundle anywhere on this machine.

        Raises
        ------
        BundleError
            If it is not a sound bundle; the store is as it was.
        """
        digest = bundle.read(folder).digest
        target = self._root / digest
        if target.is_dir():
            bundle.read(target, digest=digest)
            return digest
        self._root.mkdir(parents=True, exist_ok=True)
        self._remove_abandoned()
        incoming = self._root / f"{_INCOMING}{uuid.uuid4().hex}"
        try:
            # Links are copied as links, so that the second reading refuses one that came in meanwhile.
            shutil.copytree(folder, incoming, symlinks=True)
            bundle.read(incoming, digest=digest)
            _sync_tree(incoming)
            _rename(incoming, target)
        finally:
            shutil.rmtree(incoming, ignore_errors=True)
        _sync(self._root)
        return digest

    def _remove_abandoned(self) -> None:
        for left in self._root.glob(f"{_INCOMING}*"):
            with suppress(FileNotFoundError):  # its writer lives and has just finished
                if time.time() - left.stat().st_ctime >= self._abandoned_after_s:
                    shutil.rmtree(left, ignore_errors=True)

    def path_of(self, digest: str) -> Path:
        """Folder of the bundle with this digest.

        Raises
        ------
        BundleIncompleteError
            If the store has no such bundle.
        """
        path = self._root / digest
        if not _DIGEST.fullmatch(digest) or not path.is_dir():
            raise BundleIncompleteError(f"No bundle {digest[:64]} is stored here: add it first.")
        return path

    def digests(self) -> tuple[str, ...]:
        """Digests of all stored bundles, sorted."""
        if not self._root.is_dir():
            return ()
        return tuple(sorted(entry.name for entry in self._root.iterdir() if _DIGEST.fullmatch(entry.name)))


def _rename(incoming: Path, target: Path) -> None:
    """Rename, or leave the target where another process was first: by its name it has the same content."""
    try:
        incoming.rename(target)
    except OSError:
        if not target.is_dir():
            raise


def _sync_tree(folder: Path) -> None:
    for parent, _, files in os.walk(folder):
        for name in files:
            _sync(Path(parent, name))
        _sync(Path(parent))


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
