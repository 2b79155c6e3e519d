"""``dicom-node doctor``: what is wrong, and what to do about it."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import asdict
from functools import partial
from typing import TYPE_CHECKING, Annotated

import typer
from rich.text import Text

from db.errors import DatabaseError
from dicom_node.cli.exit_codes import ExitCode
from dicom_node.cli.options import ConfigFile, DataDir, Json
from dicom_node.cli.output import console, plain, print_json, print_rows
from dicom_node.cli.wiring import load_settings, node_identity, open_database, person

if TYPE_CHECKING:
    from db.session import Database
    from dicom_node.cli.health.findings import Finding
    from dicom_node.delivery.destination import Destination
    from dicom_node.delivery.query import Query
    from dicom_node.settings import Settings

MARKS = {
    "ok": Text("ok     ", style="green"),
    "warning": Text("warning", style="yellow"),
    "problem": Text("PROBLEM", style="bold red"),
}


TRIAL_COLUMNS = ("kind", "sop_class", "transfer_syntax", "accepted", "found", "detail")
Pacs = Annotated[
    str | None,
    typer.Option(
        "--pacs",
        help="Send one labelled test object of each kind to this destination (AE@HOST:PORT, or the AE title "
        "of a configured one) and tell what it takes.",
    ),
]


def command(
    data_dir: DataDir = None, config: ConfigFile = None, pacs: Pacs = None, json: Json = False
) -> None:
    """Look for what is wrong with this node, and say what to do.

    Checks disk, permissions, database, broker, processes, ports, work, bundles and every destination.

    What needs no database is checked without one, too.
    With --pacs only that destination is tried; its archive then holds objects of the patient TEST^DICOM-NODE.
    """
    from dicom_node.cli.health.findings import Verdict

    settings = load_settings(data_dir, config)
    if pacs is not None:
        raise typer.Exit(_try_pacs(settings, pacs, json))
    findings: list[Finding] = []
    for finding in _examined(settings):
        findings.append(finding)
        if not json:
            _print(finding)
    if json:
        print_json([asdict(finding) for finding in findings])
    bad = any(finding.verdict is Verdict.PROBLEM for finding in findings)
    raise typer.Exit(ExitCode.PROBLEM_FOUND if bad else ExitCode.OK)


def _examined(settings: Settings) -> Iterator[Finding]:
    from dicom_node.cli.health.examination import examine, examine_without_database

    with ExitStack() as stack:
        try:
            database = stack.enter_context(open_database(settings))
        except DatabaseError as error:
            yield from examine_without_database(settings, error)
        else:
            yield from examine(settings, database)


def _try_pacs(settings: Settings, pacs: str, json: bool) -> ExitCode:
    from dicom_node.cli.health.pacs_trial import destination_named, try_pacs

    destination = destination_named(settings, pacs)
    with open_database(settings) as database:
        asked = partial(_note_query, database, destination)
        outcomes = try_pacs(settings, pacs, node_identity(settings), on_query=asked)
        accepted = sum(trial.accepted for trial in outcomes.trials)
        with database.transaction(person()) as tx:
            tx.audit("destination.tried", detail={"destination": str(destination), "accepted": accepted})
    if json:
        print_json(asdict(outcomes))
    else:
        print_rows([asdict(t) for t in outcomes.trials], TRIAL_COLUMNS, as_json=False, empty="")
        console.print(plain(f"query: {outcomes.query}"), soft_wrap=True)
        advice = "it took nothing; check its address, AE titles and that it runs"
        if outcomes.profile is not None:
            route = f"{destination}/{outcomes.profile}"
            advice = f'best matching profile: {outcomes.profile} (destinations = ["{route}"])'
        console.print(plain(advice), soft_wrap=True)
    return ExitCode.OK if accepted else ExitCode.PROBLEM_FOUND


def _note_query(database: Database, destination: Destination, query: Query) -> None:
    """Write into the audit trail what a destination is asked, before it is."""
    detail = {
        "destination": str(destination),
        "sop_class_uid": query.sop_class_uid,
        "transfer_syntax_uid": query.transfer_syntax_uid,
        "query": base64.b64encode(query.identifier).decode("ascii"),
    }
    with database.transaction(person()) as tx:
        tx.audit("destination.queried", detail=detail)


def _print(finding: Finding) -> None:
    console.print(
        MARKS[finding.verdict], plain(finding.check), plain(finding.found), sep="  ", soft_wrap=True
    )
    if finding.advice:
        console.print("         ", plain(finding.advice), soft_wrap=True)
