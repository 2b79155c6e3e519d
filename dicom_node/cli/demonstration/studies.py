"""The studies of the demonstration: made-up mammograms, drawn once and found again."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from training.datasets.phantoms import LesionKind

FIRST_SEED = 1003


@dataclass(slots=True)
class DemoStudy:
    """One made-up study on its way.

    Attributes
    ----------
    title : str
        What was drawn.
    files : list of pathlib.Path
        Its images, in the order of sending.
    study_instance_uid : str
        Its UID.
    sent_at : float
        When the node had answered the last image, seconds of the monotonic clock.
    """

    title: str
    files: list[Path]
    study_instance_uid: str
    sent_at: float = 0.0


def draw_studies(folder: Path, count: int, advance: Callable[[], None]) -> list[DemoStudy]:
    """Draw the studies, or find those drawn earlier: a normal one, then every MIAS kind in turn.

    The folder holds images and nothing else, so that any tool can send it as it is.
    """
    from pydicom import dcmread

    from training.datasets.phantoms import LesionKind

    kinds = [LesionKind.NORM, *(kind for kind in LesionKind if kind is not LesionKind.NORM)]
    names = [f"{side}-{view}.dcm" for view in ("CC", "MLO") for side in "RL"]
    drawn = []
    for number in range(count):
        kind = kinds[number % len(kinds)]
        side = "RL"[number % 2]
        title = "normal" if kind is LesionKind.NORM else f"malignant {kind.value} in the {side} breast"
        home = folder / f"study-{number + 1}"
        if home.exists() and {path.name for path in home.iterdir()} == set(names):
            for _ in names:
                advance()
        else:
            wanted = {} if kind is LesionKind.NORM else {(side, v): (kind, True) for v in ("CC", "MLO")}
            _draw(home, number, wanted, advance)
        files = [home / name for name in names]
        header = dcmread(files[0], stop_before_pixels=True, specific_tags=["StudyInstanceUID"])
        drawn.append(DemoStudy(title, files, header.StudyInstanceUID))
    return drawn


def _draw(
    home: Path,
    number: int,
    wanted: Mapping[tuple[str, str], tuple[LesionKind, bool]],
    advance: Callable[[], None],
) -> None:
    """Draw one study; its folder is there when it is whole."""
    from training.datasets.phantom_objects import study

    images = study(
        seed=FIRST_SEED + number,
        kinds=wanted,
        patient_id=f"PHANTOM-{number + 1:04d}",
        patient_name=f"Phantom^Number{number + 1}",
        accession_number=f"DEMO{number + 1:04d}",
    )
    drawing = home.parent.with_name("drawing")
    for left in (drawing, home):
        shutil.rmtree(left, ignore_errors=True)
    drawing.mkdir()
    for image in images:
        image.save_as(drawing / f"{image.ImageLaterality}-{image.ViewPosition}.dcm", enforce_file_format=True)
        advance()
    home.parent.mkdir(exist_ok=True)
    drawing.rename(home)
