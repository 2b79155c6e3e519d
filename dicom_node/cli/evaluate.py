"""``dicom-node evaluate``: what a training run's predictions are worth."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dicom_node.cli.options import Json
from dicom_node.cli.output import console, plain, print_json

if TYPE_CHECKING:
    from collections.abc import Sequence

    from training.evaluated_run import EvaluatedRun
    from training.evaluation_report import Column


def command(
    run: Annotated[
        Path | None,
        typer.Argument(help="Folder of a training run.", file_okay=False),
    ] = None,
    predictions: Annotated[
        Path | None,
        typer.Option(
            "--predictions",
            help="A table of predictions instead of a run.",
            dir_okay=False,
        ),
    ] = None,
    beside: Annotated[
        Path | None,
        typer.Option(
            "--beside",
            help="Run of the same data under the other protocol, shown in a second column.",
            file_okay=False,
        ),
    ] = None,
    maps: Annotated[
        bool,
        typer.Option(
            "--maps",
            help="First hold the networks' maps against drawn lesions; needs the data set in its place.",
        ),
    ] = False,
    out: Annotated[
        Path | None,
        typer.Option("--out", help="Folder for the report; RUN/report by default.", file_okay=False),
    ] = None,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Seed of the resampling.")] = 0,
    json: Json = False,
) -> None:
    """Measure predictions and write a report page.

    With intervals, baseline and levels.

    Nothing is shown of a split by woman that leaks. A run with the protocol as_written is marked.
    """
    if (run is None) == (predictions is None):
        raise typer.BadParameter("name the folder of a run, or --predictions FILE")
    if maps and run is None:
        raise typer.BadParameter("--maps needs the folder of a run")
    from training import evaluated_run
    from training.evaluation_report import as_json, columns_of
    from training.report_page import write_report

    folder = out
    if run is not None:
        shown = evaluated_run.of_folder(run)
        if maps:
            _measure_maps(run)
            shown = evaluated_run.of_folder(run)
        folder = out or run / "report"
    elif predictions is not None:
        shown = evaluated_run.of_table(predictions)
    runs = [shown] if beside is None else [shown, evaluated_run.of_folder(beside)]
    _check_tasks(runs)
    with console.status("measuring"):
        columns = columns_of(runs, seed=seed)
        page = None if folder is None else write_report(columns, folder)
    if json:
        print_json(as_json(columns))
        return
    _print(columns)
    if page is not None:
        console.print(f"Report: {page}", soft_wrap=True, highlight=False)


def _measure_maps(run: Path) -> None:
    from training.run_maps import measure_maps

    with console.status("reading") as status:
        measure_maps(run, advance=lambda stage, done, total: status.update(f"{stage}: {done} of {total}"))


def _check_tasks(runs: Sequence[EvaluatedRun]) -> None:
    from training.errors import EvaluationError

    if len({(run.predictions.task, run.predictions.classes) for run in runs}) != 1:
        raise EvaluationError("The two runs are for different tasks: name runs of the same task.")


def _print(columns: Sequence[Column]) -> None:
    from rich.table import Table
    from rich.text import Text

    from training.evaluation_report import rows

    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("", overflow="fold")
    for column in columns:
        leaks = ", leaks" if column.run.verdict is not None and column.run.warnings else ""
        heading = plain(f"{column.run.name}, {column.run.title}{leaks}")
        table.add_column(heading, overflow="fold", header_style="bold yellow" if leaks else "bold")
    section = ""
    for row in rows(columns):
        if row.section != section:
            section = row.section
            table.add_row(Text(section, style="bold underline"))
        table.add_row(plain(row.title), *map(plain, row.cells))
    console.print(table)
    for column in columns:
        _print_maps(column)
    for column in columns:
        for warning in column.run.warnings:
            console.print(plain(f"{column.run.name}: {warning}"), style="yellow", soft_wrap=True)
        for note in column.evaluation.notes:
            console.print(plain(f"{column.run.name}: {note}"), style="dim", soft_wrap=True)


def _print_maps(column: Column) -> None:
    from rich.table import Table

    from training.evaluation_report import LOCALISATION_HEADS, localisation_rows, localisation_sentence

    if (quality := column.run.localisation) is None:
        return
    table = Table(box=None, pad_edge=False, header_style="bold")
    for head in LOCALISATION_HEADS:
        table.add_column(head, overflow="fold")
    for row in localisation_rows(quality):
        table.add_row(*map(plain, row))
    console.print()
    console.print(table)
    console.print(plain(f"{column.run.name}: {localisation_sentence(quality)}"), soft_wrap=True)
