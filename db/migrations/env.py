"""How Alembic runs a migration: on the connection and in the transaction that :mod:`db.schema` opened."""

from __future__ import annotations

from typing import Any, Literal

from alembic import context

from db.tables import Base, UtcDateTime


def render_item(kind: str, item: Any, _context: Any) -> str | Literal[False]:
    """Spell our own column type in a draft; leave the rest to Alembic."""
    return "UtcDateTime()" if kind == "type" and isinstance(item, UtcDateTime) else False


context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=Base.metadata,
    compare_type=True,
    render_item=render_item,
    transactional_ddl=True,
)
with context.begin_transaction():
    context.run_migrations()
