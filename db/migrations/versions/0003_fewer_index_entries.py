"""Index the audit event of a received object only where somebody looks for it."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

INDEXES = (
    ("ix_audit_event_action_seq", ["action", "seq"], "action <> 'instance.stored'"),
    ("ix_audit_event_action_at", ["action", "at", "seq"], "action <> 'instance.stored'"),
    ("ix_audit_event_bundle_seq", ["bundle", "seq"], "bundle IS NOT NULL"),
    ("ix_audit_event_bundle_at", ["bundle", "at", "seq"], "bundle IS NOT NULL"),
    ("ix_audit_event_job_id", ["job_id"], "job_id IS NOT NULL"),
)


def upgrade() -> None:
    """Make the indexes again, without the rows that nobody finds by them."""
    for name, columns, where in INDEXES:
        op.drop_index(name, "audit_event")
        of_rows = sa.text(where)
        op.create_index(name, "audit_event", columns, sqlite_where=of_rows, postgresql_where=of_rows)
