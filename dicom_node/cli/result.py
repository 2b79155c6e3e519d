"""``dicom-node result``: result objects and where they were delivered."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from dicom_node.cli.exit_codes import ExitCode
from dicom_node.cli.options import ConfigFile, DataDir, Json, Limit
from dicom_node.cli.output import console, errors, heading, plain_lines, print_json, print_rows
from dicom_node.cli.wiring import load_settings, open_database, person

app = typer.Typer(no_args_is_help=True, help="Result objects and their deliveries.")
Study = Annotated[str | None, typer.Option("--study", help="Only this study's results.")]
Job = Annotated[str | None, typer.Option("--job", help="Only this score job's results.")]
Sources = Annotated[
    list[Path] | None,
    typer.Option(
        "--source", help="An image that they were made from; repeatable.", exists=True, dir_okay=False
    ),
]
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
    """Write result objects as DICOM files.

    Byte for byte as they were sent. Exit status 1 where some are left out, because their files were removed.
    """
    import shutil

    from dicom_node.cli.result_files import stored_files
    from dicom_node.spool import Spool

    settings = load_settings(data_dir, config)
    results = Spool(settings.results_dir)
    with open_database(settings) as database:
        rows, gone = stored_files(database, results, study, job)
        out.mkdir(parents=True, exist_ok=True)
        for row in rows:
            # A UID of our own making: digits and dots, safe as a file name.
            name = f"{row['kind']}-{row['sop_instance_uid']}.dcm"
            shutil.copyfile(results.path_of(row["file"]), out / name)
        with database.transaction(person()) as tx:
            tx.audit("result.exported", study_instance_uid=study, job_id=job, detail={"objects": len(rows)})
    console.print(f"{len(rows)} objects written to {out}")
    if gone:
        errors.print(gone, soft_wrap=True)
        raise typer.Exit(ExitCode.PROBLEM_FOUND)


@app.command("check")
def check(
    files: Annotated[
        list[Path], typer.Argument(help="Result objects, of any studies.", exists=True, dir_okay=False)
    ],
    source: Sources = None,
    json: Json = False,
) -> None:
    """Hold DICOM files against the rules for results.

    Exit status 1 when one is broken.

    The same rules run before every send. Objects that one algorithm made of one revision of a study are also
    held against one another.
    """
    from dicom_node.cli.result_files import read_headers, read_objects
    from dicom_node.results.checks.checker import check_analyses

    objects = read_objects(files)
    faults = check_analyses(list(objects.values()), read_headers(source or []))
    names = {str(instance.get("SOPInstanceUID", "")): str(path) for path, instance in objects.items()}
    rows = [
        {
            "file": names.get(fault.sop_instance_uid, ""),
            "sop_instance_uid": fault.sop_instance_uid,
            "rule": fault.rule,
            "level": fault.level.value,
            "text": fault.text,
            "where": fault.where,
        }
        for fault in faults
    ]
    columns = ("file", "rule", "level", "text", "where")
    print_rows(rows, columns, as_json=json, empty=f"{len(objects)} objects, no fault.")
    if rows:
        raise typer.Exit(ExitCode.PROBLEM_FOUND)


@app.command("show")
def show(
    files: Annotated[
        list[Path] | None, typer.Argument(help="Result objects to show instead.", exists=True, dir_okay=False)
    ] = None,
    data_dir: DataDir = None,
    config: ConfigFile = None,
    study: Study = None,
    job: Job = None,
    source: Sources = None,
    out: Annotated[
        Path | None, typer.Option("--out", help="Folder for pictures and texts.", file_okay=False)
    ] = None,
    json: Json = False,
) -> None:
    """Show what results say.

    Reports as text, and with --out overlays as pictures.
    """
    from dicom_node.cli.result_files import images_as_displayed, read_objects, stored_objects
    from dicom_node.cli.result_views import words_of, write_view

    gone = ""
    if files:
        objects, sources = list(read_objects(files).values()), list(source or [])
    elif study or job:
        objects, sources, gone = stored_objects(load_settings(data_dir, config), study, job)
    else:
        raise typer.BadParameter("name files, or a study or job of this node: --study UID, --job ID")
    images = {}
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)
        images = images_as_displayed(sources)
    rows = []
    for instance in objects:
        path = write_view(instance, images, out) if out is not None else None
        rows.append(
            {
                "sop_instance_uid": str(instance.SOPInstanceUID),
                "series_description": str(instance.SeriesDescription),
                "text": words_of(instance),
                "picture": str(path) if path else None,
            }
        )
    if gone:
        errors.print(gone, soft_wrap=True)
    if json:
        print_json(rows)
        return
    for row in rows:
        heading(str(row["series_description"]))
        console.print(plain_lines(str(row["text"])))
        if row["picture"]:
            console.print(plain_lines(f"-> {row['picture']}"))
