"""``dicom-node listen``: the storage SCP."""

from __future__ import annotations

from dicom_node.cli.options import ConfigFile, DataDir, Destinations, Port, Title
from dicom_node.cli.wiring import load_settings, remember_start


def command(
    data_dir: DataDir = None,
    port: Port = None,
    ae_title: Title = None,
    destination: Destinations = None,
    config: ConfigFile = None,
) -> None:
    """Receive studies by C-STORE and answer C-ECHO until SIGTERM."""
    flags = {"port": port, "ae_title": ae_title, "destinations": destination or None}
    settings = load_settings(data_dir, config, flags)
    if any(value is not None for value in flags.values()):
        remember_start(settings, config=config, flags=flags)
    from dicom_node.cli.listening import run

    run(settings)
