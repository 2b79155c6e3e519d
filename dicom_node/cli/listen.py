"""``dicom-node listen``: the storage SCP."""

from __future__ import annotations

import typer

from dicom_node.cli.options import ConfigFile, DataDir, Destinations, Port, SharedPort, Title
from dicom_node.cli.processes.unused_libraries import forbid_unused_libraries
from dicom_node.cli.wiring import load_settings, remember_start


def command(
    data_dir: DataDir = None,
    port: Port = None,
    ae_title: Title = None,
    destination: Destinations = None,
    config: ConfigFile = None,
    shared_port: SharedPort = None,
) -> None:
    """Receive studies by C-STORE and answer C-ECHO until SIGTERM."""
    flags = {"port": port, "ae_title": ae_title, "destinations": destination or None}
    settings = load_settings(data_dir, config, flags)
    if any(value is not None for value in flags.values()):
        remember_start(settings, config=config, flags=flags)
    if settings.listener.processes > 1 and shared_port is None:
        from dicom_node.cli.processes.listener_group import run_together

        where = ["--data-dir", str(settings.data_dir), *(["--config", str(config)] if config else [])]
        raise typer.Exit(run_together(settings, where))
    forbid_unused_libraries()
    from dicom_node.cli.processes.listener import run

    run(settings, shared_port=shared_port)
