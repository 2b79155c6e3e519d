"""The quarantine: objects that were refused as faulty, kept for who asks their sender's vendor about them.

::

    DATA_DIR/quarantine/    0700
        NAME.dcm            0600, the Part 10 file as it would have been stored; what is behind its head may
                            be no data set
        NAME.json           0600, written last: when, why, from whom

Nothing is promised of it: nothing is synced, the oldest objects make room for new ones, and whatever goes
wrong here changes no answer.
"""

from __future__ import annotations

import errno
import json
import os
import re
import secrets
import time
from collections.abc import Mapping
from dataclasses import dataclass, fields
from datetime import UTC, datetime
from pathlib import Path
from typing import Protocol

import structlog

from db.errors import UnknownRecordError
from dicom_node.errors import NodeError
from dicom_node.listener.repeats import Repeats

OBJECT_SUFFIX, FACTS_SUFFIX = ".dcm", ".json"
MOST_OBJECTS = 1000
_NAME = re.compile(r"[0-9a-f]{16}")
# Between an object and its facts lie milliseconds; what lacks one of them for longer, a crash left.
_LEFT_BEHIND_S = 3600.0

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class QuarantinedObject:
    """A refused object, without patient data.

    Attributes
    ----------
    name : str
        16 random hexadecimal digits.
    refused_at : str
        When, ISO 8601 in UTC.
    status : str
        What its sender was answered, four hexadecimal digits (PS3.4 B.2.3).
    reason : str
        What is wrong with it.
    calling_ae_title, peer_address : str
        Who sent it.
    sop_instance_uid : str
        Affected SOP Instance UID of its C-STORE request.
    size_bytes : int
        Length of its file.
    """

    name: str
    refused_at: str
    status: str
    reason: str
    calling_ae_title: str
    peer_address: str
    sop_instance_uid: str
    size_bytes: int


_FACTS = tuple(each.name for each in fields(QuarantinedObject) if each.name not in ("name", "size_bytes"))


class Movable(Protocol):
    """An object that came in whole and is not wanted."""

    @property
    def image_bytes(self) -> int:
        """Length of its file."""

    def move_to(self, path: str) -> None:
        """Give its file away; see :meth:`dicom_node.listener.reception.IncomingObject.move_to`."""


class Quarantine:
    """The folder of refused objects.

    Several processes may use it at the same time, and a person may remove from it what they like.

    Parameters
    ----------
    folder : pathlib.Path
        Where it is; made, with mode 0700, for the first object.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def put(self, refused: Movable, facts: Mapping[str, str]) -> str:
        """Move an object here; return its name.

        Parameters
        ----------
        refused : Movable
            The object.
        facts : mapping of str to str
            The fields of :class:`QuarantinedObject` but for name, time and length.

        Raises
        ------
        OSError
            If the disk refuses. Nothing of it is left here.
        SpoolError
            The same.
        """
        self._folder.mkdir(mode=0o700, exist_ok=True)
        name = secrets.token_hex(8)
        told = {**facts, "refused_at": datetime.now(UTC).isoformat(timespec="milliseconds")}
        try:
            refused.move_to(str(self.path_of(name)))
            descriptor = os.open(
                self._folder / f"{name}{FACTS_SUFFIX}", os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600
            )
            with os.fdopen(descriptor, "w", encoding="ascii") as file:
                json.dump({fact: told[fact] for fact in _FACTS}, file)
        except BaseException:
            self.remove(name)
            raise
        return name

    def make_room(self, most_bytes: int) -> None:
        """Remove the oldest objects until the others fit, and what a crash left.

        Parameters
        ----------
        most_bytes : int
            How long all objects may be together; their facts, half a kilobyte each, come on top. There are
            :data:`MOST_OBJECTS` at most.

        Raises
        ------
        OSError
            If the disk refuses.
        """
        found = self._states()
        limit = time.time() - _LEFT_BEHIND_S
        left = sum(length for length, _, _ in found.values())
        count = len(found)
        for name, (length, age, is_whole) in sorted(found.items(), key=lambda each: each[1][1]):
            if left > most_bytes or count > MOST_OBJECTS or (not is_whole and age < limit):
                self.remove(name)
                left -= length
                count -= 1

    def objects(self) -> list[QuarantinedObject]:
        """Return what lies here, oldest first; nothing where there is no such folder.

        Raises
        ------
        NodeError
            If the folder is closed to this user.
        """
        try:
            found = [self._read(name) for name, (_, _, is_whole) in self._states().items() if is_whole]
        except FileNotFoundError:
            return []
        except PermissionError:
            raise NodeError(
                f"{self._folder} is closed to this user; run this command as the node's user"
            ) from None
        return sorted((each for each in found if each is not None), key=lambda each: each.refused_at)

    def find(self, beginning: str) -> QuarantinedObject:
        """Return the object of a name.

        Parameters
        ----------
        beginning : str
            Its name, or a beginning of it that only it has.

        Raises
        ------
        UnknownRecordError
            If there is none, or more than one.
        NodeError
            If the folder is closed to this user.
        """
        found = [each for each in self.objects() if each.name.startswith(beginning)]
        if len(found) == 1:
            return found[0]
        many = f"{len(found)} objects have names that begin so; give more digits"
        none = "the quarantine holds no such object; the oldest make room for new ones"
        raise UnknownRecordError(f"{many if found else none}; 'dicom-node quarantine list' shows all")

    def path_of(self, name: str) -> Path:
        """Return where the file of an object is."""
        return self._folder / f"{name}{OBJECT_SUFFIX}"

    def remove(self, name: str) -> None:
        """Remove an object; removing it twice is no error.

        Raises
        ------
        OSError
            If the disk refuses.
        """
        for suffix in (OBJECT_SUFFIX, FACTS_SUFFIX):
            (self._folder / f"{name}{suffix}").unlink(missing_ok=True)

    def _states(self) -> dict[str, tuple[int, float, bool]]:
        """Return of each name how long its object is, when it was last written, and whether it is whole."""
        found: dict[str, tuple[int, float, bool]] = {}
        with os.scandir(self._folder) as entries:
            for entry in entries:
                name, _, suffix = entry.name.partition(".")
                if not _NAME.fullmatch(name) or f".{suffix}" not in (OBJECT_SUFFIX, FACTS_SUFFIX):
                    continue
                try:
                    state = entry.stat(follow_symlinks=False)
                except FileNotFoundError:
                    continue  # removed meanwhile
                length = state.st_size if f".{suffix}" == OBJECT_SUFFIX else 0
                other = found.get(name)
                found[name] = (
                    (length, state.st_mtime, False)
                    if other is None
                    else (length + other[0], max(state.st_mtime, other[1]), True)
                )
        return found

    def _read(self, name: str) -> QuarantinedObject | None:
        try:
            told = json.loads((self._folder / f"{name}{FACTS_SUFFIX}").read_text(encoding="ascii"))
            size_bytes = self.path_of(name).stat().st_size
            return QuarantinedObject(
                name=name, size_bytes=size_bytes, **{fact: str(told[fact]) for fact in _FACTS}
            )
        except PermissionError:
            raise
        except (OSError, ValueError, TypeError, KeyError):
            # Half of it is gone: somebody removes it at this moment, or a crash left it.
            return None


class Quarantining:
    """What of the refused objects the quarantine takes: of one fault of one peer one a minute.

    A peer that floods the node with faulty objects must cost neither disk nor time.

    Parameters
    ----------
    quarantine : Quarantine
        Where they go.
    most_bytes : int
        How long all objects there may be together; a longer one is not taken.
    """

    def __init__(self, quarantine: Quarantine, most_bytes: int) -> None:
        self._quarantine = quarantine
        self._most_bytes = most_bytes
        self._repeats = Repeats()
        self._has_failed = False

    def keep(self, refused: Movable, facts: Mapping[str, str]) -> str | None:
        """Take an object, if it is one to take. Never fails.

        Parameters
        ----------
        refused : Movable
            The object; its file is moved where there is one already.
        facts : mapping of str to str
            See :meth:`Quarantine.put`.

        Returns
        -------
        str or None
            Its name in the quarantine; None where it was not taken.
        """
        if refused.image_bytes > self._most_bytes:
            return None
        if self._repeats.before(facts["peer_address"], facts["reason"]) is None:
            return None
        name = None
        try:
            name = self._quarantine.put(refused, facts)
            self._quarantine.make_room(self._most_bytes)
            self._has_failed = False
        except Exception as error:  # noqa: BLE001 - the answer must not depend on what nobody was promised
            self._tell(error)
        return name

    def _tell(self, error: Exception) -> None:
        """Tell once what keeps objects from the quarantine, until one is taken again."""
        if self._has_failed:
            return
        self._has_failed = True
        if isinstance(error, NodeError):
            reason = str(error)
        elif isinstance(error, OSError):
            # Its text carries a path; its number says all that an operator needs.
            reason = errno.errorcode.get(error.errno or 0, "unknown")
        else:
            reason = type(error).__name__
        _log.warning("quarantine.not_kept", reason=reason)
