"""The errors of the database layer.

::

    DatabaseError
    ├── DatabaseUnavailableError   the server is away, locked or full: will pass by itself
    ├── SchemaError                the tables are not those of this version
    ├── TransitionRefusedError     a state does not follow from another
    ├── LeaseLostError             another worker owns the job now: stop and write nothing
    ├── RecallRefusedError         the bundle's studies cannot be scored by another one now
    ├── UnknownRecordError         no study, job, bundle or deployment of that name
    ├── FilesGoneError             the rows are there, and their files are not
    └── AuditError                 the audit trail cannot be written or does not verify

Messages carry UIDs, job ids and settings' names, never patient data.
"""

from __future__ import annotations


class DatabaseError(Exception):
    """The database refused or failed; the message says what to do next."""


class DatabaseUnavailableError(DatabaseError):
    """The database cannot be reached or written now; the same call may succeed later."""


class SchemaError(DatabaseError):
    """The tables are not those of this version; run ``dicom-node db upgrade``."""


class TransitionRefusedError(DatabaseError):
    """The event does not apply to the current state; look at ``db/lifecycle.py``."""


class LeaseLostError(DatabaseError):
    """The job's lease ended and the job belongs to another worker; nothing was written."""


class UnknownRecordError(DatabaseError):
    """There is no record of that name; list what exists with the matching ``list`` command."""


class FilesGoneError(DatabaseError):
    """The files of some rows are gone; the message tells since when, by which rule, and what to do."""


class RecallRefusedError(DatabaseError):
    """The bundle cannot be recalled yet; let another bundle answer for its task first."""


class AuditError(DatabaseError):
    """The audit trail cannot be written or does not verify; keep the data and look before going on."""
