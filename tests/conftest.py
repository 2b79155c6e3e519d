"""Fixtures that every test folder shares."""

from tests.databases import (
    audit_key,
    database,
    database_kind,
    database_url,
    empty_database_url,
    new_database_url,
    postgres_server,
    sqlite_template,
)

__all__ = [
    "audit_key",
    "database",
    "database_kind",
    "database_url",
    "empty_database_url",
    "new_database_url",
    "postgres_server",
    "sqlite_template",
]
