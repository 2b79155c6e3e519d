"""Where the parts are put together, once per process: settings in, open parts out.

Heavy imports stay inside the functions, so that each command loads what it needs and no more.
"""

from __future__ import annotations

import logging
import os
import platform
import pwd
import resource
import socket
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dicom_node import __version__, crashpoints, installation
from dicom_node import settings as settings_module
from dicom_node.errors import SettingsError
from dicom_node.settings import Settings

if TYPE_CHECKING:
    from db.handoff import Completeness
    from db.schema import Upgrade
    from db.session import Database
    from dicom_node.delivery.association import Requestor
    from dicom_node.results.context import NodeIdentity
    from models.tasks import Task
    from workers.claim_loop import Terms


_LOGIN_UID = Path("/proc/self/loginuid")
_NOBODY_LOGGED_IN = 2**32 - 1  # the kernel's word for a service


def load_settings(
    data_dir: Path | None, config: Path | None, flags: Mapping[str, Any] | None = None
) -> Settings:
    """Read the settings of this process; see :func:`dicom_node.settings.load`."""
    return settings_module.load(config_file=config, flags={"data_dir": data_dir, **(flags or {})})


def remember_start(settings: Settings, *, config: Path | None, flags: Mapping[str, Any]) -> None:
    """Make the data directory and keep the flags of ``serve`` or ``listen`` for the commands that follow."""
    make_data_dir(settings)
    settings_module.remember(settings, flags=flags, config_file=config)


def make_data_dir(settings: Settings) -> None:
    """Make the data directory, for its owner's eyes only.

    Raises
    ------
    SettingsError
        If it cannot be made or written, or if root asks for another user's.
    """
    try:
        settings.data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise SettingsError(
            f"data_dir: {settings.data_dir} cannot be made ({error.strerror}); choose a folder that this "
            "user may write, for example --data-dir /var/lib/dicom-node"
        ) from error
    if not os.access(settings.data_dir, os.W_OK | os.X_OK):
        raise SettingsError(f"data_dir: {settings.data_dir} is not writable by this user; correct its owner")
    owner = settings.data_dir.stat().st_uid
    if os.geteuid() == 0 and owner != 0:
        # A key or a bundle of root's, once it is there, stops the node.
        name = _login_of(owner)
        raise SettingsError(
            f"data_dir: {settings.data_dir} belongs to {name}, who could not read what root makes there; "
            f"run this as that user (runuser -u {name} -- dicom-node ...), or correct its owner"
        )


def _login_of(uid: int) -> str:
    """Return a user's name; the number of one that this machine does not know."""
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"uid{uid}"


@contextmanager
def open_database(
    settings: Settings, *, upgrade: bool = False, lock_timeout_s: float | None = None
) -> Iterator[Database]:
    """Open the node's database.

    Parameters
    ----------
    settings : Settings
        Where it is.
    upgrade : bool
        Bring the tables to this version first, as long-running processes do; otherwise another version of
        the tables is an error.
    lock_timeout_s : float, optional
        Seconds to wait for other writers; by default as :class:`db.session.Database` says.

    Raises
    ------
    SettingsError
        If the data directory holds no node and is not to become one, or cannot be made or written.
    db.errors.SchemaError
        If the tables are of another version, or the database is gone while its keys are there.
    db.errors.DatabaseUnavailableError
        If it cannot be reached or used now.
    db.errors.AuditError
        If a key of the audit trail cannot be read.
    """
    from db import schema
    from db.audit.keys import AuditKey, CheckpointKey, is_there
    from db.audit.trail import AuditTrail
    from db.engine import LOCK_TIMEOUT_S
    from db.errors import SchemaError
    from db.session import Database

    audit_key, checkpoint_key = settings.audit_key_file, settings.checkpoint_key_file
    was_used = is_there(audit_key)
    embedded = settings.database_url is None
    if embedded and not _holds_anything(settings.database_file):
        if was_used:  # before anybody opens it: SQLite makes a file, which then looks like one to upgrade
            raise SchemaError(schema.DATABASE_LOST)
        if not upgrade:
            raise SettingsError(
                f"data_dir: {settings.data_dir} holds no node; give --data-dir, or --config where a "
                "file names its database, or start a node with 'dicom-node serve'"
            )
    make_data_dir(settings)
    done = schema.upgrade(settings.effective_database_url, was_used=was_used) if upgrade else None
    if upgrade:
        CheckpointKey.make_if_absent(checkpoint_key)
    trail = AuditTrail(AuditKey.load_or_create(audit_key) if upgrade else AuditKey.load(audit_key))
    patience_s = LOCK_TIMEOUT_S if lock_timeout_s is None else lock_timeout_s
    database = Database(settings.effective_database_url, trail, lock_timeout_s=patience_s)
    try:
        if done is None:
            schema.require_head(database)
        else:
            _audit_upgrade(database, done)
        yield database
    finally:
        database.close()


def _holds_anything(file: Path) -> bool:
    # Whoever asks SQLite for a file that is not there makes an empty one.
    return file.exists() and file.stat().st_size > 0


def _audit_upgrade(database: Database, done: Upgrade) -> None:
    """Write into the trail what an upgrade changed of a database that was in use."""
    if done.before is None or (done.before == done.after and not done.guards_restored):
        return
    with database.transaction(person()) as tx:
        if done.before != done.after:
            detail = {"from": done.before, "to": done.after, "software": __version__}
            tx.audit("database.upgraded", detail=detail)
        if done.guards_restored:
            tx.audit("audit.guards_restored", detail={"guards": list(done.guards_restored)})


def audit_configuration(settings: Settings, database: Database, actor: str) -> None:
    """Write into the trail what this process is set to, where that is not what was told last."""
    from db.configurations import tell_configuration
    from dicom_node.settings.disclosure import differences, digest

    with database.transaction(actor) as tx:
        tell_configuration(tx, software=__version__, digest=digest(settings), settings=differences(settings))


def asked_tasks(settings: Settings) -> list[Task]:
    """Return the tasks that are asked of complete studies.

    Raises
    ------
    SettingsError
        If there is none of a name.
    """
    from models.errors import UnknownTaskError
    from models.tasks import task_named

    try:
        return [task_named(name) for name in settings.tasks]
    except UnknownTaskError as error:
        raise SettingsError(f"tasks: {error}") from None


def completeness(settings: Settings) -> Completeness:
    """Return when a study is complete and which tasks are asked of it."""
    from db.handoff import Completeness, Route

    tasks = asked_tasks(settings)
    views = (view.split() for view in settings.completeness.standard_views)
    return Completeness(
        standard_views=frozenset((laterality, view) for laterality, view in views),
        quiet_period_s=settings.completeness.quiet_period_s,
        routes=tuple(Route(task.name, task.sop_classes) for task in tasks),
    )


def node_identity(settings: Settings) -> NodeIdentity:
    """Return who this installation is in every object that it makes."""
    from dicom_node.results.context import NodeIdentity

    return NodeIdentity(
        ae_title=settings.ae_title,
        serial_number=installation.node_serial(settings.key_dir),
        manufacturer="dicom-node",
        software_version=f"dicom-node {__version__}",
        institution_name=settings.institution,
    )


def process_name(kind: str, pid: int | None = None) -> str:
    """Return a process's name, unique among all hosts of the node: lease owner and audit actor.

    Parameters
    ----------
    kind : str
        What it does.
    pid : int, optional
        Of another process of this host; by default this one's.
    """
    return f"{kind}@{socket.gethostname()}:{os.getpid() if pid is None else pid}"


def person() -> str:
    """Return who types: the audit actor of a command.

    That is who logged in, also behind sudo and runuser, where the system keeps it (pam_loginuid); else the
    user that runs the command. What variables say is anybody's word.
    """
    return f"{_login_of(_uid_of_person())}@{platform.node()}"


def _uid_of_person() -> int:
    with suppress(OSError, ValueError):
        uid = int(_LOGIN_UID.read_text())
        if uid != _NOBODY_LOGGED_IN:
            return uid
    return os.getuid()


def start_process(kind: str) -> None:
    """Prepare a long-running process: logs, and no core dumps with patient data."""
    import structlog

    from dicom_node.logs import configure_logs

    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    configure_logs(kind)
    logging.getLogger("alembic").setLevel(logging.WARNING)
    crashpoints.check_crashpoint()
    if os.geteuid() == 0:
        structlog.get_logger(__name__).warning("process.runs_as_root", advice="run it as a user of its own")


def worker_terms(settings: Settings) -> Terms:
    """Return the terms on which workers hold jobs."""
    from workers.claim_loop import Terms
    from workers.retry import Policy

    return Terms(
        lease_s=settings.jobs.lease_s,
        hard_limit_s=settings.jobs.hard_limit_s,
        policy=Policy(settings.jobs.attempts, settings.jobs.backoff_max_s),
    )


def requestor(settings: Settings) -> Requestor:
    """Return who asks destinations for associations, and how long it waits for them."""
    from dicom_node.cli.security import tls_for
    from dicom_node.delivery.association import DeliveryTimeouts, Requestor

    timeouts = DeliveryTimeouts(
        connect_s=settings.delivery.connect_timeout_s,
        acse_s=settings.delivery.acse_timeout_s,
        dimse_s=settings.delivery.dimse_timeout_s,
    )
    return Requestor(settings.ae_title, timeouts, tls_for(settings))


def audit_checkpoints(settings: Settings, database: Database) -> Callable[[], None]:
    """Return what signs an audit checkpoint whenever one is due."""
    from db.audit.checkpoints import CheckpointWriter
    from db.audit.keys import CheckpointKey

    key = CheckpointKey.load_or_create(settings.checkpoint_key_file)
    writer = CheckpointWriter(settings.checkpoint_dir, key, settings.ae_title)

    def sign_when_due() -> None:
        if writer.is_due(
            database,
            every_events=settings.audit.checkpoint_events,
            every_s=settings.audit.checkpoint_period_s,
        ):
            writer.write(database)

    return sign_when_due
