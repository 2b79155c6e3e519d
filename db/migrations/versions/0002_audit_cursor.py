"""How far the audit trail was handed to a sink, and indexes for questions about its times."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from db.tables import UtcDateTime

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the cursor's table, with nothing handed over yet, and the indexes."""
    op.drop_index("ix_audit_event_at", "audit_event")
    op.drop_index("ix_audit_event_bundle", "audit_event")
    for name, columns in (
        ("ix_audit_event_action_at", ["action", "at", "seq"]),
        ("ix_audit_event_bundle_seq", ["bundle", "seq"]),
        ("ix_audit_event_bundle_at", ["bundle", "at", "seq"]),
        ("ix_audit_event_at", ["at", "seq"]),
    ):
        op.create_index(name, "audit_event", columns, unique=False)
    op.create_table(
        "audit_cursor",
        sa.Column("sink", sa.String(length=16), nullable=False),
        sa.Column("seq", sa.BigInteger(), nullable=False),
        sa.Column("owner", sa.String(length=128), nullable=True),
        sa.Column("lease_until", UtcDateTime(), nullable=True),
        sa.Column("moved_at", UtcDateTime(), nullable=False),
        sa.PrimaryKeyConstraint("sink", name=op.f("pk_audit_cursor")),
    )
