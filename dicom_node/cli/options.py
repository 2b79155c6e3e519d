"""Options that several commands share."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, overload

import typer

DataDir = Annotated[
    Path | None,
    typer.Option(
        "--data-dir",
        help="The node's data directory.",
        file_okay=False,
        show_default="~/.local/share/dicom-node",
    ),
]
ConfigFile = Annotated[
    Path | None,
    typer.Option(
        "--config",
        help="TOML configuration file.",
        envvar="DICOM_NODE_CONFIG",
        dir_okay=False,
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON for programs.")]
Port = Annotated[int | None, typer.Option("--port", help="Port of the listener; 0 takes any free one.")]
SharedPort = Annotated[
    int | None,
    typer.Option("--shared-port", help="One of several processes on this port.", hidden=True),
]
Title = Annotated[str | None, typer.Option("--ae-title", help="The node's AE title.")]
Destinations = Annotated[
    list[str] | None,
    typer.Option("--destination", help="Where results go: AE@HOST:PORT[/PROFILE][+commitment]; repeatable."),
]
TIMES = [
    *("%Y-%m-%dT%H:%M:%S.%f%z", "%Y-%m-%dT%H:%M:%S%z"),
    *("%Y-%m-%dT%H:%M:%S", "%Y-%m-%d %H:%M:%S", "%Y-%m-%d"),
]
"""How every command reads a time: without this list, 20260101 would be seconds since 1970.

Rows print times in the first form. The option says which zone one without a zone is in.
"""

Limit = Annotated[int, typer.Option("--limit", min=1, max=100000, help="Most rows to print.")]
Digest = Annotated[str, typer.Argument(help="Digest of the bundle, or a beginning of it that only it has.")]


@overload
def aware(moment: datetime) -> datetime: ...
@overload
def aware(moment: None) -> None: ...
def aware(moment: datetime | None) -> datetime | None:
    """Read a time without a zone in this machine's zone.

    Raises
    ------
    typer.BadParameter
        If the year is none of those in which a node can have run.
    """
    if moment is None:
        return None
    if not 1970 <= moment.year < 9999:
        raise typer.BadParameter(f"{moment:%Y-%m-%d} is out of range; the trail begins after 1970")
    return moment.astimezone(UTC)
