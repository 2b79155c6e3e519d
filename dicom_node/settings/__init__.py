"""Every setting in one typed place: defaults, then a TOML file, then ``DICOM_NODE_*``, then flags.

Settings are read once per process, by the command line; below it functions take what they need. ``serve`` and
``listen`` remember the flags that they were started with in ``DATA_DIR/node.toml``, which ranks just above
the defaults, so that every other command finds the same node by ``--data-dir`` alone.
"""

from __future__ import annotations

from dicom_node.settings.layers import load, remember
from dicom_node.settings.model import ENVIRONMENT_PREFIX, Settings

__all__ = [
    "ENVIRONMENT_PREFIX",
    "Settings",
    "load",
    "remember",
]
