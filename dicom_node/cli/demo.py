"""``dicom-node demo``: the whole mission on one machine."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def command(
    out: Annotated[
        Path, typer.Option("--out", help="Folder for everything it writes.", file_okay=False)
    ] = Path("demo-output"),
    studies: Annotated[int, typer.Option("--studies", min=1, max=70, help="How many studies to send.")] = 7,
) -> None:
    """Send made-up mammograms through a node of its own.

    Shows what comes back to a PACS.
    """
    from dicom_node.cli.demonstration.run import run

    run(out.absolute(), studies)
