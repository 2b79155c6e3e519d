"""``dicom-node status``: is it running, and what is waiting."""

from __future__ import annotations

from typing import Annotated

import typer

from dicom_node.cli.options import ConfigFile, DataDir, Json
from dicom_node.cli.output import console, print_json, print_rows
from dicom_node.cli.wiring import load_settings, open_database


def command(
    with_done: Annotated[
        bool, typer.Option("--all", help="Count what is done, too: seconds on a node of years.")
    ] = False,
    data_dir: DataDir = None,
    config: ConfigFile = None,
    json: Json = False,
) -> None:
    """Show processes, how much came, and what waits, runs or failed.

    Work: studies, jobs and deliveries.
    """
    from db import census, listing, processes

    with open_database(load_settings(data_dir, config)) as database, database.reading() as session:
        alive, silent = processes.alive(session, database.now_in(session))
        counts = listing.counts(session) if with_done else census.unfinished(session)
    rows = [
        {"process": p.name, "kind": p.kind, "alive": p in alive, "seen_at": p.seen_at.isoformat()}
        for p in (*alive, *silent)
    ]
    if json:
        print_json({"processes": rows, **counts})
        return
    print_rows(rows, ("process", "alive", "seen_at"), as_json=False, empty="No process is running.")
    console.print()
    table = [
        {
            "what": what.replace("_", " "),
            "counts": ", ".join(f"{n} {state}" for state, n in by.items() if n) or "none",
        }
        for what, by in counts.items()
    ]
    print_rows(table, ("what", "counts"), as_json=False, empty="")
