"""``dicom-node study``: what arrived, what is complete, completing by hand, and what lies on the disk."""

from __future__ import annotations

from dataclasses import asdict
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Annotated

import typer

from dicom_node.cli.exit_codes import ExitCode
from dicom_node.cli.options import TIMES, ConfigFile, DataDir, Json, Limit, aware
from dicom_node.cli.output import console, heading, print_json, print_rows
from dicom_node.cli.wiring import completeness, load_settings, open_database, person
from dicom_node.errors import SettingsError
from dicom_node.settings import Settings

if TYPE_CHECKING:
    from db.retention import FileKind
    from db.session import Database

app = typer.Typer(no_args_is_help=True, help="Studies and their revisions.")
StudyUid = Annotated[str, typer.Argument(help="Study Instance UID.")]
COLUMNS = ("study_instance_uid", "revision", "state", "complete_reason", "instances", "last_instance_at")


@app.command("list")
def list_studies(
    patient_id: Annotated[
        str | None, typer.Option("--patient-id", help="Only studies of this Patient ID.")
    ] = None,
    accession: Annotated[
        str | None, typer.Option("--accession", help="Only studies of this Accession Number.")
    ] = None,
    data_dir: DataDir = None,
    config: ConfigFile = None,
    json: Json = False,
    limit: Limit = 1000,
) -> None:
    """List study revisions, newest first.

    Identifiers must match exactly and are not shown.
    """
    from db import listing

    with open_database(load_settings(data_dir, config)) as database, database.reading() as session:
        rows = listing.studies(session, patient_id=patient_id, accession_number=accession, limit=limit)
    is_narrowed = patient_id is not None or accession is not None
    empty = "No such study was received." if is_narrowed else "No study was received yet."
    print_rows(rows, COLUMNS, as_json=json, empty=empty)


@app.command("show")
def show(
    study_instance_uid: StudyUid, data_dir: DataDir = None, config: ConfigFile = None, json: Json = False
) -> None:
    """Show one study: its revisions, instances, jobs and results."""
    from db import listing
    from db.errors import UnknownRecordError

    with open_database(load_settings(data_dir, config)) as database, database.reading() as session:
        revisions = listing.studies(session, study_instance_uid=study_instance_uid)
        if not revisions:
            raise UnknownRecordError("no such study; 'dicom-node study list' shows all")
        parts = {
            "revisions": revisions,
            "instances": listing.instances(session, study_instance_uid),
            "jobs": listing.jobs(session, kind=None, study_instance_uid=study_instance_uid),
            "results": listing.results(session, study_instance_uid=study_instance_uid),
        }
    if json:
        print_json({"study_instance_uid": study_instance_uid, **parts})
        return
    columns = {
        "revisions": COLUMNS[1:],
        "instances": ("sop_instance_uid", "modality", "laterality", "view", "first_revision", "conflict"),
        "jobs": ("job_id", "kind", "revision", "state", "attempts", "outcome", "study_probability", "error"),
        "results": ("sop_instance_uid", "kind", "destination", "delivery_state", "attempts"),
    }
    for name, rows in parts.items():
        heading(name)
        print_rows(rows, columns[name], as_json=False, empty="none")


@app.command("complete")
def complete(study_instance_uid: StudyUid, data_dir: DataDir = None, config: ConfigFile = None) -> None:
    """Declare a study complete now.

    It waits neither for views nor for the quiet period.
    """
    from db import handoff

    settings = load_settings(data_dir, config)
    with open_database(settings) as database, database.transaction(person()) as tx:
        revision = handoff.complete_study(tx, study_instance_uid, completeness(settings))
    console.print(f"Revision {revision} is complete; its jobs are queued.")


@app.command("verify")
def verify(
    study_instance_uid: Annotated[
        str | None, typer.Argument(help="Study Instance UID; every study without one.", show_default=False)
    ] = None,
    data_dir: DataDir = None,
    config: ConfigFile = None,
    json: Json = False,
) -> None:
    """Hold stored files against the digests of their making.

    Received objects, and result objects.
    Exit status 1 where one is not whole.
    """
    from db.errors import UnknownRecordError
    from dicom_node.spool import Spool
    from workers.stored_files import unsound_files, unsound_results

    settings = load_settings(data_dir, config)
    with open_database(settings) as database:
        spool = Spool(settings.spool_dir)
        report = unsound_files(database, spool, study_instance_uid)
        if study_instance_uid is not None and not report.looked_at:
            raise UnknownRecordError("no such study; 'dicom-node study list' shows all")
        results = unsound_results(database, Spool(settings.results_dir), study_instance_uid)
        gone = report.removed + results.removed
        told = f"{report.whole} files hold what was received, {results.whole} what was made"
        told += f"; {gone} were removed after their time." if gone else "."
        if gone and study_instance_uid is not None:
            told += _when_removed(database, study_instance_uid)
    rows = [asdict(each) for each in (*report.unsound, *results.unsound)]
    columns = ("study_instance_uid", "sop_instance_uid", "state", "folder", "file")
    print_rows(rows, columns, as_json=json, empty=told)
    if rows and not json:
        what = (
            "Restore these files from the backup, or let the senders send their studies again; look at the "
            "disk first, and find out who had access."
        )
        console.print(what, soft_wrap=True)
    raise typer.Exit(ExitCode.PROBLEM_FOUND if rows else ExitCode.OK)


def _when_removed(database: Database, study_instance_uid: str) -> str:
    """Say when a study's files were removed, and by which rule."""
    from db.retention import RECEIVED, RESULTS, removals

    told = ""
    with database.reading() as session:
        for what, kind in (("received", RECEIVED), ("result", RESULTS)):
            for removed in removals(session, kind, [study_instance_uid]).values():
                told += f" The {what} files: {removed}."
    return told


@app.command("prune")
def prune(
    before: Annotated[
        datetime | None,
        typer.Option(
            "--before",
            formats=TIMES,
            help="Only studies whose instances all came before this time, of this machine's zone where it "
            "names none; without it what retention.received_days says. With --results: whose results all "
            "arrived before it, and retention.results_days.",
            show_default=False,
        ),
    ] = None,
    of_results: Annotated[
        bool, typer.Option("--results", help="The result files, not the received ones.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Tell what would go, and change nothing.")
    ] = False,
    data_dir: DataDir = None,
    config: ConfigFile = None,
    json: Json = False,
) -> None:
    """Remove the files of old studies with which all is done.

    Received files, or with --results those of results that every destination has. Rows and the trail stay.
    """
    from db.retention import RECEIVED, RESULTS
    from dicom_node.spool import Spool
    from workers.retention import Retention

    settings = load_settings(data_dir, config)
    kind = RESULTS if of_results else RECEIVED
    folder = settings.results_dir if of_results else settings.spool_dir
    with open_database(settings) as database:
        if before is not None:
            limit, rule = aware(before), f"study prune --before {before.isoformat()}"
        else:
            limit, rule = _retention(settings, kind, database.now())
        retention = Retention(database, kind, Spool(folder), person())
        found = list(retention.removals(limit, rule=rule, dry_run=dry_run))
    rows = [
        {
            "study_instance_uid": each.study_instance_uid,
            kind.since: each.newest_at.isoformat(),
            "files": each.files,
            "size_bytes": each.size_bytes,
        }
        for each in found
    ]
    columns = ("study_instance_uid", kind.since, "files", "size_bytes")
    print_rows(rows, columns, as_json=json, empty="No study is so old and done.")
    if rows and not json:
        gib = sum(each.size_bytes for each in found) / (1 << 30)
        what = "result files" if of_results else "files"
        verb = "would be" if dry_run else "were"
        console.print(f"The {what} of {len(found)} studies, {gib:.1f} GiB, {verb} removed.")


def _retention(settings: Settings, kind: FileKind, now: datetime) -> tuple[datetime, str]:
    """Return what is old by the setting of a kind of files, and that setting."""
    days: int | None = getattr(settings.retention, kind.setting.removeprefix("retention."))
    if days is None:
        raise SettingsError(
            f"{kind.setting}: it is not set, so no study is old; set it, for example to 400, or give --before"
        )
    return now - timedelta(days=days), f"{kind.setting} = {days}"
