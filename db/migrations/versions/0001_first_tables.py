"""The first tables, and triggers that refuse to change the audit trail."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from db.tables import UtcDateTime

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

SQLITE_TRIGGERS = (
    """CREATE TRIGGER audit_event_no_update BEFORE UPDATE ON audit_event
    BEGIN SELECT RAISE(ABORT, 'the audit trail is append-only'); END""",
    """CREATE TRIGGER audit_event_no_delete BEFORE DELETE ON audit_event
    BEGIN SELECT RAISE(ABORT, 'the audit trail is append-only'); END""",
)

# ENABLE ALWAYS: a session that sets session_replication_role = replica is refused as well.
POSTGRESQL_TRIGGERS = (
    """CREATE FUNCTION audit_event_refuse() RETURNS trigger LANGUAGE plpgsql AS
    $$ BEGIN RAISE EXCEPTION 'the audit trail is append-only'; END $$""",
    """CREATE TRIGGER audit_event_no_update BEFORE UPDATE ON audit_event
    FOR EACH ROW EXECUTE FUNCTION audit_event_refuse()""",
    """CREATE TRIGGER audit_event_no_delete BEFORE DELETE ON audit_event
    FOR EACH ROW EXECUTE FUNCTION audit_event_refuse()""",
    """CREATE TRIGGER audit_event_no_truncate BEFORE TRUNCATE ON audit_event
    FOR EACH STATEMENT EXECUTE FUNCTION audit_event_refuse()""",
    "ALTER TABLE audit_event ENABLE ALWAYS TRIGGER audit_event_no_update",
    "ALTER TABLE audit_event ENABLE ALWAYS TRIGGER audit_event_no_delete",
    "ALTER TABLE audit_event ENABLE ALWAYS TRIGGER audit_event_no_truncate",
)


def upgrade() -> None:
    """Create everything."""
    _create_audit_event()
    _create_bundle()
    _create_host_clock()
    _create_process()
    _create_study()
    _create_deployment()
    _create_instance()
    _create_revision()
    _create_job()
    _create_analysis()
    _create_shadow_score()
    _create_device_observation()
    _create_result_object()
    _create_delivery()
    _create_commitment_request()
    is_sqlite = op.get_bind().dialect.name == "sqlite"
    for statement in SQLITE_TRIGGERS if is_sqlite else POSTGRESQL_TRIGGERS:
        op.execute(statement)


def _create_audit_event() -> None:
    op.create_table(
        "audit_event",
        sa.Column("seq", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("at", sa.String(length=27), nullable=False),
        sa.Column("actor", sa.String(length=128), nullable=False),
        sa.Column("action", sa.String(length=64), nullable=False),
        sa.Column("study_instance_uid", sa.String(length=64), nullable=True),
        sa.Column("job_id", sa.String(length=32), nullable=True),
        sa.Column("bundle", sa.String(length=64), nullable=True),
        sa.Column("detail", sa.Text(), nullable=False),
        sa.Column("payload", sa.Text(), nullable=False),
        sa.Column("prev", sa.String(length=64), nullable=False),
        sa.Column("mac", sa.String(length=64), nullable=False),
        sa.Column("key_id", sa.String(length=16), nullable=False),
        sa.PrimaryKeyConstraint("seq", name=op.f("pk_audit_event")),
    )
    op.create_index("ix_audit_event_action_seq", "audit_event", ["action", "seq"], unique=False)
    op.create_index(op.f("ix_audit_event_at"), "audit_event", ["at"], unique=False)
    op.create_index(op.f("ix_audit_event_bundle"), "audit_event", ["bundle"], unique=False)
    op.create_index(op.f("ix_audit_event_job_id"), "audit_event", ["job_id"], unique=False)
    op.create_index(
        op.f("ix_audit_event_study_instance_uid"), "audit_event", ["study_instance_uid"], unique=False
    )


def _create_bundle() -> None:
    op.create_table(
        "bundle",
        sa.Column("digest", sa.String(length=64), nullable=False),
        sa.Column("name", sa.String(length=64), nullable=False),
        sa.Column("version", sa.String(length=64), nullable=False),
        sa.Column("task", sa.String(length=64), nullable=False),
        sa.Column("demonstration", sa.Integer(), nullable=False),
        sa.Column("added_at", UtcDateTime(), nullable=False),
        sa.Column("added_by", sa.String(length=128), nullable=False),
        sa.PrimaryKeyConstraint("digest", name=op.f("pk_bundle")),
    )


def _create_host_clock() -> None:
    op.create_table(
        "host_clock",
        sa.Column("boot_id", sa.String(length=64), nullable=False),
        sa.Column("zero_at", UtcDateTime(), nullable=False),
        sa.PrimaryKeyConstraint("boot_id", name=op.f("pk_host_clock")),
    )


def _create_process() -> None:
    op.create_table(
        "process",
        sa.Column("name", sa.String(length=128), nullable=False),
        sa.Column("kind", sa.String(length=64), nullable=False),
        sa.Column("started_at", UtcDateTime(), nullable=False),
        sa.Column("seen_at", UtcDateTime(), nullable=False),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_process")),
    )


def _create_study() -> None:
    op.create_table(
        "study",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("study_instance_uid", sa.String(length=64), nullable=False),
        sa.Column("patient_id", sa.String(length=256), nullable=False),
        sa.Column("accession_number", sa.String(length=256), nullable=False),
        sa.Column("created_at", UtcDateTime(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_study")),
        sa.UniqueConstraint("study_instance_uid", name=op.f("uq_study_study_instance_uid")),
    )
    op.create_index(op.f("ix_study_accession_number"), "study", ["accession_number"], unique=False)
    op.create_index(op.f("ix_study_patient_id"), "study", ["patient_id"], unique=False)


def _create_deployment() -> None:
    op.create_table(
        "deployment",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("task", sa.String(length=64), nullable=False),
        sa.Column("role", sa.String(length=16), nullable=False),
        sa.Column("percent", sa.Integer(), nullable=True),
        sa.Column("bundle_digest", sa.String(length=64), nullable=False),
        sa.Column("since", UtcDateTime(), nullable=False),
        sa.Column("until", UtcDateTime(), nullable=True),
        sa.Column("deployed_by", sa.String(length=128), nullable=False),
        sa.Column("approved_by", sa.String(length=128), nullable=True),
        sa.CheckConstraint("role IN ('champion', 'canary', 'shadow')", name=op.f("ck_deployment_role")),
        sa.CheckConstraint(
            "(role = 'canary') = (percent IS NOT NULL)", name=op.f("ck_deployment_percent_of_canary")
        ),
        sa.CheckConstraint("percent BETWEEN 1 AND 99", name=op.f("ck_deployment_percent")),
        sa.ForeignKeyConstraint(
            ["bundle_digest"], ["bundle.digest"], name=op.f("fk_deployment_bundle_digest")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_deployment")),
    )
    for role in ("champion", "canary", "shadow"):
        present = sa.text(f"role = '{role}' AND until IS NULL")
        op.create_index(
            f"uq_deployment_{role}",
            "deployment",
            ["task"],
            unique=True,
            sqlite_where=present,
            postgresql_where=present,
        )


def _create_instance() -> None:
    op.create_table(
        "instance",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("study_id", sa.Integer(), nullable=False),
        sa.Column("revision_number", sa.Integer(), nullable=False),
        sa.Column("sop_instance_uid", sa.String(length=64), nullable=False),
        sa.Column("sop_class_uid", sa.String(length=64), nullable=False),
        sa.Column("series_instance_uid", sa.String(length=64), nullable=False),
        sa.Column("transfer_syntax_uid", sa.String(length=64), nullable=False),
        sa.Column("modality", sa.String(length=16), nullable=False),
        sa.Column("laterality", sa.String(length=16), nullable=True),
        sa.Column("view", sa.String(length=16), nullable=True),
        sa.Column("for_presentation", sa.Integer(), nullable=False),
        sa.Column("conflict", sa.Integer(), nullable=False),
        sa.Column("spool_name", sa.String(length=64), nullable=False),
        sa.Column("sha256", sa.String(length=64), nullable=False),
        sa.Column("size_bytes", sa.BigInteger(), nullable=False),
        sa.Column("calling_ae_title", sa.String(length=16), nullable=False),
        sa.Column("received_at", UtcDateTime(), nullable=False),
        sa.CheckConstraint("conflict IN (0, 1)", name=op.f("ck_instance_conflict")),
        sa.ForeignKeyConstraint(["study_id"], ["study.id"], name=op.f("fk_instance_study_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_instance")),
        sa.UniqueConstraint("spool_name", name=op.f("uq_instance_spool_name")),
    )
    op.create_index("ix_instance_study_revision", "instance", ["study_id", "revision_number"], unique=False)
    op.create_index(
        "uq_instance_accepted",
        "instance",
        ["sop_instance_uid"],
        unique=True,
        sqlite_where=sa.text("conflict = 0"),
        postgresql_where=sa.text("conflict = 0"),
    )


def _create_revision() -> None:
    op.create_table(
        "revision",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("study_id", sa.Integer(), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("complete_reason", sa.String(length=16), nullable=True),
        sa.Column("opened_at", UtcDateTime(), nullable=False),
        sa.Column("last_instance_at", UtcDateTime(), nullable=False),
        sa.Column("due_at", UtcDateTime(), nullable=False),
        sa.Column("completed_at", UtcDateTime(), nullable=True),
        sa.CheckConstraint(
            "(state = 'complete') = (complete_reason IS NOT NULL)", name=op.f("ck_revision_reason_given")
        ),
        sa.CheckConstraint(
            "complete_reason IN ('all_views', 'command', 'recall', 'quiet_period')",
            name=op.f("ck_revision_complete_reason"),
        ),
        sa.CheckConstraint("state IN ('open', 'complete')", name=op.f("ck_revision_state")),
        sa.ForeignKeyConstraint(["study_id"], ["study.id"], name=op.f("fk_revision_study_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_revision")),
        sa.UniqueConstraint("study_id", "number", name=op.f("uq_revision_study_id_number")),
    )
    op.create_index("ix_revision_due", "revision", ["state", "due_at"], unique=False)
    op.create_index(
        "uq_revision_open",
        "revision",
        ["study_id"],
        unique=True,
        sqlite_where=sa.text("state = 'open'"),
        postgresql_where=sa.text("state = 'open'"),
    )


def _create_job() -> None:
    op.create_table(
        "job",
        sa.Column("id", sa.String(length=32), nullable=False),
        sa.Column("kind", sa.String(length=16), nullable=False),
        sa.Column("revision_id", sa.Integer(), nullable=True),
        sa.Column("task", sa.String(length=64), nullable=False),
        sa.Column("parent_job_id", sa.String(length=32), nullable=True),
        sa.Column("destination", sa.String(length=300), nullable=True),
        sa.Column("order", sa.Text(), nullable=False),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("lease_owner", sa.String(length=128), nullable=True),
        sa.Column("lease_until", UtcDateTime(), nullable=True),
        sa.Column("next_try_at", UtcDateTime(), nullable=False),
        sa.Column("published_at", UtcDateTime(), nullable=True),
        sa.Column("bundle_digest", sa.String(length=64), nullable=True),
        sa.Column("created_at", UtcDateTime(), nullable=False),
        sa.Column("first_started_at", UtcDateTime(), nullable=True),
        sa.Column("finished_at", UtcDateTime(), nullable=True),
        sa.Column("error_code", sa.String(length=64), nullable=True),
        sa.Column("error", sa.Text(), nullable=True),
        sa.CheckConstraint(
            "(state = 'running') = (lease_owner IS NOT NULL)", name=op.f("ck_job_lease_owner")
        ),
        sa.CheckConstraint("kind IN ('score', 'deliver', 'train', 'commit')", name=op.f("ck_job_kind")),
        sa.CheckConstraint("state IN ('queued', 'running', 'done', 'failed')", name=op.f("ck_job_state")),
        sa.ForeignKeyConstraint(["parent_job_id"], ["job.id"], name=op.f("fk_job_parent_job_id")),
        sa.ForeignKeyConstraint(["revision_id"], ["revision.id"], name=op.f("fk_job_revision_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_job")),
    )
    op.create_index("ix_job_due", "job", ["kind", "state", "next_try_at"], unique=False)
    op.create_index("ix_job_revision", "job", ["revision_id"], unique=False)
    op.create_index(
        "uq_job_commit",
        "job",
        ["parent_job_id"],
        unique=True,
        sqlite_where=sa.text("kind = 'commit'"),
        postgresql_where=sa.text("kind = 'commit'"),
    )
    op.create_index(
        "uq_job_deliver",
        "job",
        ["parent_job_id", "destination"],
        unique=True,
        sqlite_where=sa.text("kind = 'deliver'"),
        postgresql_where=sa.text("kind = 'deliver'"),
    )
    op.create_index(
        "uq_job_score",
        "job",
        ["revision_id", "task"],
        unique=True,
        sqlite_where=sa.text("kind = 'score'"),
        postgresql_where=sa.text("kind = 'score'"),
    )


def _create_analysis() -> None:
    op.create_table(
        "analysis",
        sa.Column("job_id", sa.String(length=32), nullable=False),
        sa.Column("outcome", sa.String(length=16), nullable=False),
        sa.Column("study_probability", sa.Double(), nullable=True),
        sa.Column("document", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(["job_id"], ["job.id"], name=op.f("fk_analysis_job_id")),
        sa.PrimaryKeyConstraint("job_id", name=op.f("pk_analysis")),
    )


def _create_shadow_score() -> None:
    op.create_table(
        "shadow_score",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("job_id", sa.String(length=32), nullable=False),
        sa.Column("revision_id", sa.Integer(), nullable=False),
        sa.Column("bundle_digest", sa.String(length=64), nullable=False),
        sa.Column("champion_digest", sa.String(length=64), nullable=False),
        sa.Column("sop_instance_uid", sa.String(length=64), nullable=False),
        sa.Column("laterality", sa.String(length=16), nullable=False),
        sa.Column("logit", sa.Double(), nullable=False),
        sa.Column("probability", sa.Double(), nullable=False),
        sa.Column("champion_logit", sa.Double(), nullable=False),
        sa.Column("champion_probability", sa.Double(), nullable=False),
        sa.Column("scored_at", UtcDateTime(), nullable=False),
        sa.ForeignKeyConstraint(
            ["bundle_digest"], ["bundle.digest"], name=op.f("fk_shadow_score_bundle_digest")
        ),
        sa.ForeignKeyConstraint(
            ["champion_digest"], ["bundle.digest"], name=op.f("fk_shadow_score_champion_digest")
        ),
        sa.ForeignKeyConstraint(["job_id"], ["job.id"], name=op.f("fk_shadow_score_job_id")),
        sa.ForeignKeyConstraint(["revision_id"], ["revision.id"], name=op.f("fk_shadow_score_revision_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_shadow_score")),
        sa.UniqueConstraint(
            "job_id",
            "bundle_digest",
            "sop_instance_uid",
            name=op.f("uq_shadow_score_job_id_bundle_digest_sop_instance_uid"),
        ),
    )
    op.create_index("ix_shadow_score_bundle", "shadow_score", ["bundle_digest"], unique=False)


def _create_device_observation() -> None:
    op.create_table(
        "device_observation",
        sa.Column("job_id", sa.String(length=32), nullable=False),
        sa.Column("task", sa.String(length=64), nullable=False),
        sa.Column("bundle_digest", sa.String(length=64), nullable=False),
        sa.Column("scanner_model", sa.String(length=64), nullable=False),
        sa.Column("software_versions", sa.String(length=256), nullable=False),
        sa.Column("study_probability", sa.Double(), nullable=True),
        sa.Column("numbers", sa.Text(), nullable=False),
        sa.Column("categories", sa.Text(), nullable=False),
        sa.Column("withheld", sa.Integer(), nullable=False),
        sa.Column("observed_at", UtcDateTime(), nullable=False),
        sa.ForeignKeyConstraint(
            ["bundle_digest"], ["bundle.digest"], name=op.f("fk_device_observation_bundle_digest")
        ),
        sa.ForeignKeyConstraint(["job_id"], ["job.id"], name=op.f("fk_device_observation_job_id")),
        sa.PrimaryKeyConstraint("job_id", name=op.f("pk_device_observation")),
    )
    op.create_index(
        "ix_device_observation_device",
        "device_observation",
        ["task", "scanner_model", "software_versions"],
        unique=False,
    )


def _create_result_object() -> None:
    op.create_table(
        "result_object",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("job_id", sa.String(length=32), nullable=False),
        sa.Column("kind", sa.String(length=32), nullable=False),
        sa.Column("ordinal", sa.Integer(), nullable=False),
        sa.Column("sop_class_uid", sa.String(length=64), nullable=False),
        sa.Column("sop_instance_uid", sa.String(length=64), nullable=False),
        sa.Column("series_instance_uid", sa.String(length=64), nullable=False),
        sa.Column("transfer_syntax_uid", sa.String(length=64), nullable=False),
        sa.Column("file_name", sa.String(length=64), nullable=False),
        sa.Column("sha256", sa.String(length=64), nullable=False),
        sa.Column("size_bytes", sa.BigInteger(), nullable=False),
        sa.Column("created_at", UtcDateTime(), nullable=False),
        sa.ForeignKeyConstraint(["job_id"], ["job.id"], name=op.f("fk_result_object_job_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_result_object")),
        sa.UniqueConstraint("file_name", name=op.f("uq_result_object_file_name")),
        sa.UniqueConstraint("job_id", "kind", "ordinal", name=op.f("uq_result_object_job_id_kind_ordinal")),
        sa.UniqueConstraint("sop_instance_uid", name=op.f("uq_result_object_sop_instance_uid")),
    )


def _create_delivery() -> None:
    op.create_table(
        "delivery",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("job_id", sa.String(length=32), nullable=False),
        sa.Column("result_id", sa.Integer(), nullable=False),
        sa.Column("destination", sa.String(length=300), nullable=False),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("last_status", sa.Integer(), nullable=True),
        sa.Column("detail", sa.Text(), nullable=True),
        sa.Column("updated_at", UtcDateTime(), nullable=False),
        sa.Column("fallback_for", sa.Integer(), nullable=True),
        sa.Column("withdrawn_by", sa.Integer(), nullable=True),
        sa.CheckConstraint(
            "state IN ('pending', 'unknown', 'delivered', 'committed', 'refused', 'not_needed')",
            name=op.f("ck_delivery_state"),
        ),
        sa.ForeignKeyConstraint(["job_id"], ["job.id"], name=op.f("fk_delivery_job_id")),
        sa.ForeignKeyConstraint(["result_id"], ["result_object.id"], name=op.f("fk_delivery_result_id")),
        sa.ForeignKeyConstraint(
            ["fallback_for"], ["result_object.id"], name=op.f("fk_delivery_fallback_for")
        ),
        sa.ForeignKeyConstraint(
            ["withdrawn_by"], ["result_object.id"], name=op.f("fk_delivery_withdrawn_by")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_delivery")),
        sa.UniqueConstraint("result_id", "destination", name=op.f("uq_delivery_result_id_destination")),
    )
    op.create_index("ix_delivery_job", "delivery", ["job_id"], unique=False)


def _create_commitment_request() -> None:
    op.create_table(
        "commitment_request",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("job_id", sa.String(length=32), nullable=False),
        sa.Column("transaction_uid", sa.String(length=64), nullable=False),
        sa.Column("objects", sa.Integer(), nullable=False),
        sa.Column("asked_at", UtcDateTime(), nullable=False),
        sa.Column("reported_at", UtcDateTime(), nullable=True),
        sa.Column("committed", sa.Integer(), nullable=True),
        sa.Column("missing", sa.Integer(), nullable=True),
        sa.ForeignKeyConstraint(["job_id"], ["job.id"], name=op.f("fk_commitment_request_job_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_commitment_request")),
        sa.UniqueConstraint("transaction_uid", name=op.f("uq_commitment_request_transaction_uid")),
    )
    op.create_index("ix_commitment_request_job", "commitment_request", ["job_id"], unique=False)
