"""The append-only, keyed, hash-chained audit trail: how an event becomes a row.

A row's ``payload`` is canonical JSON text and ``mac`` = HMAC-SHA256(key, prev || payload), where ``prev`` is
the mac of the row before. Whoever edits, removes, inserts or reorders rows without the key breaks the chain
at that row; what the chain alone cannot show (a cut tail, a restored backup, a rewrite with the key) is
shown by the checkpoints of :mod:`db.audit.checkpoints`. :mod:`db.audit.verification` checks both.

The chain also decides which key signs next: the key of its last row, or, after a rotation, the key which
that rotation names. The trail holds no patient data.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import chain
from json.encoder import encode_basestring
from typing import Any, NamedTuple

from sqlalchemy import (
    ColumnElement,
    Connection,
    Table,
    and_,
    bindparam,
    func,
    insert,
    literal_column,
    select,
)

from db.audit.keys import AuditKey
from db.canonical import canonical_json
from db.clock import BOOT_ID
from db.driver_statements import DriverStatement
from db.errors import AuditError
from db.tables import INSTANCE_STORED, AuditEvent, spelled_utc

GENESIS = "0" * 64  # what the first row names as the mac before it
CHAIN_LOCK = 0x6469636F6D_0001  # pg_advisory_xact_lock: "dicom", 1
ROTATE_KEY = "audit.rotate_key"
TIME_FORMAT = "%Y-%m-%dT%H:%M:%S.%fZ"
AUDIT_TABLE: Table = AuditEvent.__table__  # type: ignore[assignment]  # declared as the wider FromClause

# Built once: every object that the node receives is an event.
_COLUMNS = AUDIT_TABLE.c.keys()
# Not OR ABORT: SQLite would copy every page first, to undo a part of a statement. Here all is rolled back.
_INSERT = insert(AUDIT_TABLE).prefix_with("OR FAIL", dialect="sqlite").inline()
_INSERT_EVENT = DriverStatement(_INSERT, _COLUMNS)
_TOGETHER = 8
_INSERT_TOGETHER = DriverStatement(
    _INSERT.values([{name: bindparam(f"{name}_{n}") for name in _COLUMNS} for n in range(_TOGETHER)]),
    [f"{name}_{n}" for n in range(_TOGETHER) for name in _COLUMNS],
)
_LOCK_CHAIN = DriverStatement(select(func.pg_advisory_xact_lock(literal_column(str(CHAIN_LOCK)))))
_HEAD = DriverStatement(
    select(*(AUDIT_TABLE.c[name] for name in ("seq", "mac", "key_id", "action", "detail")))
    .order_by(AUDIT_TABLE.c.seq.desc())
    .limit(1)
)

_LIMITS = (("actor", 128), ("action", 64), ("study_instance_uid", 64), ("job_id", 32), ("bundle", 64))


@dataclass(frozen=True)
class AuditEntry:
    """An event before it is chained.

    Attributes
    ----------
    actor : str
        Who acted: a process name or a person's login.
    action : str
        ``subject.verb``, such as ``"study.complete"``.
    study_instance_uid, job_id, bundle : str or None
        What it concerns.
    detail : mapping
        JSON values; no patient data.

    Raises
    ------
    db.errors.AuditError
        If a text is longer than its column.
    """

    actor: str
    action: str
    study_instance_uid: str | None = None
    job_id: str | None = None
    bundle: str | None = None
    detail: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Refuse here what PostgreSQL would refuse and SQLite would not."""
        texts = self.actor, self.action, self.study_instance_uid, self.job_id, self.bundle
        for value, (name, limit) in zip(texts, _LIMITS, strict=True):
            if value is not None and len(_storable(value)) > limit:
                raise AuditError(f"the audit event's {name} is longer than {limit} characters; shorten it")


class ChainHead(NamedTuple):
    """Where the chain ends: the last row's number and mac, and the key that signs the next row.

    ``key_id`` is None for an empty trail.
    """

    seq: int
    mac: str
    key_id: str | None


class AuditTrail:
    """Chains events; one object may serve every thread of a process.

    Parameters
    ----------
    key : AuditKey
        The keys, see :meth:`db.audit.keys.AuditKey.load_or_create`.
    wall_clock : callable, optional
        Returns the wall time, aware UTC.
    """

    def __init__(self, key: AuditKey, wall_clock: Callable[[], datetime] = lambda: datetime.now(UTC)) -> None:
        self.key = key
        self._wall_clock = wall_clock
        self._boot_id = BOOT_ID.read_text().strip()

    def append(self, connection: Connection, entries: Sequence[AuditEntry]) -> None:
        """Chain events to the trail in the open transaction of a connection.

        Takes the chain's lock, which is held until the transaction ends: call it last.

        Parameters
        ----------
        connection : sqlalchemy.Connection
            In a writing transaction; on PostgreSQL under READ COMMITTED, because an older snapshot than the
            lock would read an older head.
        entries : sequence of AuditEntry
            In the order in which they happened.

        Raises
        ------
        db.errors.AuditError
            If an event's detail is not JSON, or the database's trail was signed with a key that the key file
            does not hold.
        """
        if not entries:
            return
        lock_chain(connection)
        head = read_head(connection)
        rows = self._rows(head, self._signing_key(head), entries)
        # PostgreSQL's driver sends many executions at once anyway, and reads a long statement anew each time.
        is_worth_it = connection.dialect.name == "sqlite"
        begin_of_rest = len(rows) - len(rows) % _TOGETHER if is_worth_it else 0
        together = [
            list(chain.from_iterable(rows[begin : begin + _TOGETHER]))
            for begin in range(0, begin_of_rest, _TOGETHER)
        ]
        _INSERT_TOGETHER.execute(connection, together)
        _INSERT_EVENT.execute(connection, rows[begin_of_rest:])

    def rotate_key(self, connection: Connection, actor: str) -> str:
        """Retire the signing key: sign with a new one from the next row on, in every process.

        The event itself is the last row under the old key. The old key stays in the file, because old rows
        are verified with it.

        Returns
        -------
        str
            The new key's id.
        """
        lock_chain(connection)
        old = self._signing_key(read_head(connection))
        new = self.key.add_new()
        self.append(
            connection, [AuditEntry(actor, ROTATE_KEY, detail={"old_key_id": old, "new_key_id": new})]
        )
        return new

    def _signing_key(self, head: ChainHead) -> str:
        """Return the id of the key that signs the next row."""
        if head.key_id is None:
            return self.key.newest_id
        if not self.key.knows(head.key_id):
            self.key.reload()
        if not self.key.knows(head.key_id):
            raise AuditError(
                f"the audit trail is signed with key {head.key_id}, which {self.key.path} does not hold; "
                "restore the key file that belongs to this database"
            )
        return head.key_id

    def _rows(
        self, head: ChainHead, key_id: str, entries: Sequence[AuditEntry]
    ) -> Sequence[tuple[int | str | None, ...]]:
        """Make the rows that follow the head."""
        at = spelled_utc(self._wall_clock().astimezone(UTC))
        # Beside the wall time a clock that nobody can step, so that a step can be seen afterwards.
        since_boot_us = time.clock_gettime_ns(time.CLOCK_BOOTTIME) // 1000
        prev = head.mac
        rows = []
        for seq, entry in enumerate(entries, head.seq + 1):
            actor, action = _storable(entry.actor), _storable(entry.action)
            study = None if entry.study_instance_uid is None else _storable(entry.study_instance_uid)
            job_id = None if entry.job_id is None else _storable(entry.job_id)
            bundle = None if entry.bundle is None else _storable(entry.bundle)
            detail = audit_json(entry.detail)
            # As audit_json spells it, which would spell the detail a second time.
            payload = (
                f'{{"action":{_quoted(action)},"actor":{_quoted(actor)},"at":"{at}",'
                f'"boot_id":"{self._boot_id}","bundle":{_quoted(bundle)},"detail":{detail},'
                f'"job_id":{_quoted(job_id)},"key_id":"{key_id}","seq":{seq},'
                f'"since_boot_us":{since_boot_us},"study_instance_uid":{_quoted(study)}}}'
            )
            mac = self.key.mac(key_id, prev, payload)
            rows.append((seq, at, actor, action, study, job_id, bundle, detail, payload, prev, mac, key_id))
            prev = mac
        return rows


def is_of_action(action: str) -> ColumnElement[bool]:
    """Whether an event is of an action, in words from which the database sees that the actions' index serves.

    Events of received objects are not in it: whoever asks for them walks through the trail, which holds
    little else.
    """
    condition = AUDIT_TABLE.c.action == action
    if action == INSTANCE_STORED:
        return condition
    return and_(condition, AUDIT_TABLE.c.action != literal_column(f"'{INSTANCE_STORED}'"))


def lock_chain(connection: Connection) -> None:
    """Let no other transaction append until this one ends; on SQLite every writer is alone anyway."""
    if connection.dialect.name == "postgresql":
        _LOCK_CHAIN.rows(connection)


def read_head(connection: Connection) -> ChainHead:
    """Read where the chain ends."""
    for seq, mac, key_id, action, detail in _HEAD.rows(connection):
        return ChainHead(seq, mac, next_key_id(seq, key_id, action, detail))
    return ChainHead(0, GENESIS, None)


def next_key_id(seq: int, key_id: str, action: str, detail: str) -> str:
    """Return the id of the key that must sign the event after one of these columns.

    Raises
    ------
    db.errors.AuditError
        If it is a rotation whose text was damaged.
    """
    if action != ROTATE_KEY:
        return key_id
    try:
        return str(json.loads(detail)["new_key_id"])
    except (ValueError, TypeError, KeyError):
        raise AuditError(f"audit event {seq} was damaged; run 'dicom-node audit verify'") from None


def audit_json(value: Mapping[str, Any]) -> str:
    """Return the one spelling of a JSON document that both databases can store.

    Raises
    ------
    db.errors.AuditError
        If it holds something that is not JSON: NaN, bytes, a date, keys of several types.
    """
    try:
        spelled = canonical_json(value)
    except (TypeError, ValueError):
        raise AuditError("an audit event's detail must hold JSON values only; convert it first") from None
    return spelled if spelled.isascii() else _without_surrogates(spelled)


def _quoted(text: str | None) -> str:
    """Spell a storable text in JSON."""
    return "null" if text is None else encode_basestring(text)


def _storable(text: str) -> str:
    """Replace what a text column of PostgreSQL refuses: NUL and lone surrogates."""
    if text.isascii() and "\0" not in text:
        return text
    return _without_surrogates(text.replace("\0", "\\x00"))


def _without_surrogates(text: str) -> str:
    """Write a lone surrogate, as from undecodable header bytes, which has no UTF-8, as its JSON escape."""
    return text.encode("utf-8", "backslashreplace").decode()
