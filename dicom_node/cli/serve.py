"""``dicom-node serve``: all processes of a node on one machine, kept alive and stopped in good order."""

from __future__ import annotations

import typer

from dicom_node.cli.options import ConfigFile, DataDir, Destinations, Port, Title
from dicom_node.cli.wiring import load_settings, remember_start


def command(
    data_dir: DataDir = None,
    port: Port = None,
    ae_title: Title = None,
    destination: Destinations = None,
    config: ConfigFile = None,
) -> None:
    """Run the whole node on this machine.

    Its listener, dispatcher and workers run until SIGTERM.

    A part that dies is started again. With a broker, workers on other machines join with 'dicom-node work'.
    """
    flags = {"port": port, "ae_title": ae_title, "destinations": destination or None}
    settings = load_settings(data_dir, config, flags)
    from dicom_node.cli.processes.whole_node import require_startable, run

    require_startable(settings)
    remember_start(settings, config=config, flags=flags)
    raise typer.Exit(run(settings))
