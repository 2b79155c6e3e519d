"""The validators of others, where they are installed, and what they are known to be wrong about."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest

from dicom_node.results.context import BuiltObject

PIXELMED = Path("/usr/share/java/pixelmed.jar")
# Java 17 stops PixelMed's style sheets at a limit of XPath operators; 0 lifts it.
JAVA = [
    "java",
    "-XX:TieredStopAtLevel=1",
    "-Djava.awt.headless=true",
    *(f"-Djdk.xml.xpath{name}Limit=0" for name in ("ExprGrp", "ExprOp", "TotalOp")),
    "-cp",
    str(PIXELMED),
]

# dciodvfy of 2022 does not know Device UID in Contributing Equipment Sequence, which IHE AIR wants.
NEWER_THAN_DCIODVFY = re.compile(r"\(0x0018,0x1002\)|Standard Extended SOP Class")
# CID 100 is a baseline group, which any procedure's code may extend; Patient Orientation has two values;
# Derivation Image may be in each frame; PS3.3 A.51.3 leaves Laterality out of a Segmentation; names may hold
# what their Specific Character Set does, of which its validator of instances knows nothing.
WRONG_IN_PIXELMED = re.compile(
    r"not found in context group 100$|PatientOrientation: Incorrect value multiplicity"
    r"|GeneralSeriesModule/Laterality|DerivationImageSequence/: SharedFunctionalGroupsSequence"
    r"|PatientName/value\[1\]/: Illegal character"
)


def dciodvfy(path: Path) -> list[str]:
    """Give what dciodvfy says, the name of the object's kind included."""
    needs("dciodvfy", "dicom3tools")
    return lines(["dciodvfy", str(path)])


def errors_of(said: list[str]) -> list[str]:
    """Give the errors among what dciodvfy says, without those that it is known to be wrong about."""
    return [s for s in said if s.startswith(("Error", "Abort")) and not NEWER_THAN_DCIODVFY.search(s)]


def needs(tool: str, package: str) -> None:
    """Skip where a validator is missing, but never in CI."""
    if shutil.which(tool) or Path(tool).exists():
        return
    message = f"{tool} is not installed; apt-get install {package}"
    if os.environ.get("CI") == "true":
        pytest.fail(message)
    pytest.skip(message)


def lines(command: list[str]) -> list[str]:
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False, errors="replace")
    return (done.stdout + done.stderr).splitlines()


def stored(objects: Iterable[BuiltObject], folder: Path) -> Iterator[Path]:
    for number, built in enumerate(objects):
        path = folder / f"{number}-{built.kind}.dcm"
        path.write_bytes(built.content)
        yield path


def pixelmed(validator: str, path: Path) -> list[str]:
    needs("java", "openjdk-17-jre-headless")
    needs(str(PIXELMED), "libpixelmed-java")
    said = lines([*JAVA, f"com.pixelmed.validate.{validator}", str(path)])
    assert any("IOD validation complete" in line for line in said), said
    return [s for s in said if s.startswith("Error") and not WRONG_IN_PIXELMED.search(s)]
