"""Files that a command writes for a person: never over another one, and for their owner's eyes."""

from __future__ import annotations

import os
from pathlib import Path

import typer


def new_file(path: Path) -> int:
    """Make a file, 0600; return its descriptor.

    Raises
    ------
    typer.BadParameter
        If there is one of this name, or it cannot be made.
    """
    try:
        return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    except FileExistsError:
        raise typer.BadParameter(f"{path} exists; name a new file", param_hint="--out") from None
    except OSError as error:
        raise typer.BadParameter(f"{path} cannot be written ({error.strerror})", param_hint="--out") from None
