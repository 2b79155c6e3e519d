"""``dicom-node result``: result objects and where they were delivered."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from dicom_node.cli.options import ConfigFile, DataDir, Json, Limit
from dicom_node.cli.output import console, print_rows
from dicom_node.cli.wiring import load_settings, open_database, person

app = typer.Typer(no_args_is_help=True, help="Result objects and their deliveries.")
Study = Annotated[str | None, typer.Option("--study", help="Only this study's results.")]
Job = Annotated[str | None, typer.Option("--job", help="Only this score job's results.")]
COLUMNS = ("sop_instance_uid", "kind", "destination", "delivery_state", "attempts", "last_status", "detail")


@app.command("list")
def list_results(
    data_dir: DataDir = None,
    config: ConfigFile = None,
    study: Study = None,
    job: Job = None,
    json: Json = False,
    limit: Limit = 1000,
) -> None:
    """List result objects, a row for each destination, newest first."""
    from db import listing

    with open_database(load_settings(data_dir, config)) as database, database.reading() as session:
        rows = listing.results(session, study_instance_uid=study, job_id=job, limit=limit)
    print_rows(rows, COLUMNS, as_json=json, empty="No result yet.")


@app.command("export")
def export(
    out: Annotated[
        Path, typer.Option("--out", help="Folder to write the DICOM files into.", file_okay=False)
    ],
    data_dir: DataDir = None,
    config: ConfigFile = None,
    study: Study = None,
    job: Job = None,
) -> None:
    """Write result objects as DICOM files, byte for byte as they were sent."""
    import shutil

    from db import listing
    from db.errors import UnknownRecordError
    from dicom_node.spool import Spool

    settings = load_settings(data_dir, config)
    with open_database(settings) as database:
        with database.reading() as session:
            rows = listing.results(session, study_instance_uid=study, job_id=job, limit=100000)
        files = {row["sop_instance_uid"]: row for row in rows}
        if not files:
            raise UnknownRecordError("no result matches; 'dicom-node result list' shows all")
        out.mkdir(parents=True, exist_ok=True)
        results = Spool(settings.results_dir)
        for uid, row in files.items():
            # A UID of our own making: digits and dots, safe as a file name.
            shutil.copyfile(results.path_of(row["file"]), out / f"{row['kind']}-{uid}.dcm")
        with database.transaction(person()) as tx:
            tx.audit("result.exported", study_instance_uid=study, job_id=job, detail={"objects": len(files)})
    console.print(f"{len(files)} objects written to {out}")
