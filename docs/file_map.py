"""Two maps of the files: the README's, of folders, and a page with a line for every module.

A module's line is the first one of its docstring; folders and other files are explained here.
"""

from __future__ import annotations

import ast
from collections.abc import Mapping
from pathlib import Path

ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"
MAP_BEGIN, MAP_END = "<!-- file map: written by docs/generate.py -->", "<!-- end of the file map -->"
PACKAGES: Mapping[str, str] = {
    "dicom_node": "The DICOM edges, settings, and the command line on top.",
    "workers": "Jobs in motion. Owns Celery.",
    "models": "The pure heart of inference. With training, owns torch and MONAI.",
    "training": "Making a new bundle.",
    "db": "The node's only truth. Owns SQLAlchemy and Alembic.",
}
FOLDERS: Mapping[str, str] = {
    "dicom_node/listener": (
        "The storage SCP: what arrives becomes durable, and only then gets Success; its row makes it known."
    ),
    "dicom_node/audit_messages": "The audit trail as DICOM Audit Messages, and their way to a syslog sink.",
    "dicom_node/commitment": "Storage commitment in both roles: asking destinations, answering scanners.",
    "dicom_node/images": "Stored objects as a display would show them, decoded in a child that may die.",
    "dicom_node/settings": "Every setting in one typed place: values, tables, the whole, and its layers.",
    "dicom_node/results": (
        "Result objects as pure functions: TID 1500 SR, text SR, SEG; their UIDs and checks."
    ),
    "dicom_node/delivery": "Results on their way out: C-STORE with a deadline on every wait.",
    "dicom_node/cli": "The command line: one file per command or group, and folders of what they do.",
    "models/tasks": "The clinical tasks: one file each, with the gate that refuses.",
    "models/architectures": "The networks: one file each.",
    "models/families": "What several networks share: VGG, ResNet, DenseNet.",
    "models/bundles": "The demonstration bundle that ships with the program.",
    "training/datasets": "Readers of labelled images, one file each; phantoms: made-up mammograms.",
    "training/demonstration": "The bundle that ships: a network trained on phantoms.",
    "db/audit": "The audit trail: its chain and keys, checkpoints, questions, and whether it was touched.",
    "db/migrations": "Alembic's migrations, for both databases.",
}
OTHERS: Mapping[str, str] = {
    "docker": "Images, compose file, systemd unit; see docker/README.md.",
    "tests": (
        "unit (nothing needed), component (database, localhost), system (whole nodes), simulators (peers)."
    ),
    "benchmarks": "One command each, printing ratios.",
    "docs": (
        "tutorial, how-to, explanation, reference, decisions; generate.py writes what follows from the code."
    ),
    ".ci": "What CI runs, and the list of system packages.",
    "Makefile": "One command for each thing that people do here.",
    "pyproject.toml": "Dependencies, the console script, import contracts, settings of the tools.",
    "constraints.txt": "The exact versions of everything that is installed.",
    "CONTRIBUTING.md": "How to set up, test, extend and commit.",
    "CHANGELOG.md": "What changed, for the person who upgrades.",
    "SECURITY.md": "Reporting a weakness; what the node protects and what not.",
    "LICENSE": "Apache License 2.0.",
}


def file_map() -> str:
    """Return every folder of two levels and every file of the first, in a line each.

    Raises
    ------
    ValueError
        If a folder of a package is explained nowhere here.
    """
    width = 26
    packages = {f"{package}/{init.parent.name}" for package in PACKAGES for init in _inits(package)}
    if unexplained := packages - FOLDERS.keys():
        raise ValueError(f"say in FOLDERS of docs/file_map.py what is in {', '.join(sorted(unexplained))}")
    lines = []
    for package, meaning in PACKAGES.items():
        lines += [f"{package + '/':<{width}}{meaning}"]
        lines += [
            f"  {path.removeprefix(f'{package}/') + '/':<{width - 2}}{what}"
            for path, what in FOLDERS.items()
            if path.startswith(f"{package}/")
        ]
    lines += [
        f"{name + ('/' if (ROOT / name).is_dir() else ''):<{width}}{what}" for name, what in OTHERS.items()
    ]
    return "```text\n" + "\n".join(lines) + "\n```"


def _inits(package: str) -> list[Path]:
    return list((ROOT / package).glob("*/__init__.py"))


def modules() -> str:
    """Return the page of all modules of the packages, folder by folder."""
    parts = [
        "# Modules",
        "Each module in its own words. [Architecture](../explanation/architecture.md) says how they belong "
        "together.",
    ]
    for package in PACKAGES:
        for folder in [
            ROOT / package,
            *sorted(path for path in (ROOT / package).rglob("*") if path.is_dir()),
        ]:
            found = sorted(path for path in folder.glob("*.py") if path.name[0] != "_")
            if found and folder.name != "versions":
                rows = "".join(f"\n| `{path.name}` | {first_line(path)} |" for path in found)
                parts += [f"## {folder.relative_to(ROOT)}/", f"| module | what |\n| --- | --- |{rows}"]
    return "\n\n".join(parts)


def first_line(path: Path) -> str:
    """Return the first line of a module's docstring."""
    return (
        (ast.get_docstring(ast.parse(path.read_text())) or "")
        .partition("\n\n")[0]
        .replace("\n", " ")
        .replace("``", "")
        .replace(":mod:", "")
    )


def readme() -> str:
    """Return the README with the present map in it."""
    before, rest = README.read_text().split(MAP_BEGIN)
    return f"{before}{MAP_BEGIN}\n{file_map()}\n{MAP_END}{rest.split(MAP_END)[1]}"
