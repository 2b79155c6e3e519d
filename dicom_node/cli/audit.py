"""``dicom-node audit``: what was done when, by whom, and whether the record was touched."""

from __future__ import annotations

import os
from dataclasses import asdict, replace
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, TextIO

import typer

from dicom_node.cli.exit_codes import ExitCode
from dicom_node.cli.new_files import new_file
from dicom_node.cli.options import TIMES, ConfigFile, DataDir, Json, Limit, aware
from dicom_node.cli.output import console, errors, print_json
from dicom_node.cli.wiring import load_settings, open_database, person

if TYPE_CHECKING:
    from db.audit.reading import AuditFilter
    from db.session import Database

app = typer.Typer(no_args_is_help=True, help="The audit trail.")
Study = Annotated[str | None, typer.Option("--study", help="Study Instance UID.")]
Patient = Annotated[str | None, typer.Option("--patient-id", help="Patient ID.")]
Accession = Annotated[str | None, typer.Option("--accession", help="Accession Number.")]
Job = Annotated[str | None, typer.Option("--job", help="Job id.")]
Bundle = Annotated[
    str | None, typer.Option("--bundle", help="Digest of a bundle, or a beginning that only it has.")
]
Actor = Annotated[
    str | None,
    typer.Option("--actor", help="A person or process, as NAME@HOST, or NAME for every host."),
]
Action = Annotated[str | None, typer.Option("--action", help="Action, such as job.scored.")]
Since = Annotated[
    datetime | None,
    typer.Option("--since", formats=TIMES, help="From this time on; this machine's zone without one."),
]
Until = Annotated[
    datetime | None,
    typer.Option("--until", formats=TIMES, help="Before this time; this machine's zone without one."),
]


def _checked(database: Database, wanted: AuditFilter) -> AuditFilter:
    """Refuse what the trail cannot hold: an empty answer would say that nothing happened.

    Raises
    ------
    UnknownRecordError
        If there is no such bundle or action.
    """
    from db.audit.actions import check_action
    from db.audit.reading import AuditFilter
    from db.audit.reading import query as query_events
    from dicom_node.cli.bundles.digests import full_digest

    with database.reading() as session:
        if wanted.action is not None:
            check_action(session, wanted.action)
        is_known = wanted.bundle is None or query_events(session, AuditFilter(bundle=wanted.bundle), limit=1)
    if wanted.since is not None and wanted.until is not None and wanted.since >= wanted.until:
        raise typer.BadParameter("it is not before --until", param_hint="--since")
    if wanted.bundle is None or is_known:
        return wanted
    return replace(wanted, bundle=full_digest(database, wanted.bundle))


def _new_file(path: Path) -> TextIO:
    """Open a new file for the trail."""
    return os.fdopen(new_file(path), "w", encoding="utf-8", newline="")


@app.command("query")
def query(
    data_dir: DataDir = None,
    config: ConfigFile = None,
    study: Study = None,
    patient_id: Patient = None,
    accession: Accession = None,
    job: Job = None,
    bundle: Bundle = None,
    actor: Actor = None,
    action: Action = None,
    since: Since = None,
    until: Until = None,
    json: Json = False,
    limit: Limit = 100,
) -> None:
    """Show events, oldest first.

    Of more than the limit, the newest. Reading is an event, too.
    """
    from db.audit.reading import AuditFilter
    from db.audit.reading import query as query_events
    from dicom_node.cli.audit_view import print_events

    asked = AuditFilter(study, patient_id, accession, job, bundle, action, aware(since), aware(until), actor)
    with open_database(load_settings(data_dir, config)) as database:
        wanted = _checked(database, asked)
        with database.reading() as session:
            newest = query_events(session, wanted, limit=limit + 1, newest_first=True)
        rows = newest[:limit][::-1]
        with database.transaction(person()) as tx:
            tx.audit("audit.queried", detail={"filter": wanted.without_patient_data(), "events": len(rows)})
    if json:
        print_json([asdict(row) for row in rows])
    elif rows:
        print_events(rows, console)
    else:
        console.print("No event matches. Each value must be as the trail has it.")
    if len(newest) > limit:
        errors.print(
            f"These are the newest {limit}; older ones match, too. Raise --limit, ask for less, or write all "
            "to a file with 'dicom-node audit export'."
        )


@app.command("verify")
def verify(
    data_dir: DataDir = None,
    config: ConfigFile = None,
    since: Annotated[
        int | None, typer.Option("--since-seq", min=1, help="Only events from this number on.")
    ] = None,
    rows: Annotated[
        bool,
        typer.Option("--rows", help="Hold instances, scores, results and deliveries against the trail, too."),
    ] = False,
    json: Json = False,
) -> None:
    """Prove that no event was changed, removed, inserted or moved.

    Exit status 1 where one was, or where a row says something else.
    """
    from rich.progress import Progress

    from db.audit.agreement import compare_with_tables
    from db.audit.keys import AuditKey, CheckpointKey
    from db.audit.verification import verify as verify_trail
    from db.errors import DatabaseError
    from dicom_node.cli.audit_view import print_agreement, print_report

    settings = load_settings(data_dir, config)
    with open_database(settings) as database, Progress(console=errors, transient=True) as bar:
        task = bar.add_task("events verified", total=None)
        report = verify_trail(
            database,
            AuditKey.load(settings.audit_key_file),
            settings.checkpoint_dir,
            CheckpointKey.load(settings.checkpoint_key_file).public_key,
            since=since,
            progress=lambda events: bar.update(task, completed=events),
        )
        agreement = compare_with_tables(database) if rows and report.ok else None
        differing = 0 if agreement is None else len(agreement.disagreements)
        detail = {"ok": report.ok, "events": report.events, "whole": since is None or since <= 1}
        if agreement is not None:
            detail["rows_differing"] = differing
        try:
            with database.transaction(person()) as tx:
                tx.audit("audit.verified", detail=detail)
        except DatabaseError as error:
            # A trail whose end was touched may take no event: what is wrong with it is told all the same.
            if report.ok:
                raise
            errors.print(f"This could not be written into the trail: {error}", soft_wrap=True)
    # What came after the newest checkpoint is chained, but its end could be cut off unseen.
    newest = report.newest_checkpoint_seq or report.first_seq - 1
    unprotected = report.first_seq - 1 + report.events - newest if since is None else None
    if json:
        told = {"ok": report.ok, **asdict(report), "events_after_newest_checkpoint": unprotected}
        print_json({**told, "rows": None if agreement is None else asdict(agreement)})
    else:
        print_report(report, unprotected, console)
        if agreement is not None:
            print_agreement(agreement, console)
    raise typer.Exit(ExitCode.OK if report.ok and not differing else ExitCode.PROBLEM_FOUND)


@app.command("export")
def export(
    out: Annotated[Path, typer.Option("--out", help="File to write.", dir_okay=False)],
    format_: Annotated[Literal["jsonl", "csv"], typer.Option("--format", help="Form of the file.")] = "jsonl",
    data_dir: DataDir = None,
    config: ConfigFile = None,
    study: Study = None,
    patient_id: Patient = None,
    accession: Accession = None,
    job: Job = None,
    bundle: Bundle = None,
    actor: Actor = None,
    action: Action = None,
    since: Since = None,
    until: Until = None,
) -> None:
    """Write the trail, or a part of it, to a new file."""
    from db.audit.reading import AuditFilter
    from db.audit.reading import export as export_events

    asked = AuditFilter(study, patient_id, accession, job, bundle, action, aware(since), aware(until), actor)
    with open_database(load_settings(data_dir, config)) as database:
        wanted = _checked(database, asked)
        with _new_file(out) as stream:
            events = export_events(database, stream, format_, wanted)
        with database.transaction(person()) as tx:
            tx.audit("audit.exported", detail={"filter": wanted.without_patient_data(), "events": events})
    console.print(f"{events} events written to {out}")


@app.command("prune")
def prune(
    before: Annotated[
        datetime,
        typer.Option(
            "--before", formats=TIMES, help="Remove events before this time; this machine's zone without one."
        ),
    ],
    archive: Annotated[Path, typer.Option("--archive", help="New file for them.", dir_okay=False)],
    data_dir: DataDir = None,
    config: ConfigFile = None,
) -> None:
    """Move events older than their retention to an archive.

    The trail that stays still verifies.
    """
    from db.audit.keys import CheckpointKey
    from db.audit.pruning import check_retention
    from db.audit.pruning import prune as prune_events
    from db.audit.verification import verify as verify_trail
    from db.errors import AuditError

    settings = load_settings(data_dir, config)
    key = CheckpointKey.load(settings.checkpoint_key_file)
    with open_database(settings) as database:
        check_retention(aware(before), database.now(), years=settings.audit.retention_years)
        report = verify_trail(database, database.trail.key, settings.checkpoint_dir, key.public_key)
        if not report.ok:
            raise AuditError(f"nothing is removed from a trail that does not verify: {report.problem}")
        cut = prune_events(
            database,
            before=aware(before),
            archive=archive,
            folder=settings.checkpoint_dir,
            key=key,
            node=settings.ae_title,
            actor=person(),
            sink=None if settings.audit.syslog.host is None else "syslog",
        )
    if cut is None:
        console.print("No event is so old.")
        return
    console.print(f"Events up to {cut.seq} are in {archive} (SHA-256 {cut.archive_sha256}). Keep it.")


@app.command("public-key")
def public_key(data_dir: DataDir = None, config: ConfigFile = None) -> None:
    """Print the key with which others verify checkpoints.

    It is no secret. Who verifies must have it from you, and not from the files.
    """
    from db.audit.keys import CheckpointKey

    console.print(CheckpointKey.load(load_settings(data_dir, config).checkpoint_key_file).public_key)


@app.command("verify-export")
def verify_export(
    files: Annotated[
        list[Path],
        typer.Argument(
            help="Exported trail (jsonl); archives of 'audit prune' before it.", exists=True, dir_okay=False
        ),
    ],
    checkpoints: Annotated[
        Path,
        typer.Option(
            "--checkpoints", help="Folder with the node's checkpoints.", exists=True, file_okay=False
        ),
    ],
    public_key: Annotated[str, typer.Option("--public-key", help="What 'audit public-key' printed.")],
    json: Json = False,
) -> None:
    """Prove an exported trail on any machine.

    It takes neither the node's database nor its keys. Exit status 1 where it is not what the node signed.
    """
    from db.audit.exports import verify_export as verify_files
    from db.audit.keys import is_public_key
    from dicom_node.cli.audit_view import print_export_report

    if not is_public_key(public_key):
        raise typer.BadParameter("it is not what 'audit public-key' prints", param_hint="--public-key")
    report = verify_files(files, checkpoints, public_key)
    if json:
        print_json({"ok": report.ok, **asdict(report)})
    else:
        print_export_report(report, console)
    raise typer.Exit(ExitCode.OK if report.ok else ExitCode.PROBLEM_FOUND)


@app.command("rotate-key")
def rotate_key(data_dir: DataDir = None, config: ConfigFile = None) -> None:
    """Sign from now on with a new key.

    The old ones stay, to verify what they signed.
    """
    with open_database(load_settings(data_dir, config)) as database, database.transaction(person()) as tx:
        key_id = database.trail.rotate_key(tx.connection, tx.actor)
    console.print(f"Key {key_id} signs from now on. Back up the key folder.")
