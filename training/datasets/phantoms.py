"""Made-up mammograms: anatomy in millimetres, drawn at any resolution.

A phantom looks enough like a mammogram to exercise every step of the node and to train a demonstration
network; it says nothing about real breasts. The same seed drawn at another resolution shows the same breast.
This module knows nothing of training or of the node's processes.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from models.contract import Laterality
from training.datasets import phantom_anatomy
from training.datasets.phantom_anatomy import FIELD_HEIGHT_MM, GRID_MM, Anatomy, upsampled
from training.datasets.phantom_lesions import RADIUS_MM, LesionKind, add_lesion

__all__ = ["Lesion", "LesionKind", "Phantom", "draw"]

_VIEWS = {"CC": 0, "MLO": 1}


@dataclass(frozen=True)
class Lesion:
    """Where the abnormality was drawn.

    Attributes
    ----------
    kind : LesionKind
        Any kind but NORM.
    malignant : bool
        Whether it was drawn with malignant signs.
    centre : tuple of float
        ``(column, row)`` in DICOM pixel coordinates: ``0\\0`` is the outer corner of the first pixel.
    radius : float
        Radius of the enclosing circle, pixels.
    """

    kind: LesionKind
    malignant: bool
    centre: tuple[float, float]
    radius: float


@dataclass(frozen=True)
class Phantom:
    """A drawn mammogram.

    Attributes
    ----------
    pixels : numpy.ndarray
        ``(rows, columns)`` uint16, 0..4095 (12 bit, MONOCHROME2); 0 is air.
    laterality : Laterality
        Side. A right breast has its chest wall at the right edge of the image, a left one at the left.
    view : str
        ``"CC"`` or ``"MLO"``.
    lesion : Lesion or None
        None for a normal breast.
    spacing_mm : float
        Distance of pixel centres, millimetres, in both directions.
    """

    pixels: NDArray[np.uint16]
    laterality: Laterality
    view: str
    lesion: Lesion | None
    spacing_mm: float


def draw(
    *,
    laterality: Laterality | str,
    view: str,
    kind: LesionKind = LesionKind.NORM,
    malignant: bool = False,
    rows: int = 2048,
    columns: int = 1664,
    seed: int = 0,
) -> Phantom:
    """Draw one view of one breast.

    Both views of a breast (same seed and laterality) share its size, density and the lesion's distance from
    the nipple, as the two views of a woman do.

    Parameters
    ----------
    laterality : Laterality or str
        ``"R"`` or ``"L"``.
    view : str
        ``"CC"`` or ``"MLO"``.
    kind : LesionKind
        What to draw.
    malignant : bool
        Draw it larger, denser and more irregular. A normal breast cannot be malignant.
    rows, columns : int
        Size of the image; the spacing follows from the rows.
    seed : int
        Not negative. The same arguments give the same pixels.

    Returns
    -------
    Phantom
        The image and where its lesion is.

    Raises
    ------
    ValueError
        For another view than CC and MLO, for a malignant NORM, or for an image below 64 x 64.
    """
    _require_drawable(view, kind, malignant, rows, columns)
    side, spacing = Laterality(laterality), FIELD_HEIGHT_MM / rows
    of_breast = [seed, int(side is Laterality.LEFT)]
    breast, texture = np.random.default_rng(of_breast), np.random.default_rng([*of_breast, _VIEWS[view]])
    anatomy = phantom_anatomy.anatomy(breast, view)
    u = ((np.arange(columns, dtype=np.float32) + 0.5) * spacing)[None, :]
    v = ((np.arange(rows, dtype=np.float32) + 0.5) * spacing - FIELD_HEIGHT_MM / 2)[:, None]

    tissue = _tissue(anatomy, texture, rows, columns, spacing)
    lesion = None
    if kind is not LesionKind.NORM:
        place = _lesion_place(kind, malignant, anatomy, breast, texture, columns * spacing)
        add_lesion(tissue, kind, malignant, place, u, v, np.random.default_rng([*of_breast, 2]), spacing)
        lesion = Lesion(kind, malignant, _centre(place, side, columns, spacing), place[2] / spacing)
    pixels = phantom_anatomy.exposed(tissue, anatomy.inside_mm(u, v), spacing)
    if side is Laterality.RIGHT:
        pixels = np.ascontiguousarray(pixels[:, ::-1])
    return Phantom(pixels, side, view, lesion, spacing)


def _tissue(
    anatomy: Anatomy, texture: np.random.Generator, rows: int, columns: int, spacing: float
) -> NDArray[np.float32]:
    tissue = upsampled(phantom_anatomy.soft_tissue(anatomy, texture), rows, columns, spacing)
    tissue += upsampled(
        phantom_anatomy.fine_texture(texture, spacing), rows, columns, spacing, point_mm=GRID_MM / 2
    )
    return tissue


def _centre(
    place: tuple[float, float, float], side: Laterality, columns: int, spacing: float
) -> tuple[float, float]:
    """Return the column and row of a place in millimetres; right breasts are drawn as left ones, mirrored."""
    column, row = place[0] / spacing, (place[1] + FIELD_HEIGHT_MM / 2) / spacing
    return column if side is Laterality.LEFT else columns - column, row


def _require_drawable(view: str, kind: LesionKind, malignant: bool, rows: int, columns: int) -> None:
    if view not in _VIEWS:
        raise ValueError(f"view must be CC or MLO, not {view!r}")
    if kind is LesionKind.NORM and malignant:
        raise ValueError("a NORM phantom has no lesion that could be malignant")
    if min(rows, columns) < 64:
        raise ValueError("a phantom needs at least 64 rows and 64 columns")


def _lesion_place(
    kind: LesionKind,
    malignant: bool,
    anatomy: Anatomy,
    breast: np.random.Generator,
    of_view: np.random.Generator,
    width_mm: float,
) -> tuple[float, float, float]:
    """Centre ``u, v`` and radius in millimetres, inside the breast and clear of the muscle."""
    low, high = RADIUS_MM[kind]
    radius = breast.uniform(low, high) * (1.1 if malignant else 0.9)
    distance = breast.uniform(0.28, 0.62) * anatomy.depth  # behind the nipple; both views share it
    u = anatomy.depth - distance
    for _ in range(64):
        v = anatomy.nipple_v + of_view.uniform(-0.55, 0.45) * anatomy.lower
        at = np.full(1, u, np.float32), np.full(1, v, np.float32)
        clear = anatomy.pectoral_mm(*at)[0] < -0.6 * radius
        if clear and anatomy.inside_mm(*at)[0] > radius + 3 and u + radius < width_mm:
            return u, float(v), radius
    # Straight behind the nipple there is always room.
    return min(u, width_mm / 2), anatomy.nipple_v, radius
