"""Whether the audit trail is still what was written.

Recomputes the whole chain with the audit key, compares every typed column with the text that the mac covers,
and holds the chain against the signed checkpoints outside the database. It stops at the first event that is
wrong, because nothing after it can be trusted.
"""

from __future__ import annotations

import hmac
import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from json.encoder import encode_basestring
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from sqlalchemy import Result, Row, func, select
from sqlalchemy.orm import Session

from db.audit.checkpoints import Checkpoint, read_checkpoints
from db.audit.cuts import Cut, read_cuts
from db.audit.keys import AuditKey
from db.audit.reading import ExportedEvent
from db.audit.trail import AUDIT_TABLE, GENESIS, audit_json, next_key_id, read_head
from db.errors import AuditError
from db.session import Database

BATCH_ROWS = 5000
TAIL_EVENTS = 20_000  # checked in a second
CLOCK_TOLERANCE_S = 1.0  # slower drift is what NTP does to a healthy clock
BOOT_ID_CHARACTERS = 36  # a UUID, as Linux spells it

_IN_PAYLOAD = ("seq", "at", "actor", "action", "study_instance_uid", "job_id", "bundle", "key_id")
_ONLY_IN_PAYLOAD = {"detail", "boot_id", "since_boot_us"}


Event = Row[*tuple[Any, ...]] | ExportedEvent


class ClockStep(NamedTuple):
    """A host's wall clock went backwards right before an event: worth a look, no proof of anything."""

    seq: int
    back_by_s: float


@dataclass(frozen=True)
class VerifyReport:
    """What verification found.

    Attributes
    ----------
    events : int
        Events that are proved unharmed.
    checkpoints_checked : int
        Checkpoints that the chain agrees with.
    newest_checkpoint_seq : int or None
        Events after this one are protected by the chain alone, not against a cut tail.
    clock_steps : tuple of ClockStep
        Where wall time went backwards.
    first_bad_seq : int or None
        The first event that is missing or wrong; None when none is, or when a checkpoint file is wrong.
    problem : str or None
        What is wrong, for a person.
    first_seq : int
        Where the check began: after the last removal of events, or where it was asked to.
    """

    events: int
    checkpoints_checked: int = 0
    newest_checkpoint_seq: int | None = None
    clock_steps: tuple[ClockStep, ...] = ()
    first_bad_seq: int | None = None
    problem: str | None = None
    first_seq: int = 1

    @property
    def ok(self) -> bool:
        """Whether nothing is wrong."""
        return self.problem is None


def verify(
    database: Database,
    key: AuditKey,
    checkpoints_folder: Path,
    checkpoint_public_key: str,
    *,
    since: int | None = None,
    progress: Callable[[int], None] | None = None,
) -> VerifyReport:
    """Check the trail, in the order of its events.

    Parameters
    ----------
    database : Database
        Holds the trail; it may be in use meanwhile.
    key : AuditKey
        All keys that ever signed it.
    checkpoints_folder : pathlib.Path
        Where checkpoints lie.
    checkpoint_public_key : str
        See :attr:`db.audit.keys.CheckpointKey.public_key`.
    since : int, optional
        Check only the events from this number on (a quick look at start), with their checkpoints; the mac
        before them is trusted.
    progress : callable, optional
        Called with the number of events checked, now and then.

    Raises
    ------
    db.errors.AuditError
        If the key file cannot be read, or the event before ``since`` is damaged.
    """
    try:
        # Read before the rows, so that every checkpoint's event is already committed when rows are read.
        checkpoints = read_checkpoints(checkpoints_folder, checkpoint_public_key, since=since or 0)
        cuts = read_cuts(checkpoints_folder, checkpoint_public_key)
    except AuditError as error:
        return VerifyReport(0, problem=str(error))
    key.reload()
    with database.reading() as session:
        first, before, key_id = _start(session, cuts, since)
        chain = Chain(ProofByKey(key), [c for c in checkpoints if c.seq >= first], first, before, key_id)
        try:
            with _rows(session, since) as rows:
                chain.check_all(rows, progress)
        except WrongError as wrong:
            return chain.report(wrong)
    return chain.report()


def start_of_tail(database: Database) -> int:
    """Return the number of the event from which on a quick look goes; 1 where that is the whole trail."""
    with database.reading() as session:
        return max(1, read_head(session.connection()).seq - TAIL_EVENTS + 1)


class WrongError(Exception):
    """The chain is wrong at an event.

    ``last_good`` is the last event that is certainly unharmed, where that is not the one before.
    """

    def __init__(self, seq: int, problem: str, *, last_good: int | None = None) -> None:
        super().__init__(f"event {seq}: {problem}")
        self.seq = seq
        self.last_good = last_good


def _rows(session: Session, since: int | None) -> Result[*tuple[Any, ...]]:
    """Stream the events in order; without ``since`` even those with impossible numbers."""
    query = select(AUDIT_TABLE).order_by(AUDIT_TABLE.c.seq)
    if since is not None:
        query = query.where(AUDIT_TABLE.c.seq >= since)
    return session.execute(query.execution_options(yield_per=BATCH_ROWS))


def _start(session: Session, cuts: Sequence[Cut], since: int | None) -> tuple[int, str, str | None]:
    """Return the first number to check, the mac before it, and the key that must sign it (None: any)."""
    oldest = session.scalars(select(func.min(AUDIT_TABLE.c.seq))).one() or 1
    cut = next((cut for cut in cuts if cut.seq == oldest - 1), None)
    first = 1 if cut is None else oldest
    if since is None or since <= first:
        return first, GENESIS if cut is None else cut.mac, None
    return _state_before(session, since)


def _state_before(session: Session, first: int) -> tuple[int, str, str | None]:
    """Return the same for a number in the middle, on the word of the event before it."""
    before = session.execute(select(AUDIT_TABLE).where(AUDIT_TABLE.c.seq == first - 1)).one_or_none()
    if before is None:
        return first, GENESIS, None
    return first, before.mac, next_key_id(before.seq, before.key_id, before.action, before.detail)


@dataclass
class _HostClocks:
    """Compares each host's wall clock with the clock that counts since its boot."""

    steps: list[ClockStep] = field(default_factory=list)
    _last: dict[str, tuple[datetime, float]] = field(default_factory=dict)
    _newest: datetime | None = None

    def see(self, seq: int, at: str, boot_id: str, since_boot_us: int) -> None:
        """Note an event's times."""
        wall, since_boot_s = datetime.fromisoformat(at), since_boot_us / 1e6
        if boot_id in self._last:
            last_wall, last_since_boot_s = self._last[boot_id]
            gained_s = (wall - last_wall).total_seconds()
            back_by_s = since_boot_s - last_since_boot_s - gained_s
            is_step = back_by_s > CLOCK_TOLERANCE_S or gained_s < 0
        else:
            back_by_s = (self._newest - wall).total_seconds() if self._newest else 0.0
            is_step = back_by_s > CLOCK_TOLERANCE_S
        if is_step:
            self.steps.append(ClockStep(seq, back_by_s))
        self._last[boot_id] = (wall, since_boot_s)
        self._newest = wall


class Proof(Protocol):
    """What shows that an event's text is what was written.

    Attributes
    ----------
    when_the_end_is_missing : str
        What happened where a checkpoint knows more events than there are.
    """

    when_the_end_is_missing: str

    def check(self, event: Event) -> None:
        """Look at one event in its turn.

        Raises
        ------
        WrongError
            If its text is not what was written.
        """


class ProofByKey:
    """Each event's mac, made again with the audit key."""

    when_the_end_is_missing = "the tail was cut, the table emptied or a backup restored"

    def __init__(self, key: AuditKey) -> None:
        self._key = key

    def check(self, event: Event) -> None:
        """Check that the key signed exactly this text."""
        if not self._key.knows(event.key_id):
            raise WrongError(
                event.seq, f"signed with key {event.key_id}, which {self._key.path} does not hold"
            )
        if not hmac.compare_digest(self._key.mac(event.key_id, event.prev, event.payload), event.mac):
            raise WrongError(event.seq, "its text was changed, or written without the key")


@dataclass
class Chain:
    """Follows the chain from event to event."""

    proof: Proof
    checkpoints: Sequence[Checkpoint]
    expected_seq: int
    prev: str
    key_id: str | None
    checkpoints_checked: int = 0
    events: int = 0
    clock: _HostClocks = field(default_factory=_HostClocks)

    def __post_init__(self) -> None:
        self.first_seq = self.expected_seq

    def check_all(self, rows: Iterable[Event], progress: Callable[[int], None] | None = None) -> None:
        """Check every event, then that none is missing at the end."""
        for row in rows:
            try:
                self._check(row)
            except (AuditError, TypeError, ValueError, KeyError):
                # Only a hand that bypassed the node leaves values of other types or missing fields.
                raise WrongError(self.expected_seq, "its values are not those of an audit event") from None
            self.events += 1
            if progress is not None and self.events % BATCH_ROWS == 0:
                progress(self.events)
        if self.checkpoints_checked < len(self.checkpoints):
            checkpoint = self.checkpoints[-1]
            raise WrongError(
                self.expected_seq,
                f"missing, and all after it: a checkpoint of {checkpoint.at} by {checkpoint.node} knows "
                f"events up to {checkpoint.seq}; {self.proof.when_the_end_is_missing}",
            )

    def report(self, wrong: WrongError | None = None) -> VerifyReport:
        """Sum up."""
        return VerifyReport(
            events=self.unharmed(wrong),
            checkpoints_checked=self.checkpoints_checked,
            newest_checkpoint_seq=self.checkpoints[-1].seq if self.checkpoints else None,
            clock_steps=tuple(self.clock.steps),
            first_bad_seq=wrong.seq if wrong else None,
            problem=str(wrong) if wrong else None,
            first_seq=self.first_seq,
        )

    def unharmed(self, wrong: WrongError | None) -> int:
        """Return how many events are."""
        if wrong is None or wrong.last_good is None:
            return self.events
        return min(self.events, max(0, wrong.last_good - self.first_seq + 1))

    def _check(self, row: Event) -> None:
        """Check one event against the one before."""
        self._check_place(row)
        if self.key_id is not None and row.key_id != self.key_id:
            raise WrongError(row.seq, f"signed with key {row.key_id} where key {self.key_id} was in force")
        self.proof.check(row)
        boot_id, since_boot_us = _host_time_where_spelled(row) or _host_time_where_equal(row)
        self._check_checkpoints(row)
        self.clock.see(row.seq, row.at, boot_id, since_boot_us)
        self.expected_seq, self.prev = row.seq + 1, row.mac
        self.key_id = next_key_id(row.seq, row.key_id, row.action, row.detail)

    def _check_place(self, row: Event) -> None:
        """Check that the event follows the one before."""
        if row.seq > self.expected_seq:
            raise WrongError(self.expected_seq, f"missing; the next one is event {row.seq}")
        if row.seq < self.expected_seq:
            raise WrongError(row.seq, "no event has such a number")
        if row.prev != self.prev:
            raise WrongError(row.seq, "it does not follow the event before it")

    def _check_checkpoints(self, row: Event) -> None:
        """Check the event against every checkpoint that names it."""
        while (n := self.checkpoints_checked) < len(self.checkpoints) and self.checkpoints[n].seq == row.seq:
            checkpoint = self.checkpoints[n]
            if (checkpoint.mac, checkpoint.count) != (row.mac, row.seq):
                after = self.checkpoints[n - 1].seq if n else 0
                raise WrongError(
                    row.seq,
                    f"not what the checkpoint of {checkpoint.at} by {checkpoint.node} saw: some event after "
                    f"{after} up to {row.seq} was rewritten by someone who holds the key, or restored",
                    last_good=after,
                )
            self.checkpoints_checked += 1


def _host_time_where_spelled(row: Event) -> tuple[str, int] | None:
    """Return boot id and microseconds since boot where the columns, spelled out, are the signed text.

    Nothing is parsed, so that a million events are checked in seconds. None tells nothing but that a closer
    look is needed.
    """
    before = (
        f'{{"action":{_spelled(row.action)},"actor":{_spelled(row.actor)},"at":{_spelled(row.at)},"boot_id":"'
    )
    between = f'","bundle":{_spelled(row.bundle)},"detail":{row.detail},"job_id":{_spelled(row.job_id)},'
    between += f'"key_id":{_spelled(row.key_id)},"seq":{row.seq},"since_boot_us":'
    after = f',"study_instance_uid":{_spelled(row.study_instance_uid)}}}'
    payload: str = row.payload
    boot_id = payload[len(before) : len(before) + BOOT_ID_CHARACTERS]
    since_boot_us = payload[len(before) + BOOT_ID_CHARACTERS + len(between) : -len(after)]
    is_spelled = (
        '"' not in boot_id
        and since_boot_us.isdecimal()
        and payload == before + boot_id + between + since_boot_us + after
    )
    return (boot_id, int(since_boot_us)) if is_spelled else None


def _spelled(value: str | None) -> str:
    """Spell a column as canonical JSON does."""
    return "null" if value is None else encode_basestring(value)


def _host_time_where_equal(row: Event) -> tuple[str, int]:
    """Return boot id and microseconds since boot, refusing a typed column that says something else."""
    try:
        payload: dict[str, Any] = json.loads(row.payload)
    except ValueError:
        raise WrongError(row.seq, "its text is not JSON") from None
    differing = [name for name in _IN_PAYLOAD if getattr(row, name) != payload.get(name)]
    if row.detail != audit_json(payload.get("detail", {})):
        differing.append("detail")
    if differing:
        raise WrongError(row.seq, f"the column {differing[0]!r} is not what was signed")
    if payload.keys() != {*_IN_PAYLOAD, *_ONLY_IN_PAYLOAD}:
        raise WrongError(row.seq, "its text has other fields than an audit event")
    return payload["boot_id"], payload["since_boot_us"]
