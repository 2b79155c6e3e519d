"""``dicom-node doctor``: what is wrong, and what to do about it."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING

import typer
from rich.text import Text

from dicom_node.cli.exit_codes import ExitCode
from dicom_node.cli.options import ConfigFile, DataDir, Json
from dicom_node.cli.output import console, plain, print_json
from dicom_node.cli.wiring import load_settings, open_database

if TYPE_CHECKING:
    from dicom_node.cli.health import Finding

MARKS = {
    "ok": Text("ok     ", style="green"),
    "warning": Text("warning", style="yellow"),
    "problem": Text("PROBLEM", style="bold red"),
}


def command(data_dir: DataDir = None, config: ConfigFile = None, json: Json = False) -> None:
    """Check disk, permissions, database, broker, processes, work, bundles and every destination."""
    from dicom_node.cli.health import Verdict, examine

    settings = load_settings(data_dir, config)
    findings: list[Finding] = []
    with open_database(settings) as database:
        for finding in examine(settings, database):
            findings.append(finding)
            if not json:
                _print(finding)
    if json:
        print_json([asdict(finding) for finding in findings])
    bad = any(finding.verdict is Verdict.PROBLEM for finding in findings)
    raise typer.Exit(ExitCode.PROBLEM_FOUND if bad else ExitCode.OK)


def _print(finding: Finding) -> None:
    console.print(
        MARKS[finding.verdict], plain(finding.check), plain(finding.found), sep="  ", soft_wrap=True
    )
    if finding.advice:
        console.print("         ", plain(finding.advice), soft_wrap=True)
