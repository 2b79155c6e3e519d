"""What ``doctor`` looks at of the node itself: disk, database, broker, bundles, processes, work, and PACS."""

from __future__ import annotations

import shutil
from collections.abc import Iterator

from db.census import census, refused_results
from db.errors import DatabaseError
from db.lifecycle import JobKind, JobState
from db.session import Database
from db.workload import received_bytes_per_day, score_workload
from dicom_node.cli.health.findings import Finding, Verdict
from dicom_node.cli.wiring import requestor
from dicom_node.settings import Settings

LONGEST_WAIT_S = 600.0
BACKLOG_PERIOD_S = 900.0
FULL_WITHIN_DAYS = 365  # time enough to decide what may go, or to enlarge a disk
ROOM_FOR_OBJECTS = 128 << 20  # bytes that must be left above the reserve: few objects are longer


def check_disk(settings: Settings) -> Finding:
    """Look for room in the data directory."""
    usage = shutil.disk_usage(settings.data_dir)
    scale, unit = (1 << 30, "GiB") if usage.free >= 1 << 30 else (1 << 20, "MiB")
    free = f"{usage.free / scale:.1f} {unit} free in {settings.data_dir}"
    if usage.free < settings.listener.minimum_free_bytes + ROOM_FOR_OBJECTS:
        return Finding(
            "disk",
            Verdict.PROBLEM,
            free,
            "objects that reach into listener.minimum_free_bytes are turned away (A700); free space, enlarge "
            "the disk, or let old studies go ('dicom-node study prune --dry-run', retention.received_days)",
        )
    if usage.free < 5 * settings.listener.minimum_free_bytes:
        return Finding("disk", Verdict.WARNING, free, "plan for more room")
    return Finding("disk", Verdict.OK, free)


def check_growth(settings: Settings, database: Database) -> Finding:
    """Look whether the disk has room for what comes until files go, at the pace of the last days."""
    with database.reading() as session:
        a_day = received_bytes_per_day(session, database.now_in(session))
    room = shutil.disk_usage(settings.data_dir).free - settings.listener.minimum_free_bytes
    found = f"{a_day / (1 << 30):.2f} GiB of objects a day came lately"
    if a_day <= 0 or room >= a_day * FULL_WITHIN_DAYS:
        return Finding("growth", Verdict.OK, found)
    days = max(0.0, room / a_day)
    found += f"; at that pace the disk has room for {days:.0f} days"
    kept = settings.retention.received_days
    if kept is None:
        advice = (
            "nothing removes received files: set retention.received_days and retention.results_days "
            "(docs/how-to/run-for-years.md), or enlarge the disk"
        )
        return Finding("growth", Verdict.WARNING, found, advice)
    return Finding("growth", Verdict.OK, f"{found}, and files go after {kept} days")


def check_database(database: Database) -> Finding:
    """Look whether the database answers and has this version's tables."""
    from db import schema

    try:
        differences = schema.check(database)
    except DatabaseError as error:
        return Finding("database", Verdict.PROBLEM, str(error), "start the database, check database_url")
    if guards := [each for each in differences if each.startswith("add_trigger")]:
        return Finding(
            "database",
            Verdict.PROBLEM,
            f"{len(guards)} of the triggers that guard the audit trail are missing: events could be changed",
            "run 'dicom-node audit verify --rows', find out who removed them, run 'dicom-node db upgrade'",
        )
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

    for task in settings.tasks:
        with database.reading() as session:
            digest = deployments.champion(session, task)
        if digest is None:
            yield Finding(
                f"bundle for {task}",
                Verdict.PROBLEM,
                "none answers",
                _ways_to_bundle(task),
            )
            continue
        yield _read_bundle(settings, f"bundle for {task}", digest)


def _ways_to_bundle(task: str) -> str:
    """Say how a task gets a bundle: score workers bring one along for a single task."""
    from models.bundle import MANIFEST
    from models.manifest import parse
    from models.store import released_bundle

    if parse((released_bundle() / MANIFEST).read_bytes()).task == task:
        return (
            "start 'dicom-node work --queues score', which adds the demonstration bundle; for another run "
            "'dicom-node model add' and 'dicom-node model activate'"
        )
    return (
        "none comes with the program: bring one by 'dicom-node model add', or train one "
        "(docs/how-to/train-on-your-data.md; 'dicom-node work --queues train' does queued runs), then run "
        "'dicom-node model activate'"
    )


def check_stored_bundles(settings: Settings) -> Iterator[Finding]:
    """Look whether the content of every stored bundle is what its digest says."""
    from models.store import BundleStore

    for digest in BundleStore(settings.bundles_dir).digests():
        yield _read_bundle(settings, f"bundle {digest[:12]}", digest)


def _read_bundle(settings: Settings, check: str, digest: str) -> Finding:
    from models.bundle import read
    from models.errors import ModelsError
    from models.store import BundleStore

    try:
        bundle = read(BundleStore(settings.bundles_dir).path_of(digest), digest=digest)
    except (ModelsError, OSError) as error:
        advice = "restore the bundle folder, or run 'dicom-node model rollback'"
        return Finding(check, Verdict.PROBLEM, str(error), advice)
    name = f"{bundle.identity.name} {bundle.identity.version} ({digest[:12]})"
    if bundle.identity.demonstration:
        advice = "not for clinical use; add a validated bundle and activate it"
        return Finding(check, Verdict.WARNING, f"{name} is a demonstration", advice)
    return Finding(check, Verdict.OK, name)


def check_processes(settings: Settings, database: Database) -> Finding:
    """Look for processes that fell silent."""
    from db import processes

    with database.reading() as session:
        alive, silent = processes.alive(session, database.now_in(session))
    kinds = {part for process in alive for part in process.kind.split("+")}
    missing = [kind for kind in ("listen", "dispatch", "score", "deliver") if kind not in kinds]
    found, advice = [], []
    if missing:
        found.append(f"not running: {', '.join(missing)}")
        advice.append("start the node with 'dicom-node serve'; the log tells why a part ended")
    # Where a whole kind is missing, those of it that fell silent are what is told already.
    silent = [process for process in silent if process.kind not in missing]
    if silent:
        found.append(f"silent without a goodbye: {', '.join(process.name for process in silent)}")
        advice.append(
            "nobody was started in its place: look into its log, end the process where it still hangs "
            "(kind@host:pid) and start it again; its work goes to another worker when its lease ends"
        )
    if found:
        verdict = Verdict.PROBLEM if missing else Verdict.WARNING
        return Finding("processes", verdict, "; ".join(found), "; ".join(advice))
    return Finding("processes", Verdict.OK, f"{len(alive)} running")


def check_backlog(database: Database) -> Finding:
    """Look for work that failed or results that nobody takes."""
    # Not by the counts of 'status', which walk through all that there ever was.
    with database.reading() as session:
        jobs = census(session, database.now_in(session)).jobs
        refused = refused_results(session)
    failed, waiting = (
        sum(jobs[kind, state] for kind in (JobKind.SCORE, JobKind.DELIVER))
        for state in (JobState.FAILED, JobState.QUEUED)
    )
    if failed or refused:
        return Finding(
            "work",
            Verdict.PROBLEM,
            f"{failed} failed jobs, {refused} refused results",
            "look with 'dicom-node job list --all --state failed' and 'result list', then 'job retry'",
        )
    return Finding("work", Verdict.OK, f"{waiting} jobs waiting, none failed")


def check_keeping_up(database: Database) -> Finding:
    """Look whether more studies come than the workers score."""
    with database.reading() as session:
        load = score_workload(session, database.now_in(session), period_s=BACKLOG_PERIOD_S)
    minutes = f"{BACKLOG_PERIOD_S / 60:.0f} minutes"
    found = f"{load.waiting} studies wait, the oldest for {load.oldest_s:.0f} s"
    found += f"; in the last {minutes} {load.came} came and {load.finished} were done"
    if load.oldest_s > LONGEST_WAIT_S and load.came >= load.finished:
        advice = (
            "the backlog grows: start more score workers (scoring.workers, or 'dicom-node work' elsewhere)"
        )
        return Finding("backlog", Verdict.PROBLEM, found, advice)
    if load.oldest_s > LONGEST_WAIT_S:
        advice = "the backlog shrinks; more score workers would end it sooner (scoring.workers)"
        return Finding("backlog", Verdict.WARNING, found, advice)
    return Finding("backlog", Verdict.OK, found)


def check_destinations(settings: Settings) -> Iterator[Finding]:
    """Ask every destination by C-ECHO whether it listens and knows this node."""
    from dicom_node.delivery.dimse import echo

    if not settings.destinations:
        advice = "results stay in the node; set destinations or --destination"
        yield Finding("destinations", Verdict.WARNING, "none configured", advice)
    asking = requestor(settings)
    for destination in settings.parsed_destinations:
        result = echo(destination, asking)
        verdict = Verdict.OK if result.ok else Verdict.PROBLEM
        advice = "" if result.ok else "results wait for it; check its address, AE titles and that it runs"
        yield Finding(f"C-ECHO {destination}", verdict, f"{result.detail} ({result.seconds:.2f} s)", advice)
