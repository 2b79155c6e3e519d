"""The mini-MIAS folder: 322 digitised films of 161 women, and the list ``Info.txt``.

What the list means, and where it misleads:

* Films come in pairs: ``mdb`` numbers 2n-1 and 2n are the right and the left breast of one woman. The list
  says so, and the films hang that way: chest walls of odd numbers are at the right edge.
* It has a row for each abnormality, so some images have several rows, and their severities may differ.
* The vertical coordinate counts from the lower edge.
* Where calcifications are spread all over, centre and radius are missing or ``*NOTE 3*`` stands for them.
* The circle of ``mdb212`` (radius 3) lies on black film beside the breast; it is not used.
* Files carry no spacing. They were reduced to 200 micrometres a pixel.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from models.contract import Laterality, Region
from models.errors import NoBreastError
from models.preprocessing import find_breast
from training.datasets import DataSetReader, Option
from training.image_files import grey_values, mask_values
from training.records import DataSet, Lesion, Record
from training.source_folder import Problems

SIDE = 1024
SPACING_MM = 0.2

_CLASSES = ("CALC", "CIRC", "SPIC", "MISC", "ARCH", "ASYM", "NORM")
_DENSITIES = {"F": "fatty", "G": "fatty-glandular", "D": "dense-glandular"}
_ROW = re.compile(r"mdb(\d{3})\s+([A-Z])\s+([A-Z]{4})\s*(?:([BM])(?:\s+(\S.*?))?)?\s*")
_PLACE = re.compile(r"(\d+)\s+(\d+)\s+(\d+)")
_MASK = re.compile(r"mdb(\d{3})(?:_\d+)?_mask\.png")
_DOUBTFUL_MASKS = frozenset({1, 2, 5, 17})  # they outline something else than the listed circle
_DOUBTFUL_PLACES = frozenset({212})  # beside the breast
_REGION_MINIMUM = 64.0  # pixels; the smallest clusters have a radius of 3
_TRIES = 200


@dataclass(frozen=True, slots=True)
class _Abnormality:
    """One row of the list; no place where none is given, no severity for a normal image."""

    number: int
    density: str
    kind: str
    is_malignant: bool | None
    place: tuple[float, float, float] | None


def _load(folder: Path, options: Mapping[str, Any], problems: Problems) -> DataSet:
    by_image = _listed(folder / "Info.txt", problems)
    records = [
        record
        for number, rows in sorted(by_image.items())
        if (record := _record(folder, number, rows, problems)) is not None
    ]
    notes = _notes(by_image)
    if options["masks"]:
        records, note = _with_masks(records, Path(options["masks"]), problems)
        notes.append(note)
    if options["mode"] == "regions":
        problems.raise_if_any()
        records = _regions(records, float(options["margin"]), int(options["seed"]))
        notes.append("Normal regions were drawn inside the breast, in sizes of the marked ones.")
    return DataSet("mini_mias", tuple(records), tuple(notes))


def _listed(path: Path, problems: Problems) -> dict[int, list[_Abnormality]]:
    by_image: dict[int, list[_Abnormality]] = {}
    try:
        lines = path.read_text(encoding="ascii", errors="replace").splitlines()
    except OSError:
        problems.add(path.name, "is missing or cannot be read")
        return {}
    for line_number, line in enumerate(lines, start=1):
        if line.startswith("mdb"):
            row = _parsed(line, f"{path.name} line {line_number}", problems)
            if row is not None:
                by_image.setdefault(row.number, []).append(row)
    if not by_image and not len(problems):
        problems.add(path.name, "lists no image")
    for number, rows in by_image.items():
        if len({(row.density, row.kind == "NORM") for row in rows}) > 1:
            problems.add(f"{path.name}, mdb{number:03d}", "rows of one image contradict each other")
    return by_image


def _parsed(line: str, where: str, problems: Problems) -> _Abnormality | None:
    match = _ROW.fullmatch(line)
    if match is None:
        problems.add(where, "is not: image, density, class, severity, x, y, radius")
        return None
    number, density, kind, severity, rest = match.groups()
    if density not in _DENSITIES or kind not in _CLASSES:
        problems.add(where, f"density must be one of F, G, D, and the class one of {', '.join(_CLASSES)}")
        return None
    if (kind == "NORM") != (severity is None):
        problems.add(where, "a severity B or M belongs to every class but NORM")
        return None
    place = _PLACE.fullmatch(rest) if rest else None
    if rest and place is None and rest != "*NOTE 3*":
        problems.add(where, "after the severity come x, y and radius, *NOTE 3*, or nothing")
        return None
    return _Abnormality(
        number=int(number),
        density=_DENSITIES[density],
        kind=kind,
        is_malignant=None if severity is None else severity == "M",
        place=_from_top(place) if place and int(number) not in _DOUBTFUL_PLACES else None,
    )


def _from_top(place: re.Match[str]) -> tuple[float, float, float]:
    x, from_bottom, radius = (float(value) for value in place.groups())
    return x, SIDE - from_bottom, radius


def _record(folder: Path, number: int, rows: Sequence[_Abnormality], problems: Problems) -> Record | None:
    name = f"mdb{number:03d}"
    # The distribution has PGM; many have converted it to PNG.
    path = next((p for p in (folder / f"{name}.png", folder / f"{name}.pgm") if p.is_file()), None)
    if path is None:
        problems.add(name, "neither .png nor .pgm is there")
        return None
    kinds = list(dict.fromkeys(row.kind for row in rows))
    labels = {"mammography_malignancy": _malignancy(any(row.is_malignant for row in rows))}
    if len(kinds) == 1:
        labels["mias7"] = kinds[0]
    return Record(
        image=name,
        path=path,
        group=f"woman-{(number + 1) // 2:03d}",
        labels=labels,
        laterality=Laterality.RIGHT if number % 2 else Laterality.LEFT,
        view="MLO",
        spacing_mm=(SPACING_MM, SPACING_MM),
        lesions=tuple(
            Lesion(centre=row.place[:2], radius=row.place[2], kind=row.kind, is_malignant=row.is_malignant)
            for row in rows
            if row.place is not None
        ),
        subgroups={"density": rows[0].density, "lesion_kind": "+".join(kinds)},
    )


def _malignancy(is_malignant: bool | None) -> str:
    return "malignant" if is_malignant else "not_malignant"


def _notes(by_image: Mapping[int, Sequence[_Abnormality]]) -> list[str]:
    several = sum(len(rows) > 1 for rows in by_image.values())
    placeless = sum(all(row.place is None and row.kind != "NORM" for row in r) for r in by_image.values())
    mixed = sum(len({row.kind for row in rows}) > 1 for rows in by_image.values())
    notes = [
        "Pixels are 0.2 mm, which the distribution says and no file does.",
        f"{several} images have several abnormalities and {placeless} have one without a usable place.",
    ]
    if mixed:
        notes.append(f"{mixed} images have abnormalities of several classes and no label for mias7.")
    return notes


def _with_masks(records: list[Record], folder: Path, problems: Problems) -> tuple[list[Record], str]:
    """Give each drawn mask to the nearest lesion of its image."""
    masks = sorted((int(m[1]), p) for p in folder.glob("mdb*_mask.png") if (m := _MASK.fullmatch(p.name)))
    if not masks:
        problems.add("masks", "the folder holds no file mdbNNN_mask.png")
    by_image = {int(record.image[3:]): record for record in records}
    given = 0
    for number, path in masks:
        record = by_image.get(number)
        if number in _DOUBTFUL_MASKS or record is None:
            continue
        inside = mask_values(path)
        if inside.shape != (SIDE, SIDE) or not inside.any():
            problems.add(f"masks, {path.name}", f"is empty or not {SIDE} x {SIDE}")
            continue
        by_image[number] = _given(record, path, inside)
        given += by_image[number] is not record
    return (
        [by_image[int(record.image[3:])] for record in records],
        f"{given} of {len(masks)} masks are used; those of mdb001, mdb002, mdb005 and mdb017 are left out: "
        "they outline something else than the list.",
    )


def _given(record: Record, path: Path, inside: NDArray[np.bool_]) -> Record:
    row, column = (float(value) + 0.5 for value in ndimage.center_of_mass(inside))
    free = [index for index, lesion in enumerate(record.lesions) if lesion.mask is None]
    if not free:
        return record
    nearest = min(
        free,
        key=lambda i: np.hypot(record.lesions[i].centre[0] - column, record.lesions[i].centre[1] - row),
    )
    lesions = list(record.lesions)
    lesions[nearest] = replace(lesions[nearest], mask=path)
    return replace(record, lesions=tuple(lesions))


def _regions(records: Sequence[Record], margin: float, seed: int) -> list[Record]:
    """One record for each marked lesion and one for each normal image; what has no place has no region."""
    marked: list[Record] = []
    sides: list[float] = []
    for record in records:
        for index, lesion in enumerate(record.lesions, start=1):
            sides.append(max(2.0 * lesion.radius * margin, _REGION_MINIMUM))
            marked.append(_marked_region(record, index, lesion, sides[-1]))
    if not sides:
        return []
    drawn = [
        region
        for record in records
        if record.labels.get("mias7") == "NORM" and (region := _drawn_region(record, sides, seed)) is not None
    ]
    return sorted([*marked, *drawn], key=lambda record: record.image)


def _marked_region(record: Record, index: int, lesion: Lesion, side: float) -> Record:
    return replace(
        record,
        image=f"{record.image}#{index}",
        labels={"mammography_malignancy": _malignancy(lesion.is_malignant), "mias7": lesion.kind},
        region=_square(*lesion.centre, side),
        lesions=(lesion,),
        subgroups={**record.subgroups, "lesion_kind": lesion.kind},
    )


def _drawn_region(record: Record, sides: Sequence[float], seed: int) -> Record | None:
    """A place inside a normal breast: of a marked one's size, or size would tell the classes apart."""
    random = np.random.default_rng([seed, int(record.image[3:])])
    side = float(random.choice(sides))
    try:
        breast = find_breast(grey_values(record.path))
    except NoBreastError:
        return None
    rows, columns = np.nonzero(breast.mask)
    best, most = (0.0, 0.0), -1.0
    for _ in range(_TRIES):
        at = int(random.integers(rows.size))
        x, y = (columns[at] + 0.5) * breast.step, (rows[at] + 0.5) * breast.step
        inside = _share_inside(breast.mask, x / breast.step, y / breast.step, side / breast.step)
        if inside > most:
            best, most = (float(x), float(y)), inside
        if most >= 0.95:
            break
    return replace(record, image=f"{record.image}#normal", region=_square(*best, side))


def _share_inside(mask: NDArray[np.bool_], x: float, y: float, side: float) -> float:
    left, top = max(0, round(x - side / 2)), max(0, round(y - side / 2))
    shown = mask[top : max(top + 1, round(y + side / 2)), left : max(left + 1, round(x + side / 2))]
    return float(shown.sum()) / side**2


def _square(x: float, y: float, side: float) -> Region:
    return Region(x - side / 2, y - side / 2, x + side / 2, y + side / 2)


DATASET = DataSetReader(
    name="mini_mias",
    title="MIAS MiniMammographic Database",
    layout="Info.txt and an image mdbNNN.png or mdbNNN.pgm of 1024 x 1024 for each number it lists.",
    load=_load,
    options=MappingProxyType(
        {
            "mode": Option("images", "Whole images, or regions around the lesions.", ("images", "regions")),
            "margin": Option(1.5, "Side of a region in diameters of the marked circle."),
            "seed": Option(20260101, "Of the regions drawn in normal breasts."),
            "masks": Option("", "Folder of hand-drawn masks mdbNNN_mask.png, where there is one."),
        }
    ),
)
