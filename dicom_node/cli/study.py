"""``dicom-node study``: what arrived, what is complete, and completing by hand."""

from __future__ import annotations

from typing import Annotated

import typer

from dicom_node.cli.options import ConfigFile, DataDir, Json, Limit
from dicom_node.cli.output import console, heading, print_json, print_rows
from dicom_node.cli.wiring import completeness, load_settings, open_database, person

app = typer.Typer(no_args_is_help=True, help="Studies and their revisions.")
StudyUid = Annotated[str, typer.Argument(help="Study Instance UID.")]
COLUMNS = ("study_instance_uid", "revision", "state", "complete_reason", "instances", "last_instance_at")


@app.command("list")
def list_studies(
    data_dir: DataDir = None, config: ConfigFile = None, json: Json = False, limit: Limit = 1000
) -> None:
    """List study revisions, newest first."""
    from db import listing

    with open_database(load_settings(data_dir, config)) as database, database.reading() as session:
        rows = listing.studies(session, limit=limit)
    print_rows(rows, COLUMNS, as_json=json, empty="No study was received yet.")


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
    """Declare a study complete now instead of waiting for views or the quiet period."""
    from db import handoff

    settings = load_settings(data_dir, config)
    with open_database(settings) as database, database.transaction(person()) as tx:
        revision = handoff.complete_study(tx, study_instance_uid, completeness(settings))
    console.print(f"Revision {revision} is complete; its jobs are queued.")
