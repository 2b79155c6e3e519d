"""The tables. What a column means stands here; what may happen to it stands in :mod:`db.lifecycle`.

Patient identifiers are held in ``study`` alone; every other table refers to it.
"""

from __future__ import annotations

from datetime import UTC, datetime
from enum import StrEnum
from functools import lru_cache
from typing import Any

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    DateTime,
    Dialect,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    String,
    Text,
    UniqueConstraint,
    text,
)
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, relationship
from sqlalchemy.types import TypeDecorator, TypeEngine

from db.lifecycle import (
    CompletionReason,
    DeliveryState,
    DeploymentRole,
    JobKind,
    JobState,
    RevisionState,
)

REJECTION_NOTE = "rejection_note"
"""Kind of the result objects that withdraw others."""

INSTANCE_STORED = "instance.stored"
"""The action of most audit events: the one of every received object."""

UID = String(64)
SHA256 = String(64)


class UtcDateTime(TypeDecorator[datetime]):
    """An aware UTC time: ``timestamptz`` on PostgreSQL, fixed-width sortable text on SQLite.

    Naive times are refused, because nobody can tell later which zone they meant.
    """

    impl = DateTime(timezone=True)
    cache_ok = True

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        """Choose the column type of a dialect."""
        return dialect.type_descriptor(String(27) if dialect.name == "sqlite" else DateTime(timezone=True))

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> Any:
        """Refuse a naive time; write UTC."""
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError("a time without a zone cannot be stored; pass an aware datetime")
        value = value.astimezone(UTC)
        return spelled_utc(value) if dialect.name == "sqlite" else value

    def process_result_value(self, value: Any, dialect: Dialect) -> datetime | None:
        """Read an aware UTC time back."""
        if value is None:
            return None
        if isinstance(value, str):
            return datetime.strptime(value, "%Y-%m-%dT%H:%M:%S.%fZ").replace(tzinfo=UTC)
        aware: datetime = value
        return aware.astimezone(UTC)


@lru_cache(maxsize=8)  # the rows of one transaction carry the same one
def spelled_utc(moment: datetime) -> str:
    """Spell a UTC time as text of fixed width that sorts: microseconds, and Z rather than an offset."""
    return moment.isoformat("T", "microseconds").replace("+00:00", "Z")


def _members(column: str, enum: type[StrEnum], name: str) -> CheckConstraint:
    """Let the database refuse every value that the enumeration does not hold."""
    return CheckConstraint(f"{column} IN ({', '.join(repr(m.value) for m in enum)})", name=name)


def _one_at_a_time(role: DeploymentRole) -> Index:
    """Let the database refuse a second bundle in one role of one task."""
    present = text(f"role = '{role.value}' AND until IS NULL")
    name = f"uq_deployment_{role.value}"
    return Index(name, "task", unique=True, sqlite_where=present, postgresql_where=present)


def _index_where(name: str, *columns: str, where: str) -> Index:
    """An index of some rows, which costs nothing for the others."""
    return Index(name, *columns, sqlite_where=text(where), postgresql_where=text(where))


class Base(DeclarativeBase):
    """Base of all tables, with names for every constraint so that migrations can address them."""

    metadata = MetaData(
        naming_convention={
            "ix": "ix_%(table_name)s_%(column_0_N_name)s",
            "uq": "uq_%(table_name)s_%(column_0_N_name)s",
            "ck": "ck_%(table_name)s_%(constraint_name)s",
            "fk": "fk_%(table_name)s_%(column_0_name)s",
            "pk": "pk_%(table_name)s",
        }
    )


class Study(Base):
    """A study as its instances name it."""

    __tablename__ = "study"
    id: Mapped[int] = mapped_column(Integer, primary_key=True)
    study_instance_uid: Mapped[str] = mapped_column(UID, unique=True)
    patient_id: Mapped[str] = mapped_column(String(256), index=True)
    accession_number: Mapped[str] = mapped_column(String(256), index=True)
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)


class Revision(Base):
    """A study's set of instances: revision n holds every instance whose revision number is n or less."""

    __tablename__ = "revision"
    __table_args__ = (
        UniqueConstraint("study_id", "number"),
        _members("state", RevisionState, "state"),
        _members("complete_reason", CompletionReason, "complete_reason"),
        CheckConstraint("(state = 'complete') = (complete_reason IS NOT NULL)", name="reason_given"),
        Index(
            "uq_revision_open",
            "study_id",
            unique=True,
            sqlite_where=text("state = 'open'"),
            postgresql_where=text("state = 'open'"),
        ),
        # Not by when it is due: each received object moves that, and few are open at a time.
        Index("ix_revision_state", "state"),
    )
    id: Mapped[int] = mapped_column(Integer, primary_key=True)
    study_id: Mapped[int] = mapped_column(ForeignKey("study.id"))
    number: Mapped[int]
    state: Mapped[str] = mapped_column(String(16))
    complete_reason: Mapped[str | None] = mapped_column(String(16))
    opened_at: Mapped[datetime] = mapped_column(UtcDateTime)
    last_instance_at: Mapped[datetime] = mapped_column(UtcDateTime)
    due_at: Mapped[datetime] = mapped_column(UtcDateTime)  # end of the quiet period
    completed_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    study: Mapped[Study] = relationship()


class Instance(Base):
    """One received SOP instance and where its bytes lie."""

    __tablename__ = "instance"
    __table_args__ = (
        Index(
            "uq_instance_accepted",
            "sop_instance_uid",
            unique=True,
            sqlite_where=text("conflict = 0"),
            postgresql_where=text("conflict = 0"),
        ),
        CheckConstraint("conflict IN (0, 1)", name="conflict"),
        Index("ix_instance_study_revision", "study_id", "revision_number"),
    )
    id: Mapped[int] = mapped_column(Integer, primary_key=True)
    study_id: Mapped[int] = mapped_column(ForeignKey("study.id"))
    revision_number: Mapped[int]  # the first revision that holds it
    sop_instance_uid: Mapped[str] = mapped_column(UID)
    sop_class_uid: Mapped[str] = mapped_column(UID)
    series_instance_uid: Mapped[str] = mapped_column(UID)
    transfer_syntax_uid: Mapped[str] = mapped_column(UID)
    modality: Mapped[str] = mapped_column(String(16))
    laterality: Mapped[str | None] = mapped_column(String(16))
    view: Mapped[str | None] = mapped_column(String(16))
    for_presentation: Mapped[int]
    conflict: Mapped[int]  # 1: another instance of the same UID with other bytes came first
    spool_name: Mapped[str] = mapped_column(String(64), unique=True)
    sha256: Mapped[str] = mapped_column(SHA256)
    size_bytes: Mapped[int] = mapped_column(BigInteger)
    calling_ae_title: Mapped[str] = mapped_column(String(16))
    received_at: Mapped[datetime] = mapped_column(UtcDateTime)


class Job(Base):
    """One piece of work: a revision through a task, a result set to a destination, a training run, or what
    storage commitment asks (with a parent) and answers (without).
    """

    __tablename__ = "job"
    __table_args__ = (
        _members("kind", JobKind, "kind"),
        _members("state", JobState, "state"),
        CheckConstraint("(state = 'running') = (lease_owner IS NOT NULL)", name="lease_owner"),
        Index(
            "uq_job_score",
            "revision_id",
            "task",
            unique=True,
            sqlite_where=text("kind = 'score'"),
            postgresql_where=text("kind = 'score'"),
        ),
        Index(
            "uq_job_deliver",
            "parent_job_id",
            "destination",
            unique=True,
            sqlite_where=text("kind = 'deliver'"),
            postgresql_where=text("kind = 'deliver'"),
        ),
        Index(
            "uq_job_commit",
            "parent_job_id",
            unique=True,
            sqlite_where=text("kind = 'commit'"),
            postgresql_where=text("kind = 'commit'"),
        ),
        Index("ix_job_due", "kind", "state", "next_try_at", "created_at"),
        Index("ix_job_revision", "revision_id"),
        # Lists begin with the newest: no list of a node of years is to read and sort all that there ever was.
        Index("ix_job_created", "kind", "created_at"),
    )
    id: Mapped[str] = mapped_column(
        String(32), primary_key=True
    )  # random: it is what messages and logs carry
    kind: Mapped[str] = mapped_column(String(16))
    revision_id: Mapped[int | None] = mapped_column(ForeignKey("revision.id"))
    task: Mapped[str] = mapped_column(String(64))
    parent_job_id: Mapped[str | None] = mapped_column(ForeignKey("job.id"))
    destination: Mapped[str | None] = mapped_column(String(300))  # AE@HOST:PORT
    order: Mapped[str] = mapped_column(
        Text, default="{}"
    )  # of a training run or a commitment to answer, canonical JSON
    state: Mapped[str] = mapped_column(String(16))
    attempts: Mapped[int]  # claims so far; also the fence of the current claim
    lease_owner: Mapped[str | None] = mapped_column(String(128))
    lease_until: Mapped[datetime | None] = mapped_column(UtcDateTime)
    next_try_at: Mapped[datetime] = mapped_column(UtcDateTime)
    published_at: Mapped[datetime | None] = mapped_column(UtcDateTime)  # last doorbell rung
    bundle_digest: Mapped[str | None] = mapped_column(SHA256)
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)
    first_started_at: Mapped[datetime | None] = mapped_column(
        UtcDateTime
    )  # every rebuilt object carries this time
    finished_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    error_code: Mapped[str | None] = mapped_column(String(64))
    error: Mapped[str | None] = mapped_column(Text)
    revision: Mapped[Revision | None] = relationship()


class Analysis(Base):
    """What a score job found, as one canonical JSON document: scores, refusals, inputs, durations."""

    __tablename__ = "analysis"
    job_id: Mapped[str] = mapped_column(ForeignKey("job.id"), primary_key=True)
    outcome: Mapped[str] = mapped_column(String(16))
    study_probability: Mapped[float | None]
    document: Mapped[str] = mapped_column(Text)


class ResultObject(Base):
    """One result object: built once, its bytes on disk, never rebuilt for a resend."""

    __tablename__ = "result_object"
    __table_args__ = (UniqueConstraint("job_id", "kind", "ordinal"),)
    id: Mapped[int] = mapped_column(Integer, primary_key=True)
    job_id: Mapped[str] = mapped_column(ForeignKey("job.id"))
    kind: Mapped[str] = mapped_column(String(32))
    ordinal: Mapped[int]
    sop_class_uid: Mapped[str] = mapped_column(UID)
    sop_instance_uid: Mapped[str] = mapped_column(UID, unique=True)
    series_instance_uid: Mapped[str] = mapped_column(UID)
    transfer_syntax_uid: Mapped[str] = mapped_column(UID)
    file_name: Mapped[str] = mapped_column(String(64), unique=True)
    sha256: Mapped[str] = mapped_column(SHA256)
    size_bytes: Mapped[int] = mapped_column(BigInteger)
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)


class Delivery(Base):
    """One result object on its way to one destination."""

    __tablename__ = "delivery"
    __table_args__ = (
        UniqueConstraint("result_id", "destination"),
        _members("state", DeliveryState, "state"),
        Index("ix_delivery_job", "job_id"),
    )
    id: Mapped[int] = mapped_column(Integer, primary_key=True)
    job_id: Mapped[str] = mapped_column(ForeignKey("job.id"))  # the deliver job that sends it
    result_id: Mapped[int] = mapped_column(ForeignKey("result_object.id"))
    destination: Mapped[str] = mapped_column(String(300))
    state: Mapped[str] = mapped_column(String(16))
    attempts: Mapped[int]
    last_status: Mapped[int | None]  # the last C-STORE response status
    detail: Mapped[str | None] = mapped_column(Text)
    updated_at: Mapped[datetime] = mapped_column(UtcDateTime)
    # the object of another class that is sent rather than this one, where the destination accepts its class
    fallback_for: Mapped[int | None] = mapped_column(ForeignKey("result_object.id"))
    withdrawn_by: Mapped[int | None] = mapped_column(ForeignKey("result_object.id"))  # a rejection note
    result: Mapped[ResultObject] = relationship(foreign_keys=[result_id])


class Refusal(Base):
    """One attempt at which a destination refused an object, for as long as that is doubted."""

    __tablename__ = "refusal"
    delivery_id: Mapped[int] = mapped_column(ForeignKey("delivery.id"), primary_key=True)
    attempt: Mapped[int] = mapped_column(Integer, primary_key=True)  # of the delivery


class CommitmentRequest(Base):
    """One request for storage commitment: what a destination was asked, and whether it reported."""

    __tablename__ = "commitment_request"
    __table_args__ = (Index("ix_commitment_request_job", "job_id"),)
    id: Mapped[int] = mapped_column(Integer, primary_key=True)
    job_id: Mapped[str] = mapped_column(ForeignKey("job.id"))  # the commit job that asked
    transaction_uid: Mapped[str] = mapped_column(UID, unique=True)
    objects: Mapped[int]  # asked for
    asked_at: Mapped[datetime] = mapped_column(UtcDateTime)
    reported_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    committed: Mapped[int | None]  # of the first report
    missing: Mapped[int | None]


class BundleRecord(Base):
    """A bundle in the node's store, by the digest of its content."""

    __tablename__ = "bundle"
    digest: Mapped[str] = mapped_column(SHA256, primary_key=True)
    name: Mapped[str] = mapped_column(String(64))
    version: Mapped[str] = mapped_column(String(64))
    task: Mapped[str] = mapped_column(String(64))
    demonstration: Mapped[int]
    added_at: Mapped[datetime] = mapped_column(UtcDateTime)
    added_by: Mapped[str] = mapped_column(String(128))


class Deployment(Base):
    """Which bundle has which role for which task, since when, by whom."""

    __tablename__ = "deployment"
    __table_args__ = (
        _members("role", DeploymentRole, "role"),
        CheckConstraint("(role = 'canary') = (percent IS NOT NULL)", name="percent_of_canary"),
        CheckConstraint("percent BETWEEN 1 AND 99", name="percent"),
        *(_one_at_a_time(role) for role in DeploymentRole),
    )
    id: Mapped[int] = mapped_column(Integer, primary_key=True)
    task: Mapped[str] = mapped_column(String(64))
    role: Mapped[str] = mapped_column(String(16))
    percent: Mapped[int | None]  # of the studies, which a canary answers for
    bundle_digest: Mapped[str] = mapped_column(ForeignKey("bundle.digest"))
    since: Mapped[datetime] = mapped_column(UtcDateTime)
    until: Mapped[datetime | None] = mapped_column(UtcDateTime)
    deployed_by: Mapped[str] = mapped_column(String(128))
    approved_by: Mapped[str | None] = mapped_column(String(128))  # of a promotion


class ShadowScore(Base):
    """What a bundle in shadow said about an image that the champion scored; never sent."""

    __tablename__ = "shadow_score"
    __table_args__ = (
        UniqueConstraint("job_id", "bundle_digest", "sop_instance_uid"),
        Index("ix_shadow_score_bundle", "bundle_digest"),
    )
    id: Mapped[int] = mapped_column(Integer, primary_key=True)
    job_id: Mapped[str] = mapped_column(ForeignKey("job.id"))  # the champion's score job
    revision_id: Mapped[int] = mapped_column(ForeignKey("revision.id"))
    bundle_digest: Mapped[str] = mapped_column(ForeignKey("bundle.digest"))
    champion_digest: Mapped[str] = mapped_column(ForeignKey("bundle.digest"))
    sop_instance_uid: Mapped[str] = mapped_column(UID)
    laterality: Mapped[str] = mapped_column(String(16))
    logit: Mapped[float]
    probability: Mapped[float]
    champion_logit: Mapped[float]
    champion_probability: Mapped[float]
    scored_at: Mapped[datetime] = mapped_column(UtcDateTime)


class DeviceObservation(Base):
    """What drift is watched by: the device that made a scored study, its pixels in numbers, and the score."""

    __tablename__ = "device_observation"
    __table_args__ = (Index("ix_device_observation_device", "task", "scanner_model", "software_versions"),)
    job_id: Mapped[str] = mapped_column(ForeignKey("job.id"), primary_key=True)
    task: Mapped[str] = mapped_column(String(64))
    bundle_digest: Mapped[str] = mapped_column(ForeignKey("bundle.digest"))
    scanner_model: Mapped[str] = mapped_column(String(64))  # Manufacturer's Model Name (0008,1090)
    software_versions: Mapped[str] = mapped_column(String(256))  # (0018,1020), joined
    study_probability: Mapped[float | None]
    numbers: Mapped[str] = mapped_column(Text)  # name to value, canonical JSON
    categories: Mapped[str] = mapped_column(Text)  # name to value, canonical JSON
    withheld: Mapped[int]  # 1: the device is in shadow, nothing was sent
    observed_at: Mapped[datetime] = mapped_column(UtcDateTime)


class Process(Base):
    """The latest sign of life of each running process of the node."""

    __tablename__ = "process"
    name: Mapped[str] = mapped_column(String(128), primary_key=True)  # kind@host:pid
    kind: Mapped[str] = mapped_column(String(64))  # "listen", "dispatch", or queues joined by "+"
    started_at: Mapped[datetime] = mapped_column(UtcDateTime)
    seen_at: Mapped[datetime] = mapped_column(UtcDateTime)


class HostClock(Base):
    """On SQLite: the wall time at which this boot's monotonic clock read zero."""

    __tablename__ = "host_clock"
    boot_id: Mapped[str] = mapped_column(String(64), primary_key=True)
    zero_at: Mapped[datetime] = mapped_column(UtcDateTime)


_IS_OTHER_ACTION = f"action <> '{INSTANCE_STORED}'"


class AuditEvent(Base):
    """One line of the append-only, hash-chained trail; ``payload`` is the exact text that ``mac`` covers."""

    __tablename__ = "audit_event"
    # What may match many events is found in the order in which it is shown: by time where one is asked for.
    # The event of each received object is in as few indexes as can be: a page is written for each.
    __table_args__ = (
        _index_where("ix_audit_event_action_seq", "action", "seq", where=_IS_OTHER_ACTION),
        _index_where("ix_audit_event_action_at", "action", "at", "seq", where=_IS_OTHER_ACTION),
        _index_where("ix_audit_event_bundle_seq", "bundle", "seq", where="bundle IS NOT NULL"),
        _index_where("ix_audit_event_bundle_at", "bundle", "at", "seq", where="bundle IS NOT NULL"),
        _index_where("ix_audit_event_job_id", "job_id", where="job_id IS NOT NULL"),
        Index("ix_audit_event_at", "at", "seq"),
    )
    seq: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
    at: Mapped[str] = mapped_column(String(27))  # UTC wall time, microseconds, Z
    actor: Mapped[str] = mapped_column(String(128))
    action: Mapped[str] = mapped_column(String(64))
    study_instance_uid: Mapped[str | None] = mapped_column(UID, index=True)
    job_id: Mapped[str | None] = mapped_column(String(32))
    bundle: Mapped[str | None] = mapped_column(SHA256)
    detail: Mapped[str] = mapped_column(Text)
    payload: Mapped[str] = mapped_column(Text)
    prev: Mapped[str] = mapped_column(SHA256)
    mac: Mapped[str] = mapped_column(SHA256)
    key_id: Mapped[str] = mapped_column(String(16))


class AuditCursor(Base):
    """How far the trail was handed to a sink outside the node, and which process hands it over."""

    __tablename__ = "audit_cursor"
    sink: Mapped[str] = mapped_column(String(16), primary_key=True)
    seq: Mapped[int] = mapped_column(BigInteger)  # the last event that the sink has, or has no message for
    owner: Mapped[str | None] = mapped_column(String(128))
    lease_until: Mapped[datetime | None] = mapped_column(UtcDateTime)
    moved_at: Mapped[datetime] = mapped_column(UtcDateTime)
