"""Let the index of due jobs hold them in the order in which they are claimed, however many wait."""

from __future__ import annotations

from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Make the index again, with the column that decides between jobs of one moment."""
    op.drop_index("ix_job_due", "job")
    op.create_index("ix_job_due", "job", ["kind", "state", "next_try_at", "created_at"])
