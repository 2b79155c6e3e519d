"""The commands that bring a new bundle into use by steps: shadow, canary, compare, promote, retire, drift."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from dicom_node.cli.bundles.digests import full_digest
from dicom_node.cli.options import ConfigFile, DataDir, Digest, Json
from dicom_node.cli.output import console, plain, print_facts, print_json, print_rows
from dicom_node.cli.wiring import load_settings, open_database, person

Labels = Annotated[
    Path | None,
    typer.Option(
        "--labels",
        help="CSV with study_instance_uid and label (0, 1 or a class); more columns are subgroups.",
        exists=True,
        dir_okay=False,
    ),
]
CRITERIA_COLUMNS = ("criterion", "challenger_minus_champion", "low", "high", "margin", "finding")
DRIFT_COLUMNS = ("scanner_model", "software_versions", "studies", "state", "signals")


def shadow(digest: Digest, data_dir: DataDir = None, config: ConfigFile = None) -> None:
    """Let a bundle score what the champion scores.

    Its scores are kept, never sent.
    """
    from db import deployments
    from db.errors import TransitionRefusedError
    from dicom_node.cli.bundles.stored import require_answering
    from models.tasks import task_named

    settings = load_settings(data_dir, config)
    with open_database(settings) as database:
        found = full_digest(database, digest)
        task = require_answering(settings, found).task
        if task_named(task).slides is not None:
            raise TransitionRefusedError(
                "bundles that read slides score no shadow; 'model canary' tries them"
            )
        with database.transaction(person()) as tx:
            replaced = deployments.shadow(tx, found)
    console.print(
        f"{found[:12]} scores in shadow already."
        if replaced == found
        else f"{found[:12]} scores in shadow now" + (f"; it replaces {replaced[:12]}." if replaced else ".")
    )


def canary(
    digest: Digest,
    percent: Annotated[int, typer.Argument(help="Share of the studies, percent.", min=1, max=99)],
    data_dir: DataDir = None,
    config: ConfigFile = None,
) -> None:
    """Let a bundle answer for a share of its task's studies.

    Always the same ones; its results are sent.
    """
    from db import deployments
    from dicom_node.cli.bundles.stored import require_answering

    settings = load_settings(data_dir, config)
    with open_database(settings) as database:
        found = full_digest(database, digest)
        require_answering(settings, found)
        with database.transaction(person()) as tx:
            deployments.canary(tx, found, percent)
    console.print(f"{found[:12]} answers for {percent} % of the studies now.")


def retire(digest: Digest, data_dir: DataDir = None, config: ConfigFile = None) -> None:
    """End a bundle's term in shadow or as canary."""
    from db import deployments

    with open_database(load_settings(data_dir, config)) as database:
        found = full_digest(database, digest)
        with database.transaction(person()) as tx:
            role = deployments.retire(tx, found)
    console.print(f"{found[:12]} is no longer {role.value}.")


def compare(
    champion: Digest,
    challenger: Digest,
    labels: Labels = None,
    data_dir: DataDir = None,
    config: ConfigFile = None,
    json: Json = False,
) -> None:
    """Show how far two bundles agree on what both scored.

    With labels, whether the second may be promoted.
    """
    from dicom_node.cli.bundles.comparison import compare as compare_bundles

    settings = load_settings(data_dir, config)
    with open_database(settings) as database:
        digests = [full_digest(database, beginning) for beginning in (champion, challenger)]
        found = compare_bundles(settings, database, digests[0], digests[1], labels)
    if json:
        print_json({**found.facts, **found.told})
        return
    print_facts(found.facts, as_json=False)
    told = found.told
    if found.verdict is not None:
        console.print()
        print_rows(told["criteria"], CRITERIA_COLUMNS, as_json=False, empty="")
        console.print()
    # What holds everywhere stands in the table already.
    for reason in [] if told["verdict"] == "promote" else told["reasons"]:
        console.print(plain(reason))
    console.print(f"Verdict: {told['verdict']}.")


def promote(
    digest: Digest,
    approver: Annotated[str, typer.Option("--approver", help="Who approves; not who trained it.")],
    labels: Labels = None,
    override: Annotated[
        str | None,
        typer.Option("--override", help="Promote against the verdict, for this reason."),
    ] = None,
    data_dir: DataDir = None,
    config: ConfigFile = None,
) -> None:
    """Let a challenger replace the champion.

    Only if what was measured allows it.

    Without --override only the verdict "promote" lets it answer. Approver, verdict, reasons and override go
    into the audit trail.
    """
    from dicom_node.cli.bundles.promotion import promote_challenger

    settings = load_settings(data_dir, config)
    with open_database(settings) as database:
        found = full_digest(database, digest)
        promoted = promote_challenger(
            settings, database, found, approver=approver, labels=labels, override=override
        )
    console.print(f"{found[:12]} answers now, approved by {approver}; it replaces {promoted[:12]}.")


def drift(
    task: Annotated[str, typer.Argument(help="The task.")] = "mammography_malignancy",
    reference: Annotated[
        int, typer.Option("--reference", help="Studies of a scanner model that count as normal.", min=200)
    ] = 1000,
    window: Annotated[int, typer.Option("--window", help="Latest studies to look at.", min=50)] = 250,
    data_dir: DataDir = None,
    config: ConfigFile = None,
    json: Json = False,
) -> None:
    """Tell for each device whether scores, pixels or headers drift.

    Exit status 1 where one does.

    The first studies of a scanner model that the present bundle scored are the reference, whatever their
    software version; the latest ones of each version are compared with them.
    """
    from dicom_node.cli.bundles.drift import DRIFTING, TOO_FEW, look
    from dicom_node.cli.exit_codes import ExitCode
    from models.drift import MINIMUM_WINDOW
    from models.tasks import task_named

    task_named(task)
    settings = load_settings(data_dir, config)
    with open_database(settings) as database:
        rows = look(database, task, reference=reference, window=window)
    print_rows(
        rows, DRIFT_COLUMNS, as_json=json, empty="No bundle that answers this task has scored a study yet."
    )
    if not json and any(row["state"] == TOO_FEW for row in rows):
        console.print(
            f"Too few: the first {reference} studies of a scanner model are its normal ones (--reference), "
            f"and {MINIMUM_WINDOW} later ones are the fewest to compare."
        )
    if any(row["state"] == DRIFTING for row in rows):
        if not json:
            console.print("scoring.shadowed_devices keeps the results of a device back.")
        raise typer.Exit(ExitCode.PROBLEM_FOUND)
