"""``dicom-node quarantine``: the objects that the listener refused as faulty."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dicom_node.cli.new_files import new_file
from dicom_node.cli.options import ConfigFile, DataDir, Json
from dicom_node.cli.output import console, print_rows
from dicom_node.cli.wiring import load_settings, open_database, person

if TYPE_CHECKING:
    from db.session import Database
    from dicom_node.listener.quarantine import QuarantinedObject

app = typer.Typer(no_args_is_help=True, help="Objects that were refused as faulty.")
Name = Annotated[
    str, typer.Argument(help="Name of the object, or a beginning of it that only it has.", show_default=False)
]
COLUMNS = ("name", "refused_at", "status", "reason", "calling_ae_title", "peer_address", "size_bytes")


@app.command("list")
def list_objects(data_dir: DataDir = None, config: ConfigFile = None, json: Json = False) -> None:
    """List what is kept, oldest first.

    Each with why it was refused, and who sent it.
    """
    from dicom_node.listener.quarantine import Quarantine

    objects = Quarantine(load_settings(data_dir, config).quarantine_dir).objects()
    print_rows([asdict(each) for each in objects], COLUMNS, as_json=json, empty="Nothing is kept.")


@app.command("export")
def export(
    name: Name,
    out: Annotated[Path, typer.Option("--out", help="New file for it.", dir_okay=False)],
    data_dir: DataDir = None,
    config: ConfigFile = None,
) -> None:
    """Write an object to a new file, as it came.

    It may name a patient: whoever gets it has to be allowed to see that.
    """
    import shutil

    from dicom_node.listener.quarantine import Quarantine

    settings = load_settings(data_dir, config)
    quarantine = Quarantine(settings.quarantine_dir)
    found = quarantine.find(name)
    with open_database(settings) as database, quarantine.path_of(found.name).open("rb") as kept:
        descriptor = new_file(out)
        try:
            # Told before it is written: no copy without its event.
            _tell(database, "quarantine.exported", [found])
            with os.fdopen(descriptor, "wb") as file:
                shutil.copyfileobj(kept, file)
        except BaseException:
            out.unlink()
            raise
    console.print(f"{found.size_bytes} bytes written to {out}", soft_wrap=True)


@app.command("remove")
def remove(
    names: Annotated[
        list[str] | None,
        typer.Argument(help="Names of objects, or beginnings that only they have.", show_default=False),
    ] = None,
    everything: Annotated[bool, typer.Option("--all", help="Remove all of them.")] = False,
    data_dir: DataDir = None,
    config: ConfigFile = None,
) -> None:
    """Remove objects that nobody needs any more."""
    from dicom_node.listener.quarantine import Quarantine

    if bool(names) == everything:
        raise typer.BadParameter("name objects, or give --all")
    settings = load_settings(data_dir, config)
    quarantine = Quarantine(settings.quarantine_dir)
    found = quarantine.objects() if everything else [quarantine.find(name) for name in names or []]
    if found:
        with open_database(settings) as database:
            _tell(database, "quarantine.removed", found)
            for each in found:
                quarantine.remove(each.name)
    console.print(f"{len(found)} objects were removed.")


def _tell(database: Database, action: str, objects: Iterable[QuarantinedObject]) -> None:
    """Write into the audit trail what is done with objects, before it is."""
    with database.transaction(person()) as tx:
        for each in objects:
            tx.audit(action, detail={"quarantined": each.name, "sop_instance_uid": each.sop_instance_uid})
