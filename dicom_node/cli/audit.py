"""``dicom-node audit``: what was done when, by whom, and whether the record was touched."""

from __future__ import annotations

from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import Annotated, Literal

import typer

from dicom_node.cli.exit_codes import ExitCode
from dicom_node.cli.options import ConfigFile, DataDir, Json, Limit
from dicom_node.cli.output import console, errors, print_facts, print_rows
from dicom_node.cli.wiring import load_settings, open_database, person

app = typer.Typer(no_args_is_help=True, help="The audit trail.")
Study = Annotated[str | None, typer.Option("--study", help="Study Instance UID.")]
Patient = Annotated[str | None, typer.Option("--patient-id", help="Patient ID.")]
Accession = Annotated[str | None, typer.Option("--accession", help="Accession Number.")]
Job = Annotated[str | None, typer.Option("--job", help="Job id.")]
Bundle = Annotated[str | None, typer.Option("--bundle", help="Bundle digest.")]
Action = Annotated[str | None, typer.Option("--action", help="Action, such as job.scored.")]
TIMES = ["%Y-%m-%dT%H:%M:%S%z", "%Y-%m-%dT%H:%M:%S", "%Y-%m-%d"]
Since = Annotated[datetime | None, typer.Option("--since", formats=TIMES, help="From this time on.")]
Until = Annotated[datetime | None, typer.Option("--until", formats=TIMES, help="Before this time.")]
COLUMNS = ("seq", "at", "actor", "action", "study_instance_uid", "job_id", "bundle", "detail")


def _aware(moment: datetime | None) -> datetime | None:
    """Read a time without a zone in this machine's zone."""
    return moment.astimezone() if moment is not None else None


@app.command("query")
def query(
    data_dir: DataDir = None,
    config: ConfigFile = None,
    study: Study = None,
    patient_id: Patient = None,
    accession: Accession = None,
    job: Job = None,
    bundle: Bundle = None,
    action: Action = None,
    since: Since = None,
    until: Until = None,
    json: Json = False,
    limit: Limit = 100,
) -> None:
    """Show events, oldest first; of more than the limit, the newest. Reading is an event, too."""
    from db.audit_query import AuditFilter
    from db.audit_query import query as query_events

    wanted = AuditFilter(study, patient_id, accession, job, bundle, action, _aware(since), _aware(until))
    with open_database(load_settings(data_dir, config)) as database:
        with database.reading() as session:
            rows = query_events(session, wanted, limit=limit, newest_first=True)
        with database.transaction(person()) as tx:
            tx.audit("audit.queried", detail={"filter": wanted.without_patient_data(), "events": len(rows)})
    print_rows([asdict(row) for row in reversed(rows)], COLUMNS, as_json=json, empty="No event matches.")


@app.command("verify")
def verify(
    data_dir: DataDir = None,
    config: ConfigFile = None,
    since: Annotated[int | None, typer.Option("--since-seq", help="Only events from this number on.")] = None,
    json: Json = False,
) -> None:
    """Prove that no event was changed, removed, inserted or moved; exit status 1 where one was."""
    from rich.progress import Progress

    from db.audit_verify import verify as verify_trail
    from db.keys import AuditKey, CheckpointKey

    settings = load_settings(data_dir, config)
    with open_database(settings) as database, Progress(console=errors, transient=True) as bar:
        task = bar.add_task("events verified", total=None)
        report = verify_trail(
            database,
            AuditKey.load(settings.key_dir / "audit.key"),
            settings.checkpoint_dir,
            CheckpointKey.load(settings.key_dir / "checkpoint.key").public_key,
            since=since,
            progress=lambda events: bar.update(task, completed=events),
        )
        with database.transaction(person()) as tx:
            tx.audit("audit.verified", detail={"ok": report.ok, "events": report.events})
    # What came after the newest checkpoint is chained, but its end could be cut off unseen.
    unprotected = report.events - (report.newest_checkpoint_seq or 0) if since is None else None
    facts = {"ok": report.ok, **asdict(report), "events_after_newest_checkpoint": unprotected}
    print_facts(facts, as_json=json)
    raise typer.Exit(ExitCode.OK if report.ok else ExitCode.PROBLEM_FOUND)


@app.command("export")
def export(
    out: Annotated[Path, typer.Option("--out", help="File to write.", dir_okay=False)],
    format_: Annotated[Literal["jsonl", "csv"], typer.Option("--format", help="Form of the file.")] = "jsonl",
    data_dir: DataDir = None,
    config: ConfigFile = None,
    study: Study = None,
    patient_id: Patient = None,
    accession: Accession = None,
    since: Since = None,
    until: Until = None,
) -> None:
    """Write the trail, or a part of it, to a file."""
    from db.audit_query import AuditFilter
    from db.audit_query import export as export_events

    wanted = AuditFilter(study, patient_id, accession, since=_aware(since), until=_aware(until))
    with open_database(load_settings(data_dir, config)) as database:
        with out.open("w", encoding="utf-8", newline="") as stream:
            events = export_events(database, stream, format_, wanted)
        with database.transaction(person()) as tx:
            tx.audit("audit.exported", detail={"filter": wanted.without_patient_data(), "events": events})
    console.print(f"{events} events written to {out}")


@app.command("rotate-key")
def rotate_key(data_dir: DataDir = None, config: ConfigFile = None) -> None:
    """Sign from now on with a new key; the old ones stay, to verify what they signed."""
    with open_database(load_settings(data_dir, config)) as database, database.transaction(person()) as tx:
        key_id = database.trail.rotate_key(tx.session, tx.actor)
    console.print(f"Key {key_id} signs from now on. Back up the key folder.")
