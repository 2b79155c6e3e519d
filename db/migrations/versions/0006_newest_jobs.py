"""Let the newest jobs of a kind be found, however many there ever were."""

from __future__ import annotations

from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Make the index."""
    op.create_index("ix_job_created", "job", ["kind", "created_at"])
