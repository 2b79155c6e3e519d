"""What ``doctor`` looks at of the node's own defences: who runs it and may look, certificates, the broker."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from pathlib import Path

from dicom_node.broker_address import lacks_authentication, lacks_encryption
from dicom_node.cli.health.findings import Finding, Verdict
from dicom_node.cli.security import tls_files
from dicom_node.errors import SettingsError
from dicom_node.settings import Settings
from dicom_node.tls import days_left

RENEW_BEFORE_DAYS = 30


def check_defences(settings: Settings) -> Iterator[Finding]:
    """Run every check of the node's defences."""
    yield _check_user()
    yield from _check_certificates(settings)
    yield from _check_callers(settings)
    if settings.broker_url is not None:
        yield _check_broker_address(settings.broker_url.get_secret_value())


def check_private(settings: Settings) -> Finding:
    """Look whether others may read patient data or keys, and whether all is the node's own."""
    folders = (
        settings.data_dir,
        settings.spool_dir,
        settings.journal_dir,
        settings.quarantine_dir,
        settings.results_dir,
        settings.key_dir,
    )
    try:
        exposed = [str(folder) for folder in folders if folder.exists() and folder.stat().st_mode & 0o077]
        secrets = sorted(settings.key_dir.iterdir()) if settings.key_dir.is_dir() else []
        readable = [str(file) for file in secrets if file.is_file() and file.stat().st_mode & 0o077]
        # Of the journals each one: a single one that cannot be read keeps the node from starting.
        journals = [path for path in settings.journal_dir.glob("*") if not path.is_symlink()]
        own = [*folders, *secrets, *journals, *settings.data_dir.iterdir()]
        strange = _of_another_owner(settings.data_dir, own)
    except PermissionError as error:
        found = f"{error.filename} is closed to this user"
        who = "run this command as the node's user; if that is this one, correct the data directory's owner"
        return Finding("permissions", Verdict.PROBLEM, found, who)
    advice: list[str] = []
    if exposed:
        advice.append(f"chmod 700 {' '.join(exposed)}")
    if readable:
        advice.append(f"chmod 600 {' '.join(readable)}, and 'dicom-node audit rotate-key'")
    if strange:
        advice.append(f"chown -R {settings.data_dir.stat().st_uid} {' '.join(strange)}")
    wrong = [f"other users may look into {', '.join([*exposed, *readable])}"] if exposed or readable else []
    if strange:
        wrong.append(f"not of the data directory's owner: {', '.join(strange)}")
    if wrong:
        return Finding("permissions", Verdict.PROBLEM, "; ".join(wrong), "; ".join(advice))
    return Finding("permissions", Verdict.OK, "only the node's user may read its folders")


def _of_another_owner(data_dir: Path, paths: Iterable[Path]) -> list[str]:
    """Return what a command made that another user ran, such as root: the node may not read it."""
    owner = data_dir.stat().st_uid
    within = {path for path in paths if path.is_relative_to(data_dir) and path.exists()}
    return sorted(str(path) for path in within if path.stat().st_uid != owner)


def _check_user() -> Finding:
    if os.geteuid() == 0:
        advice = "run the node as a user of its own; see docs/how-to/secure-the-node.md"
        return Finding("user", Verdict.WARNING, "runs as root", advice)
    return Finding("user", Verdict.OK, "not root")


def _check_certificates(settings: Settings) -> Iterator[Finding]:
    for name, files in tls_files(settings):
        try:
            files.server_context()
            left = days_left(files)
        except SettingsError as error:
            yield Finding(name, Verdict.PROBLEM, str(error), "correct the files; a running node takes them")
            continue
        if left < 0:
            advice = "replace it; a running node takes the new one"
            yield Finding(name, Verdict.PROBLEM, "the certificate has expired", advice)
        elif left < RENEW_BEFORE_DAYS:
            advice = "replace it in time; a running node takes the new one"
            yield Finding(name, Verdict.WARNING, f"the certificate ends in {left} days", advice)
        else:
            yield Finding(name, Verdict.OK, f"the certificate is valid for {left} days")


def _check_callers(settings: Settings) -> Iterator[Finding]:
    if not settings.callers and not settings.listener.allowed_ae_titles:
        advice = "name them in [[callers]], with their addresses; see docs/how-to/secure-the-node.md"
        yield Finding("callers", Verdict.WARNING, "whoever reaches the port may store", advice)
        return
    anywhere = len(settings.listener.allowed_ae_titles)
    anywhere += sum(not (each.addresses or each.certificate) for each in settings.callers)
    if anywhere:
        advice = "give each its addresses or its certificate: an AE title alone proves nothing"
        yield Finding("callers", Verdict.WARNING, f"{anywhere} admitted from any address", advice)
    else:
        yield Finding("callers", Verdict.OK, f"{len(settings.callers)}, each bound to address or certificate")


def _check_broker_address(url: str) -> Finding:
    if lacks_authentication(url):
        advice = "give Redis a password (requirepass), then unset allow_insecure_redis"
        return Finding("broker address", Verdict.PROBLEM, "Redis of another machine without password", advice)
    if lacks_encryption(url):
        advice = "use rediss://, or keep Redis on a network of the node's own"
        return Finding("broker address", Verdict.WARNING, "Redis of another machine without TLS", advice)
    return Finding("broker address", Verdict.OK, "on this machine, or with password and TLS")
