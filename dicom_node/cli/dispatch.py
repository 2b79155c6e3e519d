"""``dicom-node dispatch``: the clockwork."""

from __future__ import annotations

from dicom_node.cli.options import ConfigFile, DataDir
from dicom_node.cli.wiring import load_settings


def command(data_dir: DataDir = None, config: ConfigFile = None) -> None:
    """Complete quiet studies and ring for workers.

    Finds lost work again and signs audit checkpoints.
    """
    settings = load_settings(data_dir, config)
    from dicom_node.cli.processes.dispatcher import run

    run(settings)
