"""``dicom-node model``: which bundle answers for which task."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Annotated

import typer

from dicom_node.cli import model_roles
from dicom_node.cli.bundles.digests import full_digest
from dicom_node.cli.options import TIMES, ConfigFile, DataDir, Digest, Json
from dicom_node.cli.output import console, plain_lines, print_json, print_rows
from dicom_node.cli.wiring import load_settings, open_database, person

app = typer.Typer(no_args_is_help=True, help="Bundles: add, compare, promote, roll back, recall.")
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
COLUMNS = ("digest", "name", "version", "task", "role", "percent", "since", "demonstration")


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
        bundle = read(BundleStore(settings.bundles_dir).path_of(full_digest(database, digest)))
    if json:
        print_json({"digest": bundle.digest, "manifest": bundle.manifest})
        return
    # The card is somebody else's text: Markdown would hand its control characters on to the terminal.
    console.print(Markdown(plain_lines(bundle.card).plain))


@app.command("card")
def card(digest: Digest, data_dir: DataDir = None, config: ConfigFile = None) -> None:
    """Print one bundle's card as it was written, in Markdown."""
    from models.bundle import CARD
    from models.store import BundleStore

    settings = load_settings(data_dir, config)
    with open_database(settings) as database:
        folder = BundleStore(settings.bundles_dir).path_of(full_digest(database, digest))
    console.print(plain_lines((folder / CARD).read_text(encoding="utf-8", errors="replace")), soft_wrap=True)


@app.command("add")
def add(
    source: Annotated[
        Path, typer.Argument(help="The bundle's folder, or a .tar, .tar.gz, .tgz or .zip of it.", exists=True)
    ],
    data_dir: DataDir = None,
    config: ConfigFile = None,
) -> None:
    """Verify a bundle and add it to the node's store.

    Its digests, weights and golden cases are looked at.
    """
    from dicom_node.cli.bundles.stored import add_bundle

    settings = load_settings(data_dir, config)
    with open_database(settings) as database:
        digest = add_bundle(settings, database, source, actor=person())
    console.print(f"Added {digest}; 'dicom-node model activate {digest[:12]}' lets it answer.")


@app.command("activate")
def activate(digest: Digest, data_dir: DataDir = None, config: ConfigFile = None) -> None:
    """Let a bundle answer for its task from the next claimed job on."""
    from db import deployments
    from dicom_node.cli.bundles.stored import manifest_of, require_answering

    settings = load_settings(data_dir, config)
    with open_database(settings) as database:
        found = full_digest(database, digest)
        require_answering(settings, found)
        with database.transaction(person()) as tx:
            replaced = deployments.activate(tx, found)
    task = manifest_of(settings, found).task
    console.print(
        f"{found[:12]} answers already."
        if replaced == found
        else f"{found[:12]} answers now" + (f"; it replaces {replaced[:12]}." if replaced else ".")
    )
    if task not in settings.tasks:
        console.print(f"Studies are not asked about {task} yet: name it in the setting 'tasks'.")


@app.command("recall")
def recall(
    digest: Digest,
    since: Annotated[
        datetime | None,
        typer.Option("--from", formats=TIMES, help="Only what was scored from then on; UTC without a zone."),
    ] = None,
    until: Annotated[
        datetime | None,
        typer.Option("--to", formats=TIMES, help="Only what was scored before then; UTC without a zone."),
    ] = None,
    execute: Annotated[
        bool, typer.Option("--execute", help="Withdraw the results and score the studies again.")
    ] = False,
    out: Annotated[
        Path | None,
        typer.Option("--out", help="File for the list: .csv or .json.", dir_okay=False),
    ] = None,
    data_dir: DataDir = None,
    config: ConfigFile = None,
    json: Json = False,
) -> None:
    """List what a bundle scored; withdraw it and score again.

    Lists every study revision; without --execute nothing is changed. With it the list, which names patients,
    is always written to a file.
    """
    from dicom_node.cli.bundles.recall import queue_recall, studies_of, write_list

    settings = load_settings(data_dir, config)
    with open_database(settings) as database:
        found = full_digest(database, digest)
        rows = studies_of(database, found, since, until)
        if execute:
            out = queue_recall(settings, database, found, rows, out)
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
    """Let the bundle that answered before answer again.

    From the next claimed job on.
    """
    from db import deployments
    from models.tasks import task_named

    task_named(task)
    with (
        open_database(load_settings(data_dir, config)) as database,
        database.transaction(person()) as tx,
    ):
        digest = deployments.rollback(tx, task)
    console.print(f"{digest[:12]} answers again for {task}.")


for command in (
    model_roles.shadow,
    model_roles.canary,
    model_roles.compare,
    model_roles.promote,
    model_roles.retire,
    model_roles.drift,
):
    app.command(command.__name__)(command)
