"""The validators of others, where they are installed, and what they are known to be wrong about."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterable, Iterator
from pathlib import Path

from dicom_node.results.context import BuiltObject
from tests.programs import needs

PIXELMED = Path("/usr/share/java/pixelmed.jar")
# Java 17 stops PixelMed's style sheets at a limit of XPath operators; 0 lifts it.
JAVA = [
    "java",
    "-XX:+UseSerialGC",
    "-Djava.awt.headless=true",
    *(f"-Djdk.xml.xpath{name}Limit=0" for name in ("ExprGrp", "ExprOp", "TotalOp")),
    "-cp",
    str(PIXELMED),
]

# Of one file; PixelMed takes ten seconds for a report alone, and minutes beside other work.
LONGEST_S = 600
ONE_VIRTUAL_MACHINE_FOR_ALL = Path(__file__).with_name("PixelMedFiles.java")

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


def lines(command: list[str], *, longest_s: float = LONGEST_S) -> list[str]:
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=longest_s, check=False, errors="replace"
    )
    return (done.stdout + done.stderr).splitlines()


def stored(objects: Iterable[BuiltObject], folder: Path) -> Iterator[Path]:
    for number, built in enumerate(objects):
        path = folder / f"{number}-{built.kind}.dcm"
        path.write_bytes(built.content)
        yield path


def pixelmed(validator: str, paths: Iterable[Path]) -> dict[str, list[str]]:
    """Give the errors that PixelMed finds in files, by name, without those that are known to be wrong.

    Parameters
    ----------
    validator : str
        ``DicomSRValidator`` for reports, ``DicomInstanceValidator`` for segmentations.
    paths : iterable of pathlib.Path
        Files of different names; a file without a fault is not in the answer.
    """
    needs("java", "openjdk-17-jre-headless")
    needs(str(PIXELMED), "libpixelmed-java")
    files = list(map(str, paths))
    said = "\n".join(
        lines([*JAVA, str(ONE_VIRTUAL_MACHINE_FOR_ALL), validator, *files], longest_s=LONGEST_S * len(files))
    )
    found = {}
    for path, answer in zip(files, re.split("^File ", said, flags=re.MULTILINE)[1:], strict=True):
        assert answer.startswith(path), said
        assert "IOD validation complete" in answer, said
        errors = [s for s in answer.splitlines() if s.startswith("Error") and not WRONG_IN_PIXELMED.search(s)]
        if errors:
            found[Path(path).name] = errors
    return found
