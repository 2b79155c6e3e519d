"""Options that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

DataDir = Annotated[
    Path | None,
    typer.Option("--data-dir", help="The node's data directory.", show_default=False, file_okay=False),
]
ConfigFile = Annotated[
    Path | None,
    typer.Option(
        "--config",
        help="TOML configuration file.",
        envvar="DICOM_NODE_CONFIG",
        show_default=False,
        dir_okay=False,
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON for programs.")]
Port = Annotated[
    int | None, typer.Option("--port", help="Port of the listener; 0 takes any free one.", show_default=False)
]
Title = Annotated[str | None, typer.Option("--ae-title", help="The node's AE title.", show_default=False)]
Destinations = Annotated[
    list[str] | None,
    typer.Option(
        "--destination", help="Where results go: AE@HOST:PORT[/PROFILE]; repeatable.", show_default=False
    ),
]
Limit = Annotated[int, typer.Option("--limit", min=1, max=100000, help="Most rows to print.")]
