"""What a user installs: the pinned versions, the wheel, and an installation that notices strangers."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tomllib
import zipfile
from importlib.metadata import distributions
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from dicom_node import installation
from dicom_node.__main__ import DAMAGED_STATUS
from dicom_node.cli.exit_codes import ExitCode
from tests.installed_node import ROOT, Environment, clean_environment, closure, make_environment, wheel

__all__ = ["wheel"]

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
PACKAGES = {"db", "dicom_node", "models", "training", "workers"}
BUNDLE = "models/bundles/mammography-phantom-demonstration"


def pins() -> dict[str, str]:
    """Versions of constraints.txt by canonical name."""
    lines = [line for line in (ROOT / "constraints.txt").read_text().splitlines() if line and line[0] != "#"]
    return {canonicalize_name(name): version for name, version in (line.split("==") for line in lines)}


def declared(*extras: str) -> list[str]:
    """Requirements of pyproject.toml."""
    return [*PROJECT["dependencies"], *(r for e in extras for r in PROJECT["optional-dependencies"][e])]


@pytest.fixture(scope="module")
def whole_node(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Environment:
    """A fresh environment with the wheel and what it says that it requires."""
    folder = tmp_path_factory.mktemp("installed") / "venv"
    return make_environment(folder, wheel, closure(declared()).values())


def test_every_package_that_an_installation_brings_is_pinned() -> None:
    assert set(closure([*declared("test"), "hatchling"])) - pins().keys() == set()


def test_pinned_versions_satisfy_what_the_project_declares() -> None:
    for requirement in map(Requirement, declared("test")):
        version = pins()[canonicalize_name(requirement.name)]
        assert requirement.specifier.contains(version), requirement


def test_these_tests_run_on_the_pinned_versions() -> None:
    installed = {canonicalize_name(d.metadata["Name"]): d.version.partition("+")[0] for d in distributions()}
    others = {name for name, version in pins().items() if installed.get(name, version) != version}
    assert others == set()


def test_gpl_decoder_stays_out() -> None:
    assert "pylibjpeg-libjpeg" not in pins()


def test_readme_names_the_system_packages_that_ci_installs() -> None:
    lines = (ROOT / ".ci/system-packages.txt").read_text().splitlines()
    packages = {line for line in lines if line and line[0] != "#"}
    told = re.findall(r"^apt-get install (.+)$", (ROOT / "README.md").read_text(), re.MULTILINE)
    assert {package for line in told for package in line.split()} == packages


def test_wheel_holds_the_five_packages_and_nothing_else(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    tops = {name.partition("/")[0] for name in names}
    assert tops == {*PACKAGES, f"dicom_node-{PROJECT['version']}.dist-info"}
    assert [name for name in names if "__pycache__" in name or name.endswith(".pyc")] == []


def test_wheel_holds_what_is_not_python(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    shipped = {
        str(path.relative_to(ROOT))
        for package in PACKAGES
        for path in (ROOT / package).rglob("*")
        if path.is_file() and path.suffix not in (".py", ".pyc")
    }
    assert {f"{package}/py.typed" for package in PACKAGES} <= names
    assert {
        "db/migrations/script.py.mako",
        f"{BUNDLE}/manifest.json",
        f"{BUNDLE}/weights.safetensors",
    } <= names
    assert shipped <= names


def test_installed_node_has_its_migrations(whole_node: Environment, tmp_path: Path) -> None:
    upgraded = whole_node.run("db", "upgrade", "--data-dir", str(tmp_path / "data"), cwd=tmp_path)
    checked = whole_node.run("db", "check", "--data-dir", str(tmp_path / "data"), cwd=tmp_path)
    assert (upgraded.returncode, upgraded.stderr) == (0, "")
    assert checked.returncode == 0, checked.stdout


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_demo_runs_from_the_wheel_outside_the_checkout(whole_node: Environment, tmp_path: Path) -> None:
    shown = whole_node.run("demo", "--studies", "1", "--out", "shown", cwd=tmp_path, timeout_s=500)
    assert shown.returncode == 0, shown.stderr
    assert [path for path in (tmp_path / "shown" / "pacs").rglob("*") if path.is_file()]
    events = [
        json.loads(line)["action"] for line in (tmp_path / "shown/audit.jsonl").read_text().splitlines()
    ]
    assert "job.scored" in events
    assert str(ROOT) not in shown.stdout


@pytest.mark.parametrize("name", installation.SIBLINGS)
def test_node_refuses_to_start_beside_a_stranger_of_the_same_name(name: str, tmp_path: Path) -> None:
    (tmp_path / name).mkdir()
    (tmp_path / name / "__init__.py").touch()
    command = [sys.executable, "-m", "dicom_node", "serve", "--data-dir", str(tmp_path / "data")]
    refused = subprocess.run(
        command,
        cwd=tmp_path,
        env={**clean_environment(), "PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert refused.returncode == DAMAGED_STATUS == ExitCode.INSTALLATION
    assert f"package {name!r} is found at {tmp_path / name}" in refused.stderr
    assert "Traceback" not in refused.stderr
    assert not (tmp_path / "data").exists()
