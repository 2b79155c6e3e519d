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
        # What serve was started with stays: it starts this command, whose environment may name a file.
        remember_start(settings, config=config, flags=flags, beside_earlier=True)
    from dicom_node.cli.listening import run

    run(settings)
