"""``dicom-node``: one command for everyone who runs, feeds or audits the node."""

from __future__ import annotations

import os
import sys
from typing import Annotated

import typer

from db.errors import DatabaseError
from dicom_node import __version__, installation
from dicom_node.cli import (
    account,
    audit,
    compare,
    config,
    database,
    demo,
    dispatch,
    doctor,
    evaluate,
    job,
    listen,
    metrics,
    model,
    quarantine,
    result,
    serve,
    status,
    study,
    train,
    work,
)
from dicom_node.cli.exit_codes import ExitCode, exit_code_of
from dicom_node.cli.output import errors, plain_lines
from dicom_node.errors import NodeError
from training.errors import TrainingError

app = typer.Typer(
    name="dicom-node",
    help="An AI node for hospital imaging: receives studies, scores them, reports to the PACS.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
for module in (serve, listen, dispatch, work, metrics, demo, status, doctor, evaluate, compare):
    app.command(module.__name__.rpartition(".")[2])(module.command)
app.add_typer(study.app, name="study")
app.add_typer(quarantine.app, name="quarantine")
app.add_typer(job.app, name="job")
app.add_typer(result.app, name="result")
app.add_typer(model.app, name="model")
app.add_typer(train.app, name="train")
app.add_typer(audit.app, name="audit")
app.add_typer(account.app, name="account")
app.add_typer(database.app, name="db")
app.add_typer(config.app, name="config")


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"dicom-node {__version__}")
        raise typer.Exit


@app.callback()
def main(
    _version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """An AI node for hospital imaging: receives studies, scores them, reports to the PACS."""


def run() -> None:
    """Run one command and end with its exit status."""
    os.umask(0o077)  # whatever a command writes may hold patient data
    try:
        installation.check()
        app()
    except (NodeError, DatabaseError, TrainingError) as error:
        sys.exit(_report(error))
    except Exception as error:
        if type(error).__module__ != "models.errors":  # named without importing what needs torch
            raise
        sys.exit(_report(error))


def _report(error: Exception) -> ExitCode:
    errors.print(plain_lines(f"dicom-node: {error}"), soft_wrap=True)
    return exit_code_of(error)
