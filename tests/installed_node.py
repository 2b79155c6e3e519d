"""The node as a user gets it: the wheel, and environments that hold chosen packages alone.

An environment is a real one made by ``venv``, without pip. Packages come in by links to the files that the
tests themselves run on, which takes no network and a second.
"""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from collections.abc import Iterable
from dataclasses import dataclass
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parent.parent


@dataclass(frozen=True, slots=True)
class Environment:
    """A virtual environment of its own, with the node installed from its wheel."""

    folder: Path

    def run(
        self, *arguments: str, cwd: Path, timeout_s: float = 150, **variables: str
    ) -> subprocess.CompletedProcess[str]:
        """Run ``dicom-node`` with nothing of the caller's Python settings."""
        return subprocess.run(
            [self.command, *arguments],
            cwd=cwd,
            env={**clean_environment(), **variables},
            capture_output=True,
            text=True,
            timeout=timeout_s,
            check=False,
        )

    @property
    def command(self) -> str:
        """The console script."""
        return str(self.folder / "bin" / "dicom-node")

    @property
    def python(self) -> str:
        """The interpreter."""
        return str(self.folder / "bin" / "python")


def clean_environment() -> dict[str, str]:
    """This process's environment without what changes how Python or the node start."""
    return {
        name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "DICOM_NODE_"))
    }


@pytest.fixture(scope="session")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built from this checkout."""
    folder = tmp_path_factory.mktemp("wheel")
    command = [
        sys.executable,
        "-m",
        "pip",
        "wheel",
        str(ROOT),
        "--no-deps",
        "--no-build-isolation",
        "--quiet",
    ]
    subprocess.run([*command, "--no-index", "--wheel-dir", str(folder)], check=True, env=clean_environment())
    (built,) = folder.glob("*.whl")
    return built


def closure(requirements: Iterable[str]) -> dict[str, Distribution]:
    """Installed distributions that requirements name, with all that those need in turn, by canonical name."""
    found: dict[str, Distribution] = {}
    seen: set[tuple[str, frozenset[str]]] = set()
    todo = [Requirement(text) for text in requirements]
    while todo:
        requirement = todo.pop()
        name, extras = canonicalize_name(requirement.name), frozenset(requirement.extras)
        if (name, extras) in seen:
            continue
        seen.add((name, extras))
        try:
            found[name] = distribution(name)
        except PackageNotFoundError:
            raise AssertionError(f"{name} is required but not installed; run 'make test'") from None
        for text in found[name].requires or ():
            needed = Requirement(text)
            if needed.marker is None or any(needed.marker.evaluate({"extra": e}) for e in {"", *extras}):
                todo.append(needed)
    return found


def make_environment(folder: Path, wheel: Path, distributions: Iterable[Distribution]) -> Environment:
    """Make a virtual environment that holds the wheel and some distributions, nothing else."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder)], check=True)
    (site,) = folder.glob("lib/python*/site-packages")
    for installed in distributions:
        for top in {
            file.parts[0] for file in installed.files or () if file.parts[0] not in ("..", "__pycache__")
        }:
            if not (site / top).exists():
                (site / top).symlink_to(Path(str(installed.locate_file(top))))
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(site)
    environment = Environment(folder)
    script = Path(environment.command)
    script.write_text(f"#!{environment.python}\nfrom dicom_node.__main__ import run\nrun()\n")
    script.chmod(0o755)
    return environment
