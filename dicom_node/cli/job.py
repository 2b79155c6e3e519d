"""``dicom-node job``: work waiting, running, done and failed."""

from __future__ import annotations

from contextlib import suppress
from typing import Annotated

import typer

from db.lifecycle import JobKind, JobState
from dicom_node.cli.options import ConfigFile, DataDir, Json, Limit
from dicom_node.cli.output import console, heading, print_facts, print_rows
from dicom_node.cli.wiring import load_settings, open_database, person

app = typer.Typer(no_args_is_help=True, help="Jobs: scoring, delivery, storage commitment, training.")
JobId = Annotated[str, typer.Argument(help="Job id.")]
COLUMNS = (
    "job_id",
    "study_instance_uid",
    "revision",
    "task",
    "state",
    "attempts",
    "outcome",
    "study_probability",
    "error",
)
REFUSAL_COLUMNS = ("code", "laterality", "view", "sentence", "sop_instance_uid")


@app.command("list")
def list_jobs(
    data_dir: DataDir = None,
    config: ConfigFile = None,
    kind: Annotated[JobKind, typer.Option("--kind", help="Which jobs.")] = JobKind.SCORE,
    every_kind: Annotated[bool, typer.Option("--all", help="Jobs of every kind.")] = False,
    state: Annotated[JobState | None, typer.Option("--state", help="Only jobs in this state.")] = None,
    study: Annotated[str | None, typer.Option("--study", help="Only this study's jobs.")] = None,
    json: Json = False,
    limit: Limit = 1000,
) -> None:
    """List jobs, newest first."""
    from db import listing

    with open_database(load_settings(data_dir, config)) as database, database.reading() as session:
        rows = listing.jobs(
            session,
            kind=None if every_kind else kind,
            state=state,
            study_instance_uid=study,
            limit=limit,
        )
    columns = (
        COLUMNS
        if kind is JobKind.SCORE and not every_kind
        else ("job_id", "kind", "destination", *COLUMNS[1:])
    )
    empty = "No job matches." if every_kind else f"No {kind.value} job matches; --all shows every kind."
    print_rows(rows, columns, as_json=json, empty=empty)


@app.command("show")
def show(job_id: JobId, data_dir: DataDir = None, config: ConfigFile = None, json: Json = False) -> None:
    """Show one job.

    For a scored one, also its analysis and what was refused.
    """
    from json import loads

    from db import listing
    from db.errors import UnknownRecordError

    with open_database(load_settings(data_dir, config)) as database, database.reading() as session:
        rows = listing.jobs(session, kind=None, job_id=job_id)
        if not rows:
            raise UnknownRecordError(f"no job {job_id!r}; 'dicom-node job list --all' shows all")
        document = listing.analysis(session, job_id)
    analysis = document and loads(document)
    if json or not analysis:
        print_facts({**rows[0], "analysis": analysis}, as_json=json)
        return
    refusals = analysis.pop("refusals", [])
    print_facts({**rows[0], "analysis": analysis}, as_json=False)
    heading("refusals")
    print_rows(refusals, REFUSAL_COLUMNS, as_json=False, empty="None.")


@app.command("retry")
def retry(
    job_id: Annotated[str | None, typer.Argument(help="Job id; or --failed.")] = None,
    failed: Annotated[bool, typer.Option("--failed", help="Every job that was given up.")] = False,
    kind: Annotated[JobKind | None, typer.Option("--kind", help="Of those only this kind.")] = None,
    destination: Annotated[
        str | None, typer.Option("--destination", help="Of those only what goes there: AE@HOST:PORT.")
    ] = None,
    data_dir: DataDir = None,
    config: ConfigFile = None,
) -> None:
    """Queue a failed job again, or end the wait of one that is tried later.

    With --failed all that were given up, but those whose results a later revision replaced.
    """
    from db import queueing
    from db.errors import TransitionRefusedError

    if (job_id is None) is not failed:
        raise typer.BadParameter("name one job, or --failed for all that were given up")
    if not failed and (kind or destination):
        raise typer.BadParameter("--kind and --destination choose among many jobs: with --failed")
    with open_database(load_settings(data_dir, config)) as database:
        if job_id is not None:
            with database.transaction(person()) as tx:
                queueing.retry(tx, job_id)
            console.print("The job is queued.")
            return
        with database.reading() as session:
            found = queueing.given_up(session, kind=kind, destination=destination)
        queued = 0
        # Each by itself: thousands in one transaction would keep the node waiting.
        for each in found:
            with suppress(TransitionRefusedError), database.transaction(person()) as tx:
                queueing.retry(tx, each)
                queued += 1
    console.print(f"{queued} jobs are queued.")
