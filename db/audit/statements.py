"""Signed statements in files outside the database: one line of JSON each, appended and never changed.

Each node of an installation has a file of its own for each kind. Checkpoints say where the chain stood, cuts
where its beginning was removed.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Iterator
from dataclasses import Field, asdict
from fnmatch import fnmatch
from pathlib import Path
from typing import Any, ClassVar, Protocol, TypeVar

from db.audit.keys import CheckpointKey, signature_is_valid, sync_directory
from db.canonical import canonical_json
from db.errors import AuditError

_LONGEST_LINE = 4096


class Statement(Protocol):
    """What is signed: a dataclass whose fields are JSON values."""

    __dataclass_fields__: ClassVar[dict[str, Field[Any]]]

    def message(self) -> bytes:
        """Return the bytes that the signature covers."""


Signed = TypeVar("Signed", bound=Statement)

_SEQ = re.compile(rb'"seq":([0-9]{1,18})')


def fields_of(statement: Statement) -> dict[str, Any]:
    """Return a statement's fields as they are written: without those that an older version did not know."""
    return {name: value for name, value in asdict(statement).items() if value is not None}


def file_of_node(folder: Path, kind: str, node: str) -> Path:
    """Return a node's file of signed statements of a kind."""
    return folder / f"{kind}-{re.sub(r'[^A-Za-z0-9._-]', '_', node)}.jsonl"


def append_statement(path: Path, statement: Statement, key: CheckpointKey) -> None:
    """Sign a statement, append it and sync it; a line that a crash tore is closed first.

    Raises
    ------
    db.errors.AuditError
        If the file cannot be written.
    """
    signature = key.sign(statement.message())
    line = canonical_json({**fields_of(statement), "signature": signature})
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        descriptor = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o640)
        with os.fdopen(descriptor, "r+b", buffering=0) as file:
            size = file.seek(0, os.SEEK_END)
            is_torn = size > 0 and os.pread(descriptor, 1, size - 1) != b"\n"
            file.write((b"\n" if is_torn else b"") + line.encode() + b"\n")
            os.fsync(descriptor)
        sync_directory(path.parent)
    except OSError as error:
        raise AuditError(
            f"the audit checkpoint file {path} cannot be written ({error.strerror}); "
            "make its folder writable or free some space"
        ) from error


def last_line(path: Path) -> bytes:
    """Return the last whole line of a file of statements, unchecked; nothing where there is none."""
    try:
        with path.open("rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - _LONGEST_LINE))
            lines = file.read().split(b"\n")
    except OSError:
        return b""
    return next((line for line in reversed(lines) if line.endswith(b"}")), b"")


def read_statements(
    folder: Path, kind: str, of: Callable[..., Signed], public_key: str, *, since: int = 0
) -> list[Signed]:
    """Read the signed statements of a kind of every node.

    Parameters
    ----------
    folder : pathlib.Path
        Where the files lie; a folder that does not exist holds none.
    kind : str
        How the files' names begin.
    of : callable
        Makes a statement of a line's fields.
    public_key : str
        Base64.
    since : int
        Leave out, unread, those of earlier events: in ten years there are a million of them.

    Raises
    ------
    db.errors.AuditError
        If a file cannot be read, or a line was not signed with this key or is no such statement.
    """
    try:
        # Not by glob, to which a closed folder is an empty one.
        files = sorted(path for path in folder.iterdir() if fnmatch(path.name, f"{kind}-*.jsonl"))
        lines = [(path, number, line) for path in files for number, line in _whole_lines(path, since)]
    except FileNotFoundError:
        return []
    except OSError as error:
        raise AuditError(
            f"the checkpoints in {folder} cannot be read ({error.strerror}); correct the owner of the folder "
            "and its files, or mount it"
        ) from error
    return [_parsed(line, of, public_key, f"{path.name}, line {number}") for path, number, line in lines]


def _whole_lines(path: Path, since: int) -> Iterator[tuple[int, bytes]]:
    """Yield each numbered line, but those that a crash tore, which lack their closing brace, or too early."""
    with path.open("rb") as file:
        for number, ended in enumerate(file, 1):
            line = ended.removesuffix(b"\n")
            if line.endswith(b"}") and not _is_earlier(line, since):
                yield number, line


def _is_earlier(line: bytes, since: int) -> bool:
    """Whether a line says that it is of an earlier event; one that does not say of which is not."""
    seq = _SEQ.search(line)
    return seq is not None and int(seq[1]) < since


def _parsed(line: bytes, of: Callable[..., Signed], public_key: str, where: str) -> Signed:
    """Read one statement and check its signature."""
    try:
        fields = json.loads(line)
        signature = fields.pop("signature")
        statement = of(**fields)
        is_valid = signature_is_valid(public_key, statement.message(), signature)
    except (ValueError, TypeError, KeyError, AttributeError):
        is_valid = False
    if not is_valid:
        raise AuditError(f"the audit checkpoint in {where} was not signed with this node's checkpoint key")
    return statement
