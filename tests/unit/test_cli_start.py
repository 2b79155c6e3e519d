"""What a command loads before it does anything: seconds of waiting, for whoever types it."""

from __future__ import annotations

import subprocess
import sys

import pytest

DATABASE = ("sqlalchemy", "alembic")
NUMBERS = ("numpy", "scipy", "pydicom", "torch")


def loaded(module: str, libraries: tuple[str, ...]) -> list[str]:
    """Return which of the libraries an import of the module loads."""
    program = f"import sys, {module}; print(*[each for each in {libraries!r} if each in sys.modules])"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    return done.stdout.split()


def test_help_and_version_load_neither_database_nor_numbers() -> None:
    assert loaded("dicom_node.cli.main", (*DATABASE, *NUMBERS)) == []


@pytest.mark.parametrize("module", ["stored", "comparison", "promotion", "recall", "drift"])
def test_only_a_command_that_runs_a_network_loads_torch(module: str) -> None:
    assert loaded(f"dicom_node.cli.bundles.{module}", ("torch",)) == []
