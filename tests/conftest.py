"""Fixtures that every test folder shares."""

from tests.captured_log import log
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
from tests.steered_node import node

__all__ = [
    "audit_key",
    "database",
    "database_kind",
    "database_url",
    "empty_database_url",
    "log",
    "new_database_url",
    "node",
    "postgres_server",
    "sqlite_template",
]
