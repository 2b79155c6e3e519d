"""Programs that tests need and that pip does not install."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest


def needs(program: str, package: str) -> str:
    """Return the path of a program or file; skip aloud where it is missing, but fail in CI.

    Parameters
    ----------
    program : str
        A command's name, or a file's path.
    package : str
        The Debian package that holds it.
    """
    found = shutil.which(program)
    if found is not None:
        return found
    if Path(program).exists():
        return program
    message = f"{program} is not installed; apt-get install {package}"
    if os.environ.get("CI"):
        pytest.fail(message)
    pytest.skip(message)
