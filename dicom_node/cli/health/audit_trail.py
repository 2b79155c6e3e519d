"""What ``doctor`` looks at of the audit trail, of the clocks that date it, and of its way to a sink."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime

from db.audit import sink_cursor
from db.audit.checkpoints import read_checkpoints
from db.audit.keys import AuditKey, CheckpointKey
from db.audit.reading import AuditFilter, query
from db.audit.trail import TIME_FORMAT
from db.audit.verification import VerifyReport, start_of_tail, verify
from db.errors import AuditError, DatabaseError
from db.session import Database
from dicom_node.cli.health.findings import Finding, Verdict
from dicom_node.settings import Settings

_LOOKS = 100
_WHEN_TOUCHED = (
    "keep the data as it is, stop the node, run 'dicom-node audit verify', find out who had access"
)
CLOCK_TOLERANCE_S = 5.0
SINK_AWAY_AFTER_S = 300.0
UNSIGNED_TOLERANCE_S = 300.0


def check_audit(settings: Settings, database: Database) -> Iterator[Finding]:
    """Run every check of the trail."""
    try:
        report = _verified_tail(settings, database)
    except DatabaseError as error:
        advice = "keep the data as it is; run 'dicom-node audit verify'"
        yield Finding("audit trail", Verdict.PROBLEM, str(error), advice)
        return
    yield _told(report)
    if report.ok:
        yield from _check_last_look(database)
        yield _check_signed(settings, database, report)
    yield _check_clock(database, report)
    if settings.audit.syslog.host is not None:
        yield _check_sink(database)


def _verified_tail(settings: Settings, database: Database) -> VerifyReport:
    return verify(
        database,
        AuditKey.load(settings.audit_key_file),
        settings.checkpoint_dir,
        CheckpointKey.load(settings.checkpoint_key_file).public_key,
        since=start_of_tail(database),
    )


def _told(report: VerifyReport) -> Finding:
    if report.problem is not None:
        return Finding("audit trail", Verdict.PROBLEM, report.problem, _WHEN_TOUCHED)
    return Finding("audit trail", Verdict.OK, f"the last {report.events} events verify")


def _check_last_look(database: Database) -> Iterator[Finding]:
    """Tell of older events that were found touched when the whole trail was verified last."""
    with database.reading() as session:
        looks = query(session, AuditFilter(action="audit.verified"), limit=_LOOKS)
    last = next((look for look in looks if look.detail.get("whole")), None)
    if last is not None and not last.detail["ok"]:
        found = (
            f"it did not verify as a whole on {last.at}: the first {last.detail['events']} events are good"
        )
        yield Finding("older audit events", Verdict.PROBLEM, found, _WHEN_TOUCHED)


def _check_signed(settings: Settings, database: Database, report: VerifyReport) -> Finding:
    """Look whether checkpoints are written: what none names could be cut off unseen."""
    with database.reading() as session:
        signed = report.newest_checkpoint_seq or report.first_seq - 1
        unsigned = sink_cursor.events_after(session, signed, limit=1)
    if not unsigned:
        return Finding("audit checkpoints", Verdict.OK, "the newest event is signed")
    written_at = datetime.strptime(unsigned[0].at, TIME_FORMAT).replace(tzinfo=UTC)
    unsigned_s = (datetime.now(UTC) - written_at).total_seconds()
    found = f"the oldest event that none names was written {unsigned_s:.0f} s ago"
    if unsigned_s <= settings.audit.checkpoint_period_s + UNSIGNED_TOLERANCE_S:
        return Finding("audit checkpoints", Verdict.OK, found)
    advice = (
        f"see that 'dicom-node dispatch' runs and may write into {settings.checkpoint_dir}; its log tells "
        "why it signs nothing"
    )
    if report.newest_checkpoint_seq is None:
        found = f"there is none in {settings.checkpoint_dir}, and {found}"
        advice += "; where there were some, mount them, or find out who removed them"
    return Finding("audit checkpoints", Verdict.PROBLEM, found, advice)


def _check_clock(database: Database, report: VerifyReport) -> Finding:
    """Compare this machine's clock with the database's time, which steps of the clock do not move."""
    with database.reading() as session:
        ahead_s = (datetime.now(UTC) - database.now_in(session)).total_seconds()
    if abs(ahead_s) > CLOCK_TOLERANCE_S:
        found = f"this machine's clock is {abs(ahead_s):.0f} s {'ahead of' if ahead_s > 0 else 'behind'}"
        advice = "reports carry this clock's time; set it by NTP, then restart the node's machine"
        if not database.is_sqlite:
            advice = "set both machines by NTP; reports carry this machine's time"
        words = "that of its start" if database.is_sqlite else "the database server's"
        return Finding("clock", Verdict.WARNING, f"{found} {words}", advice)
    if report.clock_steps:
        seq, back_by_s = report.clock_steps[-1]
        advice = "set the clock by NTP; times in reports of before that event may be wrong"
        found = f"it was set back by {back_by_s:.0f} s right before audit event {seq}"
        return Finding("clock", Verdict.WARNING, found, advice)
    return Finding("clock", Verdict.OK, "no step")


def check_clock_by_checkpoints(settings: Settings) -> Finding:
    """Compare this machine's clock with what was signed last: the only other times without a database."""
    try:
        key = CheckpointKey.load(settings.checkpoint_key_file)
        checkpoints = read_checkpoints(settings.checkpoint_dir, key.public_key)
    except AuditError as error:
        return Finding("clock", Verdict.WARNING, f"nothing to compare it with: {error}")
    if not checkpoints:
        return Finding("clock", Verdict.OK, "nothing was signed yet that it could be compared with")
    signed_at = datetime.strptime(checkpoints[-1].at, TIME_FORMAT).replace(tzinfo=UTC)
    behind_s = (signed_at - datetime.now(UTC)).total_seconds()
    if behind_s > CLOCK_TOLERANCE_S:
        found = f"it is {behind_s:.0f} s behind the newest audit checkpoint"
        return Finding("clock", Verdict.WARNING, found, "set it by NTP; reports carry this machine's time")
    return Finding("clock", Verdict.OK, "not behind the newest audit checkpoint")


def _check_sink(database: Database) -> Finding:
    with database.reading() as session:
        backlog = sink_cursor.backlog(session, "syslog")
    waits_s = (datetime.now(UTC) - backlog.oldest_at).total_seconds() if backlog.oldest_at else 0.0
    found = f"{backlog.events} events wait to be sent, the oldest for {waits_s:.0f} s"
    if waits_s > SINK_AWAY_AFTER_S:
        advice = (
            "nothing is lost; see that the sink and 'dicom-node dispatch' run; the log tells why it waits"
        )
        return Finding("audit sink", Verdict.PROBLEM, found, advice)
    return Finding("audit sink", Verdict.OK, found)
