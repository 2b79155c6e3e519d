"""``dicom-node work``: one worker process, for one or several queues."""

from __future__ import annotations

from typing import Annotated

import typer

from db.lifecycle import JobKind
from dicom_node.cli.options import ConfigFile, DataDir
from dicom_node.cli.wiring import load_settings
from dicom_node.errors import SettingsError

Queues = Annotated[
    str,
    typer.Option("--queues", help="Queues to work on, separated by commas: score, deliver, commit, train."),
]


def command(
    data_dir: DataDir = None, config: ConfigFile = None, queues: Queues = "score,deliver,commit,train"
) -> None:
    """Do jobs, one after the other.

    With a broker when it rings, without one by looking into the database.
    """
    kinds = _kinds(queues)
    settings = load_settings(data_dir, config)
    from dicom_node.cli.processes.worker import run

    raise typer.Exit(run(settings, kinds))


def _kinds(queues: str) -> tuple[JobKind, ...]:
    try:
        return tuple(JobKind(queue.strip()) for queue in queues.split(","))
    except ValueError:
        raise SettingsError(
            f"queues: {queues!r} names a queue that does not exist; for example --queues score,deliver"
        ) from None
