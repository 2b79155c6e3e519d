"""``dicom-node dispatch``: the clockwork."""

from __future__ import annotations

from dicom_node.cli.options import ConfigFile, DataDir
from dicom_node.cli.wiring import load_settings


def command(data_dir: DataDir = None, config: ConfigFile = None) -> None:
    """Complete quiet studies, find lost work again, ring for workers, sign audit checkpoints."""
    settings = load_settings(data_dir, config)
    from dicom_node.cli.dispatching import run

    run(settings)
