"""``dicom-node compare``: which of several training runs can be told apart."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from dicom_node.cli.options import Json
from dicom_node.cli.output import console, plain, print_json


def command(
    runs: Annotated[
        list[Path],
        typer.Argument(help="Folders of two or more training runs with the same split.", file_okay=False),
    ],
    level: Annotated[
        str | None,
        typer.Option(
            "--level",
            help="image, breast or woman; by default the woman, the image for several classes and patches.",
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option("--out", help="Folder for a page and JSON.", file_okay=False),
    ] = None,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Seed of the resampling.")] = 0,
    json: Json = False,
) -> None:
    """Compare runs on the same test images.

    With intervals, paired tests and letters for equals.
    """
    from rich.table import Table

    from training import comparison_page as shown
    from training import evaluated_run
    from training.comparison import compare

    with console.status("comparing"):
        found = compare([evaluated_run.of_folder(run) for run in runs], level=level, seed=seed)
        page = None if out is None else shown.write_comparison(found, out)
    if json:
        print_json(shown.as_json(found))
        return
    console.print(plain(shown.headline(found)), soft_wrap=True)
    for heads, rows in (
        (shown.MODEL_HEADS, shown.model_rows(found)),
        (shown.PAIR_HEADS, shown.pair_rows(found)),
    ):
        table = Table(box=None, pad_edge=False, header_style="bold")
        for head in heads:
            table.add_column(head, overflow="fold")
        for row in rows:
            table.add_row(*map(plain, row))
        console.print()
        console.print(table)
    console.print()
    console.print(plain(shown.MEANING), soft_wrap=True)
    for warning in found.warnings:
        console.print(plain(warning), style="yellow", soft_wrap=True)
    if page is not None:
        console.print(f"Report: {page}", soft_wrap=True, highlight=False)
