"""Whether this installation is whole: five generic top-level packages that belong together.

``models``, ``db``, ``workers`` and ``training`` are names that any other distribution may also use; importing
a stranger under one of them would run the node with foreign code. So every process checks at its start.
"""

from __future__ import annotations

import importlib.util
import secrets
import shutil
import sys
from contextlib import suppress
from pathlib import Path

from dicom_node.errors import InstallationError

SIBLINGS = ("db", "models", "training", "workers")
_SERIAL_FILE = "node-serial"


def check() -> None:
    """Refuse to start where a sibling package comes from elsewhere.

    Raises
    ------
    InstallationError
        Naming the package and where it was found.
    """
    home = Path(__file__).resolve().parent.parent
    for name in SIBLINGS:
        spec = importlib.util.find_spec(name)
        origin = Path(spec.origin).resolve() if spec and spec.origin else None
        if origin != home / name / "__init__.py":
            raise InstallationError(
                f"package {name!r} is found at {origin} instead of beside dicom_node in {home}; another "
                "distribution or a folder on PYTHONPATH shadows it: install dicom-node into an environment "
                "of its own (pipx, or a fresh venv)"
            )


def console_script() -> tuple[str, ...]:
    """Return the command that starts another process of this installation."""
    beside = Path(sys.executable).parent / "dicom-node"
    found = str(beside) if beside.exists() else shutil.which("dicom-node")
    if found is None:
        raise InstallationError("the dicom-node command is not installed beside Python; reinstall dicom-node")
    return (found,)


def node_serial(folder: Path) -> str:
    """Return this node's serial number, made at its first use: what Device Serial Number says.

    Parameters
    ----------
    folder : pathlib.Path
        The key folder, which all processes of the node share.

    Returns
    -------
    str
        16 hexadecimal digits.
    """
    path = folder / _SERIAL_FILE
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    part = folder / f".{_SERIAL_FILE}-{secrets.token_hex(4)}"
    part.write_text(secrets.token_hex(8))
    with suppress(FileExistsError):
        path.hardlink_to(part)  # unlike a rename, never replaces what another process made first
    part.unlink()
    return path.read_text().strip()
