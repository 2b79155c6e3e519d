"""Whether an exported trail is what the node signed: without its database and without its secrets.

The macs of the chain can be made again with the audit key alone, which nobody outside the node should have.
What anybody can do: see that the events follow one another without a gap, that each event's columns are its
text, and that digests of the texts are those that the checkpoints state and sign. So every event up to the
newest checkpoint is proved to be what the node wrote before it signed.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, fields
from itertools import chain as joined
from pathlib import Path
from typing import Any

from db.audit.checkpoints import Checkpoint, digestible, read_checkpoints
from db.audit.cuts import Cut, read_cuts
from db.audit.reading import ExportedEvent
from db.audit.trail import GENESIS
from db.audit.verification import Chain, ClockStep, Event, WrongError
from db.errors import AuditError

_COLUMNS = {column.name for column in fields(ExportedEvent)}


@dataclass(frozen=True)
class ExportReport:
    """What was found of an exported trail.

    Attributes
    ----------
    events : int
        Events that follow one another.
    first_seq : int
        The number of the first.
    proved : int
        How many of them checkpoints prove.
    unproved_from_seq : int or None
        The first event that none proves, as those after the newest checkpoint; None where all are proved.
    checkpoints_checked : int
        Checkpoints that the trail agrees with.
    newest_checkpoint_at : str or None
        When the newest of them was signed, UTC.
    clock_steps : tuple of ClockStep
        Where wall time went backwards.
    first_bad_seq : int or None
        The first event that is missing or wrong; None when none is, or when a checkpoint file is wrong.
    problem : str or None
        What is wrong, for a person.
    """

    events: int = 0
    first_seq: int = 1
    proved: int = 0
    unproved_from_seq: int | None = None
    checkpoints_checked: int = 0
    newest_checkpoint_at: str | None = None
    clock_steps: tuple[ClockStep, ...] = ()
    first_bad_seq: int | None = None
    problem: str | None = None

    @property
    def ok(self) -> bool:
        """Whether nothing is wrong."""
        return self.problem is None


def verify_export(files: Sequence[Path], checkpoints_folder: Path, public_key: str) -> ExportReport:
    """Check an exported trail.

    Parameters
    ----------
    files : sequence of pathlib.Path
        JSON lines as ``audit export`` and ``audit prune`` write them, oldest events first.
    checkpoints_folder : pathlib.Path
        A copy of the node's checkpoint files.
    public_key : str
        The checkpoint key's public half, base64; known from elsewhere, never from these files.

    Raises
    ------
    db.errors.AuditError
        If a file cannot be read.
    """
    try:
        checkpoints = read_checkpoints(checkpoints_folder, public_key)
        cuts = read_cuts(checkpoints_folder, public_key)
    except AuditError as error:
        return ExportReport(problem=str(error))
    if not checkpoints:
        return ExportReport(problem=f"{checkpoints_folder} holds no checkpoint; name the copied folder")
    events = _events(files)
    try:
        first = _first(events)
        chain, proof = _begun(first, checkpoints, cuts)
    except AuditError as error:
        return ExportReport(problem=str(error))
    try:
        chain.check_all(joined([first], events))
    except WrongError as wrong:
        return _report(chain, proof, str(wrong), wrong)
    except AuditError as error:
        return _report(chain, proof, str(error), None)
    return _report(chain, proof, None, None)


class ProofByDigests:
    """Digests of the events' texts, held against those that checkpoints state."""

    when_the_end_is_missing = (
        "the file was cut, or written before that checkpoint: copy the checkpoints first, then export"
    )

    def __init__(self, checkpoints: Sequence[Checkpoint]) -> None:
        stated = [_Span(c, c.after) for c in checkpoints if c.after is not None]
        self._waiting = sorted(stated, key=lambda span: span.after, reverse=True)
        self._open: list[_Span] = []
        self._proved: list[tuple[int, int]] = []

    def check(self, event: Event) -> None:
        """Take an event into the digests, and hold those that end with it against what was signed."""
        while self._waiting and self._waiting[-1].after < event.seq:
            span = self._waiting.pop()
            if span.after == event.seq - 1:  # what began before the first event cannot be digested
                self._open.append(span)
        for span in self._open:
            span.digest.update(digestible(event.mac, event.payload))
        for span in [each for each in self._open if each.checkpoint.seq == event.seq]:
            self._open.remove(span)
            self._end(span)

    def unproved(self, first: int, last: int) -> tuple[int, int | None]:
        """Return how many of these events nothing proved, and the first of them."""
        count, begin, after = 0, None, first - 1
        for low, high in [*sorted(self._proved), (last, last)]:
            if low > after:
                count += low - after
                begin = begin or after + 1
            after = max(after, high)
        return count, begin

    def _end(self, span: _Span) -> None:
        checkpoint = span.checkpoint
        if span.digest.hexdigest() != checkpoint.sha256:
            raise WrongError(
                span.after + 1,
                f"it, or another one up to {checkpoint.seq}, is not what the checkpoint of {checkpoint.at} "
                f"by {checkpoint.node} saw",
                last_good=span.after,
            )
        self._proved.append((span.after, checkpoint.seq))


@dataclass
class _Span:
    """The events that one checkpoint's digest covers."""

    checkpoint: Checkpoint
    after: int
    digest: Any = field(default_factory=hashlib.sha256)


def _begun(
    first: ExportedEvent, checkpoints: Sequence[Checkpoint], cuts: Sequence[Cut]
) -> tuple[Chain, ProofByDigests]:
    """Return what follows the chain from the first event on."""
    cut = next((cut for cut in cuts if cut.seq == first.seq - 1), None)
    if first.seq != 1 and cut is None:
        raise AuditError(
            f"it begins with event {first.seq}: only a whole trail can be proved. Export it without a "
            "filter; where 'audit prune' removed its beginning, copy the cuts with the checkpoints, or name "
            "the archive first"
        )
    proof = ProofByDigests(checkpoints)
    known = [c for c in checkpoints if c.seq >= first.seq]
    return Chain(proof, known, first.seq, GENESIS if cut is None else cut.mac, None), proof


def _report(
    chain: Chain, proof: ProofByDigests, problem: str | None, wrong: WrongError | None
) -> ExportReport:
    events = chain.unharmed(wrong)
    unproved, begin = proof.unproved(chain.first_seq, chain.first_seq + events - 1)
    return ExportReport(
        events=events,
        first_seq=chain.first_seq,
        proved=events - unproved,
        unproved_from_seq=begin,
        checkpoints_checked=chain.checkpoints_checked,
        newest_checkpoint_at=chain.checkpoints[-1].at if chain.checkpoints else None,
        clock_steps=tuple(chain.clock.steps),
        first_bad_seq=None if wrong is None else wrong.seq,
        problem=problem,
    )


def _events(files: Sequence[Path]) -> Iterator[ExportedEvent]:
    """Read the events of all files, one after the other."""
    for path in files:
        with path.open("rb") as lines:
            for number, line in enumerate(lines, 1):
                yield _parsed(line, f"{path.name}, line {number}")


def _first(events: Iterator[ExportedEvent]) -> ExportedEvent:
    for event in events:
        return event
    raise AuditError("the files hold no event")


def _parsed(line: bytes, where: str) -> ExportedEvent:
    try:
        columns = json.loads(line)
    except ValueError:
        columns = None
    if not isinstance(columns, dict) or columns.keys() != _COLUMNS or not isinstance(columns["seq"], int):
        raise AuditError(
            f"{where} is no event of an exported trail; it was changed or cut, or is not of the form jsonl"
        )
    return ExportedEvent(**columns)
