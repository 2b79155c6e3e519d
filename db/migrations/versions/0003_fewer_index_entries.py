"""Index what each received object writes only where somebody looks for it."""

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
    """Make the indexes again, without the rows and the column that nobody needs to find anything."""
    for name, columns, where in INDEXES:
        op.drop_index(name, "audit_event")
        of_rows = sa.text(where)
        op.create_index(name, "audit_event", columns, sqlite_where=of_rows, postgresql_where=of_rows)
    op.drop_index("ix_revision_due", "revision")
    op.create_index("ix_revision_state", "revision", ["state"])
