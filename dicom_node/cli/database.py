"""``dicom-node db``: the tables' version."""

from __future__ import annotations

import typer

from dicom_node.cli.exit_codes import ExitCode
from dicom_node.cli.options import ConfigFile, DataDir, Json
from dicom_node.cli.output import console, print_facts
from dicom_node.cli.wiring import load_settings, open_database

app = typer.Typer(no_args_is_help=True, help="The database's tables.")


@app.command("upgrade")
def upgrade(data_dir: DataDir = None, config: ConfigFile = None) -> None:
    """Bring the tables to this version.

    Safe to repeat and to run from several machines.
    """
    from db import schema

    with open_database(load_settings(data_dir, config), upgrade=True):
        console.print(f"The tables are at revision {schema.head()}.")


@app.command("check")
def check(data_dir: DataDir = None, config: ConfigFile = None, json: Json = False) -> None:
    """Compare the database with this version's tables.

    Exit status 1 where they differ.
    """
    from db import schema

    with open_database(load_settings(data_dir, config)) as database:
        differences = schema.check(database)
        facts = {"revision": schema.current(database), "differences": differences}
    print_facts(facts if json else {**facts, "differences": differences or "none"}, as_json=json)
    raise typer.Exit(ExitCode.PROBLEM_FOUND if differences else ExitCode.OK)
