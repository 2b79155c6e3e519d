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


Run = Annotated[Path | None, typer.Argument(help="Folder of a training run.", file_okay=False)]
Table = Annotated[
    Path | None,
    typer.Option("--predictions", help="A table of predictions instead of a run.", dir_okay=False),
]
Beside = Annotated[
    Path | None,
    typer.Option(
        "--beside",
        help="Run of the same data under the other protocol, shown in a second column.",
        file_okay=False,
    ),
]
Maps = Annotated[
    bool,
    typer.Option(
        "--maps",
        help="First hold the networks' maps against drawn lesions; needs the data set in its place.",
    ),
]
ReportFolder = Annotated[
    Path | None,
    typer.Option("--out", help="Folder for the report; RUN/report by default.", file_okay=False),
]
Seed = Annotated[int, typer.Option("--seed", min=0, help="Seed of the resampling.")]


def command(
    run: Run = None,
    predictions: Table = None,
    beside: Beside = None,
    maps: Maps = False,
    out: ReportFolder = None,
    seed: Seed = 0,
    json: Json = False,
) -> None:
    """Measure predictions and write a report page.

    With intervals, baseline and levels.

    Nothing is shown of a split by woman that leaks. A run with the protocol as_written is marked.
    """
    runs = [_asked_for(run, predictions, maps=maps)]
    from training import evaluated_run
    from training.evaluation_report import as_json, columns_of
    from training.report_page import write_report

    if beside is not None:
        runs.append(evaluated_run.of_folder(beside))
    _check_tasks(runs)
    folder = run / "report" if out is None and run is not None else out
    with console.status("measuring"):
        columns = columns_of(runs, seed=seed)
        page = None if folder is None else write_report(columns, folder)
    if json:
        print_json(as_json(columns))
        return
    _print(columns)
    if page is not None:
        console.print(f"Report: {page}", soft_wrap=True, highlight=False)


def _asked_for(run: Path | None, predictions: Path | None, *, maps: bool) -> EvaluatedRun:
    """Return the run, or the table of predictions: one of them must be named."""
    if run is not None and predictions is None:
        return _of_run(run, maps=maps)
    if predictions is None or run is not None:
        raise typer.BadParameter("name the folder of a run, or --predictions FILE")
    if maps:
        raise typer.BadParameter("--maps needs the folder of a run")
    from training import evaluated_run

    return evaluated_run.of_table(predictions)


def _of_run(run: Path, *, maps: bool) -> EvaluatedRun:
    """Return a run; with `maps`, as it is once its maps are measured."""
    from training import evaluated_run

    found = evaluated_run.of_folder(run)
    if maps:
        # Only now: a run that may not be shown is refused before the minutes that this takes.
        _measure_maps(run)
        found = evaluated_run.of_folder(run)
    return found


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
