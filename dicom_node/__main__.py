"""The way in, for the console script and for ``python -m dicom_node``.

Asks first whether the installation is whole: the command line itself imports the packages that a stranger may
shadow, and would end in that stranger's ImportError.
"""

from __future__ import annotations

import sys

from dicom_node import installation
from dicom_node.errors import InstallationError

DAMAGED_STATUS = 7  # the exit status that the command line's own table gives a damaged installation


def run() -> None:
    """Run one command and end with its exit status."""
    try:
        installation.check()
    except InstallationError as error:
        sys.stderr.write(f"dicom-node: {error}\n")
        sys.exit(DAMAGED_STATUS)
    from dicom_node.cli import main

    main.run()


if __name__ == "__main__":
    run()
