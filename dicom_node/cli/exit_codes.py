"""Exit statuses: a promise to scripts."""

from __future__ import annotations

from enum import IntEnum

from db.errors import (
    AuditError,
    DatabaseUnavailableError,
    FilesGoneError,
    RecallRefusedError,
    SchemaError,
    TransitionRefusedError,
    UnknownRecordError,
)
from dicom_node.errors import (
    BundleStoreError,
    InstallationError,
    NodeError,
    PortUnavailableError,
    SettingsError,
)
from training.errors import ResourcesError, RunInUseError, TrainingConfigError, TrainingError


class ExitCode(IntEnum):
    """What a command's exit status means."""

    OK = 0  # done
    PROBLEM_FOUND = 1  # something was found: doctor, drift, verify, check; result export left something out
    USAGE = 2  # unknown command, option or value
    SETTINGS = 3  # a setting is wrong
    UNKNOWN_RECORD = 4  # no such study, job, result or bundle
    REFUSED = 5  # the present state, a bundle's verification, or the data of a training run forbids it
    UNAVAILABLE = 6  # database, broker, disk, port or a run's folder cannot be used now
    INSTALLATION = 7  # the installation is damaged, or the database is gone or of another version
    FAILED = 70  # anything else


_BY_TYPE: tuple[tuple[type[Exception], ExitCode], ...] = (
    (SettingsError, ExitCode.SETTINGS),
    (UnknownRecordError, ExitCode.UNKNOWN_RECORD),
    (TransitionRefusedError, ExitCode.REFUSED),
    (RecallRefusedError, ExitCode.REFUSED),
    (FilesGoneError, ExitCode.REFUSED),
    (DatabaseUnavailableError, ExitCode.UNAVAILABLE),
    (PortUnavailableError, ExitCode.UNAVAILABLE),
    (BundleStoreError, ExitCode.UNAVAILABLE),
    (SchemaError, ExitCode.INSTALLATION),
    (InstallationError, ExitCode.INSTALLATION),
    (AuditError, ExitCode.PROBLEM_FOUND),
    (TrainingConfigError, ExitCode.USAGE),
    (ResourcesError, ExitCode.UNAVAILABLE),
    (RunInUseError, ExitCode.UNAVAILABLE),
    (TrainingError, ExitCode.REFUSED),
    (NodeError, ExitCode.FAILED),
)


def exit_code_of(error: Exception) -> ExitCode:
    """Return the exit status of an error."""
    if type(error).__module__ == "models.errors":
        return ExitCode.REFUSED
    return next((code for kind, code in _BY_TYPE if isinstance(error, kind)), ExitCode.FAILED)
