"""``dicom-node train``: making a bundle, here or as a job of the ``train`` queue."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from dicom_node.cli.options import ConfigFile, DataDir
from dicom_node.cli.output import console
from dicom_node.cli.wiring import load_settings, open_database, person

app = typer.Typer(no_args_is_help=True, help="Training runs.")


@app.callback()
def main() -> None:
    """Training runs."""


@app.command("demonstration")
def demonstration(
    out: Annotated[
        Path | None, typer.Option("--out", help="Folder for the bundle; must not exist.", file_okay=False)
    ] = None,
    seed: Annotated[
        int, typer.Option("--seed", min=0, help="Seed of everything random in the run.")
    ] = 20260101,
    queue: Annotated[
        bool, typer.Option("--queue", help="Leave the run to a worker; its bundle is added to the node.")
    ] = False,
    data_dir: DataDir = None,
    config: ConfigFile = None,
) -> None:
    """Train the demonstration network on phantoms; the same seed gives the same bytes."""
    if queue:
        from db import jobs

        with (
            open_database(load_settings(data_dir, config)) as database,
            database.transaction(person()) as tx,
        ):
            job_id = jobs.queue_training(tx, recipe="demonstration", order={"seed": seed})
        console.print(f"Queued as job {job_id}.")
        return
    if out is None:
        raise typer.BadParameter("give --out FOLDER, or --queue to leave the run to a worker")
    from training.demonstration import run

    run(out, seed=seed)
