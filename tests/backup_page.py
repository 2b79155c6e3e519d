"""The shell blocks of the page on backups, with places of a test's own."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Mapping
from pathlib import Path

PAGE = Path(__file__).parents[1] / "docs" / "how-to" / "back-up-and-restore.md"
BACK_UP, RESTORE = 0, 1


def documented(number: int, **places: Path | str) -> str:
    """The page's shell block of this number that names places, with places of the test."""
    blocks = re.findall(r"^ *```sh\n(.*?)^ *```$", PAGE.read_text(), re.MULTILINE | re.DOTALL)
    text: str = [block for block in blocks if "node=" in block][number]
    for name, place in places.items():
        text, found = re.subn(rf"(?m)^( *){name}=.*$", rf"\g<1>{name}={place}", text)
        assert found == 1, name
    return text


def run(script: str, *, environment: Mapping[str, str] | None = None, timeout_s: float = 300) -> None:
    """Run a block as a person would."""
    done = subprocess.run(
        ["sh", "-c", script],
        capture_output=True,
        text=True,
        check=False,
        env=None if environment is None else dict(environment),
        timeout=timeout_s,
    )
    assert done.returncode == 0, done.stderr
