"""What ``doctor`` looks at: each check returns what it found and, where something is wrong, what to do."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import StrEnum

from db.errors import DatabaseError
from db.session import Database
from dicom_node.settings import Settings


class Verdict(StrEnum):
    """How a check ended."""

    OK = "ok"
    WARNING = "warning"
    PROBLEM = "problem"


@dataclass(frozen=True, slots=True)
class Finding:
    """What one check found.

    Attributes
    ----------
    check : str
        What was looked at.
    verdict : Verdict
        How it is.
    found : str
        In words.
    advice : str
        What to do next; empty where all is well.
    """

    check: str
    verdict: Verdict
    found: str
    advice: str = ""


def check_disk(settings: Settings) -> Finding:
    """Look for room in the data directory."""
    usage = shutil.disk_usage(settings.data_dir)
    free = f"{usage.free / (1 << 30):.1f} GiB free in {settings.data_dir}"
    if usage.free < settings.listener.minimum_free_bytes:
        return Finding(
            "disk", Verdict.PROBLEM, free, "objects are turned away (A700); free space or enlarge the disk"
        )
    if usage.free < 5 * settings.listener.minimum_free_bytes:
        return Finding("disk", Verdict.WARNING, free, "plan for more room")
    return Finding("disk", Verdict.OK, free)


def check_private(settings: Settings) -> Finding:
    """Look whether others may read patient data or keys."""
    folders = (settings.data_dir, settings.spool_dir, settings.results_dir, settings.key_dir)
    exposed = [str(folder) for folder in folders if folder.exists() and folder.stat().st_mode & 0o077]
    if exposed:
        return Finding(
            "permissions",
            Verdict.PROBLEM,
            f"other users may look into {', '.join(exposed)}",
            f"chmod 700 {' '.join(exposed)}",
        )
    return Finding("permissions", Verdict.OK, "only the node's user may read its folders")


def check_database(database: Database) -> Finding:
    """Look whether the database answers and has this version's tables."""
    from db import schema

    try:
        differences = schema.check(database)
    except DatabaseError as error:
        return Finding("database", Verdict.PROBLEM, str(error), "start the database, check database_url")
    if differences:
        return Finding(
            "database",
            Verdict.PROBLEM,
            f"{len(differences)} differences from this version's tables",
            "run 'dicom-node db upgrade', then 'dicom-node db check'",
        )
    return Finding("database", Verdict.OK, f"{database.engine_name}, tables of this version")


def check_broker(settings: Settings) -> Finding:
    """Look whether Redis answers."""
    if settings.broker_url is None:
        return Finding("broker", Verdict.OK, "none configured: workers look into the database")
    import redis

    client = redis.Redis.from_url(
        settings.broker_url.get_secret_value(), socket_timeout=3, socket_connect_timeout=3
    )
    try:
        client.ping()
    except redis.RedisError as error:
        return Finding(
            "broker",
            Verdict.PROBLEM,
            f"Redis does not answer ({type(error).__name__})",
            "start Redis or check broker_url; no work is lost meanwhile, it only waits",
        )
    finally:
        client.close()
    return Finding("broker", Verdict.OK, "Redis answers")


def check_bundles(settings: Settings, database: Database) -> Iterator[Finding]:
    """Look whether each task has a bundle whose content is what its digest says."""
    from db import deployments
    from models.bundle import read
    from models.errors import ModelsError
    from models.store import BundleStore

    for task in settings.tasks:
        with database.reading() as session:
            digest = deployments.champion(session, task)
        if digest is None:
            yield Finding(
                f"bundle for {task}",
                Verdict.PROBLEM,
                "none answers",
                "start a score worker, or run 'dicom-node model add' and 'dicom-node model activate'",
            )
            continue
        try:
            bundle = read(BundleStore(settings.bundles_dir).path_of(digest))
        except (ModelsError, OSError) as error:
            advice = "restore the bundle folder, or run 'dicom-node model rollback'"
            yield Finding(f"bundle for {task}", Verdict.PROBLEM, str(error), advice)
            continue
        name = f"{bundle.identity.name} {bundle.identity.version} ({digest[:12]})"
        if bundle.identity.demonstration:
            advice = "not for clinical use; add a validated bundle and activate it"
            yield Finding(f"bundle for {task}", Verdict.WARNING, f"{name} is a demonstration", advice)
        else:
            yield Finding(f"bundle for {task}", Verdict.OK, name)


def check_processes(settings: Settings, database: Database) -> Finding:
    """Look for processes that fell silent."""
    from db import processes

    with database.reading() as session:
        alive, silent = processes.alive(session, database.now_in(session), silent_for_s=30)
    kinds = {part for process in alive for part in process.kind.split("+")}
    missing = [kind for kind in ("listen", "dispatch", "score", "deliver") if kind not in kinds]
    if missing:
        return Finding(
            "processes",
            Verdict.WARNING,
            f"not running: {', '.join(missing)}",
            "start the node with 'dicom-node serve'; the log tells why a part ended",
        )
    if silent:
        return Finding(
            "processes", Verdict.WARNING, f"{len(silent)} ended without a goodbye", "look into the log"
        )
    return Finding("processes", Verdict.OK, f"{len(alive)} running")


def check_backlog(database: Database) -> Finding:
    """Look for work that failed or results that nobody takes."""
    from db import listing

    with database.reading() as session:
        counts = listing.counts(session)
    failed = counts["score_jobs"]["failed"] + counts["deliver_jobs"]["failed"]
    refused = counts["deliveries"]["refused"]
    if failed or refused:
        return Finding(
            "work",
            Verdict.PROBLEM,
            f"{failed} failed jobs, {refused} refused results",
            "look with 'dicom-node job list --all --state failed' and 'result list', then 'job retry'",
        )
    waiting = counts["score_jobs"]["queued"] + counts["deliver_jobs"]["queued"]
    return Finding("work", Verdict.OK, f"{waiting} jobs waiting, none failed")


def check_destinations(settings: Settings) -> Iterator[Finding]:
    """Ask every destination by C-ECHO whether it listens and knows this node."""
    from dicom_node.delivery.dimse import DeliveryTimeouts, echo

    if not settings.destinations:
        advice = "results stay in the node; set destinations or --destination"
        yield Finding("destinations", Verdict.WARNING, "none configured", advice)
    timeouts = DeliveryTimeouts(
        connect_s=settings.delivery.connect_timeout_s,
        acse_s=settings.delivery.acse_timeout_s,
        dimse_s=settings.delivery.dimse_timeout_s,
    )
    for destination in settings.parsed_destinations:
        result = echo(destination, calling_ae_title=settings.ae_title, timeouts=timeouts)
        verdict = Verdict.OK if result.ok else Verdict.PROBLEM
        advice = "" if result.ok else "results wait for it; check its address, AE titles and that it runs"
        yield Finding(f"C-ECHO {destination}", verdict, f"{result.detail} ({result.seconds:.2f} s)", advice)


def examine(settings: Settings, database: Database) -> Iterator[Finding]:
    """Run every check; one that breaks is itself a finding."""
    single: tuple[Callable[[], Finding], ...] = (
        lambda: check_disk(settings),
        lambda: check_private(settings),
        lambda: check_database(database),
        lambda: check_broker(settings),
        lambda: check_processes(settings, database),
        lambda: check_backlog(database),
    )
    for check in single:
        yield check()
    yield from check_bundles(settings, database)
    yield from check_destinations(settings)
