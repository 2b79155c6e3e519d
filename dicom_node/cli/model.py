"""``dicom-node model``: which bundle answers for which task."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dicom_node.cli.options import ConfigFile, DataDir, Json
from dicom_node.cli.output import console, print_json, print_rows
from dicom_node.cli.wiring import load_settings, open_database, person

if TYPE_CHECKING:
    from db.session import Database

app = typer.Typer(no_args_is_help=True, help="Bundles: add, activate, roll back, recall.")
Digest = Annotated[str, typer.Argument(help="Digest of the bundle, or a beginning of it that only it has.")]
RECALL_COLUMNS = (
    "study_instance_uid",
    "revision",
    "scored_at",
    "outcome",
    "study_probability",
    "delivered",
    "destinations",
    "superseded",
    "recalled",
)
COLUMNS = ("digest", "name", "version", "task", "role", "since", "demonstration")


@app.command("list")
def list_models(data_dir: DataDir = None, config: ConfigFile = None, json: Json = False) -> None:
    """List the bundles that were added, and which of them answers now."""
    from db import listing

    with open_database(load_settings(data_dir, config)) as database, database.reading() as session:
        rows = listing.bundles(session)
    print_rows(rows, COLUMNS, as_json=json, empty="No bundle yet; a worker adds the demonstration bundle.")


@app.command("show")
def show(digest: Digest, data_dir: DataDir = None, config: ConfigFile = None, json: Json = False) -> None:
    """Show one bundle's card, or its whole manifest as JSON."""
    from rich.markdown import Markdown

    from models.bundle import read
    from models.store import BundleStore

    settings = load_settings(data_dir, config)
    with open_database(settings) as database:
        bundle = read(BundleStore(settings.bundles_dir).path_of(_whole(database, digest)))
    if json:
        print_json({"digest": bundle.digest, "manifest": bundle.manifest})
        return
    console.print(Markdown((bundle.path / "model_card.md").read_text()))


@app.command("add")
def add(
    folder: Annotated[Path, typer.Argument(help="The bundle's folder.", exists=True, file_okay=False)],
    data_dir: DataDir = None,
    config: ConfigFile = None,
) -> None:
    """Verify a bundle (digests, weights, golden cases) and add it to the node's store."""
    from dicom_node.cli.bundles import add_bundle

    settings = load_settings(data_dir, config)
    with open_database(settings) as database:
        digest = add_bundle(settings, database, folder, actor=person())
    console.print(f"Added {digest}; 'dicom-node model activate {digest[:12]}' lets it answer.")


@app.command("activate")
def activate(digest: Digest, data_dir: DataDir = None, config: ConfigFile = None) -> None:
    """Let a bundle answer for its task from the next claimed job on."""
    from db import deployments

    with open_database(load_settings(data_dir, config)) as database:
        whole = _whole(database, digest)
        with database.transaction(person()) as tx:
            replaced = deployments.activate(tx, whole)
    console.print(
        f"{whole[:12]} answers already."
        if replaced == whole
        else f"{whole[:12]} answers now" + (f"; it replaces {replaced[:12]}." if replaced else ".")
    )


@app.command("recall")
def recall(
    digest: Digest,
    since: Annotated[
        datetime | None, typer.Option("--from", help="Only what was scored from then on, UTC.")
    ] = None,
    until: Annotated[
        datetime | None, typer.Option("--to", help="Only what was scored before then, UTC.")
    ] = None,
    execute: Annotated[
        bool, typer.Option("--execute", help="Withdraw the results and score the studies again.")
    ] = False,
    out: Annotated[
        Path | None,
        typer.Option("--out", help="File for the list: .csv or .json.", dir_okay=False, show_default=False),
    ] = None,
    data_dir: DataDir = None,
    config: ConfigFile = None,
    json: Json = False,
) -> None:
    """List every study revision that a bundle scored; with --execute, withdraw and score them again.

    Without --execute nothing is changed. With it the list, which names patients, is always written to a file.
    """
    from dicom_node.cli.recalling import queue_recall, studies_of, write_list

    settings = load_settings(data_dir, config)
    with open_database(settings) as database:
        whole = _whole(database, digest)
        rows = studies_of(database, whole, since, until)
        if execute:
            out = queue_recall(settings, database, whole, rows, out)
        elif out is not None:
            write_list(rows, out)
    print_rows(rows, RECALL_COLUMNS, as_json=json, empty="That bundle scored nothing in that time.")
    if not json and execute:
        console.print(f"Recalled; the list is {out}.", soft_wrap=True)
    elif not json and rows:
        console.print("Nothing was changed; --execute withdraws these results and scores the studies again.")


@app.command("rollback")
def rollback(
    task: Annotated[str, typer.Argument(help="The task.")] = "mammography_malignancy",
    data_dir: DataDir = None,
    config: ConfigFile = None,
) -> None:
    """Let the bundle that answered before answer again, from the next claimed job on."""
    from db import deployments

    with (
        open_database(load_settings(data_dir, config)) as database,
        database.transaction(person()) as tx,
    ):
        digest = deployments.rollback(tx, task)
    console.print(f"{digest[:12]} answers again for {task}.")


def _whole(database: Database, beginning: str) -> str:
    """Complete the beginning of a digest."""
    from db import listing
    from db.errors import UnknownRecordError

    with database.reading() as session:
        found = [row["digest"] for row in listing.bundles(session) if row["digest"].startswith(beginning)]
    if len(found) != 1:
        count = "no bundle begins" if not found else f"{len(found)} bundles begin"
        raise UnknownRecordError(f"{count} with {beginning!r}; 'dicom-node model list' shows all")
    digest: str = found[0]
    return digest
