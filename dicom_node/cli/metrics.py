"""``dicom-node metrics``: the node's numbers for Prometheus."""

from __future__ import annotations

from dicom_node.cli.options import ConfigFile, DataDir
from dicom_node.cli.wiring import load_settings


def command(data_dir: DataDir = None, config: ConfigFile = None) -> None:
    """Tell Prometheus the node's numbers until SIGTERM.

    What there is, what waits and what failed. It answers on metrics.host and metrics.port; 'dicom-node serve'
    runs it where the port is set.
    """
    settings = load_settings(data_dir, config)
    from dicom_node.cli.processes.metrics import run

    run(settings)
