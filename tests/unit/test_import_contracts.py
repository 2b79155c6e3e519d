"""The import contracts name every module that they mean; import-linter holds them in ``make check``."""

from __future__ import annotations

import pkgutil
import tomllib
from pathlib import Path

import dicom_node

PYPROJECT = Path(__file__).resolve().parents[2] / "pyproject.toml"
ON_TOP = {"dicom_node.__main__", "dicom_node.cli"}


def test_contract_of_the_dicom_edges_names_each_of_them() -> None:
    contracts = tomllib.loads(PYPROJECT.read_text())["tool"]["importlinter"]["contracts"]
    (edges,) = (contract for contract in contracts if contract["name"].startswith("the DICOM edges know"))
    modules = {f"dicom_node.{module.name}" for module in pkgutil.iter_modules(dicom_node.__path__)}
    assert set(edges["source_modules"]) == modules - ON_TOP


def test_every_package_of_the_wheel_is_under_contract() -> None:
    tools = tomllib.loads(PYPROJECT.read_text())["tool"]
    packages = tools["hatch"]["build"]["targets"]["wheel"]["packages"]
    assert sorted(tools["importlinter"]["root_packages"]) == sorted(packages)
    assert sorted(tools["mypy"]["packages"]) == sorted(packages)
